"""Stages and blocks are modules like torchvision's: what hooks, extractors, CAM tools and tracers see is the map."""

import copy
import pickle

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from pytorch_grad_cam import GradCAM
from torch import fx
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.distributed.utils import _cast_forward_inputs
from torch.optim.swa_utils import AveragedModel
from torchcam.methods import GradCAM as TorchCAM
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.feature_extraction import create_feature_extractor

from ean_core import EANResNet, ImageClassifier
from ean_core.layers import BlockContext, ResidualBlock

ATTENTIONS = [{"type": "SE", "reduction": 4}, {"type": "SGE", "groups": 4}, {"type": "DIA", "reduction": 4}]
#: Attention, connections, and whether the blocks of a stage share a module.
CASES = [
    *((attention, scheme, True) for attention in ATTENTIONS for scheme in ("full", "10-01-11-00", "none")),
    *((attention, scheme, False) for attention in ATTENTIONS[:2] for scheme in ("full", "10-01-11-00")),
]
LAYERS = ["layer1", "layer2", "layer3", "layer4"]


def ids(value):
    return value["type"] if isinstance(value, dict) else {True: "shared", False: "own"}.get(value, value)


def backbone(attention, scheme="full", shared=True, **options):
    torch.manual_seed(0)
    made = EANResNet(18, attention, scheme, shared=shared, base_channels=16, zero_init_residual=False, **options)
    for name, parameter in made.named_parameters():
        if ".attention." in name:
            torch.nn.init.normal_(parameter, std=0.5)  # gates that differ
    return made.eval()


def classifier(*case):
    return ImageClassifier(backbone(*case), 5).eval()


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(ids, case)))
def case(request):
    return request.param


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------- what a stage is


def test_a_stage_maps_its_input_to_the_map_that_forward_returns(case, x):
    network = backbone(*case)
    maps = network(x)
    y = network.forward_stem(x)
    for name, expected in zip(LAYERS, maps, strict=True):
        y = getattr(network, name)(y)
        assert torch.equal(y, expected)


def test_hooks_on_stages_and_blocks_see_the_map(case, x):
    network, seen = backbone(*case), {}
    for name in LAYERS:
        stage = getattr(network, name)
        stage.register_forward_hook(lambda module, given, found, name=name: seen.update({name: found}))
        stage[-1].register_forward_hook(lambda module, given, found, name=name: seen.update({f"{name}[-1]": found}))
    for name, feature in zip(LAYERS, network(x), strict=True):
        assert seen[name] is feature
        assert seen[f"{name}[-1]"] is feature


def test_a_stage_iterates_and_indexes_over_its_blocks_only():
    stage = backbone(ATTENTIONS[0]).layer2
    blocks = list(stage)
    assert len(stage) == len(blocks) == 2
    assert all(isinstance(block, ResidualBlock) for block in blocks)
    assert (stage[0], stage[-1], stage[:1]) == (blocks[0], blocks[1], blocks[:1])
    assert [name for name, _ in stage.named_children()] == ["0", "1", "attention"]
    with pytest.raises(IndexError):
        stage[2]


def test_a_block_by_itself_takes_its_own_module_and_asks_for_a_shared_one(x):
    own = backbone(ATTENTIONS[0], shared=False)
    stem = own.forward_stem(x)
    assert torch.equal(own.layer1[1](own.layer1[0](stem)), own(x)[0])
    shared = backbone(ATTENTIONS[0])
    stem = shared.forward_stem(x)
    with pytest.raises(
        ValueError, match=r"attention module of its stage; call the stage, or pass the module: block\(x"
    ):
        shared.layer1[0](stem)
    first = shared.layer1[0](stem, BlockContext(shared.layer1.attention))
    assert torch.equal(shared.layer1[1](first, BlockContext(shared.layer1.attention)), shared(x)[0])


def test_nothing_of_a_call_stays_on_the_modules(case, x):
    network = backbone(*case)
    before = {name: dict(vars(module)) for name, module in network.named_modules()}
    network(x)
    for name, module in network.named_modules():
        assert {key: id(value) for key, value in vars(module).items()} == {k: id(v) for k, v in before[name].items()}


