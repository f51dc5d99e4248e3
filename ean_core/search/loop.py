"""The search loop: ask, evaluate, write down, tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ean_core.progress import Progress
from ean_core.scheme import ConnectionScheme

from .evaluator import Evaluator
from .ledger import Ledger
from .strategy import Evaluation, Reward, Strategy


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        scheme: by the strategy's rule, with its evaluation.
        best_seen: the evaluation of highest reward.
        evaluations: how many were asked for.
        distinct: how many different schemes among them.
    """

    scheme: Evaluation
    best_seen: Evaluation
    evaluations: int
    distinct: int


def search(
    strategy: Strategy,
    evaluator: Evaluator,
    reward: Reward,
    ledger_path: Path,
    key: Mapping[str, Any],
    say: Callable[[str], None] = print,
) -> SearchResult:
    """Run a search to its end, from where its ledger stands.

    What the ledger holds is told to the strategy instead of being evaluated again; so a search that was killed ends
    in the same ledger, times aside, as one that was not.

    Args:
        strategy: proposes; freshly built.
        evaluator: scores.
        reward: of a scheme and its accuracy.
        ledger_path: file of the ledger.
        key: what identifies strategy and its settings; the evaluator's key is added to it.
        say: where notices go.

    Raises:
        ValueError: if the ledger belongs to another search.
        InUseError: if another process is writing it.
    """
    full_key = {**key, "reward": asdict(reward), "stages": list(strategy.stages), **evaluator.key}
    known: dict[ConnectionScheme, float] = {}
    history: list[Evaluation] = []
    with Ledger(ledger_path, full_key) as ledger:
        if ledger.notice:
            say(ledger.notice)
        past = iter(ledger.lines)
        with Progress("search", strategy.steps) as progress:
            for step in range(strategy.steps):
                asked = strategy.ask()
                if not asked:
                    break
                replayed = [line for _, line in zip(asked, past, strict=False)]
                for line, scheme in zip(replayed, asked, strict=False):
                    known[scheme] = _replayed_accuracy(line, step, scheme, ledger_path)
                start = time.perf_counter()
                unknown = list(dict.fromkeys(scheme for scheme in asked if scheme not in known))
                known.update(zip(unknown, evaluator.evaluate(unknown) if unknown else [], strict=True))
                seconds = time.perf_counter() - start
                evaluations = [
                    Evaluation(scheme, known[scheme], scheme.connections, reward(scheme, known[scheme]))
                    for scheme in asked
                ]
                strategy.tell(evaluations)
                info = strategy.info()
                for evaluation in evaluations[len(replayed) :]:
                    share = seconds / len(unknown) if evaluation.scheme in unknown else 0.0
                    ledger.append(_line(step, evaluation, share, info))
                history += evaluations
                progress.advance(f"best {max(e.reward for e in history):.2f}", replayed=len(replayed) == len(asked))
        scheme = strategy.result()
        for line in past:  # what is left is the line of the result
            known[scheme] = _replayed_accuracy(line, strategy.steps, scheme, ledger_path)
        fresh = scheme not in known
        if fresh:
            start = time.perf_counter()
            known[scheme] = evaluator.evaluate([scheme])[0]
        final = Evaluation(scheme, known[scheme], scheme.connections, reward(scheme, known[scheme]))
        if fresh:
            ledger.append(_line(strategy.steps, final, time.perf_counter() - start, {}))
    best = max(history, key=lambda evaluation: evaluation.reward)
    return SearchResult(final, best, len(history), len({evaluation.scheme for evaluation in history}))


def _replayed_accuracy(line: Mapping[str, Any], step: int, scheme: ConnectionScheme, path: Path) -> float:
    if line.get("scheme") != str(scheme) or line.get("step") != step or not isinstance(line.get("accuracy"), float):
        raise ValueError(
            f"{path}: step {step} asked for {scheme}, the ledger has step {line.get('step')} with "
            f"{line.get('scheme')}, accuracy {line.get('accuracy')}; it was altered, or written by another version. "
            "Choose another --work-dir"
        )
    return line["accuracy"]


def _line(step: int, evaluation: Evaluation, seconds: float, info: Mapping[str, float]) -> dict[str, Any]:
    return {
        "step": step,
        "scheme": str(evaluation.scheme),
        "accuracy": evaluation.accuracy,
        "cost": evaluation.cost,
        "reward": evaluation.reward,
        **({"info": dict(info)} if info else {}),
        "seconds": round(seconds, 4),
    }
