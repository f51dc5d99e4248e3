from itertools import pairwise

import pytest
import torch

from ean_core import EANResNetCIFAR
from ean_core.attention.dia import DIA


def expected(module, residuals):
    """The facts file's DIA over the connected blocks of a stage, in fp64; also the last state."""
    weights = {name: parameter.double() for name, parameter in module.named_parameters()}

    def squeezed(name, v):
        hidden = (v @ weights[f"{name}.0.weight"].T + weights[f"{name}.0.bias"]).clamp(min=0)
        return hidden @ weights[f"{name}.2.weight"].T + weights[f"{name}.2.bias"]

    N, C = residuals[0].shape[:2]
    h = c = torch.zeros(N, C, dtype=torch.float64)
    out = []
    for residual in residuals:
        residual = residual.double()
        gates = squeezed("w_ih", residual.flatten(2).mean(2)) + squeezed("w_hh", h)
        i, f, g, o = (gates[:, k * C : (k + 1) * C] for k in range(4))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.sigmoid(c)
        out.append(residual * h.view(N, C, 1, 1))
    return out, (h, c)


def walk(module, residuals):
    state, out = None, []
    for residual in residuals:
        scaled, state = module(residual, state)
        out.append(scaled)
    return out, state


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_dia_is_an_lstm_cell_with_a_sigmoid_output_that_walks_over_the_blocks(training, size):
    torch.manual_seed(0)
    module = DIA(24, reduction=4).train(training)
    residuals = [torch.randn(2, 24, *size) for _ in range(4)]
    with torch.no_grad():
        out, state = walk(module, residuals)
        for mine, theirs in zip(
            [*out, *state], [*expected(module, residuals)[0], *expected(module, residuals)[1]], strict=True
        ):
            assert torch.allclose(mine.double(), theirs, rtol=1e-5, atol=1e-6)
        out, _ = walk(module.double(), [residual.double() for residual in residuals])
    for mine, theirs in zip(out, expected(module, residuals)[0], strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-13, atol=1e-13)


def test_with_plain_maps_and_tanh_it_is_torchs_lstm_cell():
    torch.manual_seed(0)
    C = 6
    module, cell = DIA(C, reduction=1).double(), torch.nn.LSTMCell(C, C).double()
    x = [torch.rand(3, C, 1, 1, dtype=torch.float64) for _ in range(3)]
    with torch.no_grad():
        for mine, weight, bias in [
            (module.w_ih, cell.weight_ih, cell.bias_ih),
            (module.w_hh, cell.weight_hh, cell.bias_hh),
        ]:
            mine[0].weight.copy_(torch.eye(C))  # inputs and hidden states are positive, so ReLU is the identity
            mine[0].bias.zero_()
            mine[2].weight.copy_(weight)
            mine[2].bias.copy_(bias)
        theirs = mine = None
        for residual in x:
            _, mine = module(residual, mine)
            theirs = cell(residual.flatten(1), theirs)
            assert torch.allclose(mine[1], theirs[1])
            ratio = mine[1].sigmoid() / mine[1].tanh()
            assert torch.allclose(mine[0], theirs[0] * ratio)
            theirs = mine


def test_under_bf16_autocast_dia_stays_within_bf16_of_the_exact_value():
    torch.manual_seed(0)
    module = DIA(64, reduction=4)
    residuals = [torch.randn(2, 64, 7, 7).bfloat16() for _ in range(4)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out, _ = walk(module, residuals)
    for mine, theirs in zip(out, expected(module, residuals)[0], strict=True):
        assert mine.dtype == torch.bfloat16
        assert torch.allclose(mine.double(), theirs, rtol=3e-2, atol=1e-2)


@pytest.mark.parametrize(("channels", "reduction"), [(256, 20), (64, 4)])
def test_both_maps_are_squeezed_and_biased(channels, reduction):
    hidden = channels // reduction
    one = channels * hidden + hidden + hidden * 4 * channels + 4 * channels
    assert sum(p.numel() for p in DIA(channels, reduction).parameters()) == 2 * one


def test_in_a_network_the_state_starts_at_zero_in_each_stage_and_advances_only_at_connected_blocks():
    torch.manual_seed(0)
    network = EANResNetCIFAR(20, "DIA", scheme="full").eval()
    network.set_scheme("101-011-010")
    seen = []
    for name, module in network.attentions().items():
        module.register_forward_hook(lambda m, given, result, name=name: seen.append((name, *given, result[1])))
    with torch.no_grad():
        network(torch.randn(2, 3, 16, 16))
    stages = ("layer1.attention", "layer2.attention", "layer3.attention")
    assert [name for name, *_ in seen] == [stages[k] for k in (0, 0, 1, 1, 2)]
    for stage in stages:
        calls = [call[1:] for call in seen if call[0] == stage]
        assert calls[0][1] is None
        _, state = expected(network.attentions()[stage], [residual for residual, _, _ in calls])
        for mine, theirs in zip(calls[-1][2], state, strict=True):
            assert torch.allclose(mine.double(), theirs, atol=1e-5)
        for (_, _, left), (_, found, _) in pairwise(calls):
            assert found is left
