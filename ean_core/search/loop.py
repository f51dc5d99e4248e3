"""The search loop: ask, evaluate, write down, tell; then score the finalists once more."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ean_core.common.errors import unknown_name
from ean_core.common.progress import Progress
from ean_core.scheme import ConnectionScheme

from .evaluator import Evaluator
from .front import front
from .ledger import Ledger
from .reward import Reward
from .strategy import RULES, Evaluation, Rule, Strategy

#: Steps of the ledger lines after the search itself: of schemes scored once more, or of the result alone.
FINALISTS = "finalists"
RESULT = "result"


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        scheme: what it returns, chosen by ``rule``.
        rule: by which.
        best_seen: the evaluation of highest reward in the search itself.
        history: all evaluations, in the order they were asked for.
        finalists: the best schemes and the extremes, with accuracies by the finalists' evaluator.
    """

    scheme: Evaluation
    rule: Rule
    best_seen: Evaluation
    history: tuple[Evaluation, ...]
    finalists: tuple[Evaluation, ...] = ()

    @property
    def front(self) -> list[Evaluation]:
        """The evaluations that no other one beats in accuracy and cost; of the finalists where there are any."""
        return front(self.finalists or self.history)


def search(
    strategy: Strategy,
    evaluator: Evaluator,
    reward: Reward,
    ledger_path: Path,
    key: Mapping[str, Any],
    say: Callable[[str], None] = print,
    *,
    finalists: Evaluator | None = None,
    final_count: int = 20,
    rule: Rule | None = None,
    draw: Callable[[Mapping[str, float], int], None] | None = None,
) -> SearchResult:
    """Run a search to its end, from where its ledger stands.

    What the ledger holds is told to the strategy instead of being evaluated again; so a search that was killed ends
    in the same ledger, times aside, as one that was not.

    Args:
        strategy: proposes; freshly built.
        evaluator: scores.
        reward: of a scheme and its accuracy.
        ledger_path: file of the ledger.
        key: what identifies strategy and its settings; the evaluators' keys are added to it.
        say: where notices go.
        finalists: scores the ``final_count`` best schemes, the strategy's mode and the extremes ``none`` and ``full``
            once more, more carefully; without it, the front is that of the search.
        final_count: at least 1.
        rule: how the scheme returned is chosen; the strategy's own rule if None. Without finalists, ``'front'`` is
            ``'best-seen'``.
        draw: takes the scalars of each step, also of one that is replayed, and the number of evaluations until then.

    Raises:
        ValueError: if the ledger belongs to another search, the rule does not go with the strategy, or an accuracy,
            cost or reward is no finite number; what was scored until then is in the ledger.
        InUseError: if another process is writing it.
    """
    rule = rule or strategy.rule
    if rule not in RULES:
        raise unknown_name("rule", rule, RULES)
    if rule == "mode" and strategy.mode() is None:
        raise ValueError(f"{type(strategy).__name__} has no mode to return; choose rule='best-seen' or 'front'")
    if rule == "front" and finalists is None:
        rule = "best-seen"
    full_key = {**key, "reward": asdict(reward), "stages": list(strategy.stages), **evaluator.key}
    if finalists is not None:
        full_key[FINALISTS] = {"count": final_count, **finalists.key}
    with Ledger(ledger_path, full_key) as ledger:
        if ledger.notice:
            say(ledger.notice)
        if ledger.lines and not strategy.replayable:
            raise ValueError(
                f"{ledger_path}: a search on a storage that others write to cannot be replayed; start it again with "
                "another --work-dir, the storage remembers its evaluations"
            )
        past = _Past(ledger)
        history = _run(strategy, evaluator, reward, ledger, past, draw)
        best = max(history, key=lambda evaluation: evaluation.reward)
        mode = strategy.mode()
        chosen = best_schemes(history, final_count) if finalists is not None else []
        if mode is not None and mode not in chosen:
            chosen.append(mode)
        if finalists is not None:
            chosen = with_extremes(chosen, strategy.stages)
        known = {evaluation.scheme: evaluation.accuracy for evaluation in history}
        final = _score_finalists(chosen, known, evaluator, finalists, reward, ledger, past)
    found = {evaluation.scheme: evaluation for evaluation in (*history, *final)}
    top = max(final or history, key=lambda evaluation: evaluation.reward)
    scheme = {"mode": mode, "best-seen": best.scheme, "front": top.scheme}[rule]
    assert scheme is not None  # a rule that needs a mode was refused without
    return SearchResult(found[scheme], rule, best, tuple(history), tuple(final) if finalists is not None else ())


