import pytest
import torch
from torch import nn

from ean_core import EANResNet
from ean_core.weights.files import save_weights
from ean_core.weights.loading import load_weights


class Small(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_load_weights_fills_a_module(tmp_path, name):
    source, target = Small(), Small()
    if name.endswith("pth"):
        torch.save(source.state_dict(), tmp_path / name)
    else:
        save_weights(source.state_dict(), tmp_path / name, {})
    load_weights(target, tmp_path / name)
    assert same(source.state_dict(), target.state_dict())


def test_what_is_missing_or_left_over_is_logged(tmp_path, log):
    source = Small()
    partial = {name: value for name, value in source.state_dict().items() if name.startswith("conv")}
    torch.save({**partial, "fc.weight": torch.ones(1)}, tmp_path / "w.pth")
    target = Small()
    before = target.norm.weight.clone()
    load_weights(target, tmp_path / "w.pth")
    assert torch.equal(target.conv.weight, source.conv.weight)
    assert torch.equal(target.norm.weight, before)
    missing, extra = log.messages
    assert "not in the file, left as initialized: norm.bias, norm.num_batches_tracked" in missing
    assert "not in Small, ignored: fc.weight" in extra


@pytest.mark.parametrize("corrupt", [{"norm.weight": torch.ones(5)}, {"conv.weight": torch.ones(4, 3, 1, 1)}])
def test_a_tensor_of_another_shape_is_refused_and_nothing_is_changed(tmp_path, corrupt):
    torch.save({**Small().state_dict(), **corrupt}, tmp_path / "w.pth")
    target = Small()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    (name,) = corrupt
    with pytest.raises(ValueError, match=rf"1 tensors of .* first {name}: .* in the file, .* in the network"):
        load_weights(target, tmp_path / "w.pth")
    assert same(target.state_dict(), before)


def test_where_no_key_matches_the_error_names_both_sides(tmp_path):
    target = Small()
    torch.save({"encoder.a": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"start with encoder, those of Small with conv, norm$"):
        load_weights(target, tmp_path / "w.pth")


@pytest.mark.parametrize(("attention", "told"), [("SE", True), ({"type": "SE", "identity_start": True}, False)])
def test_new_attention_comes_with_a_word_on_how_it_starts_without_effect(tmp_path, log, attention, told):
    torch.save(EANResNet(18, scheme="none").state_dict(), tmp_path / "w.pth")
    load_weights(EANResNet(18, attention, scheme="full"), tmp_path / "w.pth")
    assert any("identity_start=True" in message for message in log.messages) is told
