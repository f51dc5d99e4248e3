import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import ean_core.attention
from ean_core import ATTENTION, Attention, EANResNet, EANResNetCIFAR
from ean_core.attention import attention_class
from ean_core.inference import deploy
from ean_core.windows import windows_of

NAMES = ["SE", "SGE", "DIA"]


def made(name, channels=64):
    torch.manual_seed(0)
    module = attention_class(name)(channels)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


@pytest.fixture
def half():
    """A custom module, as a user would register it."""

    @ATTENTION.register_module()
    class Half(Attention):
        def __init__(self, channels, factor=0.5):
            super().__init__(channels)
            self.factor = nn.Parameter(torch.full((channels,), factor))

        def extract(self, residual):
            return residual.new_zeros(())

        def process(self, extracted, state):
            count = torch.zeros(()) if state is None else state[0]
            return self.factor, (count + 1,)

        def recalibrate(self, residual, gate):
            return residual * gate[:, None, None]

    yield Half
    ATTENTION.module_dict.pop("Half")


def test_every_file_of_the_folder_is_imported_and_registers_its_module():
    files = {path.stem for path in Path(ean_core.attention.__file__).parent.glob("*.py")} - {"__init__", "base"}
    modules = {f"ean_core.attention.{name}" for name in files}
    assert modules <= sys.modules.keys()
    assert {cls.__module__ for cls in ATTENTION.module_dict.values()} == modules
    assert set(NAMES) <= ATTENTION.module_dict.keys()


def test_a_registered_class_works_by_name_in_every_network(half):
    assert attention_class("Half") is half
    for network in (EANResNet(18, "Half", scheme="full"), EANResNetCIFAR(20, "Half", scheme="100-010-001")):
        assert len(network(torch.randn(2, 3, 32, 32))) == len(network.stage_blocks)
        assert {type(module) for module in network.attentions().values()} == {half}


def test_a_registered_class_takes_options_and_scales_the_residual_branch(half):
    torch.manual_seed(0)
    network = EANResNetCIFAR(20, {"type": "Half", "factor": 0.0}, scheme="full").eval()
    torch.manual_seed(0)
    x = torch.randn(1, 3, 16, 16)
    shortcut_only = network.forward_stem(x)
    for _, _, block in network.blocks():
        shortcut_only = torch.relu(block.branches(shortcut_only)[1])
    assert torch.equal(network(x)[-1], shortcut_only)


def test_a_module_that_lacks_a_step_cannot_be_made():
    class Unfinished(Attention):
        def extract(self, residual):
            return residual

        def process(self, extracted, state):
            return extracted, state

    with pytest.raises(TypeError, match="recalibrate"):
        Unfinished(8)


@pytest.mark.parametrize("name", ["SEE", "se", "", "torch.nn.ReLU", None, 3])
def test_an_unknown_name_is_answered_with_those_there_are(name):
    with pytest.raises(ValueError, match=f"unknown attention {name!r}.* from 'DIA', 'SE', 'SGE'"):
        attention_class(name)


@pytest.mark.parametrize("name", NAMES)
def test_forward_is_extract_process_recalibrate(name):
    module = made(name)
    residual = torch.randn(2, 64, 5, 5)
    _, state = module(residual)
    for given in (None, state):
        gate, left = module.process(module.extract(residual), given)
        scaled, result = module(residual, given)
        assert torch.equal(scaled, module.recalibrate(residual, gate))
        assert (left is None) == (result is None)
        assert all(torch.equal(a, b) for a, b in zip(left or (), result or (), strict=True))


@pytest.mark.parametrize(("name", "keeps"), [("SE", False), ("SGE", False), ("DIA", True)])
def test_only_dia_keeps_a_state_between_blocks(name, keeps):
    module = made(name)
    residual = torch.randn(2, 64, 5, 5)
    first, state = module(residual)
    second, _ = module(residual, state)
    assert (state is not None) == keeps
    assert torch.equal(first, second) != keeps


@pytest.mark.parametrize("name", NAMES)
def test_the_residual_given_is_not_changed(name):
    residual = torch.randn(2, 64, 5, 5)
    before = residual.clone()
    made(name)(residual)
    assert torch.equal(residual, before)


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_gives_the_same_values_and_stays_channels_last(name):
    module = made(name)
    residual = torch.randn(2, 64, 6, 6)
    with torch.no_grad():
        plain, _ = module(residual)
        last, _ = module(residual.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(plain, last, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_and_dtype_are_those_of_the_residual(name, dtype):
    residual = torch.randn(2, 64, 3, 4, dtype=dtype)
    scaled, _ = made(name).to(dtype)(residual)
    assert (scaled.shape, scaled.dtype) == (residual.shape, dtype)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.3, -1e4, 1e-20])
