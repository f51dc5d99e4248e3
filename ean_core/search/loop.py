"""The search loop: ask, evaluate, tell, record; then score the finalists again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ean_core.common.errors import unknown_name
from ean_core.common.output import say
from ean_core.common.progress import Progress
from ean_core.common.tasks import Metric
from ean_core.scheme import ConnectionScheme

from .evaluator import Evaluator
from .front import front
from .ledger import Ledger
from .reward import Reward
from .scorer import Score
from .strategy import RULES, Evaluation, Rule, Strategy

#: ``step`` of ledger lines after the search itself: finalists that are scored again, or only the result.
FINALISTS = "finalists"
RESULT = "result"


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Args:
        scheme: the returned scheme, chosen by ``rule``.
        rule: the rule that chose it.
        best_seen: the evaluation with the highest reward in the search itself.
        history: all evaluations, in the order they were asked for.
        finalists: the best schemes and the extremes, with scores from the finalists' evaluator.
    """

    scheme: Evaluation
    rule: Rule
    best_seen: Evaluation
    history: tuple[Evaluation, ...]
    finalists: tuple[Evaluation, ...] = ()

    @property
    def front(self) -> list[Evaluation]:
        """The evaluations that no other dominates in score and cost, among the finalists if there are any."""
        return front(self.finalists or self.history)


