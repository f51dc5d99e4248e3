"""The contract of a search strategy, and the registry of those there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, ClassVar, Literal

from mmengine.registry import Registry

from ean_core.common.errors import unknown_name
from ean_core.scheme import ConnectionScheme

#: Search strategies by name.
STRATEGIES = Registry("search strategy", scope="ean_core", locations=["ean_core.search"])

#: How the scheme that a search returns is chosen: the strategy's own most probable one; the one of highest reward among
#: those evaluated; the one of highest reward among the finalists, whose accuracy is measured with batch norms
#: re-estimated for each of them.
Rule = Literal["mode", "best-seen", "front"]
RULES: tuple[Rule, ...] = ("mode", "best-seen", "front")


@dataclass(frozen=True)
class Evaluation:
    """What is known of a scheme.

    Args:
        scheme: which.
        accuracy: on the validation images, in percent.
        cost: number of connections, or milliseconds where the reward weighs measured latency.
        reward: what the search maximises, see :class:`Reward`.
        standard_error: of the accuracy, in percentage points.
    """

    scheme: ConnectionScheme
    accuracy: float
    cost: float
    reward: float
    standard_error: float = 0.0


class Strategy(ABC):
    """Proposes schemes and learns from their evaluations; knows nothing of networks.

    A strategy is deterministic: built with the same arguments and told the same evaluations, it asks the same. This
    is how a search resumes: the ledger is replayed, and no other state exists.

    Args:
        stages: blocks in each stage of the network.
        seed: of all its draws.
        evaluations: how many schemes it may ask for, repetitions included.

    Raises:
        ValueError: if there is nothing to evaluate.
    """

    #: How the scheme returned is chosen where the search's config does not say.
    rule: ClassVar[Rule] = "front"
    #: False for strategies whose number of evaluations follows from the network.
    budgeted: ClassVar[bool] = True
    #: False where a search depends on more than its arguments and what it was told, and cannot resume by replay.
    replayable: bool = True

    def __init__(self, stages: Sequence[int], seed: int = 0, *, evaluations: int) -> None:
        if evaluations < 1:
            raise ValueError(f"a search needs at least 1 evaluation, got evaluations={evaluations}")
        self.stages = tuple(stages)
        self.seed = seed
        self.evaluations = evaluations

    @abstractmethod
    def ask(self) -> list[ConnectionScheme]:
        """The schemes of the next step; empty when the search is over. Asked again only after :meth:`tell`.

        Schemes of one step are scored together and share the work of common prefixes.
        """

    @abstractmethod
    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """The evaluations of what was asked for, in the same order."""

    def mode(self) -> ConnectionScheme | None:
        """The scheme that the strategy itself has come to hold most probable; None where it holds no such belief."""
        return None

    def info(self) -> Mapping[str, float]:
        """What the strategy wants recorded of the step it was last told about, e.g. its convergence."""
        return {}


def strategy_class(name: Any) -> type[Strategy]:
    """The strategy of a name.

    Raises:
        ValueError: if there is none of that name.
    """
    found = STRATEGIES.get(name) if isinstance(name, str) else None
    if found is None:
        raise unknown_name("search strategy", name, STRATEGIES.module_dict)
    return found


def build_strategy(config: Mapping[str, Any], stages: Sequence[int], seed: int) -> Strategy:
    """A strategy from ``dict(type='ean', ...)``.

    Raises:
        ValueError: if there is no strategy of that name, or it has no such option.
    """
    options = dict(config)
    name = options.pop("type", None)
    found = strategy_class(name)
    known = {"seed"}
    for base in found.__mro__[:-1]:  # some pass options on to the class they refine
        known |= {k for k, v in signature(base).parameters.items() if v.kind is Parameter.KEYWORD_ONLY}
    for option in options:
        if option not in known:
            raise unknown_name(f"option of strategy {name!r}", option, known)
    return found(stages=stages, **{"seed": seed, **options})