def best_schemes(history: Sequence[Evaluation], count: int) -> list[ConnectionScheme]:
    """The different schemes of highest reward, best first."""
    rewards = {evaluation.scheme: evaluation.reward for evaluation in history}
    return sorted(rewards, key=lambda scheme: (-rewards[scheme], scheme))[:count]


def with_extremes(schemes: Sequence[ConnectionScheme], stages: Sequence[int]) -> list[ConnectionScheme]:
    """The schemes, ``none`` and ``full``, each once."""
    return list(dict.fromkeys([*schemes, ConnectionScheme.none(stages), ConnectionScheme.full(stages)]))


def rescore(
    schemes: Sequence[ConnectionScheme],
    evaluator: Evaluator,
    finalists: Evaluator,
    reward: Reward,
    ledger_path: Path,
    key: Mapping[str, Any],
    say: Callable[[str], None] = print,
) -> list[Evaluation]:
    """Score schemes by the finalists' evaluator, from where the ledger stands.

    Args:
        schemes: all different.
        evaluator: of the searches that they come from; its scores are written down, too.
        finalists: scores.
        reward: of a scheme and its accuracy.
        ledger_path: file of the ledger, which holds nothing else.
        key: what identifies the searches; the evaluators' keys are added to it.
        say: where notices go.

    Raises:
        ValueError: if the ledger belongs to something else.
        InUseError: if another process is writing it.
    """
    full_key = {**key, "reward": asdict(reward), **evaluator.key, FINALISTS: dict(finalists.key)}
    with Ledger(ledger_path, full_key) as ledger:
        if ledger.notice:
            say(ledger.notice)
        return _score_finalists(schemes, {}, evaluator, finalists, reward, ledger, _Past(ledger))


class _Past:
    """The lines that an interrupted search left, taken in order and checked against what is asked now."""

    def __init__(self, ledger: Ledger) -> None:
        self.path = ledger.path
        self._lines = iter(ledger.lines)

    def take(self, step: int | str, schemes: list[ConnectionScheme]) -> Iterator[Mapping[str, Any]]:
        """The lines of this step's first schemes, as far as they go."""
        for scheme in schemes:
            line = next(self._lines, None)
            if line is None:
                return
            if line.get("scheme") != str(scheme) or line.get("step") != step or not _has_accuracy(line):
                raise ValueError(
                    f"{self.path}: step {step} asked for {scheme}, the ledger has step {line.get('step')} with "
                    f"{line.get('scheme')}, accuracy {line.get('accuracy')}; it was altered, or written by another "
                    "version. Choose another --work-dir"
                )
            yield line


def _run(
    strategy: Strategy,
    evaluator: Evaluator,
    reward: Reward,
    ledger: Ledger,
    past: _Past,
    draw: Callable[[Mapping[str, float], int], None] | None,
) -> list[Evaluation]:
    """Ask and tell until the strategy has nothing left to ask."""
    known: dict[ConnectionScheme, tuple[float, float]] = {}
    history: list[Evaluation] = []
    best = float("-inf")
    step = 0
    with Progress("search", strategy.evaluations) as progress:
        while asked := strategy.ask():
            replayed = list(past.take(step, asked))
            for line, scheme in zip(replayed, asked, strict=False):
                known[scheme] = line["accuracy"], line["standard_error"]
            start = time.perf_counter()
            unknown = list(dict.fromkeys(scheme for scheme in asked if scheme not in known))
            accuracies = evaluator.evaluate(unknown) if unknown else []
            for scheme, accuracy in zip(unknown, accuracies, strict=True):
                known[scheme] = accuracy, evaluator.standard_error(accuracy)
            share = (time.perf_counter() - start) / max(1, len(unknown))
            evaluations = [_finite(reward.evaluation(scheme, *known[scheme])) for scheme in asked]
            strategy.tell(evaluations)
            info = strategy.info()
            more = {"info": dict(info)} if info else {}
            fresh = set(unknown)
            ledger.append(
                *(
                    _line(step, evaluation, share if evaluation.scheme in fresh else 0.0, **more)
                    for evaluation in evaluations[len(replayed) :]
                )
            )
            history += evaluations
            best = max(best, *(evaluation.reward for evaluation in evaluations))
            if draw is not None:
                draw(_scalars(evaluations, best, len(known), info), len(history))
            progress.advance(f"best {best:.2f}", replayed=len(replayed) == len(asked), steps=len(asked))
            step += 1
    return history


