import math

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linprog

from tasks.crowd_counting.density import density_map
from tasks.crowd_counting.losses import BayesianLoss, DensityL2, DMCountLoss, cell_centres

from .drawn import block_sum

STRIDE = 8


def maps(number=1, shape=(3, 4), seed=0):
    return torch.rand(number, 1, *shape, generator=torch.Generator().manual_seed(seed)) * 0.2


def heads(*numbers, shape=(3, 4)):
    draw = torch.Generator().manual_seed(7)
    size = torch.tensor([shape[1] * STRIDE, shape[0] * STRIDE])
    return [torch.rand(n, 2, generator=draw) * size for n in numbers]


def centres(shape=(3, 4)):
    """Middle of each cell, row by row."""
    return [((c + 0.5) * STRIDE, (r + 0.5) * STRIDE) for r in range(shape[0]) for c in range(shape[1])]


# ---------------------------------------------------------------- density


def test_the_density_loss_is_the_mean_squared_difference_of_scaled_maps():
    predicted, density = maps(2), maps(2, seed=1)
    expected = np.mean([(100 * (a - b)) ** 2 for a, b in zip(predicted.flatten(), density.flatten(), strict=True)])
    found = DensityL2()(predicted, density, heads(1, 2), STRIDE)
    assert found["loss_density"].item() == pytest.approx(expected, rel=1e-5)
    quarter = DensityL2(scale=50)(predicted, density, heads(1, 2), STRIDE)["loss_density"]
    assert quarter.item() == pytest.approx(expected / 4, rel=1e-5)


def test_centres_of_cells_are_x_and_y():
    assert cell_centres(maps(), STRIDE).tolist() == [list(centre) for centre in centres()]


# ---------------------------------------------------------------- Bayesian


def bayes(cells, points, sigma, background, side):
    """Eqn 8 to 21 of Ma et al. in plain loops."""
    expected = [0.0] * len(points)
    away = 0.0
    for (cx, cy), people in zip(centres(), cells, strict=True):
        likelihoods = [math.exp(-((cx - x) ** 2 + (cy - y) ** 2) / (2 * sigma**2)) for x, y in points]
        nearest = min(math.hypot(cx - x, cy - y) for x, y in points)
        dummy = math.exp(-((background * side - nearest) ** 2) / (2 * sigma**2)) if background else 0.0
        total = sum(likelihoods) + dummy
        for n, likelihood in enumerate(likelihoods):
            expected[n] += likelihood / total * people
        away += dummy / total * people
    return sum(abs(1 - one) for one in expected) + away


@pytest.mark.parametrize(("sigma", "background"), [(8.0, 0.15), (8.0, 0.0), (20.0, 0.5)])
def test_the_bayesian_loss_is_that_of_plain_loops(sigma, background):
    predicted, points = maps(2), heads(5, 1)
    loss = BayesianLoss(sigma, background)(predicted, maps(2), points, STRIDE)["loss_bayes"]
    each = [
        bayes(cells.flatten().tolist(), ps.tolist(), sigma, background, 3 * STRIDE)
        for cells, ps in zip(predicted, points, strict=True)
    ]
    assert loss.item() == pytest.approx(sum(each) / 2, rel=1e-4)


def test_the_bayesian_loss_of_an_image_without_heads_is_all_that_was_counted():
    predicted = maps()
    loss = BayesianLoss()(predicted, maps(), heads(0), STRIDE)["loss_bayes"]
    assert loss.item() == pytest.approx(predicted.sum().item())


def test_a_cell_belongs_wholly_to_heads_and_background():
    loss = BayesianLoss()
    shares = loss.posterior(heads(6)[0], torch.tensor(centres()), 24)
    assert shares.shape == (7, 12)
    assert torch.allclose(shares.sum(0), torch.ones(12))


# ---------------------------------------------------------------- DM-Count


