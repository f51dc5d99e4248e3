import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS
from torch import nn

from ean_core import ConnectionScheme, EANResNet, EANResNetCIFAR, ImageClassifier
from ean_core.attention import ATTENTION, Attention
from ean_core.attention.se import SE
from ean_core.inference import DeployedBackbone, deploy, fold
from ean_core.inference.gates import GATES, Gate, register_gate
from ean_core.inference.ops import scale_add_relu

EXACT = 1e-10


def lively(network, seed=0):
    """Batch norms and attention as after a training: no scale, shift or gate is trivial."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if "running_mean" in name:
            value.normal_(0, 0.3, generator=draw)
        elif "running_var" in name:
            value.uniform_(0.5, 2, generator=draw)
        elif "bn" in name or "downsample.1" in name or "downsample.2" in name:
            value.uniform_(0.2, 0.8, generator=draw) if value.is_floating_point() else None
        elif "attention" in name:
            value.normal_(0, 0.3, generator=draw)
    return network.eval()


def constant(network, seed=2):
    """Constant gates with values as after a training."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("constant_gate"):
            value.uniform_(0.1, 0.9, generator=draw)
    return network


def small(attention="SE", scheme="full", **options):
    """A bottleneck network with narrow stages, in fp64."""
    options = {"base_channels": 8, "out_indices": (3,), **options}
    return lively(EANResNet(50, attention, scheme=scheme, **options)).double()


def images(*shape, seed=1):
    return torch.randn(*(shape or (2, 3, 32, 32)), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def error(made, network, inputs):
    """The largest difference of feature maps, relative to their largest value."""
    pairs = zip(made(inputs), network(inputs), strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


# ---------------------------------------------------------------- exactness


@st.composite
def networks(draw):
    family = draw(st.sampled_from(["imagenet", "cifar"]))
    attention = draw(
        st.sampled_from(
            [
                {"type": "SE", "reduction": 4},
                {"type": "DIA", "reduction": 4},
                {"type": "SGE", "groups": 2},
                {"type": "SGE", "groups": 8},
            ]
        )
    )
    options = {"shared": draw(st.booleans()), "conv_bias": draw(st.booleans()), "base_channels": 8}
    if family == "cifar":
        kind, depth = EANResNetCIFAR, draw(st.sampled_from([20, 56, 164]))
    else:
        kind, depth = EANResNet, draw(st.sampled_from([18, 34, 50, 101]))
        options |= {
            "deep_stem": draw(st.booleans()),
            "avg_down": draw(st.booleans()),
            "style": draw(st.sampled_from(["pytorch", "caffe"])),
            "dilations": draw(st.sampled_from([(1, 1, 1, 1), (1, 1, 2, 4)])),
            "strides": draw(st.sampled_from([(1, 2, 2, 2), (1, 2, 1, 1)])),
            "contract_dilation": draw(st.booleans()),
        }
    stages = kind.depths[depth][1]
    options["num_stages"] = draw(st.integers(1, len(stages)))
    indices = st.sets(st.integers(0, options["num_stages"] - 1), min_size=1)
    options["out_indices"] = tuple(draw(indices))
    seed = draw(st.integers(0, 2**20))
    scheme = ConnectionScheme.random(stages[: options["num_stages"]], 0.5, torch.Generator().manual_seed(seed))
    return lively(kind(depth, attention, scheme=draw(st.sampled_from([scheme, "full"])), **options), seed)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    network=networks(),
    batch=st.integers(1, 3),
    height=st.integers(32, 65),
    width=st.integers(32, 65),
    seed=st.integers(0, 99),
)
def test_outputs_are_those_of_the_network(network, batch, height, width, seed):
    inputs = images(batch, 3, height, width, seed=seed)
    double = copy.deepcopy(network).double()
    assert error(deploy(double), double, inputs) <= EXACT
    assert error(fold(double), double, inputs) <= EXACT
    single = inputs.float()
    assert error(deploy(network), double, inputs) <= 1e-5
    # The eager network itself has an error, up to about 1e-5 in 101 layers.
    own = error(double, lambda x: network(x.float()), inputs)
    assert error(deploy(network), network, single) <= 1e-5 + own


@pytest.mark.parametrize("attention", ["SE", "SGE", "DIA"])
@pytest.mark.parametrize(("depth", "pixels"), [(50, 64), (50, 32), (18, 64)])
def test_networks_of_the_paper_agree_in_both_precisions(attention, depth, pixels):
    network = lively(EANResNet(depth, attention, scheme="full", out_indices=(3,)))
    inputs = images(1, 3, pixels, pixels)
    assert error(deploy(network), network, inputs.float()) <= 1e-5
    double = network.double()
    assert error(deploy(double), double, inputs) <= EXACT


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("attention", ["SE", "DIA", {"type": "SE", "identity_start": True, "window": (32, 32)}])
@pytest.mark.parametrize(("depth", "cifar"), [(18, False), (50, False), (20, True), (164, True)])
def test_constant_gates_are_folded_exactly(depth, cifar, attention, shared):
    kind = EANResNetCIFAR if cifar else EANResNet
    draw = torch.Generator().manual_seed(depth)
    stages = kind.depths[depth][1]
    marks = torch.randint(3, (sum(stages),), generator=draw).tolist()
    scheme = ConnectionScheme.parse("".join("01c"[mark] for mark in marks), stages)
    network = constant(lively(kind(depth, attention, scheme=scheme, shared=shared, base_channels=8)).double())
    inputs = images(2, 3, 48, 40)
    for made in (deploy(network), fold(network)):
        assert error(made, network, inputs) <= EXACT
        forms = [block.form for block in made.blocks()]
        assert [form == "constant" for form in forms] == [mark == 2 for mark in marks]
        assert not any(block.attention for block in made.blocks() if block.form == "constant")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, ["Conv2d"]),
        ({"norm_cfg": {"type": "GN", "num_groups": 4}}, ["Conv2d", "GroupNorm"]),
        ({"norm_cfg": {"type": "IN"}}, ["Conv2d", "InstanceNorm2d", "ChannelScale"]),
    ],
)
@pytest.mark.parametrize("depth", [18, 50])
def test_a_constant_gate_goes_into_the_last_layer_with_weights(depth, options, parts):
    scheme = "c" + "0" * (sum(EANResNet.depths[depth][1]) - 1)
    network = constant(lively(EANResNet(depth, scheme=scheme, base_channels=8, **options)).double())
    made = deploy(network)
    assert [type(part).__name__ for part in next(made.blocks()).last] == parts
    assert error(made, network, images(2, 3, 64, 64)) <= EXACT


