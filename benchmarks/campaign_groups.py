"""Which schemes are trained alone, for Figure 4 and Table 4: random ones, heuristics, and what each strategy found."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ean_core.report.search import Comparison, read_comparison
from ean_core.scheme import ConnectionScheme
from ean_core.search.correlate import sample_schemes
from ean_core.search.loop import search
from ean_core.search.reward import Reward
from ean_core.search.strategy import build_strategy

#: Period of the heuristic, all of whose phases are trained.
PERIOD = 4
Groups = dict[str, list[ConnectionScheme]]


@dataclass(frozen=True)
class KnownScores:
    """The scores that an exhaustive search wrote down, in the place of the supernet that gave them."""

    stages: tuple[int, ...]
    scores: Mapping[ConnectionScheme, float]

    @property
    def key(self) -> Mapping[str, Any]:
        return {"scores": "of an exhaustive search"}

    def evaluate(self, schemes: Sequence[ConnectionScheme]) -> list[float]:
        return [self.scores[scheme] for scheme in schemes]

    def standard_error(self, accuracy: float) -> float:
        return 0.0


def scheme_groups(stages: Sequence[int], comparison: Path | None = None, *, random: int = 30, ean: int = 10) -> Groups:
    """Schemes by where they come from, each once in its group.

    Args:
        stages: blocks in each stage.
        comparison: folder of a comparison of strategies on one supernet, an exhaustive one among them; its strategies
            are left out if None.
        random: how many random ones.
        ean: searches of the paper's strategy; those with seeds that did not take part are run on the scores of the
            exhaustive search.
    """
    groups = {
        "random": sample_schemes(stages, random, seed=0),
        "HSP": [ConnectionScheme.every(stages, PERIOD, phase) for phase in range(PERIOD)],
    }
    if comparison is None:
        return groups
    read = read_comparison(comparison)
    for name, runs in read.by_strategy().items():
        if name not in ("random", "hsp"):
            groups[name] = [run.returned.scheme for run in runs]
    seeds = range(len(groups.get("ean", ())), ean)
    groups["ean"] = [*groups.get("ean", ()), *(_searched(read, seed) for seed in seeds)]
    return {name: list(dict.fromkeys(schemes)) for name, schemes in groups.items()}


def _searched(comparison: Comparison, seed: int) -> ConnectionScheme:
    """What the paper's strategy returns with another seed."""
    (exhaustive,) = comparison.by_strategy()["exhaustive"]
    scores = {each.scheme: each.accuracy for each in exhaustive.history.evaluations}
    stages = exhaustive.returned.scheme.stages
    strategy = build_strategy({"type": "ean", "evaluations": comparison.record["evaluations"]}, stages, seed)
    reward = Reward(**comparison.record["reward"])
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # a moment each, which needs no bar
        ledger = Path(folder) / "ledger.jsonl"
        return search(strategy, KnownScores(stages, scores), reward, ledger, {}).scheme.scheme
