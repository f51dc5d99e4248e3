"""Weights of other libraries' ResNets load whole, or not at all."""

import pytest
import torch
import torchvision
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.optim.swa_utils import AveragedModel

from ean_core import EANResNet, EANResNetCIFAR, ImageClassifier
from ean_core.attention import ATTENTION, Attention
from ean_core.layers import ResidualBlock
from ean_core.weights.loading import load_weights
from ean_core.weights.names import translate


def randomized(network):
    """Values that no initialization gives, so that a tensor that is not loaded shows."""
    torch.manual_seed(1)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            positive = name.endswith(("running_var", "weight")) and value.ndim == 1
            value.copy_(
                torch.rand_like(value) + 0.5 if positive else 0.3 * torch.randn_like(value) / value[0].numel() ** 0.5
            )
    network.eval()  # OpenMMLab's networks return None
    return network


def maps(network, channels=3):
    with torch.no_grad():
        return network(torch.randn(1, channels, 64, 64, generator=torch.Generator().manual_seed(0)))


def same(mine, theirs):
    return all(
        torch.allclose(a, b, atol=1e-4 * float(b.abs().max())) for a, b in zip(maps(mine), maps(theirs), strict=True)
    )


def stored(path, content):
    torch.save(content, path)
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "w.pth"


def library(name):
    """The ResNets of an OpenMMLab library; ean_core is imported first, which they need with mmcv-lite."""
    pytest.importorskip("mmcv")
    return pytest.importorskip(f"{name}.models.backbones")


GN = {"type": "GN", "num_groups": 32, "requires_grad": True}

# ---------------------------------------------------------------- names of the libraries


@pytest.mark.parametrize("name", ["mmdet", "mmseg", "mmpretrain"])
def test_group_norms_of_openmmlab_load(file, name):
    theirs = randomized(library(name).ResNet(depth=18, norm_cfg=GN, norm_eval=False, out_indices=(0, 1, 2, 3)))
    assert "layer1.0.gn1.weight" in theirs.state_dict()
    mine = EANResNet(18, scheme="none", norm_cfg=GN)
    load_weights(mine, stored(file, {"state_dict": theirs.state_dict()}), strict=True)
    assert same(mine.eval(), theirs)


@pytest.mark.parametrize("pooled", [False, True])
def test_shortcuts_that_pool_do_not_load_as_those_that_do_not(file, pooled):
    """Their convolutions have the same shapes, but different strides."""
    theirs, mine = (EANResNet(18, scheme="none", avg_down=each) for each in (pooled, not pooled))
    with pytest.raises(ValueError, match=r"differ in shape from those of EANResNet; first layer2\.0\.downsample\.1"):
        load_weights(mine, stored(file, theirs.state_dict()))


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize(("kind", "options"), [("ResNetV1c", {}), ("ResNetV1d", {"avg_down": True})])
@pytest.mark.parametrize("name", ["mmseg", "mmpretrain"])
def test_deep_stems_and_pooled_shortcuts_load(file, name, kind, options, depth):
    theirs = randomized(getattr(library(name), kind)(depth=depth, out_indices=(0, 1, 2, 3)))
    mine = EANResNet(depth, scheme="none", deep_stem=True, **options)
    load_weights(mine, stored(file, theirs.state_dict()), strict=True)
    assert same(mine.eval(), theirs)


def test_mmpretrains_squeeze_and_excitation_loads(file):
    theirs = randomized(library("mmpretrain").SEResNet(50, out_indices=(0, 1, 2, 3)))
    state = {f"backbone.{key}": value for key, value in theirs.state_dict().items()}
    state |= {"head.fc.weight": torch.ones(7, 2048), "head.fc.bias": torch.ones(7)}
    mine = ImageClassifier(EANResNet(50, "SE", "full", shared=False), 7)
    load_weights(mine, stored(file, {"state_dict": state}), strict=True)
    assert same(mine.backbone.eval(), theirs)
    assert mine.fc.weight.unique().tolist() == [1]


def timms(name):
    """The name that a tensor of an EANResNet with a deep stem has in timm's SE-ResNet-D."""
    if name.startswith("stem.7."):
        return name.replace("stem.7.", "bn1.")
    if ".attention." in name:
        return name.replace(".attention.", ".se.")
    return name.replace("stem.", "conv1.")


