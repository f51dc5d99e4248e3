"""The contract of a search strategy, and the registry of those there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.registry import Registry

from ean_core.errors import unknown_name
from ean_core.scheme import ConnectionScheme

#: Search strategies by name.
STRATEGIES = Registry("search strategy", scope="ean_core", locations=["ean_core.search"])


@dataclass(frozen=True)
class Evaluation:
    """What is known of a scheme.

    Args:
        scheme: which.
        accuracy: of the supernet's sub-network on the validation images, in percent.
        cost: number of connections.
        reward: what the search maximises, see :class:`Reward`.
    """

    scheme: ConnectionScheme
    accuracy: float
    cost: float
    reward: float


@dataclass(frozen=True)
class Reward:
    """Accuracy and efficiency as one number, Eqn 7 without the curiosity bonus, which belongs to its strategy.

    Args:
        accuracy: weight of the validation accuracy in percent.
        sparsity: weight of the sparsity (Eqn 6), in ``[0, 1]``. The paper gives no weights; the authors' code has 2.

    Examples:
        >>> Reward(sparsity=2.0)(ConnectionScheme.parse('100-100'), accuracy=70.0)
        71.33333333333333
    """

    accuracy: float = 1.0
    sparsity: float = 2.0

    def __call__(self, scheme: ConnectionScheme, accuracy: float) -> float:
        return self.accuracy * accuracy + self.sparsity * scheme.sparsity


class Strategy(ABC):
    """Proposes schemes and learns from their evaluations; knows nothing of networks.

    A strategy is deterministic: built with the same arguments and told the same evaluations, it asks the same. This
    is how a search resumes: the ledger is replayed, and no other state exists.

    Args:
        stages: blocks in each stage of the network.
        seed: of all its draws.
    """

    def __init__(self, stages: Sequence[int], seed: int = 0) -> None:
        self.stages = tuple(stages)
        self.seed = seed

    @abstractmethod
    def ask(self) -> list[ConnectionScheme]:
        """The schemes of the next step; empty when the search is over. Asked again only after :meth:`tell`."""

    @abstractmethod
    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """The evaluations of what was asked for, in the same order."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Number of steps of the whole search."""

    @abstractmethod
    def result(self) -> ConnectionScheme:
        """The scheme that the search ends in, by the strategy's rule."""

    def info(self) -> Mapping[str, float]:
        """What the strategy wants recorded of the step it was last told about, e.g. its convergence."""
        return {}


def build_strategy(config: Mapping[str, Any], stages: Sequence[int], seed: int) -> Strategy:
    """A strategy from ``dict(type='EANStrategy', ...)``.

    Raises:
        ValueError: if there is no strategy of that name.
    """
    options = dict(config)
    name = options.pop("type", None)
    found = STRATEGIES.get(name) if isinstance(name, str) else None
    if found is None:
        raise unknown_name("search strategy", name, STRATEGIES.module_dict)
    return found(stages=stages, **{"seed": seed, **options})