def _finite(evaluation: Evaluation) -> Evaluation:
    """An evaluation that a strategy may learn from.

    Raises:
        ValueError: if a number of it is none.
    """
    numbers = (evaluation.accuracy, evaluation.standard_error, evaluation.cost, evaluation.reward)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(
            f"{evaluation.scheme} has accuracy {evaluation.accuracy}, cost {evaluation.cost} and reward "
            f"{evaluation.reward}, which must be finite; look at the supernet's training, and at search.reward"
        )
    return evaluation


def _scalars(
    evaluations: Sequence[Evaluation], best: float, distinct: int, info: Mapping[str, float]
) -> dict[str, float]:
    """Of one step: means over its schemes; of the search until then: its best reward and its different schemes."""
    scalars = {
        "search/best_reward": best,
        "search/reward": fmean(evaluation.reward for evaluation in evaluations),
        "search/accuracy": fmean(evaluation.accuracy for evaluation in evaluations),
        "search/connections": fmean(evaluation.scheme.connections for evaluation in evaluations),
        "search/cost": fmean(evaluation.cost for evaluation in evaluations),
        "search/distinct_schemes": distinct,
    }
    return {**scalars, **{f"strategy/{name}": value for name, value in info.items()}}


def _score_finalists(
    schemes: Sequence[ConnectionScheme],
    known: Mapping[ConnectionScheme, float],
    evaluator: Evaluator,
    finalists: Evaluator | None,
    reward: Reward,
    ledger: Ledger,
    past: _Past,
) -> list[Evaluation]:
    """Score schemes once more, one at a time and each written down at once; without a finalists' evaluator they keep
    the search's own scores."""
    evaluations = []
    step = RESULT if finalists is None else FINALISTS
    with Progress(step, len(schemes)) as progress:
        for scheme in schemes:
            start = time.perf_counter()
            replayed = next(past.take(step, [scheme]), None)
            if replayed is not None:
                evaluation = reward.evaluation(scheme, replayed["accuracy"], replayed["standard_error"])
            else:
                plain = known[scheme] if scheme in known else evaluator.evaluate([scheme])[0]
                accuracy = plain if finalists is None else finalists.evaluate([scheme])[0]
                evaluation = _finite(
                    reward.evaluation(scheme, accuracy, (finalists or evaluator).standard_error(accuracy))
                )
                more = {} if finalists is None else {"supernet_accuracy": plain}
                ledger.append(_line(step, evaluation, time.perf_counter() - start, **more))
            evaluations.append(evaluation)
            progress.advance(f"{scheme} {evaluation.accuracy:.2f} %", replayed=replayed is not None)
    return evaluations


def _has_accuracy(line: Mapping[str, Any]) -> bool:
    return isinstance(line.get("accuracy"), float) and isinstance(line.get("standard_error"), float)


def _line(step: int | str, evaluation: Evaluation, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "scheme": str(evaluation.scheme),
        "accuracy": evaluation.accuracy,
        "standard_error": evaluation.standard_error,
        "cost": evaluation.cost,
        "reward": evaluation.reward,
        **more,
        "seconds": round(seconds, 4),
    }