def test_timms_deep_stem_and_squeeze_and_excitation_load(file):
    network = randomized(EANResNet(50, "SE", "full", shared=False, deep_stem=True, avg_down=True))
    state = {}
    for name, value in network.state_dict().items():
        state[timms(name)] = value[:, :, None, None] if ".attention." in name and value.ndim == 2 else value
    assert {"conv1.6.weight", "bn1.running_mean", "layer4.2.se.fc2.weight"} <= state.keys()
    mine = EANResNet(50, "SE", "full", shared=False, deep_stem=True, avg_down=True)
    load_weights(mine, stored(file, {**state, "fc.weight": torch.ones(7, 2048)}), strict=True)
    assert same(mine.eval(), network)


def test_torchvisions_names_stay(file):
    theirs = torchvision.models.resnet18()
    named, prefix = translate(theirs.state_dict(), EANResNet(18, scheme="none").state_dict())
    assert list(named) == list(theirs.state_dict())
    assert prefix == ""


# ---------------------------------------------------------------- wrappers and prefixes


def network(scheme="full"):
    return EANResNetCIFAR(20, "DIA", scheme)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("backbone.", "removed 'backbone.'"),
        ("model.backbone.", "removed 'model.backbone.'"),
        ("module.model.encoder.backbone.", "removed 'model.encoder.backbone.'"),
        ("_orig_mod.backbone.", "removed 'backbone.'"),
        ("module.", ""),
        ("", ""),
    ],
)
def test_prefixes_of_any_depth_are_found_and_named(file, log, head, said):
    source, target = randomized(network()), network()
    state = {head + name: value for name, value in source.state_dict().items()}
    if head.endswith("backbone."):
        state[head.replace("backbone.", "fc.") + "weight"] = torch.ones(1)
    load_weights(target, stored(file, {"state_dict": state}), strict=True)
    assert same(target.eval(), source)
    assert said in log.text
    assert ("at the start of its keys" in log.text) == bool(said)


def test_two_networks_in_a_file_need_a_prefix(file):
    source, target = randomized(network()), network()
    state = {f"{head}{name}": value for head in ("query.", "key.") for name, value in source.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"start with key, query, .*several prefixes would match, choose with prefix='query.'"
    ):
        load_weights(target, stored(file, state))
    load_weights(target, file, prefix="key.", strict=True)
    assert same(target.eval(), source)


def test_a_backbone_loads_into_a_network_that_has_one(file, log):
    source, target = randomized(network()), ImageClassifier(network(), 5)
    load_weights(target, stored(file, source.state_dict()))
    assert same(target.backbone.eval(), source)
    assert "added 'backbone.'" in log.text


@pytest.mark.parametrize("head", ["model.", "model.encoder."])
def test_a_prefix_is_replaced_by_the_name_of_the_backbone(file, log, head):
    """Although the linear layer alone matches without its prefix."""
    source, target = randomized(ImageClassifier(network(), 5)), ImageClassifier(network(), 5)
    state = {head + name: value for name, value in source.backbone.state_dict().items()}
    state |= {f"model.fc.{name}": value for name, value in source.fc.state_dict().items()}
    load_weights(target, stored(file, {"state_dict": state}))
    assert same(target.backbone.eval(), source.backbone)
    assert torch.equal(target.fc.weight, source.fc.weight) == (head == "model.")
    assert f"removed '{head}' and added 'backbone.'" in log.text


class Renamed(Attention):
    """A module whose layers have names that other libraries give to norms and heads."""

    def __init__(self, channels):
        super().__init__(channels)
        self.ln1 = nn.Linear(channels, channels)
        self.head = nn.ModuleDict({"fc": nn.Linear(channels, channels)})

    def extract(self, residual):
        return residual.mean((2, 3))

    def process(self, extracted, state):
        return self.head["fc"](self.ln1(extracted)).sigmoid(), None

    def recalibrate(self, residual, gate):
        return residual * gate[:, :, None, None]


@pytest.mark.parametrize("whole", [False, True], ids=["backbone", "classifier"])
def test_custom_attention_keeps_its_names(file, whole, monkeypatch):
    monkeypatch.setitem(ATTENTION.module_dict, "Renamed", Renamed)
    source = ImageClassifier(EANResNetCIFAR(20, "Renamed", "full"), 5)
    target = ImageClassifier(EANResNetCIFAR(20, "Renamed", "full"), 5)
    load_weights(target if whole else target.backbone, stored(file, source.state_dict()), strict=True)
    expected = source.backbone.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in target.backbone.state_dict().items())


def test_names_of_a_custom_head_stay(file):
    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = network("none")
            self.head = nn.ModuleDict({"conv1": nn.Sequential(nn.Linear(2, 2)), "gn1": nn.GroupNorm(1, 2)})

    source, target = randomized(Custom()), Custom()
    load_weights(target, stored(file, source.state_dict()), strict=True)
    expected = source.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in target.state_dict().items())


