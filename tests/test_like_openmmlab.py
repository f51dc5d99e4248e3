"""Without attention, EANResNet is the ResNet of mmsegmentation, mmdetection and mmpretrain, argument for argument.

Differences that stay are in DEFAULTS and NAMES below, and listed in tasks/segmentation/README.md.
"""

import importlib
import inspect
import re

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from torch.nn.modules.batchnorm import _BatchNorm

from ean_core import EANResNet

LIBRARIES = ["mmseg", "mmdet", "mmpretrain"]
NORMS = (_BatchNorm, torch.nn.GroupNorm)
NARROW = {"depth": 18, "base_channels": 8, "stem_channels": 8, "out_indices": (0, 1, 2, 3), "norm_eval": False}

CASES = {
    "as is": {},
    "bottlenecks": {"depth": 50},
    "three stages": {"num_stages": 3, "strides": (1, 2, 2), "dilations": (1, 1, 1), "out_indices": (0, 2)},
    "dilated": {"depth": 50, "strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)},
    "last map": {"out_indices": (3,)},
    "caffe": {"depth": 50, "style": "caffe"},
    "V1c": {"deep_stem": True},
    "V1d": {"depth": 50, "deep_stem": True, "avg_down": True},
    "average pooling": {"avg_down": True},
    "stem frozen": {"frozen_stages": 0},
    "1 stage frozen": {"frozen_stages": 1},
    "2 stages frozen": {"frozen_stages": 2, "deep_stem": True},
    "3 stages frozen": {"frozen_stages": 3},
    "4 stages frozen": {"frozen_stages": 4},
    "group norm": {"norm_cfg": {"type": "GN", "num_groups": 4}},
    "group norm in V1d": {
        "norm_cfg": {"type": "GN", "num_groups": 4},
        "depth": 50,
        "deep_stem": True,
        "avg_down": True,
    },
    "fixed norms": {"norm_cfg": {"type": "BN", "requires_grad": False}, "norm_eval": True},
    "fixed SyncBN": {"norm_cfg": {"type": "SyncBN", "requires_grad": False}},
    "eps": {"norm_cfg": {"type": "BN", "eps": 0.01, "momentum": 0.5}},
    "norm_eval": {"norm_eval": True, "frozen_stages": 1},
    "checkpointing": {"with_cp": True},
    "no zeros": {"zero_init_residual": False},
    "no zeros in bottlenecks": {"zero_init_residual": False, "depth": 50},
    "wide stem": {"stem_channels": 20},
    "default stem": {"stem_channels": 64},
    "wide": {"base_channels": 16},
    "gray": {"in_channels": 1},
}
ONE = {
    "mmseg": {
        "multi_grid": {"depth": 50, "multi_grid": (1, 2, 4), "dilations": (1, 1, 2, 4), "strides": (1, 2, 1, 1)},
        "contract_dilation": {"contract_dilation": True, "dilations": (1, 1, 2, 4), "strides": (1, 2, 1, 1)},
    },
    "mmpretrain": {"stochastic depth": {"drop_path_rate": 0.3}},
}
TABLE = [(library, name) for library in LIBRARIES for name in (*CASES, *ONE.get(library, {}))]

#: Defaults of theirs that differ from ours.
DEFAULTS = {
    "mmseg": {"norm_eval": False, "out_indices": (0, 1, 2, 3), "norm_cfg": {"type": "BN", "requires_grad": True}},
    "mmdet": {
        "norm_eval": True,
        "out_indices": (0, 1, 2, 3),
        "norm_cfg": {"type": "BN", "requires_grad": True},
        "stem_channels": None,
    },
    "mmpretrain": {"norm_eval": False, "out_indices": (3,), "norm_cfg": {"type": "BN", "requires_grad": True}},
}


def theirs(library, **options):
    pytest.importorskip("mmcv")
    pytest.importorskip(library)
    return importlib.import_module(f"{library}.models.backbones").ResNet(**options)


def both(library, options):
    """Their network and ours, for one process."""
    options = {**NARROW, **options}
    made = theirs(library, **options), EANResNet(scheme="none", **options)
    for network in made:
        network.init_weights()
    return tuple(map(revert_sync_batchnorm, made))


def our_name(library, name, options):
    """Our name of their tensor."""
    name = re.sub(r"\bgn(\d?)\b", r"bn\1", name)  # norms are bn1, bn2, ... whatever their type
    if library == "mmpretrain":
        if match := re.match(r"stem\.(\d)\.(conv|bn)\.", name):
            name = f"stem.{3 * int(match[1]) + (match[2] == 'bn')}.{name[match.end() :]}"
        if options.get("avg_down") and name.startswith(
            "layer1.0.downsample."
        ):  # a pooling that does nothing is left out
            name = re.sub(r"downsample\.(\d)", lambda match: f"downsample.{int(match[1]) + 1}", name)
    return name


@pytest.mark.parametrize(("library", "name"), TABLE, ids=lambda value: value)
def test_it_is_their_network(library, name):
    options = CASES.get(name) or ONE.get(library, {}).get(name, {})
    other, own = both(library, options)
    names = {each: our_name(library, each, options) for each in other.state_dict()}

    # parameters: the same ones, trained or frozen
    trained = {names[each]: parameter.requires_grad for each, parameter in other.named_parameters()}
    assert trained == {each: parameter.requires_grad for each, parameter in own.named_parameters()}

    # initial values
    parameters = dict(own.named_parameters())
    for each, value in other.named_parameters():
        mine = parameters[names[each]]
        assert mine.shape == value.shape
        if value.ndim == 1:
            assert torch.equal(mine, value), each
        else:
            tolerance = 5 / value.numel() ** 0.5
            assert float(mine.std() / value.std()) == pytest.approx(1, abs=tolerance)
            assert float((mine.mean() - value.mean()) / value.std()) == pytest.approx(0, abs=1.5 * tolerance)

    # norms in evaluation mode while training
    for network in (other, own):
        network.train()
    modes = {
        our_name(library, f"{each}.", options): module.training
        for each, module in other.named_modules()
        if isinstance(module, NORMS)
    }
    assert modes == {f"{each}.": module.training for each, module in own.named_modules() if isinstance(module, NORMS)}

    # weights, both ways
    generator = torch.Generator().manual_seed(0)
    for each, tensor in other.state_dict().items():
        if tensor.ndim == 1:
            low = 0.5 if each.endswith(("weight", "running_var")) else -0.5
            tensor.uniform_(low, low + 1, generator=generator)
    own.load_state_dict({names[each]: value for each, value in other.state_dict().items()})
    state = own.state_dict()
    other.load_state_dict({each: state[names[each]] for each in names})

    # outputs
    x = torch.randn(2, options.get("in_channels", 3), 32, 64, generator=generator)
    for training in (False,) if "drop_path_rate" in options else (False, True):
        for network in (other, own):
            network.train(training)
        image = x.clone().requires_grad_(training)  # without a gradient, nothing is recomputed
        found, expected = own(image), other(image)
        assert [feature.shape for feature in found] == [feature.shape for feature in expected]
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("library", LIBRARIES)
def test_blocks_and_stems_have_their_attributes(library):
    other, own = both(library, {"depth": 50})
    for network in (other, own):
        assert network.norm1 is network.bn1
        block = network.layer2[0]
        assert (block.norm1, block.norm2, block.norm3) == (block.bn1, block.bn2, block.bn3)
    deep, mine = both(library, {"deep_stem": True})
    assert len(mine.stem) == 9  # convolution, norm and ReLU, three times
    assert len(deep.stem) == (3 if library == "mmpretrain" else 9)  # mmpretrain puts each three into one module
    for network in (deep, mine):
        assert not hasattr(network, "norm1")


@pytest.mark.parametrize("library", LIBRARIES)
def test_defaults_are_theirs_but_for_these(library):
    pytest.importorskip("mmcv")
    pytest.importorskip(library)
    kind = importlib.import_module(f"{library}.models.backbones").ResNet
    ours = inspect.signature(EANResNet).parameters
    default = {name: each.default for name, each in inspect.signature(kind.__init__).parameters.items() if name in ours}
    default.pop("depth")  # they have none
    default.pop("init_cfg")  # ours initializes likewise without one, see above
    default.pop("stage_with_dcn", None)
    assert {name: value for name, value in default.items() if ours[name].default != value} == DEFAULTS[library]


def test_drop_rates_are_mmpretrains():
    options = {"depth": 50, "drop_path_rate": 0.3, "num_stages": 3, "strides": (1, 2, 2), "dilations": (1, 1, 1)}
    other, own = both("mmpretrain", {**options, "out_indices": (2,)})
    rates = [getattr(each.drop_path, "drop_prob", 0) for k in (1, 2, 3) for each in getattr(other, f"layer{k}")]
    found = [block.drop_path.p if block.drop_path else 0 for _, _, block in own.blocks()]
    assert found == pytest.approx(rates)
    assert (found[0], found[-1]) == (0, pytest.approx(0.3 * 12 / 15))
