import pytest
import torch
from torch import nn

from ean_core import EANResNet, EANResNetCIFAR
from ean_core.backbone import describe
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


@pytest.mark.parametrize(
    ("there", "here", "warning"),
    [
        ({}, {}, None),
        ({"identity_start": True, "window": (16, 24)}, {"identity_start": True, "window": [16, 24]}, None),
        ({"identity_start": True}, {}, "identity_start='True' there, 'False' here"),
        ({}, {"identity_start": True}, "identity_start='False' there, 'True' here"),
        ({"window": (16, 24)}, {}, "window='[16, 24]' there, 'None' here"),
        ({"window": (16, 24)}, {"window": (16, 16)}, "window='[16, 24]' there, '[16, 16]' here"),
    ],
)
def test_options_of_attention_that_no_tensor_shows_are_compared(tmp_path, log, there, here, warning):
    saved, built = (EANResNetCIFAR(20, {"type": "SE", **options}, "full") for options in (there, here))
    save_weights(saved.state_dict(), tmp_path / "w.safetensors", describe(saved))
    load_weights(built, tmp_path / "w.safetensors", strict=True)
    warned = [message for message in log.messages if "was trained as a different network" in message]
    assert [message.partition(": ")[2].rpartition("network: ")[2] for message in warned] == [warning] * bool(warning)


def test_networks_without_attention_have_no_options_of_it_to_compare(tmp_path, log):
    options = {"type": "SE", "identity_start": True}
    plain, attended = EANResNetCIFAR(20, "SE", "none"), EANResNetCIFAR(20, options, "full")
    assert set(describe(plain)) == {"type", "depth", "attention", "scheme", "shared"}
    for saved, built in ((plain, attended), (attended, plain)):
        save_weights(saved.state_dict(), tmp_path / "w.safetensors", describe(saved))
        load_weights(built, tmp_path / "w.safetensors")
    assert "was trained as a different network" in log.text  # of their schemes
    assert "identity_start='" not in log.text


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_constant_gates_are_saved_and_loaded(tmp_path, log, name):
    source, target = (EANResNetCIFAR(20, scheme="0c0-1c0-c00") for _ in range(2))
    torch.nn.init.uniform_(source.layer1[1].constant_gate)
    if name.endswith("pth"):
        torch.save(source.state_dict(), tmp_path / name)
    else:
        save_weights(source.state_dict(), tmp_path / name, describe(source))
    load_weights(target, tmp_path / name, strict=True)
    assert same(source.state_dict(), target.state_dict())
    assert log.messages == []


def test_weights_without_constant_gates_load_with_a_warning_that_names_the_command(tmp_path, log):
    torch.save(EANResNetCIFAR(20, scheme="full").state_dict(), tmp_path / "w.pth")
    network = EANResNetCIFAR(20, scheme="c11-111-111")
    load_weights(network, tmp_path / "w.pth")
    (warning,) = [message for message in log.messages if "`ean fold`" in message]
    assert "start at the value of a fresh module's: layer1.0.constant_gate" in warning
    with pytest.raises(ValueError, match=r"lacks layer1\.0\.constant_gate"):
        load_weights(network, tmp_path / "w.pth", strict=True)


def test_weights_with_constant_gates_say_so_to_other_networks(tmp_path, log):
    source = EANResNetCIFAR(20, scheme="c00-000-000")
    save_weights(source.state_dict(), tmp_path / "w.safetensors", describe(source))
    load_weights(EANResNetCIFAR(20, scheme="none"), tmp_path / "w.safetensors")
    assert "scheme='c00-000-000' there, '000-000-000' here" in log.text
    assert "ignored: layer1.0" in log.text
