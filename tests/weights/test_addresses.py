"""``ean://`` in a process that imports only ean_core."""

import subprocess
import sys

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader
from torch import nn

import zoo
from ean_core import EANResNet, EANResNetCIFAR
from ean_core.weights import addresses
from ean_core.weights.files import read_state_dict
from ean_core.weights.loading import load_weights

NAME = "ean_resnet20_se.digits"
ADDRESS = f"ean://{NAME}"
BACKBONE = {"type": "EANResNetCIFAR", "depth": 20, "in_channels": 1, "attention": "SE"}


@pytest.fixture
def trained():
    return zoo.get_weights(NAME).state_dict()


def backbone(**options):
    options = {**BACKBONE, "scheme": str(zoo.get_weights(NAME).entry.scheme), **options}
    model = MODELS.build({**options, "init_cfg": {"type": "Pretrained", "checkpoint": ADDRESS}})
    model.init_weights()
    return model


def test_custom_imports_alone_make_addresses_known_in_a_fresh_process(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        "custom_imports = dict(imports=['ean_core'], allow_failed_imports=False)\n"
        f"backbone = dict(type='EANResNetCIFAR', depth=20, in_channels=1, scheme='100-101-001',\n"
        f"                init_cfg=dict(type='Pretrained', checkpoint='{ADDRESS}'))\n"
    )
    code = f"""
import sys
from mmengine.config import Config
from mmengine.registry import MODELS
config = Config.fromfile({str(config)!r})
assert "zoo" not in sys.modules
model = MODELS.build(config.backbone)
before = model.conv1.weight.clone()
model.init_weights()
assert "zoo" in sys.modules
print(float((model.conv1.weight - before).abs().max()) > 0, float(model.conv1.weight.double().sum()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert f"PretrainedInit: load from {ADDRESS}" in done.stdout
    assert "is the same before and after" not in done.stdout
    changed, total = done.stdout.splitlines()[-1].split()
    assert changed == "True"
    assert float(total) == float(zoo.get_weights(NAME).state_dict()["backbone.conv1.weight"].double().sum())


def test_a_backbone_takes_its_part_without_a_prefix(trained):
    for name, value in backbone().state_dict().items():
        assert torch.equal(value, trained[f"backbone.{name}"])


def test_a_whole_network_and_mmengines_loader_take_all_of_it(trained):
    loaded = CheckpointLoader.load_checkpoint(ADDRESS, map_location="cpu")
    assert loaded["state_dict"].keys() == trained.keys() == read_state_dict(ADDRESS).keys()
    assert loaded["meta"]["scheme"] == "100-101-001"
    model = zoo.get_model(NAME)
    load_weights(model, ADDRESS, strict=True)
    assert torch.equal(model.fc.weight, trained["fc.weight"])


def test_a_foreign_module_takes_its_part_by_mmengines_prefix(trained):
    from mmengine.model import PretrainedInit

    class Stem(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 16, 3, bias=False)

    stem = Stem()
    PretrainedInit(ADDRESS, prefix="backbone.")(stem)
    assert torch.equal(stem.conv1.weight, trained["backbone.conv1.weight"])


def test_what_was_loaded_is_said(log):
    backbone()
    assert f"EANResNetCIFAR: loaded {ADDRESS}" in log.text


def test_load_from_of_another_network_is_refused(tmp_path):
    from ean_core.common.config import load_config
    from ean_core.runs.training import build_runner

    config = load_config("resnet20_se_digits", [f"load_from={ADDRESS}", "model.num_classes=7"])
    with pytest.raises(ValueError, match=r"2 tensors of .* first fc.bias: \(10,\) in the file"):
        build_runner(config, tmp_path).load_or_resume()


def test_load_from_of_a_runner(tmp_path, trained):
    from ean_core.common.config import load_config
    from ean_core.runs.training import build_runner

    config = load_config("resnet20_se_digits", ["model.backbone.scheme=100-101-001", f"load_from={ADDRESS}"])
    runner = build_runner(config, tmp_path)
    runner.load_or_resume()
    assert torch.equal(runner.model.fc.weight, trained["fc.weight"])


def test_whole_stages_that_the_network_lacks_are_left_out_and_named(trained, log):
    short = backbone(num_stages=2, scheme="100-101")
    assert torch.equal(short.layer2[2].conv2.weight, trained["backbone.layer2.2.conv2.weight"])
    assert "EANResNetCIFAR has no layer3, skipped entirely" in log.text
    assert "ignored" not in log.text


def test_a_network_of_another_depth_is_refused_whatever_its_shapes():
    with pytest.raises(
        ValueError, match=r"differ in shape .* it was saved from EANResNetCIFAR\(depth=20, attention='SE'"
    ):
        load_weights(EANResNet(18, scheme="none", in_channels=1), ADDRESS)


def test_blocks_that_the_networks_stage_lacks_are_refused(tmp_path):
    deep = EANResNetCIFAR(56, scheme="none")
    torch.save(deep.state_dict(), tmp_path / "deep.pth")
    shallow = EANResNetCIFAR(20, scheme="none")
    before = shallow.conv1.weight.clone()
    with pytest.raises(ValueError, match=r"deep.pth has 9 blocks in layer1, EANResNetCIFAR has 3; build"):
        load_weights(shallow, tmp_path / "deep.pth")
    assert torch.equal(shallow.conv1.weight, before)


def test_blocks_that_the_file_lacks_are_refused(tmp_path):
    """All common tensors fit; the others would stay random."""
    torch.save(EANResNetCIFAR(20, scheme="none").state_dict(), tmp_path / "shallow.pth")
    with pytest.raises(ValueError, match=r"shallow.pth has 3 blocks in layer1, EANResNetCIFAR has 9"):
        load_weights(EANResNetCIFAR(56, scheme="none"), tmp_path / "shallow.pth")


def test_more_tensors_in_the_same_blocks_are_ignored_with_a_word(tmp_path, log):
    model = EANResNetCIFAR(20, scheme="none")
    torch.save({**model.state_dict(), "layer1.0.se_layer.conv.weight": torch.ones(1)}, tmp_path / "w.pth")
    load_weights(model, tmp_path / "w.pth")
    assert "not in EANResNetCIFAR, ignored: layer1.0" in log.text


def test_attention_that_is_not_used_and_another_scheme_are_warned_of(log):
    backbone(scheme="none")
    assert "not in EANResNetCIFAR, ignored: layer1.attention" in log.text
    assert "was trained as a different network: scheme='100-101-001' there, '000-000-000' here" in log.text
    log.clear()
    backbone(scheme="111-111-111", attention="DIA")
    assert "scheme='100-101-001' there, '111-111-111' here; attention='SE' there, 'DIA' here" in log.text
    log.clear()
    backbone(shared=False)
    assert "shared='True' there, 'False' here" in log.text
    log.clear()
    backbone()
    assert "a different network" not in log.text


def test_nothing_loads_silently_empty():
    with pytest.raises(ValueError, match=r"no key of ean://ean_resnet20_se.digits matches Linear"):
        load_weights(nn.Linear(2, 2), ADDRESS)


def test_a_backbone_alone_for_modules_of_others(trained):
    from mmengine.model import PretrainedInit

    norm = nn.ModuleDict({"bn1": nn.BatchNorm2d(16)})
    PretrainedInit(f"{ADDRESS}/backbone")(norm)
    assert torch.equal(norm["bn1"].running_var, trained["backbone.bn1.running_var"])
    names = {name.removeprefix("backbone.") for name in trained if name.startswith("backbone.")}
    assert read_state_dict(f"{ADDRESS}/backbone").keys() == names
    load_weights(zoo.get_model(NAME).backbone, f"{ADDRESS}/backbone", strict=True)


@pytest.fixture
def hub_folder(monkeypatch, tmp_path):
    """Where PyTorch keeps downloaded weights; empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    return tmp_path / "hub/checkpoints"


