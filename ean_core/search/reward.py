"""The objective of a search: the metric and efficiency in one number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ean_core.common.errors import unknown_name
from ean_core.common.tasks import ACCURACY, Metric
from ean_core.inference.latency import BlockTimes
from ean_core.scheme import ConnectionScheme

from .strategy import Evaluation


@dataclass(frozen=True)
class Reward:
    """Eqn 7 without the curiosity bonus, which belongs to the strategy that explores with it.

    Args:
        score: weight of one unit of the validation metric: a percentage point of accuracy or mIoU, or one person of a
            counter's mean absolute error, of which less is better.
        sparsity: weight of the sparsity (Eqn 6), which is in ``[0, 1]``. The paper gives no weights; the authors' code
            uses 2.
        latency: weight of the fraction of the attention's time that a scheme saves, which is in ``[0, 1]`` and equals
            the sparsity if all connections take equally long.
        table: times of the connections on the target device; required for ``latency``.
        metric: the metric.

    Raises:
        ValueError: if ``latency`` is nonzero without a table.

    Examples:
        >>> Reward(sparsity=2.0)(ConnectionScheme.parse('100-100'), 70.0)
        71.33333333333333
        >>> Reward(sparsity=0.6, metric=Metric("count/MAE", "MAE", "people", less_is_better=True))(
        ...     ConnectionScheme.parse('100-100'), 9.0
        ... )
        -8.6
    """

    score: float = 1.0
    sparsity: float = 2.0
    latency: float = 0.0
    table: BlockTimes | None = None
    metric: Metric = ACCURACY

    def __post_init__(self) -> None:
        if self.latency and self.table is None:
            raise ValueError(
                f"latency={self.latency} needs a table of measured times; `ean time --per-block` makes one"
            )

    @classmethod
    def of(cls, weights: Mapping[str, float], table: BlockTimes | None, metric: Metric) -> Reward:
        """Build a reward from a config, where the weight of the metric has its name.

        Raises:
            ValueError: if there is a weight of another name.

        Examples:
            >>> Reward.of({"accuracy": 1.0, "sparsity": 3.0}, None, ACCURACY) == Reward(1.0, 3.0)
            True
        """
        names = {metric.label: "score", "sparsity": "sparsity", "latency": "latency"}
        for name in weights:
            if name not in names:
                raise unknown_name("weight of the reward", name, {*names, "table"})
        return cls(**{names[name]: weight for name, weight in weights.items()}, table=table, metric=metric)

    def plain(self) -> dict[str, Any]:
        """Convert to plain values, with the weight of the metric under its name."""
        table = None if self.table is None else asdict(self.table)
        return {self.metric.label: self.score, "sparsity": self.sparsity, "latency": self.latency, "table": table}

    def __call__(self, scheme: ConnectionScheme, score: float) -> float:
        saved = self.latency * self.table.saved(scheme) if self.table is not None else 0.0
        return self.score * self.metric.merit(score) + self.sparsity * scheme.sparsity + saved

    def cost(self, scheme: ConnectionScheme) -> float:
        """Number of connections, or their milliseconds per forward pass if latency has a weight."""
        if self.latency and self.table is not None:
            return 1e3 * self.table.connected(scheme)
        return float(scheme.connections)

    def evaluation(self, scheme: ConnectionScheme, score: float, standard_error: float = 0.0) -> Evaluation:
        """The evaluation of a scheme with this score."""
        return Evaluation(
            scheme, float(score), self.cost(scheme), self(scheme, float(score)), standard_error, self.metric
        )
