"""Check the paper's claim on networks trained here: accuracy kept or improved, at a fraction of the time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ean_core.common.tasks import ACCURACY, find_metric
from ean_core.show.table import Cells

from .evidence import MARGINS, SEEDS, Evidence, points_of, points_text
from .paper import PAPER
from .recipes import Recipes
from .results import FORMS, METRICS, Key, Result
from .rows import timed_text

CLAIM = (
    "The paper claims that connections found by its search keep or improve the accuracy of attention in all blocks "
    "(Share-full), which improves on the plain network, at a fraction of the time. Differences are in percentage "
    "points of test accuracy; times are increments over vanilla."
)
METHOD = (
    f"Intervals are 95 %. With {SEEDS} or more seeds in common, they are Student's, over the differences of trainings "
    "with equal seeds, and hold for these test images. With fewer, they are over the test images, on which both "
    "networks are compared one by one (Agresti and Min), and hold for these trainings; where it is not recorded which "
    "images were right, they are those of two independent samples of images, which are wider (unpaired). McNemar's b "
    "and c are the numbers of images that only the first and only the second network got right, for each seed in "
    "common; p is exact and two-sided. EAN keeps the accuracy of Share-full if the interval lies above minus a margin "
    f"of {points_of(MARGINS[0])}, or {points_of(MARGINS[1])} with {SEEDS} or more seeds. Otherwise a network is better "
    "than another one if the interval lies above 0. A claim is contradicted if the interval lies below. Verdicts are "
    "not corrected for their number."
)
PAIRS = (("EAN", "Share-full"), ("EAN", "vanilla"), ("Share-full", "vanilla"))
#: The pair of which the first keeps the accuracy of the second; the first of the others is better.
KEPT = ("EAN", "Share-full")
#: Tables of the tasks that networks are transferred to; the first metric of each ranks them.
TRANSFERRED = (3, 5)


@dataclass(frozen=True)
class Claim:
    """An EAN and the networks with the same recipe that the claim compares it with.

    Args:
        networks: the EAN, and Share-full, vanilla or both, by connection.
        paper: the paper's accuracies with the same attention on the same data set, by connection; empty if it has none.
    """

    networks: Mapping[str, Result]
    paper: Mapping[str, float]

    @property
    def pairs(self) -> dict[tuple[str, str], Evidence]:
        """The evidence on those of :data:`PAIRS` for which both networks exist."""
        there = (pair for pair in PAIRS if self.networks.keys() >= {*pair})
        return {(one, other): Evidence.of(self.networks[one], self.networks[other]) for one, other in there}

    def published(self, one: str, other: str) -> float | None:
        """The paper's difference of a pair in points; None if it has none."""
        return self.paper[one] - self.paper[other] if self.paper.keys() >= {one, other} else None

    def rows(self, recipes: Recipes | None = None, label: Callable[[Path], str] = Path.as_posix) -> Iterator[Cells]:
        """One row per pair.

        Args:
            recipes: names of recipes; those of the networks alone by default.
            label: names the records that times are from.
        """
        ean = self.networks["EAN"]
        letter = (recipes or Recipes.of([*self.networks.values()])).letter(ean)
        for (one, other), found in self.pairs.items():
            first, paper, kept = self.networks[one], self.published(one, other), (one, other) == KEPT
            over_vanilla = other == "vanilla"
            yield {
                "network": f"{ean.network} {ean.attention}",
                "compared": f"{one} against {other}",
                "data": ean.data,
                "accuracy (points)": points_text(found.difference),
                "paper (points)": "" if paper is None else f"{paper:+.2f}",
                "interval of": found.source,
                "verdict": found.verdict(kept) + f" (margin {found.margin})" * kept,
                "McNemar b, c": found.counts_text(),
                "p": found.p_text(),
                "over seeds (points)": found.seeds_text(),
                "epochs": ean.epochs,
                "recipe": letter,
                "eager (%)": first.increment("eager") * over_vanilla,
                "deployed (%)": first.increment("deployed") * over_vanilla,
                "timed in": timed_text(first.timings, label) * over_vanilla,
                "EAN": f"`{ean.scheme}`",
            }

    def paragraphs(self, recipes: Recipes | None = None) -> Iterator[str]:
        """State for each part of the claim whether it is shown, with the numbers, and data that would show it."""
        ean = self.networks["EAN"]
        where = f"({ean.network} on {ean.data}, {(recipes or Recipes.of([*self.networks.values()])).text(ean)})"
        names = {"EAN": f"EAN {ean.attention} `{ean.scheme}`", "Share-full": f"Share-full {ean.attention}"}
        for other in ("Share-full", "vanilla"):
            if other not in self.networks:
                yield f"Not shown: {names['EAN']} against {other} {where}; {other} is not trained with this recipe."
        for (one, other), found in self.pairs.items():
            kept = (one, other) == KEPT
            verdict = found.verdict(kept)
            claim = f"loses less than {points_of(found.margin)} against {other}" if kept else f"is better than {other}"
            text = f"{verdict.capitalize()}: {names[one]} {claim} {where}. "
            text += found.numbers(one, other, self.published(one, other))
            yield text + f" {found.needed(kept)}" * (verdict == "not shown")
        if "Share-full" in self.networks:
            yield self._time(f"{names['EAN']} adds less time than Share-full {where}")

    def _time(self, claim: str) -> str:
        ean, full = self.networks["EAN"], self.networks["Share-full"]
        forms = [form for form in FORMS if form in ean.timings and form in full.timings]
        if not forms:
            return f"Not shown: {claim}. Needed: `ean time`, which times both side by side."
        verdict = "Shown" if faster(ean, full) else "Contradicted" if faster(full, ean) else "Not shown"
        numbers = (f"{ean.increment(form)} against {full.increment(form)} {form}" for form in forms)
        return f"{verdict}: {claim}. Increments over vanilla, in percent: {'; '.join(numbers)}."


