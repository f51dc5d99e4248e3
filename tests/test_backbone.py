import copy
import pickle
from dataclasses import replace

import pytest
import torch
import torchvision
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from torch import fx, nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

from ean_core import ATTENTION, RECORDED, Attention, ConnectionScheme, EANResNet, EANResNetCIFAR
from ean_core.backbone import _log_standing, _warn_of_norm_eval, walk
from ean_core.common.config import load_config
from ean_core.inference import deploy
from ean_core.layers import BlockContext
from ean_core.recorded import RecordedScheme

ATTENTIONS = ["SE", "SGE", "DIA"]
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STAGES_CIFAR = {20: (3, 3, 3), 56: (9, 9, 9), 110: (18, 18, 18), 164: (18, 18, 18)}


def randomised(network, seed=0):
    """Weights and statistics far from their initial values, so that no part of the network is an identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.dim() == 1:
            low = 0.5 if name.endswith(("weight", "running_var")) else -0.5
            tensor.uniform_(low, low + 1, generator=generator)
    return network


def train_step(network, x):
    network.zero_grad()
    features = network(x)
    sum((feature**2).mean() for feature in features).backward()
    return features


@pytest.fixture
def log(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    _log_standing.cache_clear()
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def with_norm():
    """An attention module with a batch norm."""

    @ATTENTION.register_module()
    class WithNorm(Attention):
        def __init__(self, channels):
            super().__init__(channels)
            self.norm = nn.BatchNorm2d(channels)

        def extract(self, residual):
            return self.norm(residual)

        def process(self, extracted, state):
            return extracted.sigmoid(), None

        def recalibrate(self, residual, gate):
            return residual * gate

    yield "WithNorm"
    ATTENTION.module_dict.pop("WithNorm")


# ---------------------------------------------------------------- building


@pytest.mark.parametrize(("depth", "attention"), [*((depth, "SE") for depth in STAGES), (50, "SGE"), (50, "DIA")])
def test_every_depth_builds_and_returns_the_four_stages(depth, attention):
    with torch.device("meta"):
        network = EANResNet(depth, attention, scheme="full")
        features = network(torch.zeros(2, 3, 64, 96))
    width = 64 if depth < 50 else 256
    assert network.stage_blocks == network.scheme.stages == STAGES[depth]
    assert network.out_channels == (width, 2 * width, 4 * width, 8 * width)
    assert isinstance(features, tuple)
    assert [tuple(f.shape) for f in features] == [(2, width * 2**k, 16 // 2**k, 24 // 2**k) for k in range(4)]


@pytest.mark.parametrize(("depth", "attention"), [*((depth, "SE") for depth in STAGES_CIFAR), (20, "SGE"), (20, "DIA")])
def test_every_cifar_depth_builds_and_returns_the_three_stages(depth, attention):
    with torch.device("meta"):
        network = EANResNetCIFAR(depth, attention, scheme="full")
        features = network(torch.zeros(2, 3, 32, 32))
    width = 64 if depth == 164 else 16
    assert network.stage_blocks == network.scheme.stages == STAGES_CIFAR[depth]
    assert network.out_channels == (width, 2 * width, 4 * width)
    assert [tuple(f.shape) for f in features] == [(2, width * 2**k, 32 // 2**k, 32 // 2**k) for k in range(3)]


def test_the_type_alone_is_resnet50_with_se_and_the_scheme_on_record():
    network = MODELS.build({"type": "EANResNet"})
    assert type(network) is EANResNet
    assert (network.depth, str(network.scheme)) == (50, "010-0010-110011-001")
    assert len(network.eval()(torch.zeros(1, 3, 32, 32))) == 4


def test_openmmlab_finds_both_networks_and_arguments_by_name():
    config = {"type": "EANResNetCIFAR", "depth": 20, "attention": {"type": "DIA", "reduction": 2}, "scheme": "full"}
    network = MODELS.build(config)
    assert network.layer1.attention.w_ih[0].out_features == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 51}, r"unknown depth 51; choose from 18, 34, 50, 101, 152"),
        ({"attention": "SEE"}, r"unknown attention 'SEE'; did you mean 'SE' or 'SGE'\? Choose from 'DIA', 'SE', 'SGE'"),
        ({"attention": {"type": "CBAM"}}, r"unknown attention 'CBAM'.*'DIA', 'SE', 'SGE'"),
        ({"attention": {"reduction": 4}}, r"names no module; for example 'SE' or dict\(type='SE'\)"),
        ({"attention": None}, r"attention=None names no module; for example 'SE'"),
        (
            {"scheme": "eann"},
            r"'eann'.*'101-0101-010101-010', or 'full' or 'none'.*'ean'",
        ),
        ({"scheme": "10-01-11-00"}, r"\(2, 2, 2, 2\) \(8 blocks\).*\(3, 4, 6, 3\) \(16 blocks\)"),
        ({"depth": 18}, r"depth 18 with SE .*50 with SE, 50 with SGE, 50 with DIA.*scheme='full'.*'10-10-10-10'"),
        ({"out_indices": (4,)}, r"unknown out index for 4 stages 4; choose from 0, 1, 2, 3"),
        ({"out_indices": (0, -5)}, r"unknown out index for 4 stages -5; .*0, 1, 2, 3"),
        ({"out_indices": (2,), "num_stages": 2}, r"unknown out index for 2 stages 2; choose from 0, 1"),
        ({"out_indices": ()}, r"out_indices is empty; choose from \(0, 1, 2, 3\)"),
        ({"num_stages": 5}, r"num_stages of a ResNet-50 is 1 to 4, got 5"),
        ({"num_stages": 0}, r"num_stages of a ResNet-50 is 1 to 4, got 0"),
        ({"strides": (1, 2)}, r"strides=\(1, 2\) has fewer entries than the network's 4 stages"),
        ({"dilations": (1, 2)}, r"dilations=\(1, 2\) has fewer entries than the network's 4 stages"),
        ({"style": "tensorflow"}, r"unknown style 'tensorflow'; choose from 'caffe', 'pytorch'"),
        ({"frozen_stages": 5}, r"frozen_stages is -1 \(none\) to num_stages=4, got 5"),
        ({"multi_grid": (1, 2)}, r"multi_grid=\(1, 2\) needs one dilation for each of the last stage's 3 blocks"),
        ({"dcn": {"type": "DCN"}}, r"dcn={'type': 'DCN'}: EANResNet has no deformable convolutions; remove dcn"),
        ({"stage_with_dcn": (False, True, True, True)}, r"has no deformable convolutions; remove dcn"),
        ({"plugins": [{"cfg": {}}]}, r"plugins=.*attention comes from attention=.* remove plugins"),
        ({"pretrained": "a.pth", "init_cfg": {"type": "Pretrained"}}, r"give init_cfg or pretrained, not both"),
    ],
)
def test_what_cannot_be_built_is_answered_with_what_can(options, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        EANResNet(**options)


def test_an_unknown_cifar_depth_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match=r"unknown depth 18.* 20, 56, 110, 164"):
        EANResNetCIFAR(18)


# ---------------------------------------------------------------- the same as torchvision


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("training", [True, False])
def test_with_scheme_none_the_features_are_bit_equal_to_torchvisions(depth, training):
    theirs = randomised(getattr(torchvision.models, f"resnet{depth}")()).train(training)
    mine = EANResNet(depth, scheme="none").train(training)
    result = mine.load_state_dict(theirs.state_dict(), strict=False)
    assert (result.missing_keys, result.unexpected_keys) == ([], ["fc.weight", "fc.bias"])
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        feature = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for k, found in enumerate(mine(x)):
            feature = getattr(theirs, f"layer{k + 1}")(feature)
            assert torch.equal(found, feature)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_torchvisions_weights_load_with_only_attention_missing(attention):
    with torch.device("meta"):
        theirs, mine = torchvision.models.resnet50(), EANResNet(50, attention, scheme="full")
    state = theirs.state_dict()
    result = mine.load_state_dict(state, strict=False, assign=True)
    assert result.unexpected_keys == ["fc.weight", "fc.bias"]
    own = [f"{prefix}.{name}" for prefix, a in mine.attentions().items() for name in a.state_dict()]
    assert sorted(result.missing_keys) == sorted(own)


# ---------------------------------------------------------------- walking over blocks


def test_a_state_begins_anew_with_each_stage_and_a_walk_may_start_within_one():
    seen = []

    def step(block, x, state):
        seen.append((block, state))
        return x + block, block

    stages = [(1, 2), (3,), (4, 5)]
    x = torch.zeros(())
    assert [int(y) for y in walk(stages, x, step, (0, 2))] == [3, 15]
    assert seen == [(1, None), (2, 1), (3, None), (4, None), (5, 4)]
    seen.clear()
    assert [int(y) for y in walk([(), *stages[1:]], x, step, state="left by 2")] == [12]
    assert seen == [(3, None), (4, None), (5, 4)]
    seen.clear()
    assert [int(y) for y in walk([(2,), (3,)], x, step, state=1)] == [5]
    assert seen == [(2, 1), (3, None)]


# ---------------------------------------------------------------- Eqn 4


def by_hand(state, x, scheme, gate, *, stem_stride, strides):
    """Eqn 4 on a network of basic blocks in evaluation mode, from its state dict alone."""

    def conv_norm(name, norm, x, stride=1):
        x = F.conv2d(x, state[f"{name}.weight"], stride=stride, padding=state[f"{name}.weight"].shape[-1] // 2)
        mean, var, weight, bias = (state[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias, training=False)

    x = conv_norm("conv1", "bn1", x, stem_stride).clamp(min=0)
    x = F.max_pool2d(x, 3, 2, 1) if stem_stride == 2 else x
    features = []
    for k, bits in enumerate(scheme.by_stage):
        memory = {}
        for i, bit in enumerate(bits):
            name, stride = f"layer{k + 1}.{i}", strides[k] if i == 0 else 1
            f = conv_norm(f"{name}.conv1", f"{name}.bn1", x, stride).clamp(min=0)
            f = conv_norm(f"{name}.conv2", f"{name}.bn2", f)
            if f"{name}.downsample.0.weight" in state:
                x = conv_norm(f"{name}.downsample.0", f"{name}.downsample.1", x, stride)
            scale = gate(state, k, i, f, memory) if bit else torch.ones_like(f)
            x = (x + scale * f).clamp(min=0)
        features.append(x)
    return features


def se_gate(key):
    def gate(state, k, i, f, memory):
        fc1, fc2 = (f"{key.format(k=k + 1, i=i)}.attention.{name}" for name in ("fc1", "fc2"))
        hidden = F.linear(f.mean((2, 3)), state[f"{fc1}.weight"], state[f"{fc1}.bias"]).clamp(min=0)
        return torch.sigmoid(F.linear(hidden, state[f"{fc2}.weight"], state[f"{fc2}.bias"]))[:, :, None, None]

    return gate


def dia_gate(state, k, i, f, memory):
    def squeezed(name, v):
        name = f"layer{k + 1}.attention.{name}"
        hidden = F.linear(v, state[f"{name}.0.weight"], state[f"{name}.0.bias"]).clamp(min=0)
        return F.linear(hidden, state[f"{name}.2.weight"], state[f"{name}.2.bias"])

    pooled = f.mean((2, 3))
    h, c = memory.get("state", (torch.zeros_like(pooled), torch.zeros_like(pooled)))
    a, b, g, o = (squeezed("w_ih", pooled) + squeezed("w_hh", h)).chunk(4, 1)
    c = torch.sigmoid(b) * c + torch.sigmoid(a) * torch.tanh(g)
    memory["state"] = h, c = torch.sigmoid(o) * torch.sigmoid(c), c
    return h[:, :, None, None]


@pytest.mark.parametrize(
    ("attention", "options", "gate"),
    [
        ("SE", {}, se_gate("layer{k}")),
        ("SE", {"shared": False}, se_gate("layer{k}.{i}")),
        ("DIA", {}, dia_gate),
    ],
    ids=["SE shared", "SE of its own", "DIA"],
)
@pytest.mark.parametrize("network", [EANResNet, EANResNetCIFAR])
def test_eqn_4_holds_for_every_kind_of_scheme(network, attention, options, gate):
    depth, strides, stem_stride = (18, (1, 2, 2, 2), 2) if network is EANResNet else (20, (1, 2, 2), 1)
    made = randomised(network(depth, attention, scheme="full", **options)).double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    stages = made.stage_blocks
    draws = [ConnectionScheme.random(stages, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    for scheme in [ConnectionScheme.none(stages), ConnectionScheme.full(stages), *draws]:
        made.set_scheme(scheme)
        expected = by_hand(made.state_dict(), x, scheme, gate, stem_stride=stem_stride, strides=strides)
        with torch.no_grad():
            for mine, theirs in zip(made(x), expected, strict=True):
                assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_channels_last_and_bf16_autocast_agree_with_plain_fp32(attention):
    network = EANResNet(18, attention, scheme="01-10-11-01").eval()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = network(x)
        last = copy.deepcopy(network).to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(x)
    for a, b, c in zip(plain, last, rough, strict=True):
        assert b.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)
        assert (a - c).norm() < 2e-2 * a.norm()


def test_resnet50_with_sge_trains_on_images_of_32_pixels_without_nan():
    network = EANResNet(50, "SGE", scheme="full")
    features = train_step(network, torch.randn(2, 3, 32, 32))
    assert features[-1].shape[2:] == (1, 1)
    assert all(feature.isfinite().all() for feature in features)
    assert all(p.grad.isfinite().all() for p in network.parameters())


# ---------------------------------------------------------------- which modules exist


@pytest.mark.parametrize(
    ("scheme", "shared", "keys"),
    [
        ("none", True, []),
        ("none", False, []),
        ("full", True, ["layer1", "layer2", "layer3", "layer4"]),
        ("00-10-00-11", True, ["layer2", "layer4"]),
        ("00-10-00-11", False, ["layer2.0", "layer4.0", "layer4.1"]),
        ("full", False, [f"layer{k}.{i}" for k in (1, 2, 3, 4) for i in (0, 1)]),
    ],
)
def test_a_network_holds_the_attention_modules_that_its_scheme_uses_and_no_others(scheme, shared, keys):
    with torch.device("meta"):
        network = EANResNet(18, scheme=scheme, shared=shared)
    assert list(network.attentions()) == [f"{key}.attention" for key in keys]
    assert {id(network.attention_at(k, i)) for k, i, _ in network.blocks()} - {id(None)} == {
        id(module) for module in network.attentions().values()
    }
    channels = [network.stage_channels[int(key[5]) - 1] for key in keys]
    assert [module.channels for module in network.attentions().values()] == channels


@pytest.mark.parametrize(
    ("attention", "value"),
    [("SE", 0.5), ("DIA", 0.25), ({"type": "SE", "identity_start": True, "window": (16, 16)}, 1.0)],
)
@pytest.mark.parametrize("shared", [True, False])
def test_a_block_with_a_constant_gate_holds_the_factors_of_fresh_gates_and_no_module(attention, value, shared):
    network = EANResNetCIFAR(20, attention, scheme="0c0-1c0-cc0", shared=shared)
    gates = {name: tensor for name, tensor in network.state_dict().items() if "constant" in name}
    widths = {"layer1.1": 16, "layer2.1": 32, "layer3.0": 64, "layer3.1": 64}
    assert {name: tuple(tensor.shape) for name, tensor in gates.items()} == {
        f"{block}.constant_gate": (width,) for block, width in widths.items()
    }
    assert {float(each) for tensor in gates.values() for each in tensor} == {value}
    assert list(network.attentions()) == ["layer2.attention" if shared else "layer2.0.attention"]
    assert network.attention_at(1, 1) is None


@pytest.mark.parametrize("attention", ["SE", "DIA"])
def test_a_constant_gate_scales_the_branch_and_the_state_passes_it_unchanged(attention):
    network = randomised(EANResNetCIFAR(20, attention, scheme="1c1-000-000")).double().eval()
    with torch.no_grad():
        network.layer1[1].constant_gate.uniform_(0.1, 0.9)
        x = network.forward_stem(torch.randn(2, 3, 16, 16, dtype=torch.float64))
        expected, state = x, None
        for i, block in enumerate(network.layer1):
            f = block.residual(expected)
            if i == 1:
                f = f * block.constant_gate.view(1, -1, 1, 1)
            else:
                f, state = network.layer1.attention(f, state)
            expected = torch.relu(f + expected)
        assert (network.layer1(x) - expected).abs().max() <= 1e-12


def test_set_scheme_makes_gates_constant_and_keeps_their_values():
    network = EANResNetCIFAR(20, scheme="full").double()
    assert not [name for name in network.state_dict() if "constant" in name]
    network.set_scheme("c11-111-111")
    gate = network.layer1[0].constant_gate
    assert gate.dtype == torch.float64
    assert gate not in network.idle_parameters()
    gate.data.fill_(0.3)
    network.set_scheme("full")
    assert network.idle_parameters() == {gate}
    network.set_scheme("c11-111-11c")
    assert network.layer1[0].constant_gate[0].item() == pytest.approx(0.3)
    assert network.layer3[2].constant_gate[0].item() == 0.5


def test_constant_gates_are_refused_where_gates_are_not_one_per_channel():
    message = r"'1c0-000-000' has constant gates \(c\), but the gates of SGE are not one per channel.*; DIA and SE have"
    with pytest.raises(ValueError, match=message):
        EANResNetCIFAR(20, "SGE", scheme="1c0-000-000")
    network = EANResNetCIFAR(20, "SGE", scheme="full")
    with pytest.raises(ValueError, match="SGE"):
        network.set_scheme("c00-000-000")
    assert str(network.scheme) == "111-111-111"


def test_a_scheme_on_the_device_has_no_constant_gates():
    network = EANResNetCIFAR(20, scheme="full")
    network.scheme_as_data()
    with pytest.raises(ValueError, match=r"reads its scheme from the device \(scheme_as_data\)"):
        network.set_scheme("c11-111-111")
    network.scheme_as_data(False)
    network.set_scheme("c11-111-111")
    with pytest.raises(ValueError, match=r"'c11-111-111' has constant gates \(c\), which cannot be read from the dev"):
        network.scheme_as_data()


@pytest.mark.parametrize(
    ("network", "scheme", "shared"),
    [
        (EANResNet, "00-10-00-11", True),
        (EANResNet, "00-10-00-11", False),
        (EANResNet, "none", True),
        (EANResNetCIFAR, "010-001-000", True),
        (EANResNetCIFAR, "full", False),
    ],
)
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_gradient_reaches_every_parameter_of_a_network_built_with_a_scheme(network, scheme, shared, attention):
    made = network(18 if network is EANResNet else 20, attention, scheme=scheme, shared=shared)
    train_step(made, torch.randn(2, 3, 32, 32))
    assert [name for name, p in made.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("with_cp", [False, True])
def test_constant_gates_are_trained(with_cp):
    made = EANResNetCIFAR(20, scheme="c10-0c0-cc0", with_cp=with_cp)
    train_step(made, torch.randn(2, 3, 32, 32))
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_set_scheme_narrows_a_live_supernet_and_widens_it_again():
    network = randomised(EANResNetCIFAR(20, scheme="full")).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        full = network(x)[-1]
        for scheme in ("010-000-001", [2, 0, 1], ConnectionScheme.parse("010-000-001")):
            network.set_scheme(scheme)
            assert str(network.scheme) == "010-000-001"
            narrowed = network(x)[-1]
            alone = EANResNetCIFAR(20, scheme="010-000-001").eval()
            state = {name: value for name, value in network.state_dict().items() if "layer2.attention" not in name}
            alone.load_state_dict(state)
            assert torch.equal(alone(x)[-1], narrowed)
        network.set_scheme("full")
        assert torch.equal(network(x)[-1], full)
        assert not torch.equal(narrowed, full)


@pytest.mark.parametrize(
    ("shared", "wider", "lacking"),
    [
        (True, "100-001-100", r"layer3\.attention"),
        (False, "110-001-000", r"layer1\.1\.attention"),
        (False, "full", r"layer1\.1\.attention, layer1\.2\.attention, "),
    ],
)
def test_set_scheme_refuses_a_connection_without_a_module_and_changes_nothing(shared, wider, lacking):
    network = EANResNetCIFAR(20, scheme="100-001-000", shared=shared)
    with pytest.raises(ValueError, match=rf"{lacking}.*built for '100-001-000'; build it with scheme='full'"):
        network.set_scheme(wider)
    assert str(network.scheme) == "100-001-000"
    assert [network.attention_at(k, i) is not None for k, i, _ in network.blocks()] == [1, 0, 0, 0, 0, 1, 0, 0, 0]


def test_set_scheme_refuses_a_scheme_of_another_network():
    network = EANResNetCIFAR(20, scheme="full")
    with pytest.raises(
        ValueError, match=r"\(2, 2, 2\) \(6 blocks\).*\(3, 3, 3\) \(9 blocks\); for example '101-010-101'"
    ):
        network.set_scheme("10-01-11")


def test_attention_named_for_cifar_takes_the_options_that_suit_it_and_a_dict_overrides_them():
    with torch.device("meta"):
        assert EANResNetCIFAR(20, "SE", "full").layer1.attention.fc1.out_features == 16 // 4
        assert EANResNetCIFAR(164, "SE", "full").layer1.attention.fc1.out_features == 64 // 16
        assert EANResNetCIFAR(20, "SGE", "full").layer1.attention.groups == 4
        assert EANResNetCIFAR(56, "DIA", "full").layer3.attention.w_hh[0].out_features == 64 // 4
        assert EANResNetCIFAR(20, {"type": "SE"}, "full").layer1.attention.fc1.out_features == 16 // 4
        assert EANResNetCIFAR(20, {"type": "SE", "reduction": 2}, "full").layer1.attention.fc1.out_features == 8
        assert EANResNet(50, "SE", "full").layer1.attention.fc1.out_features == 256 // 16
        assert EANResNet(50, "SGE", "full").layer1.attention.groups == 64
        assert EANResNet(50, "DIA", "full").layer4.attention.w_ih[0].out_features == 2048 // 20


# ---------------------------------------------------------------- schemes on record


@pytest.mark.parametrize(
    ("network", "depth", "attention", "text", "standing"),
    [
        (EANResNet, 50, "SE", "010-0010-110011-001", "inferred"),
        (EANResNet, 50, "SGE", "100-1011-010011-011", "published"),
        (EANResNet, 50, "DIA", "110-0011-110010-011", "published"),
        (EANResNetCIFAR, 164, "SE", "001100000001010111-011100001000010111-101000100110000000", "published"),
    ],
)
def test_ean_is_the_scheme_on_record_and_its_standing_is_logged_once(network, depth, attention, text, standing, log):
    with torch.device("meta"):
        for _ in range(2):
            assert str(network(depth, attention).scheme) == text
    (message,) = log.messages
    assert message.startswith(f"{network.__name__}-{depth} with {attention}: scheme {text}, {standing} (")


def test_a_scheme_that_is_given_is_not_announced_as_one_on_record(log):
    with torch.device("meta"):
        EANResNet(50, scheme="010-0010-110011-001")
    assert log.messages == []


def test_every_entry_on_record_builds():
    networks = {cls.family: cls for cls in (EANResNet, EANResNetCIFAR)}
    for (family, depth, attention, data), entry in RECORDED.items():
        with torch.device("meta"):
            stages = len(entry.scheme.stages)
            network = networks[family](depth, attention, f"ean:{data}", num_stages=stages)
        assert network.scheme == entry.scheme
        assert entry.data == data
        assert entry.standing in ("published", "inferred", "found here")
        assert entry.source


@pytest.fixture
def found_on_crowds(monkeypatch):
    """A scheme on record for crowds, of a network of three stages."""
    entry = RecordedScheme(ConnectionScheme.parse("10-01-11"), "found here", "a search", "shanghaitech_b")
    monkeypatch.setitem(RECORDED, ("imagenet", 18, "SE", "shanghaitech_b"), entry)
    monkeypatch.setitem(RECORDED, ("imagenet", 50, "SE", "shanghaitech_b"), replace(entry, scheme=FIFTY))


FIFTY = ConnectionScheme.parse("001-0000-000001")


@pytest.mark.usefixtures("found_on_crowds")
def test_a_scheme_is_that_of_the_data_set_or_else_of_the_family(log):
    with torch.device("meta"):
        assert EANResNet(50, scheme="ean:shanghaitech_b", num_stages=3).scheme == FIFTY
        assert str(EANResNet(50, scheme="ean", num_stages=3).scheme) == "010-0010-110011"
        assert str(EANResNet(50, scheme="ean:shanghaitech_a", num_stages=3).scheme) == "010-0010-110011"
        assert str(EANResNet(18, scheme="ean:shanghaitech_b", num_stages=2).scheme) == "10-01"
    messages = [message.partition("), on ")[2] for message in log.messages]
    assert messages == [
        "shanghaitech_b",
        "imagenet",
        "imagenet; none is recorded on shanghaitech_a",
        "shanghaitech_b",
    ]


@pytest.mark.usefixtures("found_on_crowds")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "ean:shanghaitech"}, "unknown data set 'shanghaitech'; did you mean 'shanghaitech_b'"),
        ({"scheme": "ean"}, r"no scheme is recorded for EANResNet depth 18 with SE \(recorded: .*18 with SE on shang"),
        ({"scheme": "ean:shanghaitech_a"}, "no scheme is recorded for EANResNet depth 18 with SE"),
        ({"scheme": "ean:shanghaitech_b", "num_stages": 4}, "is for the first 3 stages, but this network has 4"),
    ],
)
def test_data_without_a_scheme_is_refused_with_those_on_record(options, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        EANResNet(18, **{"num_stages": 3, **options})


@pytest.mark.usefixtures("found_on_crowds")
def test_ean_in_a_config_is_the_scheme_found_on_its_data():
    def scheme(name, *options):
        return load_config(name, options).model.backbone.scheme

    assert scheme("resnet50_se_shanghaitech_b") == "ean:shanghaitech_b"
    assert scheme("resnet50_se_shanghaitech_a") == "ean"
    assert scheme("resnet50_sge_shanghaitech_b") == "ean"
    assert scheme("resnet50_se_shanghaitech_b", "model.backbone.scheme=full") == "full"


@pytest.mark.parametrize("name", ["resnet164_se_cifar100", "resnet20_dia_cifar100", "resnet50_se_imagenet"])
def test_ean_stays_in_a_config_with_the_data_of_the_family(name):
    """It means the same scheme there, and runs from before have it in their configs."""
    assert load_config(name, ["model.backbone.scheme=ean"]).model.backbone.scheme == "ean"


def test_fewer_stages_take_the_leading_stages_of_the_record():
    with torch.device("meta"):
        network = EANResNet(num_stages=3)
    assert str(network.scheme) == "010-0010-110011"
    assert list(network.attentions()) == [f"layer{k}.attention" for k in (1, 2, 3)]
    assert not hasattr(network, "layer4")


def test_with_fewer_stages_a_text_must_match():
    with torch.device("meta"):
        assert str(EANResNet(num_stages=2, scheme="010-0010").scheme) == "010-0010"
        with pytest.raises(ValueError, match=r"'010-0010-110011-001' has stages .*network has stages \(3, 4\)"):
            EANResNet(num_stages=2, scheme="010-0010-110011-001")


# ---------------------------------------------------------------- OpenMMLab's arguments


def test_out_indices_choose_the_maps_and_later_stages_are_not_computed():
    network = EANResNet(18, scheme="full", out_indices=(2, 0)).eval()
    ran = []
    network.layer4.register_forward_pre_hook(lambda *_: ran.append(4))
    for block in network.layer4:
        block.register_forward_pre_hook(lambda *_: ran.append(4))
    first, third = network(torch.zeros(1, 3, 64, 64))
    assert (first.shape[1], third.shape[1]) == network.out_channels == (64, 256)
    assert ran == []


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("frozen", [-1, 0, 2, 4])
@pytest.mark.parametrize("deep_stem", [True, False])
def test_frozen_stages_neither_train_nor_get_gradients_attention_included(frozen, shared, deep_stem, with_norm):
    network = EANResNet(
        18, with_norm, "full", shared=shared, frozen_stages=frozen, deep_stem=deep_stem, base_channels=8
    )
    for _ in range(2):
        network.eval()
        network.train()
        for name, parameter in network.named_parameters():
            part = name.split(".")[0]
            level = int(part.removeprefix("layer")) if part.startswith("layer") else 0
            assert parameter.requires_grad == (level > frozen), name
            assert network.get_submodule(name.rpartition(".")[0]).training == (level > frozen), name


def test_frozen_stages_keep_their_statistics_and_the_others_still_train(with_norm):
    network = EANResNet(18, with_norm, "full", frozen_stages=2, zero_init_residual=False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    train_step(network, torch.randn(4, 3, 32, 32))
    torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0).step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name[:6] for name in changed} == {"layer3", "layer4"}
    assert {"layer3.attention.norm.running_mean", "layer4.0.bn1.running_mean"} <= changed


@pytest.mark.parametrize("norm_eval", [True, False])
def test_norm_eval_keeps_batch_norms_in_evaluation_mode_attention_included(norm_eval, with_norm):
    network = EANResNet(18, with_norm, "full", norm_eval=norm_eval).train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 20 + 4
    assert {norm.training for norm in norms} == {not norm_eval}
    assert {conv.training for conv in network.modules() if isinstance(conv, nn.Conv2d)} == {True}
    assert all(norm.weight.requires_grad for norm in norms)
    assert not any(module.training for module in network.eval().modules())


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_with_cp_gives_equal_features_and_gradients(attention):
    plain = randomised(EANResNetCIFAR(20, attention, scheme="101-011-110"))
    saving = EANResNetCIFAR(20, attention, scheme="101-011-110", with_cp=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 8, 8)
    for a, b in zip(train_step(plain, x), train_step(saving, x), strict=True):
        assert torch.equal(a, b)
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-7), name


def test_with_cp_recomputes_the_blocks_in_the_backward_pass():
    network = EANResNetCIFAR(20, scheme="full", with_cp=True)
    runs = []
    network.layer2[1].conv2.register_forward_hook(lambda *_: runs.append(1))
    train_step(network, torch.randn(2, 3, 8, 8))
    assert len(runs) == 2


def test_dilation_gives_output_stride_8():
    network = EANResNet(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)).eval()
    with torch.no_grad():
        assert [f.shape[-1] for f in network(torch.zeros(1, 3, 64, 64))] == [16, 8, 8, 8]
    for k, dilation in enumerate((1, 1, 2, 4)):
        assert {block.conv2.dilation[0] for block in network.stage(k)} == {dilation}


@pytest.mark.parametrize(
    ("options", "third", "fourth"),
    [
        ({}, [2] * 6, [4, 4, 4]),
        ({"contract_dilation": True}, [1] + [2] * 5, [2, 4, 4]),
        ({"multi_grid": (1, 2, 4)}, [2] * 6, [1, 2, 4]),
        ({"multi_grid": (1, 2, 4), "contract_dilation": True}, [1] + [2] * 5, [1, 2, 4]),
    ],
)
def test_multi_grid_and_contract_dilation_follow_mmseg(options, third, fourth):
    with torch.device("meta"):
        network = EANResNet(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), **options)
        assert network(torch.zeros(1, 3, 64, 64))[-1].shape[-1] == 8
    assert [block.conv2.dilation[0] for block in network.stage(2)] == third
    assert [block.conv2.dilation[0] for block in network.stage(3)] == fourth
    assert {block.conv1.dilation[0] for _, _, block in network.blocks()} == {1}


@pytest.mark.parametrize(("style", "strides"), [("pytorch", (1, 2)), ("caffe", (2, 1))])
def test_the_style_says_which_convolution_strides(style, strides):
    with torch.device("meta"):
        network = EANResNet(style=style)
    for k in (1, 2, 3):
        block = network.stage(k)[0]
        assert (block.conv1.stride[0], block.conv2.stride[0]) == strides
        assert block.downsample[0].stride[0] == 2


def test_deep_stem_has_the_names_and_strides_of_resnet_v1c():
    with torch.device("meta"):
        network = EANResNet(deep_stem=True)
        assert network(torch.zeros(1, 3, 64, 64))[0].shape == (1, 256, 16, 16)
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters() if p.dim() == 4 and "layer" not in name}
    assert shapes == {"stem.0.weight": (32, 3, 3, 3), "stem.3.weight": (32, 32, 3, 3), "stem.6.weight": (64, 32, 3, 3)}
    assert {name.split(".")[1] for name in network.state_dict() if name.startswith("stem")} == set("013467")
    assert [network.stem[i].stride[0] for i in (0, 3, 6)] == [2, 1, 1]
    assert not hasattr(network, "conv1")


@pytest.mark.parametrize("strides", [(1, 2, 2, 2), (1, 2, 1, 1)])
def test_avg_down_has_the_names_of_mmsegs_resnet_v1d(strides):
    with torch.device("meta"):
        network = EANResNet(deep_stem=True, avg_down=True, strides=strides)
    for k in range(4):
        pool, conv, norm = network.stage(k)[0].downsample
        assert (type(pool), pool.stride, pool.ceil_mode, pool.count_include_pad) == (
            nn.AvgPool2d,
            strides[k],
            True,
            False,
        )
        assert (type(conv), conv.stride) == (nn.Conv2d, (1, 1))
        assert type(norm) is nn.BatchNorm2d


def test_avg_down_pools_the_shortcut():
    network = EANResNet(18, scheme="none", avg_down=True)
    _, conv, norm = network.layer2[0].eval().downsample
    x = torch.randn(2, 64, 5, 5)
    _, shortcut = network.layer2[0].branches(x)
    assert torch.allclose(shortcut, norm(F.conv2d(F.avg_pool2d(x, 2, 2, 0, True, False), conv.weight)))


@pytest.mark.parametrize("biased", [True, False])
def test_conv_bias_reaches_every_convolution(biased):
    with torch.device("meta"):
        network = EANResNet(conv_bias=biased, deep_stem=True)
    assert {module.bias is not None for module in network.modules() if isinstance(module, nn.Conv2d)} == {biased}


def test_widths_and_channels_of_the_image_can_be_chosen():
    with torch.device("meta"):
        network = EANResNet(18, scheme="full", in_channels=1, stem_channels=24, base_channels=16)
        assert network.conv1.weight.shape == (24, 1, 7, 7)
        assert [f.shape[1] for f in network(torch.zeros(2, 1, 32, 32))] == [16, 32, 64, 128]


def test_the_stem_has_64_channels_whatever_the_width_and_follows_it_if_none():
    with torch.device("meta"):
        assert EANResNet(18, scheme="none", base_channels=16).conv1.out_channels == 64
        assert EANResNet(18, scheme="none", base_channels=16, stem_channels=None).conv1.out_channels == 16
        assert EANResNetCIFAR(20, scheme="none", base_channels=8).conv1.out_channels == 8


@pytest.mark.parametrize(("given", "taken"), [(-1, (3,)), (2, (2,)), ((-2, 0), (0, 2)), ((-1, 3), (3,))])
def test_out_indices_count_from_the_end_too(given, taken):
    with torch.device("meta"):
        assert EANResNet(18, scheme="none", out_indices=given).out_indices == taken
        with pytest.raises(ValueError, match=r"unknown out index for 4 stages -5"):
            EANResNet(18, scheme="none", out_indices=-5)


def test_feature_info_has_timms_methods_for_the_returned_maps():
    info = EANResNet(18, scheme="none", out_indices=(0, -1)).feature_info
    assert (info.channels(), info.reduction(), info.module_name()) == ([64, 512], [4, 32], ["layer1", "layer4"])


def test_feature_info_lists_every_stage():
    with torch.device("meta"):
        network = EANResNet(50, scheme="none", strides=(1, 2, 1, 1), out_indices=-1)
    assert [(each["num_chs"], each["reduction"]) for each in network.feature_info] == [
        (256, 4),
        (512, 8),
        (1024, 8),
        (2048, 8),
    ]
    assert [each["module"] for each in network.feature_info] == ["layer1", "layer2", "layer3", "layer4"]


@pytest.mark.parametrize("kind", [EANResNet, EANResNetCIFAR])
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 32, 32), r"takes float images \(N, 3, H, W\), got torch.float32 \(3, 32, 32\); x\[None\]"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), r"got torch.uint8 \(1, 3, 32, 32\); normalize them .*x.float"),
        (torch.zeros(1, 4, 32, 32), r"got torch.float32 \(1, 4, 32, 32\); build the network with in_channels=4"),
        (torch.zeros(1, 32, 32, 3), r"got torch.float32 \(1, 32, 32, 3\); x.permute\(0, 3, 1, 2\)"),
        (torch.zeros(3), r"got torch.float32 \(3,\); give one batch of images"),
    ],
)
def test_what_is_not_a_batch_of_images_is_refused(kind, image, message):
    network = kind(min(kind.depths), scheme="none", base_channels=8)
    for model in (network, deploy(network)):
        with pytest.raises(ValueError, match=message):
            model(image)


# ---------------------------------------------------------------- stochastic depth


def test_drop_rates_grow_linearly_over_the_whole_resnet():
    with torch.device("meta"):
        network = EANResNet(50, scheme="none", drop_path_rate=0.3, num_stages=2)
        plain = EANResNet(50, scheme="none")
    rates = [block.drop_path.p if block.drop_path else 0 for _, _, block in network.blocks()]
    assert rates == pytest.approx([0.3 * i / 15 for i in range(7)])
    assert all(block.drop_path is None for _, _, block in plain.blocks())
    assert network.state_dict().keys() == EANResNet(50, scheme="none", num_stages=2).state_dict().keys()
    with pytest.raises(ValueError, match=r"drop_path_rate is a probability below 1, got 1"):
        EANResNet(18, scheme="none", drop_path_rate=1)


def test_stochastic_depth_drops_what_attention_returns_of_some_images():
    block = EANResNetCIFAR(20, "SE", "full", drop_path_rate=0.5).layer3[2]
    attention = EANResNetCIFAR(20, "SE", "full").layer3.attention
    block.eval().drop_path.train()
    x = torch.rand(64, 64, 4, 4)
    out = block(x, BlockContext(attention))
    residual, shortcut = block.branches(x)
    kept = torch.relu(shortcut + 2 * attention(residual, None)[0])
    dropped = (out == torch.relu(shortcut)).all((1, 2, 3))
    assert 16 < dropped.sum() < 48
    assert torch.allclose(out[~dropped], kept[~dropped], atol=1e-6)


@pytest.mark.parametrize("make", [EANResNetCIFAR])
def test_stochastic_depth_is_for_training_only(make):
    network = randomised(make(20, "DIA", "full", drop_path_rate=0.5)).eval()
    plain = make(20, "DIA", "full").eval()
    plain.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 16, 16)
    for other in (network, pickle.loads(pickle.dumps(network)), fx.symbolic_trace(network)):
        assert all(map(torch.equal, other(x), plain(x)))
    for mine, theirs in zip(deploy(network)(x), plain(x), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", ["with_cp", "compiled"])
def test_stochastic_depth_survives_recomputation_and_compilation(change):
    networks = [EANResNetCIFAR(20, "DIA", "full", drop_path_rate=0.5, base_channels=4) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    if change == "with_cp":
        networks[1].set_grad_checkpointing()
    else:
        networks[1].compile_blocks(backend="eager")
    x, gradients = torch.randn(8, 3, 8, 8, requires_grad=True), []
    for network in networks:
        torch.manual_seed(0)
        network(x)[-1].square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


# ---------------------------------------------------------------- mmdetection


def test_an_mmdetection_config_without_norm_eval_is_told_once_of_the_other_default(log):
    _warn_of_norm_eval.cache_clear()
    with torch.device("meta"):
        EANResNet(18, scheme="none")
        for scope in ("mmseg", "mmpretrain"):
            with DefaultScope.overwrite_default_scope(scope):
                EANResNet(18, scheme="none")
        with DefaultScope.overwrite_default_scope("mmdet"):
            for value in (True, False):
                assert EANResNet(18, scheme="none", norm_eval=value).norm_eval is value
            assert "norm_eval" not in log.text
            for _ in range(2):
                assert EANResNet(18, scheme="none").norm_eval is False
    assert log.text.count("this mmdetection config leaves norm_eval out") == 1


def test_norm_cfg_reaches_every_norm():
    with torch.device("meta"):
        network = EANResNet(18, scheme="full", norm_cfg={"type": "GN", "num_groups": 8, "requires_grad": False})
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) == 20
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("zero", [True, False])
def test_zero_init_residual_starts_blocks_as_the_identity(zero):
    network = EANResNet(18, scheme="full", zero_init_residual=zero)
    assert {block.bn2.weight.any().item() for _, _, block in network.blocks()} == {not zero}
    assert all(block.bn1.weight.all() for _, _, block in network.blocks())
    x = torch.rand(1, 64, 4, 4)
    residual, _ = network.layer1[1].eval().branches(x)
    assert residual.any().item() != zero


# ---------------------------------------------------------------- weights


def test_pretrained_is_the_older_spelling_and_warns(tmp_path):
    with torch.device("meta"), pytest.warns(DeprecationWarning, match="init_cfg=dict.type='Pretrained', checkpoint="):
        network = EANResNet(pretrained="open-mmlab://resnet50_v1c")
    assert network.init_cfg == {"type": "Pretrained", "checkpoint": "open-mmlab://resnet50_v1c"}


def test_pretrained_none_is_silent(recwarn):
    with torch.device("meta"):
        assert EANResNet(pretrained=None).init_cfg is None
    assert [w for w in recwarn if "pretrained" in str(w.message)] == []


@pytest.mark.parametrize("head", ["", "backbone."])
def test_init_cfg_pretrained_loads(tmp_path, head):
    source = randomised(EANResNetCIFAR(20, scheme="none"))
    torch.save({"state_dict": {head + k: v for k, v in source.state_dict().items()}}, tmp_path / "w.pth")
    init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "w.pth"), **({"prefix": head} if head else {})}
    network = EANResNetCIFAR(20, scheme="full", init_cfg=init_cfg)
    before = {name: copy.deepcopy(a.state_dict()) for name, a in network.attentions().items()}
    network.init_weights()
    assert network.init_cfg == init_cfg
    assert all(torch.equal(network.state_dict()[name], value) for name, value in source.state_dict().items())
    assert all(
        torch.equal(a.state_dict()[key], before[name][key])
        for name, a in network.attentions().items()
        for key in before[name]
    )


def test_init_cfg_pretrained_raises_where_no_key_matches(tmp_path):
    torch.save({"encoder.weight": torch.ones(1)}, tmp_path / "w.pth")
    init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "w.pth")}
    with pytest.raises(ValueError, match=r"no key of .* matches EANResNetCIFAR: its keys start with encoder"):
        EANResNetCIFAR(20, scheme="none", init_cfg=init_cfg).init_weights()


def test_other_init_cfgs_are_applied_before_pretrained(tmp_path):
    torch.save({"bn1.weight": torch.full((16,), 5.0)}, tmp_path / "w.pth")
    init_cfg = [
        {"type": "Pretrained", "checkpoint": str(tmp_path / "w.pth"), "partial": True},
        {"type": "Constant", "layer": "BatchNorm2d", "val": 3.0},
    ]
    network = EANResNetCIFAR(20, scheme="full", init_cfg=init_cfg)
    network.init_weights()
    assert network.bn1.weight.unique().tolist() == [5.0]
    assert network.layer1[0].bn1.weight.unique().tolist() == [3.0]


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("remake", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_and_pickles_compute_the_same_and_are_independent(attention, remake):
    network = EANResNetCIFAR(20, attention, scheme="full").eval()
    network.set_scheme("101-000-010")
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = network(x)[-1]
        twin = remake(network)
        assert twin.scheme == network.scheme
        assert torch.equal(twin(x)[-1], before)
        twin.set_scheme("none")
        twin.layer1.attention.requires_grad_(False).load_state_dict(
            {name: torch.zeros_like(value) for name, value in twin.layer1.attention.state_dict().items()}
        )
        assert torch.equal(network(x)[-1], before)


# ---------------------------------------------------------------- compiling


@pytest.mark.parametrize(
    ("attention", "memory_format"),
    [("DIA", torch.contiguous_format), *((attention, torch.channels_last) for attention in ATTENTIONS)],
)
def test_a_compiled_supernet_does_not_recompile_at_new_schemes(attention, memory_format):
    torch._dynamo.reset()
    graphs = CompileCounter()
    network = EANResNetCIFAR(20, attention, scheme="full").to(memory_format=memory_format)
    plain = copy.deepcopy(network)
    network.compile_blocks(backend=graphs, fullgraph=True)
    x = torch.randn(2, 3, 8, 8).to(memory_format=memory_format)
    # every form of block: without attention, with it as the first of its stage, and after another one
    for scheme in ("none", "full", "010-010-010", "011-011-011", "100-100-100"):
        network.set_scheme(scheme)
        train_step(network, x)
    compiled = graphs.frame_count
    assert compiled > 0
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        network.set_scheme(ConnectionScheme.random((3, 3, 3), generator=generator))
        train_step(network, x)
    assert graphs.frame_count == compiled
    plain.load_state_dict(network.state_dict())
    plain.set_scheme(network.scheme)
    for a, b in zip(network.eval()(x), plain.eval()(x), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)