def test_a_network_of_constant_gates_has_the_operations_of_the_plain_one():
    network = constant(lively(EANResNetCIFAR(20, scheme="ccc-ccc-ccc")))
    made, plain = deploy(network), deploy(EANResNetCIFAR(20, scheme="none"))
    assert made.summary() == "scheme ccc-ccc-ccc: 9 constant"
    shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (made, plain)]
    assert shapes[0] == shapes[1]
    graphs = [torch.export.export(each, (torch.randn(1, 3, 32, 32),)).graph for each in (made, plain)]
    assert len({tuple(str(node.target) for node in graph.nodes if node.op == "call_function") for graph in graphs}) == 1


def test_a_map_of_one_position_has_a_gate_too():
    network = small({"type": "SGE", "groups": 4})
    assert network(images())[-1].shape[2:] == (1, 1)
    assert error(deploy(network), network, images()) <= EXACT


# ---------------------------------------------------------------- what becomes of blocks


def forms(backbone):
    return [block.form for block in backbone.blocks()]


def test_gates_of_bottlenecks_come_from_the_last_convolutions_input():
    deployed = deploy(small(scheme="010-0010-110011-001"))
    assert forms(deployed) == ["commuted" if bit == "1" else "plain" for bit in "0100010110011001"]
    assert deployed.summary() == "scheme 010-0010-110011-001: 9 plain, 7 commuted"
    gate = next(block.attention for block in deployed.blocks() if block.form == "commuted")
    assert gate.squeeze.weight.shape == (2, 8)  # 32 channels with a hidden layer of 2, read from 8


def test_no_norm_and_no_module_is_left():
    for made in (
        deploy(small("DIA")),
        deploy(small({"type": "SGE", "groups": 8})),
        deploy(small(deep_stem=True, avg_down=True)),
    ):
        left = {type(module).__name__ for module in made.modules()}
        assert not left & {"BatchNorm2d", "SE", "SGE", "DIA", "Bottleneck"}
    assert "BatchNorm2d" not in {type(module).__name__ for module in fold(small()).modules()}
    assert any(isinstance(module, SE) for module in fold(small()).modules())


def test_basic_blocks_join_scale_shortcut_and_relu_and_say_why():
    network = lively(EANResNetCIFAR(20, "SE", scheme="100-000-001"))
    summary = deploy(network).summary()
    assert summary.endswith("7 plain, 2 joined (the last convolution of the residual branch is 3x3)")