def test_averaged_compiled_and_checkpointed_networks_load(file):
    source = randomized(network())
    averaged = AveragedModel(source)
    compiled = torch.compile(source, backend="eager")
    wrapped = randomized(network())
    apply_activation_checkpointing(wrapped, check_fn=lambda module: isinstance(module, ResidualBlock))
    for made in (averaged, compiled, wrapped):
        target = network()
        load_weights(target, stored(file, {"model": made.state_dict()}), strict=True)
        assert same(target.eval(), source)


# ---------------------------------------------------------------- whole or not at all


def test_a_part_of_a_block_is_refused_with_its_keys_unless_accepted(file):
    source = {name: value for name, value in network().state_dict().items() if "layer2.1.bn" not in name}
    target = network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"it lacks layer2.1.bn1.weight, layer2.1.bn1.bias, .* and 2 more.*partial=True"
    ):
        load_weights(target, stored(file, source))
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    load_weights(target, file, partial=True)
    assert torch.equal(target.conv1.weight, source["conv1.weight"])
    config = {"type": "Pretrained", "checkpoint": str(file)}
    with pytest.raises(ValueError, match="only some layers"):
        EANResNetCIFAR(20, "DIA", "full", init_cfg=config).init_weights()
    EANResNetCIFAR(20, "DIA", "full", init_cfg={**config, "partial": True}).init_weights()


def test_weights_with_other_norms_are_refused(file):
    grouped = EANResNet(18, scheme="none", norm_cfg=GN).state_dict()
    with pytest.raises(ValueError, match=r"it lacks bn1\.running_mean"):
        load_weights(EANResNet(18, scheme="none"), stored(file, grouped))


def test_a_stem_without_its_norm_is_refused(file):
    state = {name: value for name, value in network().state_dict().items() if not name.startswith("bn1")}
    with pytest.raises(ValueError, match=r"it lacks bn1\.weight"):
        load_weights(network(), stored(file, state))


def test_a_stem_without_blocks_is_refused_unless_accepted(file):
    state = {f"features.{n}": v for n, v in network().state_dict().items() if n.startswith(("conv1", "bn1"))}
    state["features.blocks.0.conv1.weight"] = torch.ones(1)
    with pytest.raises(ValueError, match=r"has no block of EANResNetCIFAR, only bn1.bias, .*its keys start with"):
        load_weights(network(), stored(file, state))
    target = network()
    load_weights(target, file, partial=True)
    assert torch.equal(target.conv1.weight, state["features.conv1.weight"])


def test_whole_stages_and_attention_may_be_missing(file):
    state = {n: v for n, v in network().state_dict().items() if "layer3" not in n and "attention" not in n}
    target = network()
    load_weights(target, stored(file, state))
    assert torch.equal(target.layer2[0].conv1.weight, state["layer2.0.conv1.weight"])


# ---------------------------------------------------------------- image channels


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_weights_of_rgb_images_are_adapted_to_other_channels(file, channels, deep):
    source = randomized(EANResNet(18, scheme="none", deep_stem=deep))
    first = "stem.0.weight" if deep else "conv1.weight"
    init_cfg = {"type": "Pretrained", "checkpoint": str(stored(file, source.state_dict()))}
    mine = EANResNet(18, scheme="none", deep_stem=deep, in_channels=channels, init_cfg=init_cfg)
    mine.init_weights()
    mine.eval()
    weight = source.state_dict()[first]
    if channels == 1:  # a gray image, as one channel or as three equal ones
        gray = torch.randn(1, 1, 64, 64)
        with torch.no_grad():
            for a, b in zip(mine(gray), source(gray.expand(-1, 3, -1, -1)), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))
    else:
        adapted = mine.state_dict()[first]
        for c in range(channels):
            assert torch.allclose(adapted[:, c], weight[:, c % 3] * 3 / channels)


def test_other_differences_of_the_first_convolution_are_refused(file):
    source = EANResNet(18, scheme="none").state_dict()
    source["conv1.weight"] = torch.ones(64, 3, 3, 3)
    with pytest.raises(ValueError, match=r"first conv1.weight: \(64, 3, 3, 3\) in the file, \(64, 1, 7, 7\)"):
        load_weights(EANResNet(18, scheme="none", in_channels=1), stored(file, source))


def test_a_custom_network_with_a_layer_of_the_same_name_is_left_alone(file):
    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

    source, target = Custom(), Custom()
    load_weights(target, stored(file, source.state_dict()), strict=True)
    assert torch.equal(target.head.weight, source.head.weight)
