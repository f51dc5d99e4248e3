import copy

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from ean_core.inference import deploy
from tasks.crowd_counting.network import CrowdCounter, LiftedReLU, sum_cells

from .drawn import block_sum

LIGHT = {"type": "EANResNetCIFAR", "depth": 20, "attention": "SE", "scheme": "010-100-000", "stem_stride": 2}
PAPER = {"type": "EANResNet", "depth": 50, "num_stages": 3, "strides": (1, 2, 1)}


def counter(backbone=None, seed=0, **options):
    torch.manual_seed(seed)
    return MODELS.build({"type": "CrowdCounter", "backbone": dict(backbone or LIGHT), **options})


def images(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loss_of(model, number, size=(32, 48)):
    points = [torch.tensor([[4.0, 4.0]])] * number
    return model(images(number, 3, *size), points, torch.zeros(number, 1, *size), mode="loss")


# ---------------------------------------------------------------- what it is


@pytest.mark.parametrize(
    ("backbone", "stride"),
    [
        (LIGHT, 8),
        (PAPER, 8),
        ({**LIGHT, "stem_stride": 1}, 4),
        ({**LIGHT, "stem_stride": 4}, 16),
        ({"type": "EANResNet", "depth": 18, "scheme": "none"}, 32),
        ({"type": "EANResNet", "depth": 18, "scheme": "none", "out_indices": (1,)}, 8),
        ({"type": "EANResNet", "depth": 18, "scheme": "none", "strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)}, 8),
    ],
)
def test_the_stride_is_that_of_the_backbones_last_map(backbone, stride):
    model = counter(backbone).eval()
    assert model.stride == stride
    with torch.no_grad():
        assert model(images(1, 3, 64, 96)).shape == (1, 1, 64 // stride, 96 // stride)


def test_the_papers_counter_has_the_leading_stages_of_the_recorded_scheme():
    for attention, scheme in (("SE", "010-0010-110011"), ("SGE", "100-1011-010011"), ("DIA", "110-0011-110010")):
        model = counter({**PAPER, "attention": attention})
        assert str(model.backbone.scheme) == scheme
        assert [layer.out_channels for layer in model.density if isinstance(layer, nn.Conv2d)] == [128, 1]
        assert model.density[0].in_channels == 1024


@pytest.mark.parametrize("size", [(64, 96), (61, 91), (1, 1), (8, 7), (33, 200)])
def test_a_picture_of_any_size_has_a_cell_for_each_part_of_it(size):
    model = counter().eval()
    with torch.no_grad():
        found = model(images(2, 3, *size))
    assert found.shape == (2, 1, -(-size[0] // 8), -(-size[1] // 8))
    assert (found >= 0).all()


def test_a_fresh_counter_is_above_zero_everywhere():
    for seed in range(5):
        with torch.no_grad():
            found = counter(seed=seed).train()(images(4, 3, 96, 96, seed=seed))
        assert (found > 0).float().mean() > 0.99
        assert 0.003 < found.mean() < 0.03


# ---------------------------------------------------------------- modes


def test_predictions_name_the_picture_and_the_number_of_its_points():
    model = counter().eval()
    inputs = images(2, 3, 40, 50)
    points = [torch.zeros(3, 2), torch.zeros(0, 2)]
    with torch.no_grad():
        found = model(inputs, points, name=["a", "b"], mode="predict")
        cells = model(inputs)
    assert [(one["name"], one["points"]) for one in found] == [("a", 3), ("b", 0)]
    assert [one["count"] for one in found] == pytest.approx(cells.sum((1, 2, 3)).tolist(), rel=1e-5)


def test_a_wrong_mode_and_missing_points_are_said():
    model = counter()
    with pytest.raises(ValueError, match="unknown mode 'tensr'; did you mean 'tensor'"):
        model(images(1, 3, 16, 16), mode="tensr")
    with pytest.raises(ValueError, match="mode='loss' needs points and density"):
        model(images(1, 3, 16, 16), [torch.zeros(0, 2)], mode="loss")
    with pytest.raises(ValueError, match="mode='predict' needs points"):
        model(images(1, 3, 16, 16), mode="predict")


@pytest.mark.parametrize(("stem_stride", "stride"), [(1, 4), (2, 8), (4, 16)])
@pytest.mark.parametrize("size", [(32, 48), (30, 41)])
def test_the_target_is_summed_over_the_cells_of_the_network_whatever_its_stride(stem_stride, stride, size):
    model = counter({**LIGHT, "stem_stride": stem_stride}).train()
    seen = {}

    def keep(predicted, density, points, cell):
        seen.update(predicted=predicted, density=density, stride=cell)
        return {"loss": predicted.sum()}

    model.loss.forward = keep
    density = torch.rand(2, 1, *size)
    model(images(2, 3, *size), [torch.zeros(0, 2)] * 2, density, mode="loss")
    assert seen["stride"] == stride
    assert seen["density"].shape == seen["predicted"].shape
    for found, pixels in zip(seen["density"], density, strict=True):
        assert torch.allclose(found[0], torch.tensor(block_sum(pixels[0].double().numpy(), stride)).float(), rtol=1e-5)


@pytest.mark.parametrize("shape", [(16, 24), (17, 23), (1, 1), (7, 9)])
@pytest.mark.parametrize("stride", [1, 8, 16])
def test_sums_over_cells_are_exact_also_where_a_side_is_no_multiple(shape, stride):
    density = torch.rand(2, 1, *shape, dtype=torch.float64)
    cells = sum_cells(density, stride)
    for found, pixels in zip(cells, density, strict=True):
        assert np.allclose(found[0], block_sum(pixels[0].numpy(), stride), rtol=1e-12)
    assert cells.sum().item() == pytest.approx(density.sum().item(), rel=1e-12)


def test_a_density_of_another_size_than_the_images_is_refused():
    with pytest.raises(ValueError, match="the size of the images, 32 x 48, got 4 x 6"):
        counter()(images(1, 3, 32, 48), [torch.zeros(0, 2)], torch.zeros(1, 1, 4, 6), mode="loss")


@pytest.mark.parametrize("loss", ["DensityL2", "BayesianLoss", "DMCountLoss"])
def test_each_loss_trains_all_parameters_under_bf16_autocast_too(loss):
    model = counter(loss={"type": loss}).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = loss_of(model, 2)
    assert all(part.dtype == torch.float32 for part in parts.values())
    sum(parts.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("loss", ["DensityL2", "BayesianLoss", "DMCountLoss"])
def test_a_counter_that_sees_nobody_anywhere_learns_to_see_people(loss):
    model = counter(loss={"type": loss}).train()
    nn.init.constant_(model.density[2].bias, -1.0)
    shown, heads = (
        images(2, 3, 32, 48),
        [torch.cartesian_prod(torch.arange(4, 48, 8), torch.arange(4, 32, 8)).float()] * 2,
    )
    density = torch.full((2, 1, 32, 48), 24 / (32 * 48))
    with torch.no_grad():
        assert model(shown).sum() == 0
    optimizer = torch.optim.Adam(model.density[2].parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        sum(model(shown, heads, density, mode="loss").values()).backward()
        optimizer.step()
    with torch.no_grad():
        assert model(shown).sum() > 0.1


def test_the_last_rectifier_only_raises_what_is_below_zero():
    raw = torch.tensor([-2.0, -2.0, 3.0, 3.0], requires_grad=True)
    rectifier = LiftedReLU()
    rectifier(raw).backward(torch.tensor([1.0, -1.0, 1.0, -1.0]))
    assert rectifier(raw).tolist() == rectifier.eval()(raw).tolist() == [0, 0, 3, 3]
    assert raw.grad.tolist() == [0, -1, 1, -1]


# ---------------------------------------------------------------- batch norms


def statistics(model):
    return {name: value.clone() for name, value in model.named_buffers() if "running" in name}


def test_a_batch_of_one_leaves_the_statistics_alone_and_the_next_one_does_not():
    model = counter().train()
    before = statistics(model)
    loss_of(model, 1)
    assert all(torch.equal(value, statistics(model)[name]) for name, value in before.items())
    loss_of(model, 2)
    assert all(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert not all(torch.equal(value, statistics(model)[name]) for name, value in before.items())


def test_after_a_batch_of_one_evaluation_and_training_mode_are_what_was_asked_for():
    model = counter().train()
    loss_of(model, 1)
    model.eval()
    loss_of(model, 2)
    assert not any(m.training for m in model.modules())
    loss_of(model.train(), 1)
    assert all(m.training for m in model.train().modules() if isinstance(m, nn.BatchNorm2d))


def test_blocks_may_be_recomputed_for_a_batch_of_one():
    gradients = []
    for recompute in (False, True):
        model = counter({**LIGHT, "with_cp": recompute}).train()
        sum(loss_of(model, 1).values()).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_norm_eval_keeps_the_statistics_whatever_the_batch():
    model = counter({**LIGHT, "norm_eval": True}).train()
    before = statistics(model)
    loss_of(model, 4)
    assert all(torch.equal(value, statistics(model)[name]) for name, value in before.items())


# ---------------------------------------------------------------- tiles


def test_tiles_say_what_the_whole_says_without_attention():
    torch.manual_seed(0)
    model = CrowdCounter({**LIGHT, "scheme": "none"}).eval()
    image = images(1, 3, 300, 420)
    with torch.no_grad():
        whole = model(image)
        tiled = model.count_map(image, tile=128, margin=128)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().max() <= 1e-4 * whole.abs().max()


def test_without_a_margin_tiles_differ_at_their_edges_but_have_the_same_shape():
    model = counter().eval()
    image = images(1, 3, 100, 260)
    with torch.no_grad():
        whole, tiled = model(image), model.count_map(image, tile=64, margin=0)
    assert tiled.shape == whole.shape
    assert not torch.allclose(tiled, whole, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], r"CrowdCounter takes float images \(N, 3, H, W\), got torch.float32 \(3, 60, 100\); x.None"),
        (lambda x: x.byte(), r"CrowdCounter takes float images \(N, 3, H, W\), got torch.uint8"),
    ],
)
def test_what_is_not_a_batch_of_images_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        counter()(change(images(1, 3, 60, 100)))


def test_each_cell_comes_from_one_tile(monkeypatch):
    model = counter().eval()
    monkeypatch.setattr(
        CrowdCounter, "_map", lambda self, x, seen=None: x[:, :1, ::8, ::8]
    )  # each cell says where it is
    rows, columns = torch.meshgrid(torch.arange(200), torch.arange(330), indexing="ij")
    image = (1000.0 * rows + columns)[None, None].expand(1, 3, -1, -1)
    assert torch.equal(model.count_map(image, tile=64, margin=32), image[:, :1, ::8, ::8])


@pytest.mark.parametrize(("tile", "margin"), [(60, 8), (64, 12), (0, 8), (64, -8)])
def test_tiles_that_are_no_multiple_of_the_stride_are_refused(tile, margin):
    with pytest.raises(ValueError, match=f"multiples of the stride 8, got {tile} and {margin}"):
        counter().count_map(images(1, 3, 100, 100), tile, margin)


# ---------------------------------------------------------------- deployed


@pytest.mark.parametrize("attention", ["SE", "SGE", "DIA"])
@pytest.mark.parametrize("backbone", [{**LIGHT, "scheme": "full"}, {**PAPER, "scheme": "ean"}])
def test_a_deployed_counter_says_the_same(backbone, attention):
    model = counter({**backbone, "attention": attention}).eval().double()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    image = images(1, 3, 61, 90).double()
    fast = deploy(copy.deepcopy(model))
    with torch.no_grad():
        expected, found = model(image), fast(image)
    assert fast.stride == 8
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()