def test_what_pytorch_has_downloaded_is_used_offline(monkeypatch, hub_folder):
    monkeypatch.setenv("EAN_OFFLINE", "1")
    state = {"weight": torch.arange(3.0)}
    torch.save(state, hub_folder / "resnet18-f37072fd.pth")
    torch.save(state, hub_folder / "w.pth")
    for address in ("torchvision://resnet18", "https://127.0.0.1:1/w.pth"):
        assert torch.equal(read_state_dict(address)["weight"], state["weight"])
    for address in ("torchvision://resnet34", "https://127.0.0.1:1/v.pth", "s3://bucket/w.pth"):
        with pytest.raises(OSError, match=rf"EAN_OFFLINE forbids downloading {address}; unset it, or give a file"):
            read_state_dict(address)


def test_offline_forbids_other_addresses_too(monkeypatch, hub_folder):
    monkeypatch.setenv("EAN_OFFLINE", "1")
    for address in ("torchvision://resnet18", "https://127.0.0.1:1/w.pth"):
        with pytest.raises(OSError, match=rf"EAN_OFFLINE forbids downloading {address}; unset it, or give a file"):
            read_state_dict(address)
    assert read_state_dict(ADDRESS)


def test_an_unknown_name_and_one_without_weights():
    with pytest.raises(ValueError, match=r"there is no model 'ean_resnet20_se.digit'; did you mean ean_resnet20"):
        load_weights(EANResNetCIFAR(20, scheme="full"), "ean://ean_resnet20_se.digit")
    with pytest.raises(ValueError, match=r"has no weights yet; `ean train resnet50_se_imagenet"):
        EANResNet(init_cfg={"type": "Pretrained", "checkpoint": "ean://ean_resnet50_se.imagenet"}).init_weights()


def test_without_the_zoo_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(addresses, "GROUP", "ean.nobody")
    addresses._resolver.cache_clear()
    try:
        with pytest.raises(ImportError, match=r"'ean.nobody', as ean-zoo does; no installed package does"):
            addresses.resolve(ADDRESS)
    finally:
        addresses._resolver.cache_clear()