# ---------------------------------------------------------------- tools


def test_torchvisions_feature_extractor_returns_the_maps(case, x):
    network = backbone(*case)
    found = create_feature_extractor(network, {name: name for name in LAYERS})(x)
    assert all(torch.equal(found[name], feature) for name, feature in zip(LAYERS, network(x), strict=True))


def test_a_feature_extractor_takes_a_whole_classifier(x):
    network = classifier(ATTENTIONS[2], "10-01-11-00")
    found = create_feature_extractor(network, {"backbone.layer4": "map", "fc": "logits"})(x)
    assert torch.equal(found["map"], network.backbone(x)[-1])
    assert torch.equal(found["logits"], network(x))


def test_torchvisions_layer_getter_returns_the_maps(case, x):
    network = backbone(*case)
    found = IntermediateLayerGetter(network, {name: name for name in LAYERS})(x)
    assert all(torch.equal(found[name], feature) for name, feature in zip(LAYERS, network(x), strict=True))


def test_pytorch_grad_cam_takes_the_last_block(case, x):
    network = classifier(*case)
    with GradCAM(model=network, target_layers=[network.backbone.layer4[-1]]) as cam:
        found = torch.from_numpy(cam(input_tensor=x, targets=None))
    assert found.shape == (2, 64, 64)
    with torch.enable_grad():
        feature = network.backbone(x)[-1].detach().requires_grad_()
        logits = network.head(feature)
        logits.max(1).values.sum().backward()
    expected = (feature.grad.mean((2, 3), keepdim=True) * feature).sum(1).relu().detach()  # (N, 2, 2)
    expected -= expected.amin((1, 2), keepdim=True)
    expected /= expected.amax((1, 2), keepdim=True) + 1e-7
    large = torch.nn.functional.interpolate(expected[:, None], (64, 64), mode="bilinear")[:, 0]
    assert torch.allclose(found, large, atol=0.02)


def test_torch_cam_chooses_the_last_map_by_default(case, x):
    network = classifier(*case)
    cam = TorchCAM(network, input_shape=(3, 64, 64))
    try:
        assert cam.target_names == ["backbone.layer4"]
        logits = network(x[:1])
        (found,) = cam(int(logits.argmax()), logits)
    finally:
        cam.remove_hooks()
    assert found.shape == (1, 2, 2)


# ---------------------------------------------------------------- tracing, copying


def test_symbolic_tracing_computes_the_same_at_any_size(case):
    network = backbone(*case)
    traced = fx.symbolic_trace(network)
    for size in ((2, 3, 64, 64), (1, 3, 32, 96)):  # at 32 pixels the last maps have a height of one
        image = torch.randn(size)
        assert all(map(torch.equal, traced(image), network(image)))


@pytest.mark.parametrize("attention", ATTENTIONS, ids=ids)
def test_a_map_of_one_position_is_traced_too(attention):
    network = backbone(attention)
    traced, image = fx.symbolic_trace(network), torch.randn(2, 3, 32, 32)
    assert network(image)[-1].shape[2:] == (1, 1)
    assert all(map(torch.equal, traced(image), network(image)))
    network(image)[-1].sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


TRACED = [
    *((attention, scheme, True) for attention in ATTENTIONS for scheme in ("full", "10-01-11-00")),
    (ATTENTIONS[0], "none", True),
    (ATTENTIONS[0], "10-01-11-00", False),
]


@pytest.mark.parametrize("traced", TRACED, ids=lambda case: "-".join(map(ids, case)))
def test_traced_and_exported_programs_compute_the_same(traced, x):
    network = backbone(*traced)
    expected = network(x)
    auto = torch.export.Dim.AUTO
    program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("n"), 2: auto, 3: auto},))
    other = torch.randn(3, 3, 96, 128)
    for made, image, wanted in (
        (torch.jit.trace(network, x), x, expected),
        (program.module(), x, expected),
        (program.module(), other, network(other)),
    ):
        for mine, theirs in zip(made(image), wanted, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_copies_compute_the_same(case, x):
    network = backbone(*case)
    averaged, smoothed = AveragedModel(network), ExponentialMovingAverage(network)
    averaged.update_parameters(network)
    smoothed.update_parameters(network)
    copies = (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), averaged.module, smoothed.module)
    for twin in copies:
        assert all(map(torch.equal, twin.eval()(x), network(x)))