def test_the_parts_of_dm_count_are_count_transport_and_variation():
    predicted, points = maps(2), heads(3, 6)
    parts = DMCountLoss()(predicted, maps(2), points, STRIDE)
    count = np.mean([abs(cells.sum().item() - len(ps)) for cells, ps in zip(predicted, points, strict=True)])
    assert parts["loss_count"].item() == pytest.approx(count, rel=1e-5)
    variation = []
    for cells, ps in zip(predicted, points, strict=True):
        truth = np.zeros((3, 4))
        for x, y in ps.tolist():
            truth[int(y // STRIDE), int(x // STRIDE)] += 1
        normed = cells[0].numpy() / cells.sum().item()
        variation.append(len(ps) * np.abs(truth / len(ps) - normed).sum() / 2)
    assert parts["loss_variation"].item() == pytest.approx(0.01 * np.mean(variation), rel=1e-4)


def test_with_little_regularisation_the_transport_is_the_cheapest_there_is():
    predicted, points = maps(), heads(4)
    loss = DMCountLoss(transport=1.0, regularisation=0.01, iterations=20_000)
    found = loss(predicted, maps(), points, STRIDE)["loss_transport"].item()
    mass = (predicted / predicted.sum()).flatten().double().numpy()
    scaled = [(2 * x / 32 - 1, 2 * y / 32 - 1) for x, y in points[0].tolist()]  # 32 is the longer side
    cells = [(2 * x / 32 - 1, 2 * y / 32 - 1) for x, y in centres()]
    costs = [[(x - u) ** 2 + (y - v) ** 2 for u, v in cells] for x, y in scaled]
    rows = np.kron(np.eye(4), np.ones(12))
    columns = np.kron(np.ones(4), np.eye(12))
    best = linprog(np.ravel(costs), A_eq=np.vstack([rows, columns]), b_eq=np.r_[np.full(4, 0.25), mass])
    assert best.success
    assert found == pytest.approx(best.fun, rel=0.02)


@pytest.mark.filterwarnings("ignore:Sinkhorn did not converge")  # to the last digit
def test_the_gradient_of_the_transport_is_that_of_its_entropic_cost():
    # by differences of the regularised cost, solved to convergence: the envelope theorem
    loss = DMCountLoss(transport=1.0, regularisation=0.5, iterations=10_000)
    predicted, points = maps().double(), [p.double() for p in heads(3)]

    def cost(cells):
        grid = torch.tensor(centres(), dtype=torch.float64) * 2 / 32
        matrix = ((points[0] * 2 / 32)[:, None] - grid).square().sum(2)
        plan = ot.sinkhorn(torch.full((3,), 1 / 3).double(), cells / cells.sum(), matrix, 0.5, stopThr=1e-10)
        return ((plan * matrix).sum() + 0.5 * (plan * plan.clamp_min(1e-300).log()).sum()).item()

    leaf = predicted.clone().requires_grad_()
    loss(leaf, maps(), points, STRIDE)["loss_transport"].backward()
    cells = predicted.flatten()
    for place in (0, 5, 11):
        step = torch.zeros_like(cells)
        step[place] = 1e-4
        expected = (cost(cells + step) - cost(cells - step)) / 2e-4
        assert leaf.grad.flatten()[place].item() == pytest.approx(expected, rel=0.02, abs=1e-3)


def test_an_image_without_heads_has_the_count_only():
    predicted = maps()
    parts = DMCountLoss()(predicted, maps(), heads(0), STRIDE)
    assert parts["loss_count"].item() == pytest.approx(predicted.sum().item())
    assert (parts["loss_transport"].item(), parts["loss_variation"].item()) == (0, 0)


@pytest.mark.parametrize("loss", [DensityL2(), BayesianLoss(), DMCountLoss()])
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1.0, 1e4])
def test_losses_and_gradients_are_finite_whatever_is_predicted(loss, scale):
    predicted = (maps(3) * scale).requires_grad_()
    parts = loss(predicted, maps(3), heads(0, 1, 9), STRIDE)
    sum(parts.values()).backward()
    assert all(torch.isfinite(part) for part in parts.values())
    assert torch.isfinite(predicted.grad).all()


@pytest.mark.parametrize("loss", [DensityL2(), BayesianLoss(background=0), DMCountLoss()])
def test_descending_a_loss_brings_the_count_to_the_truth(loss):
    points = heads(5, shape=(6, 6))
    target = torch.tensor(block_sum(density_map(points[0].numpy(), (48, 48), 5), STRIDE)).float()[None, None]
    weights = torch.full((1, 1, 6, 6), -3.0, requires_grad=True)
    optimiser = torch.optim.Adam([weights], lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0.01, 250)
    for _ in range(250):
        optimiser.zero_grad()
        sum(loss(weights.exp(), target, points, STRIDE).values()).backward()
        optimiser.step()
        schedule.step()
    assert weights.exp().sum().item() == pytest.approx(5, abs=0.4)
