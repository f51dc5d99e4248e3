"""The objective of a search: accuracy and efficiency in one number."""

from __future__ import annotations

from dataclasses import dataclass

from ean_core.inference.latency import BlockTimes
from ean_core.scheme import ConnectionScheme

from .strategy import Evaluation


@dataclass(frozen=True)
class Reward:
    """Eqn 7 without the curiosity bonus, which belongs to the strategy that explores with it.

    Args:
        accuracy: weight of the validation accuracy in percent.
        sparsity: weight of the sparsity (Eqn 6), which is in ``[0, 1]``. The paper gives no weights; the authors' code
            uses 2.
        latency: weight of the fraction of the attention's time that a scheme saves, which is in ``[0, 1]`` and equals
            the sparsity if all connections take equally long.
        table: times of the connections on the target device; required for ``latency``.

    Raises:
        ValueError: if ``latency`` is nonzero without a table.

    Examples:
        >>> Reward(sparsity=2.0)(ConnectionScheme.parse('100-100'), accuracy=70.0)
        71.33333333333333
    """

    accuracy: float = 1.0
    sparsity: float = 2.0
    latency: float = 0.0
    table: BlockTimes | None = None

    def __post_init__(self) -> None:
        if self.latency and self.table is None:
            raise ValueError(
                f"latency={self.latency} needs a table of measured times; `ean time --per-block` makes one"
            )

    def __call__(self, scheme: ConnectionScheme, accuracy: float) -> float:
        saved = self.latency * self.table.saved(scheme) if self.table is not None else 0.0
        return self.accuracy * accuracy + self.sparsity * scheme.sparsity + saved

    def cost(self, scheme: ConnectionScheme) -> float:
        """Number of connections, or their milliseconds per forward pass if latency has a weight."""
        if self.latency and self.table is not None:
            return 1e3 * self.table.connected(scheme)
        return float(scheme.connections)

    def evaluation(self, scheme: ConnectionScheme, accuracy: float, standard_error: float = 0.0) -> Evaluation:
        """The evaluation of a scheme with this accuracy."""
        return Evaluation(scheme, accuracy, self.cost(scheme), self(scheme, accuracy), standard_error)
