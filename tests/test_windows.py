import pytest
import torch

from ean_core.inference.ops import scale_add_relu
from ean_core.windows import at_positions, join_cores, window_means, windows_of

SIZES = [(1, 1), (7, 9), (8, 12), (9, 12), (40, 41), (96, 128)]
SIDES = [(8, 12), (1, 1), (7, 100)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", SIDES)
def test_the_cores_of_windows_cover_a_map_once(size, side):
    windows = windows_of(size, side)
    seen = torch.zeros(1, 1, *size)
    for window in windows:
        window.core_of(seen).add_(1)
        region = window.of(seen)
        assert region.shape[2:] == (min(size[0], side[0]), min(size[1], side[1]))
        assert window.top <= window.core[0] < window.core[2] <= window.bottom
        assert window.left <= window.core[1] < window.core[3] <= window.right
    assert (seen == 1).all()
    places = torch.arange(size[0] * size[1]).view(1, 1, *size)
    assert torch.equal(join_cores(windows, [window.core_of(places) for window in windows]), places)


@pytest.mark.parametrize("size", SIZES[:-1])
@pytest.mark.parametrize("side", SIDES)
def test_means_of_windows_are_those_of_each_window(size, side):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = torch.cat([window.of(x).mean((2, 3)) for window in windows_of(size, side)])
    assert torch.allclose(window_means(x, side), expected, rtol=0, atol=1e-12)


def test_means_of_windows_are_precise_for_maps_of_half_precision():
    x = (torch.rand(1, 4, 60, 60) + 100).half()
    exact = window_means(x.double(), (40, 40))
    assert torch.allclose(window_means(x, (40, 40), torch.float32).double(), exact, rtol=1e-6)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", SIDES[::2])
def test_gates_of_windows_scale_their_cores(size, side, grad):
    windows = windows_of(size, side)
    gate = torch.rand(len(windows) * 2, 3, dtype=torch.float64)
    residual, shortcut = (torch.randn(2, 3, *size, dtype=torch.float64).requires_grad_(grad) for _ in range(2))
    each = zip(windows, gate.chunk(len(windows)), strict=True)
    scaled = join_cores(windows, [own[:, :, None, None] * window.core_of(residual) for window, own in each])
    expected = (shortcut + scaled).relu().detach()
    assert torch.allclose(scale_add_relu(residual, shortcut, at_positions(gate, size, side)), expected)