@pytest.mark.parametrize("size", [1, 4])
def test_gradients_are_finite_at_constant_maps(name, value, size):
    module = made(name)
    residual = torch.full((2, 64, size, size), value, requires_grad=True)
    first, state = module(residual)
    second, _ = module(residual, state)
    (first.sum() + second.sum()).backward()
    for tensor in (residual, *module.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name):
    module = attention_class(name)(4, **{"SGE": {"groups": 2}}.get(name, {"reduction": 2})).double()
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)

    def two_blocks(residual, *_):
        first, state = module(residual)
        return module(first, state)[0]

    residual = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(two_blocks, (residual, *module.parameters()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", ["full", "some", "none"])
@pytest.mark.parametrize("depth", [18, 50])
def test_with_identity_start_new_attention_leaves_pretrained_features_as_they_were(name, scheme, depth):
    scheme = {"some": "01-10-11-00" if depth == 18 else "010-0110-000001-000"}.get(scheme, scheme)
    plain = trained(EANResNet(depth, scheme="none"))
    attended = EANResNet(depth, {"type": name, "identity_start": True}, scheme=scheme).double().eval()
    attended.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = plain(images)[-1]
        found = attended(images)[-1]
        deployed = deploy(attended)(images)[-1]
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(deployed, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_identity_start_learns(name):
    torch.manual_seed(0)
    module = attention_class(name)(64, identity_start=True)
    residual = torch.randn(2, 64, 5, 7)
    for _ in range(3):  # the first layers learn from the second step on
        module.zero_grad()
        out, _ = module(residual)
        (out * torch.linspace(-1, 1, 64)[:, None, None] * torch.randn(5, 7)).sum().backward()
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad.sign()
    out, _ = module(residual)
    assert not torch.allclose(out, residual, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [18, 50])
def test_the_deployed_form_has_the_gain_of_identity_start(name, depth):
    backbone = trained(EANResNet(depth, {"type": name, "identity_start": True}, scheme="full"))
    for module in backbone.attentions().values():
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(deploy(backbone)(images)[-1], backbone(images)[-1], rtol=1e-9, atol=1e-9)
        assert not torch.allclose(deploy(without_gain(backbone))(images)[-1], backbone(images)[-1], rtol=1e-3)


def trained(backbone):
    """Give all norms values of their own, for a residual branch that starts at zero hides its gate."""
    torch.manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.6)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return backbone.double().eval()


def without_gain(backbone):
    copied = copy.deepcopy(backbone)
    for module in copied.attentions().values():
        module.gain = 1.0
    return copied


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("identity", [False, True])
def test_windows_have_gates_of_their_own_in_the_deployed_form_too(name, depth, identity):
    options = {"type": name, "identity_start": identity}
    windowed = trained(
        EANResNet(depth, {**options, "window": (64, 96)}, scheme="full", num_stages=3, strides=(1, 2, 1))
    )
    plain = trained(EANResNet(depth, options, scheme="full", num_stages=3, strides=(1, 2, 1)))
    for module in plain.attentions().values():
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
    windowed.load_state_dict(plain.state_dict())
    crop = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    image = torch.randn(2, 3, 150, 200, dtype=torch.float64)
    image[..., 100:] *= 3  # so that windows differ
    with torch.no_grad():
        assert torch.equal(windowed(crop)[-1], plain(crop)[-1])
        assert not torch.allclose(windowed(image)[-1], plain(image)[-1], rtol=1e-3)
        assert torch.allclose(deploy(windowed)(image)[-1], windowed(image)[-1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_core_of_a_window_is_scaled_as_the_window_alone_would_be(name):
    torch.manual_seed(0)
    module = attention_class(name)(64, window=(6, 8))
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    residual = torch.randn(2, 64, 13, 20, dtype=torch.float64)
    first, state = module.double()(residual)
    second, _ = module(first, state)
    windows = windows_of((13, 20), (6, 8))
    assert len(windows) == 4 * 4
    for window in windows:
        alone, state = module(window.of(residual))
        assert torch.allclose(window.core_of(first), window.inner(alone), rtol=1e-12)
        # the state of a window stays with it; the cores around it have gates of their own
        gate, _ = module.process(module.extract(window.of(first)), state)
        expected = module.recalibrate(window.core_of(first), window.inner(gate))
        assert torch.allclose(window.core_of(second), expected, rtol=1e-12)


def test_a_window_is_in_pixels_of_the_image():
    backbone = EANResNet(18, {"type": "SE", "window": (256, 320)}, scheme="full", num_stages=3, strides=(1, 2, 1))
    assert [module.window for module in backbone.attentions().values()] == [(64, 80), (32, 40), (32, 40)]


@pytest.mark.parametrize("window", [(256,), 5, "ab", (0, 8), (256.0, 320)])
def test_a_window_that_is_not_two_sides_is_refused(window):
    with pytest.raises(ValueError, match=r"window must be height and width in pixels, got .*; for example"):
        EANResNet(18, {"type": "SE", "window": window}, scheme="full")