def search(
    strategy: Strategy,
    evaluator: Evaluator,
    reward: Reward,
    ledger_path: Path,
    key: Mapping[str, Any],
    say: Callable[[str], None] = say,
    *,
    finalists: Evaluator | None = None,
    final_count: int = 20,
    rule: Rule | None = None,
    draw: Callable[[Mapping[str, float], int], None] | None = None,
) -> SearchResult:
    """Run a search to its end, resuming from its ledger.

    Evaluations in the ledger are told to the strategy instead of being computed again, so a search that was killed ends
    with the same ledger, except for times, as an uninterrupted one.

    Args:
        strategy: proposes schemes; newly built.
        evaluator: scores schemes.
        reward: computes the reward of a scheme and its score.
        ledger_path: path of the ledger.
        key: values that identify the strategy and its settings; the evaluators' keys are added to it.
        say: called with notices.
        finalists: evaluator that scores the ``final_count`` best schemes, the strategy's mode and the extremes ``none``
            and ``full`` again, more carefully; without it, the front is that of the search.
        final_count: at least 1.
        rule: how the returned scheme is chosen; the strategy's own rule if None. Without finalists, ``'front'`` is
            ``'best-seen'``.
        draw: called with the scalars of each step, replayed or not, and the number of evaluations so far.

    Raises:
        ValueError: if the ledger belongs to another search, the rule does not apply to the strategy, the reward
            is of another metric, or a score, cost or reward is NaN or inf; scores of earlier steps are in the ledger.
        InUseError: if another process is writing it.
    """
    if reward.metric != evaluator.metric:
        raise ValueError(f"the reward is of {reward.metric.label}, but schemes are scored by {evaluator.metric.label}")
    rule = rule or strategy.rule
    if rule not in RULES:
        raise unknown_name("rule", rule, RULES)
    if rule == "mode" and strategy.mode() is None:
        raise ValueError(f"{type(strategy).__name__} has no mode to return; choose rule='best-seen' or 'front'")
    if rule == "front" and finalists is None:
        rule = "best-seen"
    full_key = {**key, "reward": reward.plain(), "stages": list(strategy.stages), **evaluator.key}
    if finalists is not None:
        full_key[FINALISTS] = {"count": final_count, **finalists.key}
    with Ledger(ledger_path, full_key) as ledger:
        if ledger.notice:
            say(ledger.notice)
        if ledger.lines and not strategy.replayable:
            raise ValueError(
                f"{ledger_path}: a search on a shared storage cannot be replayed; restart it with another --work-dir, "
                "the storage keeps its evaluations"
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
        known = {evaluation.scheme: Score(evaluation.score, evaluation.standard_error) for evaluation in history}
        final = _score_finalists(chosen, known, evaluator, finalists, reward, ledger, past)
    found = {evaluation.scheme: evaluation for evaluation in (*history, *final)}
    top = max(final or history, key=lambda evaluation: evaluation.reward)
    scheme = {"mode": mode, "best-seen": best.scheme, "front": top.scheme}[rule]
    assert scheme is not None  # rule 'mode' was rejected above if there is no mode
    return SearchResult(found[scheme], rule, best, tuple(history), tuple(final) if finalists is not None else ())


def best_schemes(history: Sequence[Evaluation], count: int) -> list[ConnectionScheme]:
    """The ``count`` distinct schemes with the highest rewards, best first."""
    rewards = {evaluation.scheme: evaluation.reward for evaluation in history}
    return sorted(rewards, key=lambda scheme: (-rewards[scheme], scheme))[:count]


def with_extremes(schemes: Sequence[ConnectionScheme], stages: Sequence[int]) -> list[ConnectionScheme]:
    """The schemes plus ``none`` and ``full``, without duplicates."""
    return list(dict.fromkeys([*schemes, ConnectionScheme.none(stages), ConnectionScheme.full(stages)]))


def rescore(
    schemes: Sequence[ConnectionScheme],
    evaluator: Evaluator,
    finalists: Evaluator,
    reward: Reward,
    ledger_path: Path,
    key: Mapping[str, Any],
    say: Callable[[str], None] = say,
) -> list[Evaluation]:
    """Score schemes with the finalists' evaluator, resuming from the ledger.

    Args:
        schemes: distinct schemes.
        evaluator: evaluator of the searches that found them; its scores are recorded, too.
        finalists: scores the schemes.
        reward: computes the reward of a scheme and its score.
        ledger_path: path of a ledger for these scores only.
        key: values that identify the searches; the evaluators' keys are added to it.
        say: called with notices.

    Raises:
        ValueError: if the ledger has another key.
        InUseError: if another process is writing it.
    """
    full_key = {**key, "reward": reward.plain(), **evaluator.key, FINALISTS: dict(finalists.key)}
    with Ledger(ledger_path, full_key) as ledger:
        if ledger.notice:
            say(ledger.notice)
        return _score_finalists(schemes, {}, evaluator, finalists, reward, ledger, _Past(ledger))


class _Past:
    """Ledger lines of an interrupted search, read in order and checked against the schemes asked for now."""

    def __init__(self, ledger: Ledger) -> None:
        self.path = ledger.path
        self._lines = iter(ledger.lines)

    def take(self, step: int | str, schemes: list[ConnectionScheme], metric: Metric) -> Iterator[Score]:
        """The recorded scores of this step's schemes, up to the end of the ledger."""
        for scheme in schemes:
            line = next(self._lines, None)
            if line is None:
                return
            values = line.get(metric.label), line.get("standard_error")
            numbers = all(isinstance(value, float) for value in values)
            if line.get("scheme") != str(scheme) or line.get("step") != step or not numbers:
                raise ValueError(
                    f"{self.path}: step {step} asked for {scheme}, the ledger has step {line.get('step')} with "
                    f"{line.get('scheme')}, {metric.label} {values[0]}; it was modified, or written by another "
                    "version. Choose another --work-dir"
                )
            yield Score(*values)  # type: ignore[arg-type]


def _run(
    strategy: Strategy,
    evaluator: Evaluator,
    reward: Reward,
    ledger: Ledger,
    past: _Past,
    draw: Callable[[Mapping[str, float], int], None] | None,
) -> list[Evaluation]:
    """Ask and tell until the strategy asks for nothing more."""
    known: dict[ConnectionScheme, Score] = {}
    history: list[Evaluation] = []
    best = float("-inf")
    step = 0
    with Progress("search", strategy.evaluations) as progress:
        while asked := strategy.ask():
            replayed = list(past.take(step, asked, reward.metric))
            known.update(zip(asked, replayed, strict=False))
            start = time.perf_counter()
            unknown = list(dict.fromkeys(scheme for scheme in asked if scheme not in known))
            known.update(zip(unknown, evaluator.evaluate(unknown) if unknown else [], strict=True))
            share = (time.perf_counter() - start) / max(1, len(unknown))
            evaluations = [_finite(_evaluation(reward, scheme, known[scheme])) for scheme in asked]
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


def _evaluation(reward: Reward, scheme: ConnectionScheme, score: Score) -> Evaluation:
    return reward.evaluation(scheme, score, score.standard_error)


def _finite(evaluation: Evaluation) -> Evaluation:
    """The evaluation, if all its numbers are finite.

    Raises:
        ValueError: if one of them is NaN or inf.
    """
    numbers = (evaluation.score, evaluation.standard_error, evaluation.cost, evaluation.reward)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(
            f"{evaluation.scheme} has {evaluation.metric.label} {evaluation.score}, cost {evaluation.cost} and reward "
            f"{evaluation.reward}, which must be finite; check the supernet's training and search.reward"
        )
    return evaluation


def _scalars(
    evaluations: Sequence[Evaluation], best: float, distinct: int, info: Mapping[str, float]
) -> dict[str, float]:
    """Means over the schemes of one step; best reward and number of distinct schemes of the search so far."""
    scalars = {
        "search/best_reward": best,
        "search/reward": fmean(evaluation.reward for evaluation in evaluations),
        f"search/{evaluations[0].metric.label}": fmean(evaluation.score for evaluation in evaluations),
        "search/connections": fmean(evaluation.scheme.connections for evaluation in evaluations),
        "search/cost": fmean(evaluation.cost for evaluation in evaluations),
        "search/distinct_schemes": distinct,
    }
    return {**scalars, **{f"strategy/{name}": value for name, value in info.items()}}


def _score_finalists(
    schemes: Sequence[ConnectionScheme],
    known: Mapping[ConnectionScheme, Score],
    evaluator: Evaluator,
    finalists: Evaluator | None,
    reward: Reward,
    ledger: Ledger,
    past: _Past,
) -> list[Evaluation]:
    """Score schemes again, recording each at once; without a finalists' evaluator they keep the search's scores."""
    evaluations = []
    step = RESULT if finalists is None else FINALISTS
    with Progress(step, len(schemes)) as progress:
        for scheme in schemes:
            start = time.perf_counter()
            replayed = next(past.take(step, [scheme], reward.metric), None)
            if replayed is not None:
                evaluation = _evaluation(reward, scheme, replayed)
            else:
                plain = known[scheme] if scheme in known else evaluator.evaluate([scheme])[0]
                score = plain if finalists is None else finalists.evaluate([scheme])[0]
                evaluation = _finite(_evaluation(reward, scheme, score))
                more = {} if finalists is None else {f"supernet_{reward.metric.label}": float(plain)}
                ledger.append(_line(step, evaluation, time.perf_counter() - start, **more))
            evaluations.append(evaluation)
            progress.advance(f"{scheme} {reward.metric.measured(evaluation.score)}", replayed=replayed is not None)
    return evaluations


def _line(step: int | str, evaluation: Evaluation, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "scheme": str(evaluation.scheme),
        evaluation.metric.label: evaluation.score,
        "standard_error": evaluation.standard_error,
        "cost": evaluation.cost,
        "reward": evaluation.reward,
        **more,
        "seconds": round(seconds, 4),
    }