def find_claims(results: Sequence[Result]) -> list[Claim]:
    """Find EAN classifiers for which other networks with the same recipe exist."""
    recipes: dict[Key, list[Result]] = {}
    for each in results:
        if ACCURACY.name in each.runs[0].test["metrics"]:
            recipes.setdefault(each.runs[0].key.common, []).append(each)
    claims = []
    for ean in results:
        beside = recipes.get(ean.runs[0].key.common, []) if ean.connection == "EAN" else []
        networks = {each.connection: each for each in beside if each.attention in ("", ean.attention)}
        paper: dict[str, float] = {
            row.connection: row.metrics[ACCURACY.name]
            for row in PAPER
            if row.table == 1 and row.data == ean.data and row.attention in ("", ean.attention)
        }
        claim = Claim({**networks, "EAN": ean}, paper)
        if claim.pairs:
            claims.append(claim)
    return claims


def transferred_text(results: Sequence[Result], recipes: Recipes | None = None) -> str:
    """Rank the networks on each task they were transferred to, best first, with the names of their recipes where they
    differ; empty if there are no two to compare."""
    names = recipes or Recipes.of(results)
    sentences = []
    for table in TRANSFERRED:
        metric, title = next(iter(METRICS[table].items()))
        measured = [each for each in results if metric in each.runs[0].test["metrics"]]
        for data in dict.fromkeys(each.data for each in measured):
            means = [(statistics.fmean(each.values(metric)), each) for each in measured if each.data == data]
            means.sort(key=lambda pair: pair[0], reverse=not find_metric(metric).less_is_better)
            how = {names.text(each) for _, each in means}
            texts = [each.title + f" ({names.text(each)})" * (len(how) > 1) + f" {mean:.2f}" for mean, each in means]
            seeds = min(len(each.runs) for _, each in means)
            over = "one training each" if seeds == 1 else f"means over at least {seeds} trainings"
            if len(means) > 1:
                sentences.append(f"{data}, {title}, {over}: {', '.join(texts)}.")
    return f"Transfer to other tasks, best first. {' '.join(sentences)}" if sentences else ""


def faster(first: Result, second: Result) -> bool:
    """Whether the first network is faster: its increment's interval lies below the other's in every form timed."""
    intervals = [
        (first.timings[form].row["increment_interval"], second.timings[form].row["increment_interval"])
        for form in first.timings.keys() & second.timings.keys()
    ]
    return bool(intervals) and all(mine and other and mine[1] < other[0] for mine, other in intervals)