def test_a_network_with_compiled_blocks_is_pickled_and_copied(x):
    network = backbone(ATTENTIONS[2], "10-01-11-00")
    expected = network(x)
    network.compile_blocks(backend="eager")
    assert all(map(torch.equal, network(x), expected))
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert all(map(torch.equal, twin(x), expected))
        assert twin.layer1[0].run is twin.layer4[1].run  # still compiled, once for all blocks
        assert twin.layer1[0].run.options == network.layer1[0].run.options


# ---------------------------------------------------------------- recomputation


def gradients(network, x):
    network.zero_grad()
    network(x)[-1].square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


@pytest.mark.parametrize(("attention", "shared"), [*((a, True) for a in ATTENTIONS), (ATTENTIONS[0], False)], ids=ids)
@pytest.mark.parametrize("wrapped", [False, True], ids=["with_cp", "wrapped from outside"])
def test_recomputed_blocks_have_the_same_gradients(attention, shared, wrapped, x):
    plain, recomputed = (backbone(attention, shared=shared, with_cp=cp) for cp in (False, not wrapped))
    if wrapped:
        apply_activation_checkpointing(recomputed, check_fn=lambda module: isinstance(module, ResidualBlock))
    image = x.clone().requires_grad_()
    found = gradients(recomputed, image)
    for name, gradient in gradients(plain, image).items():
        same = (
            name
            if not wrapped
            else next(key for key in found if key.replace("_checkpoint_wrapped_module.", "") == name)
        )
        torch.testing.assert_close(found[same], gradient, atol=1e-7, rtol=1e-4)


def test_a_wrapper_that_casts_inputs_leaves_the_state(x):
    """FSDP with mixed precision copies the containers that it knows, dataclasses too, before it calls a block."""
    plain, wrapped = (backbone(ATTENTIONS[2]) for _ in range(2))
    for stage in map(wrapped.stage, range(4)):
        for block in stage:
            block.register_forward_pre_hook(lambda module, given: _cast_forward_inputs(torch.float32, *given)[0])
    assert all(map(torch.equal, wrapped(x), plain(x)))


def test_settings_reach_blocks_inside_wrappers(x):
    network = backbone(ATTENTIONS[0])
    apply_activation_checkpointing(network, check_fn=lambda module: isinstance(module, ResidualBlock))
    network.set_scheme("none")
    network.set_grad_checkpointing()
    network.compile_blocks(backend="eager")
    inside = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    assert len(inside) == 8
    assert not any(block.connected for block in inside)
    assert all(block.with_cp for block in inside)
    assert len({block.run for block in inside}) == 1
    plain = EANResNet(18, ATTENTIONS[0], "none", base_channels=16)
    plain.load_state_dict(network.state_dict(), strict=False)
    for mine, theirs in zip(network(x), plain.eval()(x), strict=True):
        torch.testing.assert_close(mine, theirs)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("whole", [False, True], ids=["backbone", "classifier"])
def test_weights_of_the_earlier_names_load(shared, whole, x):
    network = classifier(ATTENTIONS[0], "10-01-11-00", shared) if whole else backbone(ATTENTIONS[0], "full", shared)
    head = "backbone." if whole else ""
    earlier = {}
    for name, value in network.state_dict().items():
        stage, _, rest = name.removeprefix(head).partition(".attention.")
        earlier[f"{head}attention.{stage.replace('.', '_')}.{rest}" if rest else name] = torch.full_like(value, 2)
    assert earlier.keys() != network.state_dict().keys()
    assert f"{head}attention.layer1{'' if shared else '_0'}.fc1.weight" in earlier
    network.load_state_dict(earlier)
    assert all((value == 2).all() for value in network.state_dict().values())
