import pytest
import torch

from ean_core.attention.sge import SGE


def expected(module, residual):
    """The facts file's SGE, group by group, in fp64."""
    groups, residual = module.groups, residual.double()
    N, C, H, W = residual.shape
    out = torch.empty_like(residual)
    for n in range(N):
        for g in range(groups):
            span = slice(g * C // groups, (g + 1) * C // groups)
            part = residual[n, span].reshape(-1, H * W)
            pooled = part.sum(1) / (H * W)
            similarity = torch.stack([torch.dot(part[:, p], pooled) for p in range(H * W)])
            if H * W > 1:
                centred = similarity - similarity.sum() / (H * W)
                normalised = centred / ((centred**2).sum().div(H * W - 1).sqrt() + 1e-5)
            else:
                normalised = torch.zeros_like(similarity)
            logits = module.weight[g].double() * normalised + module.bias[g].double()
            out[n, span] = (part / (1 + torch.exp(-logits))).reshape(-1, H, W)
    return out


def randomised(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 5), (8, 8)])
@pytest.mark.parametrize("groups", [1, 4, 32])
def test_sge_is_normalised_similarity_with_the_pooled_group_vector(training, size, groups):
    torch.manual_seed(0)
    module = randomised(SGE(32, groups)).train(training)
    residual = torch.randn(2, 32, *size)
    with torch.no_grad():
        scaled, state = module(residual)
        assert torch.allclose(scaled.double(), expected(module, residual), rtol=1e-4, atol=1e-5)
        exact, _ = module.double()(residual.double())
    assert state is None
    assert torch.allclose(exact, expected(module, residual), rtol=1e-12, atol=1e-12)


def test_the_std_is_unbiased_and_eps_is_added_after_it():
    module = SGE(1, groups=1).double()
    residual = torch.tensor([1.0, 1.00001], dtype=torch.float64).view(1, 1, 1, 2)
    similarity = residual.flatten() * residual.mean()
    distance = (similarity[1] - similarity[0]).item()
    std = distance / 2**0.5
    assert module.extract(residual).flatten().tolist() == pytest.approx(
        [-distance / 2 / (std + 1e-5), distance / 2 / (std + 1e-5)], rel=1e-9
    )


def test_a_new_module_scales_everything_by_the_sigmoid_of_its_bias_of_one():
    residual = torch.randn(2, 64, 4, 4)
    assert torch.allclose(SGE(64)(residual)[0], residual * torch.sigmoid(torch.tensor(1.0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_map_of_one_position_is_scaled_by_the_sigmoid_of_the_bias(dtype):
    torch.manual_seed(0)
    module = randomised(SGE(8, groups=4))
    residual = torch.randn(3, 8, 1, 1, dtype=dtype, requires_grad=True)
    scaled, _ = module(residual)
    gate = torch.sigmoid(module.bias).repeat_interleave(2).view(1, 8, 1, 1)
    assert torch.allclose(scaled, residual * gate.to(dtype))
    scaled.sum().backward()
    assert all(p.grad.isfinite().all() for p in [residual, *module.parameters()])


@pytest.mark.parametrize("scale", [1, 1e-3], ids=["ordinary", "tiny"])
def test_under_bf16_autocast_the_statistics_are_as_exact_as_in_fp32(scale):
    torch.manual_seed(0)
    module = randomised(SGE(64, groups=8))
    residual = ((3 + torch.randn(2, 64, 28, 28)) * scale).bfloat16()
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            extracted = module.extract(residual)
            scaled, _ = module(residual)
        assert extracted.dtype == torch.float32
        assert torch.allclose(extracted.double(), module.extract(residual.double()), rtol=1e-3, atol=1e-4)
    assert scaled.dtype == torch.bfloat16
    assert torch.allclose(scaled.double(), expected(module, residual), rtol=1.5e-2, atol=1e-6)


@pytest.mark.parametrize(("channels", "groups", "near"), [(64, 48, 32), (16, 64, 16), (10, 0, 1), (30, 7, 6)])
def test_groups_that_do_not_divide_the_channels_are_refused_with_some_that_do(channels, groups, near):
    with pytest.raises(ValueError, match=f"groups={groups} does not divide {channels} .* groups={near} does"):
        SGE(channels, groups)