def test_synchronised_batch_norms_are_folded_too():
    network = small(norm_cfg={"type": "SyncBN"})
    deployed = deploy(network)
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in deployed.modules())
    assert error(deployed, network, images()) <= EXACT


def test_parameters_of_the_model_itself_change_type_with_it():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = small()
            self.scale = nn.Parameter(torch.ones(3, dtype=torch.float64))

    deployed = deploy(Scaled(), dtype=torch.bfloat16)
    assert deployed.scale.dtype == torch.bfloat16
    assert not deployed.scale.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["SE", "DIA", {"type": "SGE", "groups": 8}])
def test_a_compiled_network_agrees(attention):
    network = small(attention, scheme="010-0010-110011-001").float()
    inputs = images(2, 3, 48, 48).float()
    assert error(deploy(network, compile=True), network, inputs) <= 1e-5


def test_norms_that_cannot_be_folded_stay():
    network = small({"type": "SGE", "groups": 4}, norm_cfg={"type": "GN", "num_groups": 2})
    deployed = deploy(network)
    assert set(forms(deployed)) == {"joined"}
    assert "GroupNorm cannot be folded into Conv2d" in deployed.summary()
    assert error(deployed, network, images()) <= EXACT


@MODELS.register_module()
class HalvedConv(nn.Conv2d):
    """A convolution that computes something other than its weights suggest."""

    def forward(self, x):
        return super().forward(x) / 2


def test_convolutions_of_another_kind_are_not_folded():
    network = small(conv_cfg={"type": "HalvedConv"})
    deployed = deploy(network)
    assert "cannot be folded into HalvedConv" in deployed.summary()
    assert error(deployed, network, images()) <= EXACT


@pytest.mark.parametrize("groups", [2, 4])
def test_channels_of_few_member_groups_are_put_group_last_where_the_stage_is_not_returned(groups):
    network = small({"type": "SGE", "groups": groups}, scheme="100-0100-000000-001", out_indices=(0, 3))
    deployed = deploy(network)
    last = [[block.groups_last for block in deployed.stage(k)] for k in range(4)]
    assert not any(last[0])  # returned
    assert all(last[1]) == (64 // groups < 16)
    assert not any(last[2])  # no gate
    assert not any(last[3])  # returned
    assert error(deployed, network, images(2, 3, 48, 40)) <= EXACT


def test_a_stage_that_begins_with_channels_as_they_come_keeps_their_order():
    options = {"base_channels": 8, "out_indices": (2,)}
    network = lively(EANResNetCIFAR(20, {"type": "SGE", "groups": 2}, scheme="full", **options)).double()
    deployed = deploy(network)
    assert [deployed.stage(k)[0].groups_last for k in range(3)] == [False, True, False]
    assert error(deployed, network, images()) <= EXACT


def test_the_original_is_not_touched():
    network = small("DIA")
    before = copy.deepcopy(network.state_dict())
    network.train()
    deployed = deploy(network)
    assert network.training
    assert not deployed.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in deployed.parameters())
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_recurrent_weights_are_held_once_a_stage():
    network = small("DIA")
    gates = [block.attention for block in deploy(network).blocks()]
    assert gates[0].second_ih is gates[1].second_ih
    assert gates[0].second_ih is not gates[3].second_ih


# ---------------------------------------------------------------- modules of one's own


class Own(Attention):
    """A gate that keeps a reference to the recalibrated branch, as a state may."""

    def extract(self, residual):
        return residual.mean((2, 3), keepdim=True)

    def process(self, extracted, state):
        return extracted.sigmoid(), state

    def recalibrate(self, residual, gate):
        return residual * gate

    def forward(self, residual, state=None):
        scaled, _ = super().forward(residual)
        return (scaled if state is None else scaled + 0.1 * state[0]), (scaled,)


@pytest.fixture
def own():
    ATTENTION.register_module(name="Own", module=Own)
    yield
    ATTENTION.module_dict.pop("Own")
    GATES.pop(Own, None)


def test_a_module_without_a_form_for_inference_is_kept_and_said_so(own, caplog):
    network = small("Own")
    deployed = deploy(network)
    assert set(forms(deployed)) == {"folded"}
    assert "Own has no inference gate; `register_gate` adds one" in deployed.summary()
    assert error(deployed, network, images()) <= EXACT


def test_a_registered_gate_is_used(own):
    @register_gate(Own)
    class Half(Gate):
        def forward(self, z, state):
            return z.new_full((len(z), 1, 1, 1), 0.5), state

    network = small("Own", scheme="100-0000-000000-000")
    deployed = deploy(network)
    assert forms(deployed)[0] == "commuted"
    assert error(deployed, network, images()) > 1e-6


