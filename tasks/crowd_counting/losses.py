"""Losses of counters: density L2, Bayesian loss, DM-Count.

Each takes predicted maps ``(N, 1, h, w)`` of people per cell, target maps of the same shape, each image's heads
``(n, 2)``, x and y in pixels of the image, and the side of a cell in pixels. It returns named terms; their sum is
minimized.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn


class CountingLoss(nn.Module):
    """Base class; the module docstring describes the arguments and result of ``forward``."""

    def forward(self, predicted: Tensor, density: Tensor, points: Sequence[Tensor], stride: int) -> dict[str, Tensor]:
        raise NotImplementedError


@MODELS.register_module()
class DensityL2(CountingLoss):
    """Mean squared difference of the maps, both multiplied by ``scale``.

    Args:
        scale: factor of the maps; densities are about 0.01 per cell, and 100 brings them and the gradients to about 1.
    """

    def __init__(self, scale: float = 100.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, predicted: Tensor, density: Tensor, points: Sequence[Tensor], stride: int) -> dict[str, Tensor]:
        return {"loss_density": (self.scale * (predicted.float() - density)).square().mean()}


@MODELS.register_module()
class BayesianLoss(CountingLoss):
    """Each head's expected count is 1, that of the background 0 ("Bayesian Loss for Crowd Count Estimation with Point
    Supervision", Ma et al., ICCV 2019, Eqn 8 to 21: "Bayesian+").

    Args:
        sigma: standard deviation of a head's likelihood, in pixels.
        background: distance at which a cell is as likely background as part of a head, as a fraction of the image's
            shorter side; 0 disables the background term.
    """

    def __init__(self, sigma: float = 8.0, background: float = 0.15) -> None:
        super().__init__()
        self.sigma = sigma
        self.background = background

    def forward(self, predicted: Tensor, density: Tensor, points: Sequence[Tensor], stride: int) -> dict[str, Tensor]:
        predicted = predicted.float()
        centres = cell_centres(predicted, stride)
        losses = []
        for cells, heads in zip(predicted.flatten(1), points, strict=True):
            if not len(heads):
                losses.append(cells.sum().abs())
                continue
            shares = self.posterior(heads, centres, stride * min(predicted.shape[2:]))
            expected = torch.ones(len(shares), device=cells.device)
            expected[len(heads) :] = 0
            losses.append((expected - shares @ cells).abs().sum())
        return {"loss_bayes": torch.stack(losses).mean()}

    def posterior(self, heads: Tensor, centres: Tensor, side: float) -> Tensor:
        """Probability that each cell belongs to each head, with the background last if used: ``(n + 1, cells)``.

        The probabilities of each cell sum to one.

        Args:
            heads: heads ``(n, 2)``, n above 0.
            centres: cell centers ``(cells, 2)``.
            side: shorter side of the image, in pixels.
        """
        squares = (heads[:, None] - centres).square().sum(2)  # (n, cells)
        if self.background:
            nearest = squares.min(0).values.sqrt()
            squares = torch.cat([squares, (self.background * side - nearest).square()[None]])
        return torch.softmax(-squares / (2 * self.sigma**2), 0)


@MODELS.register_module()
class DMCountLoss(CountingLoss):
    """Count, optimal transport and total variation ("Distribution Matching for Crowd Counting", Wang et al., NeurIPS
    2020, Eqn 7): ``|people - sum| + transport * W + variation * people * TV``, where W and TV compare the maps
    normalized to mass one. For an image without heads only the first term is used.

    W is the transport cost after Sinkhorn iterations (POT), with squared distances of positions scaled to -1 to 1
    along the longer side. Its gradient is that of the entropic dual, as in the authors' code: the potentials are
    treated as constants, the map's mass is not.

    Args:
        transport, variation: weights of the second and third terms.
        regularisation: entropic regularization, in the units of the transport costs.
        iterations: maximum number of Sinkhorn iterations.
    """

    def __init__(
        self, transport: float = 0.1, variation: float = 0.01, regularisation: float = 10.0, iterations: int = 100
    ) -> None:
        super().__init__()
        self.transport = transport
        self.variation = variation
        self.regularisation = regularisation
        self.iterations = iterations

    def forward(self, predicted: Tensor, density: Tensor, points: Sequence[Tensor], stride: int) -> dict[str, Tensor]:
        predicted = predicted.float()
        centres = cell_centres(predicted, stride)
        counts, costs, variations = [], [], []
        for cells, heads in zip(predicted.flatten(1), points, strict=True):
            counts.append((cells.sum() - len(heads)).abs())
            if not len(heads):
                continue
            normed = cells / (cells.sum() + 1e-8)
            costs.append(self.transport_cost(normed, heads, centres, stride))
            truth = _cell_counts(heads, predicted.shape[2:], stride) / len(heads)
            variations.append(len(heads) * (truth - normed).abs().sum() / 2)
        images = len(predicted)
        nothing = predicted.sum() * 0
        return {
            "loss_count": torch.stack(counts).mean(),
            "loss_transport": self.transport * sum(costs, nothing) / images,
            "loss_variation": self.variation * sum(variations, nothing) / images,
        }

    def transport_cost(self, normed: Tensor, heads: Tensor, centres: Tensor, stride: int) -> Tensor:
        """Cost of transporting a map of mass one ``(cells,)`` to heads of equal mass ``(n, 2)``."""
        import ot

        extent = centres.max() + stride / 2  # of the longer side, so that distances are isotropic
        costs = ((2 * heads / extent)[:, None] - 2 * centres / extent).square().sum(2).double()  # (n, cells)
        mass = normed.detach().double().clamp_min(1e-30)
        each = torch.full((len(heads),), 1 / len(heads), dtype=torch.float64, device=normed.device)
        plan, found = ot.sinkhorn(
            each,
            mass / mass.sum(),
            costs,
            self.regularisation,
            method="sinkhorn_log",
            numItermax=self.iterations,
            log=True,
            warn=False,
        )
        potential = (self.regularisation * found["log_v"]).float() @ normed
        return (plan * costs).sum().float() + potential - potential.detach()


def cell_centres(maps: Tensor, stride: int) -> Tensor:
    """Centers of the cells of maps ``(N, 1, h, w)``, x and y in pixels, ``(h * w, 2)``."""
    height, width = maps.shape[2:]
    rows = (torch.arange(height, device=maps.device) + 0.5) * stride
    columns = (torch.arange(width, device=maps.device) + 0.5) * stride
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def _cell_counts(heads: Tensor, shape: Sequence[int], stride: int) -> Tensor:
    """Number of heads in each cell, ``(h * w,)``."""
    height, width = shape
    columns, rows = (heads / stride).long().unbind(1)
    index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    return torch.zeros(height * width, device=heads.device).index_add_(
        0, index, torch.ones(len(heads), device=heads.device)
    )
