import pytest
import torch

from ean_core.attention.se import SE


def expected(module, residual):
    """The facts file's SE, image by image, in fp64."""
    w1, b1, w2, b2 = (parameter.double() for parameter in module.parameters())
    out = torch.empty(residual.shape, dtype=torch.float64)
    for n, image in enumerate(residual.double()):
        pooled = torch.stack([channel.sum() / channel.numel() for channel in image])
        hidden = torch.clamp(w1 @ pooled + b1, min=0)
        gate = 1 / (1 + torch.exp(-(w2 @ hidden + b2)))
        for c in range(len(gate)):
            out[n, c] = image[c] * gate[c]
    return out


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8)])
def test_se_is_pool_fc_relu_fc_sigmoid_scale(training, size):
    torch.manual_seed(0)
    module = SE(32, reduction=4).train(training)
    residual = torch.randn(3, 32, *size)
    with torch.no_grad():
        scaled, state = module(residual)
        assert torch.allclose(scaled.double(), expected(module, residual), rtol=1e-5, atol=1e-6)
        exact, _ = module.double()(residual.double())
    assert state is None
    assert torch.allclose(exact, expected(module, residual), rtol=1e-13, atol=1e-13)


def test_under_bf16_autocast_se_stays_within_bf16_of_the_exact_value():
    torch.manual_seed(0)
    module = SE(64)
    residual = torch.randn(2, 64, 14, 14).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scaled, _ = module(residual)
    assert scaled.dtype == torch.bfloat16
    assert torch.allclose(scaled.double(), expected(module, residual), rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize(("channels", "reduction", "hidden"), [(256, 16, 16), (64, 4, 16), (16, 4, 4), (8, 16, 1)])
def test_the_hidden_layer_has_c_over_r_units_and_at_least_one(channels, reduction, hidden):
    module = SE(channels, reduction)
    assert sum(p.numel() for p in module.parameters()) == 2 * channels * hidden + hidden + channels


def test_an_impossible_reduction_is_refused():
    with pytest.raises(ValueError, match="positive integer, got 0; for example 16"):
        SE(16, reduction=0)