def test_a_subclass_may_compute_something_else(own):
    class Doubled(SE):
        def process(self, extracted, state):
            gate, state = super().process(extracted, state)
            return 2 * gate, state

    ATTENTION.register_module(name="Own", module=Doubled, force=True)
    network = small("Own")
    deployed = deploy(network)
    assert set(forms(deployed)) == {"folded"}
    assert error(deployed, network, images()) <= EXACT


# ---------------------------------------------------------------- models


def classifier(**options):
    preprocessor = {"type": "ImagePreprocessor", "mean": [123.675] * 3, "std": [58.395] * 3}
    return lively(ImageClassifier(EANResNetCIFAR(20, "SE", scheme="full"), 10, preprocessor, **options))


def test_a_classifier_keeps_its_interface():
    model = classifier()
    deployed = deploy(model)
    assert isinstance(deployed, ImageClassifier)
    assert isinstance(deployed.backbone, DeployedBackbone)
    inputs, labels = images(4, 3, 32, 32).float(), torch.arange(4)
    with torch.no_grad():
        torch.testing.assert_close(deployed(inputs), model(inputs), rtol=1e-4, atol=1e-5)
        assert deployed(inputs, labels, mode="predict") == model(inputs, labels, mode="predict")
    assert deployed.summary() == deployed.backbone.summary()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_deployed_model_can_be_copied_and_pickled(again):
    deployed, inputs = deploy(classifier()), images(2, 3, 32, 32).float()
    copied = again(deployed)
    assert type(copied) is type(deployed)
    with torch.no_grad():
        assert torch.equal(copied(inputs), deployed(inputs))
    with pytest.raises(RuntimeError, match="for inference only"):
        copied.train()


@pytest.mark.parametrize("make", [deploy, fold])
def test_training_mode_is_refused_and_nothing_changes(make):
    for deployed in (make(classifier()), make(small())):
        with pytest.raises(
            RuntimeError, match=r"a deployed network is for inference only: .* Train the original network"
        ):
            deployed.train()
        assert not any(module.training for module in deployed.modules())
        assert deployed.eval() is deployed


def test_a_backbone_deep_inside_is_found():
    model = nn.ModuleDict({"encoder": nn.ModuleList([nn.Identity(), small()])})
    deployed = deploy(model)
    assert isinstance(deployed["encoder"][1], DeployedBackbone)
    assert isinstance(model["encoder"][1], EANResNet)


def test_a_model_without_a_backbone_is_refused():
    with pytest.raises(ValueError, match="Linear has no EANResNet or EANResNetCIFAR inside"):
        deploy(nn.Linear(2, 2))


@pytest.mark.parametrize("given", ["resnet50", None])
def test_what_is_no_network_is_refused(given):
    with pytest.raises(ValueError, match="deploy takes a network, got"):
        deploy(given)
    with pytest.raises(ValueError, match=r"dtype=bf16 is not a floating-point type; for example torch.bfloat16"):
        deploy(small(), dtype="bf16")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["SE", "SGE", "DIA"])
def test_half_precision_is_near_and_gates_and_images_stay_precise(dtype, attention):
    model = lively(
        ImageClassifier(EANResNet(50, attention, scheme="full", base_channels=16), 10, classifier_preprocessor)
    )
    deployed = deploy(model, dtype=dtype)
    inputs = images(2, 3, 64, 64).float()
    with torch.no_grad():
        features, expected = deployed.backbone(inputs)[-1], model.backbone(inputs)[-1]
    assert features.dtype == dtype
    assert deployed(inputs).dtype == dtype
    assert (features - expected).abs().max() <= 0.1 * expected.abs().max()
    assert next(deployed.backbone.stage(0)[0].attention.parameters()).dtype == torch.float32
    assert deployed.data_preprocessor.mean.dtype == torch.float32
    for half, single in zip(deployed.backbone.blocks(), deploy(model).backbone.blocks(), strict=True):
        weights = zip(half.attention.parameters(), single.attention.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in weights)  # not rounded and widened again


classifier_preprocessor = {"type": "ImagePreprocessor", "mean": [123.675] * 3, "std": [58.395] * 3}


def test_a_type_that_does_not_float_is_refused():
    with pytest.raises(ValueError, match=r"dtype=torch.int8 is not a floating-point type; for example torch.bfloat16"):
        deploy(small(), dtype=torch.int8)


