"""The interface of a search strategy, and the registry of all strategies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, ClassVar, Literal

from mmengine.registry import Registry

from ean_core.common.errors import unknown_name
from ean_core.common.tasks import ACCURACY, Metric
from ean_core.scheme import ConnectionScheme

#: Search strategies by name.
STRATEGIES = Registry("search strategy", scope="ean_core", locations=["ean_core.search"])

#: How the scheme returned by a search is chosen: the strategy's most probable one; the one with the highest reward
#: among all evaluations; the one with the highest reward among the finalists, whose score is measured with batch norms
#: re-estimated for each scheme.
Rule = Literal["mode", "best-seen", "front"]
RULES: tuple[Rule, ...] = ("mode", "best-seen", "front")


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of one scheme.

    Args:
        scheme: the scheme.
        score: the metric on the validation images, in its unit.
        cost: number of connections, or milliseconds if the reward includes measured latency.
        reward: the quantity that the search maximizes, see :class:`Reward`.
        standard_error: standard error of the score.
        metric: the metric.
    """

    scheme: ConnectionScheme
    score: float
    cost: float
    reward: float
    standard_error: float = 0.0
    metric: Metric = ACCURACY

    @property
    def merit(self) -> float:
        """The score with the sign that makes more the better."""
        return self.metric.merit(self.score)

    @property
    def text(self) -> str:
        """The metric's name, value and unit."""
        return self.metric.text(self.score)

    def plain(self) -> dict[str, Any]:
        """Convert to plain values for a record; the score has the metric's name."""
        return {
            "scheme": str(self.scheme),
            self.metric.label: self.score,
            "cost": self.cost,
            "reward": self.reward,
            "standard_error": self.standard_error,
        }


class Strategy(ABC):
    """Proposes schemes and learns from their evaluations; knows nothing of networks.

    A strategy is deterministic: with the same arguments and evaluations, it asks for the same schemes. A search
    therefore resumes by replaying the ledger; there is no other state.

    Args:
        stages: blocks in each stage of the network.
        seed: seed of all its draws.
        evaluations: number of schemes it may ask for, including repetitions.

    Raises:
        ValueError: if ``evaluations`` is below 1.
    """

    #: How the returned scheme is chosen if the search's config does not set a rule.
    rule: ClassVar[Rule] = "front"
    #: False if the number of evaluations is determined by the network.
    budgeted: ClassVar[bool] = True
    #: False if a search depends on more than its arguments and evaluations, and so cannot resume by replay.
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
        """Take the evaluations of the schemes asked for, in the same order."""

    def mode(self) -> ConnectionScheme | None:
        """The strategy's most probable scheme; None if it has no distribution over schemes."""
        return None

    def info(self) -> Mapping[str, float]:
        """Values to record for the last step told, e.g. a measure of convergence."""
        return {}


def strategy_class(name: Any) -> type[Strategy]:
    """The strategy class called ``name``.

    Raises:
        ValueError: if there is none.
    """
    found = STRATEGIES.get(name) if isinstance(name, str) else None
    if found is None:
        raise unknown_name("search strategy", name, STRATEGIES.module_dict)
    return found


def build_strategy(config: Mapping[str, Any], stages: Sequence[int], seed: int) -> Strategy:
    """Build a strategy from ``dict(type='ean', ...)``; errors as in :func:`check_strategy`."""
    check_strategy(config)
    options = dict(config)
    return strategy_class(options.pop("type"))(stages=stages, **{"seed": seed, **options})


def check_strategy(config: Mapping[str, Any]) -> None:
    """Check the settings of a strategy, before there is a network.

    Raises:
        ValueError: if there is no strategy of that name, or it has no such option.
    """
    options = dict(config)
    name = options.pop("type", None)
    found = strategy_class(name)
    known = {"seed"}
    for base in found.__mro__[:-1]:  # some pass options on to their base class
        known |= {k for k, v in signature(base).parameters.items() if v.kind is Parameter.KEYWORD_ONLY}
    for option in options:
        if option not in known:
            raise unknown_name(f"option of strategy {name!r}", option, known)