@pytest.mark.parametrize("attention", ["SE", "DIA", {"type": "SGE", "groups": 8}])
def test_gradients_reach_the_image(attention):
    network = small(attention)
    inputs = images().requires_grad_()
    (grad,) = torch.autograd.grad(deploy(network)(inputs)[-1].sum(), inputs)
    (expected,) = torch.autograd.grad(network(inputs)[-1].sum(), inputs)
    torch.testing.assert_close(grad, expected)


def test_what_is_deployed_is_not_deployed_again():
    for deployed in (deploy(small()), deploy(classifier())):
        with pytest.raises(ValueError, match="is already deployed; deploy the original network"):
            deploy(deployed)


def test_autocast_does_not_change_the_networks_type():
    deployed, inputs = deploy(small("DIA").float()), images().float()
    with torch.no_grad():
        expected = deployed(inputs)[-1]
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(deployed(inputs)[-1], expected)


def test_recordings_are_dropped_when_weights_move():
    deployed = deploy(small(), cuda_graphs=True)
    deployed.graphs.recordings["key"] = object()
    deployed.float()
    assert not deployed.graphs.recordings


def test_images_of_any_type_and_order_are_taken():
    network = small().float()
    deployed = deploy(network)
    inputs = images()
    with torch.no_grad():
        expected = deployed(inputs.float())[-1]
        assert torch.equal(deployed(inputs)[-1], expected)
        assert torch.equal(deployed(inputs.contiguous(memory_format=torch.channels_last))[-1], expected)
    assert expected.is_contiguous(memory_format=torch.channels_last)


# ---------------------------------------------------------------- scale, shortcut, ReLU


@pytest.mark.parametrize("groups_last", [False, True])
@pytest.mark.parametrize("shape", [None, (2, 12, 1, 1), (2, 4, 1, 1), (2, 4, 5, 3), (2, 12, 5, 3)])
@pytest.mark.parametrize("grad", [False, True])
def test_the_end_of_a_block(shape, groups_last, grad):
    residual = images(2, 12, 5, 3, seed=2).contiguous(memory_format=torch.channels_last)
    shortcut = images(2, 12, 5, 3, seed=3).contiguous(memory_format=torch.channels_last)
    factor = None if shape is None else images(*shape, seed=4)
    whole = torch.ones(()) if factor is None else factor
    if shape is not None and shape[1] == 4:
        whole = factor.repeat(1, 3, 1, 1) if groups_last else factor.repeat_interleave(3, 1)
    expected = (shortcut + whole * residual).relu()
    kept = shortcut.clone()
    given_residual = residual.clone().requires_grad_(grad)
    got = scale_add_relu(given_residual, shortcut, factor, groups_last=groups_last)
    torch.testing.assert_close(got, expected)
    assert torch.equal(shortcut, kept)
    assert got.is_contiguous(memory_format=torch.channels_last)


# ---------------------------------------------------------------- kernels

INTERPRETED = """
import torch
from ean_core import EANResNet
from ean_core.inference import deploy, kernels, ops
from test_deploy import error, images, lively

assert kernels.INTERPRETED
calls = []
for name in ("scale_add_relu", "conv1x1_scale_add_relu", "se_gate", "dia_gate", "sge_gate"):
    kernel = getattr(kernels, name)
    setattr(kernels, name, lambda *a, kernel=kernel, name=name, **k: calls.append(name) or kernel(*a, **k))
for attention in ("SE", "DIA", {"type": "SGE", "groups": 16}):
    calls.clear()
    options = {"base_channels": 16, "num_stages": 2, "out_indices": (1,)}
    network = lively(EANResNet(50, attention, scheme="110-1001", **options))
    inputs = images(2, 3, 32, 32).float()
    deployed = deploy(network)
    assert error(deployed, network, inputs) <= 1e-5
    gate = {"SE": "se_gate", "DIA": "dia_gate"}.get(attention if isinstance(attention, str) else "", "sge_gate")
    assert calls.count("conv1x1_scale_add_relu") == 7 and calls.count(gate) == 4, calls
    ops._FUSED.update(dict.fromkeys(ops._FUSED, False))
    calls.clear()
    assert error(deployed, network, inputs) <= 1e-5
    assert calls.count("scale_add_relu") == 7 and "conv1x1_scale_add_relu" not in calls, calls
    ops._FUSED.clear()
    double = network.double()
    calls.clear()
    assert error(deploy(double), double, inputs.double()) <= 1e-10 and not calls  # there are no kernels for fp64
    print("equal")
"""


def test_networks_agree_through_the_kernels():
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    assert done.stdout.split().count("equal") == 3, done.stderr[-3000:]
