"""Check the paper's claim on networks trained here: accuracy kept or improved, at a fraction of the time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from ean_core.common.tasks import find_metric
from ean_core.show.table import Cells

from .paper import PAPER
from .recipes import Recipes
from .results import METRICS, Key, Result
from .rows import timed_text

ACCURACY = "accuracy/top1"
CLAIM = (
    "The paper claims that connections found by its search keep or improve the accuracy of attention in all blocks "
    "(Share-full), which improves on the plain network, at a fraction of the time. Differences are in percentage "
    "points of test accuracy, with 95 % intervals: over seeds if both networks have several; otherwise from the test "
    "images alone, treated as two samples, which ignores the variance between trainings. Times are increments over "
    "vanilla."
)
PAIRS = (("EAN", "Share-full"), ("EAN", "vanilla"), ("Share-full", "vanilla"))
#: Tables of the tasks that networks are transferred to; the first metric of each ranks them.
TRANSFERRED = (3, 5)
IN_SHORT = {
    "shown": "the paper's difference is also seen here for {}",
    "not seen": "the paper's difference lies outside our interval for {}",
    "open": "the paper's difference is neither confirmed nor excluded for {}",
}


@dataclass(frozen=True)
class Claim:
    """An EAN and the networks with the same recipe that the claim compares it with.

    Args:
        networks: the EAN, and Share-full, vanilla or both, by connection.
        paper: the paper's accuracies with the same attention on the same data set, by connection.
    """

    networks: Mapping[str, Result]
    paper: Mapping[str, float]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Pairs of :data:`PAIRS` for which both networks exist."""
        return [pair for pair in PAIRS if self.networks.keys() >= {*pair}]

    def rows(self, recipes: Recipes | None = None, label: Callable[[Path], str] = Path.as_posix) -> Iterator[Cells]:
        """One row per pair.

        Args:
            recipes: names of recipes; those of the networks alone by default.
            label: names the records that times are from.
        """
        ean = self.networks["EAN"]
        letter = (recipes or Recipes.of([*self.networks.values()])).letter(ean)
        for one, other in self.pairs:
            first, second = self.networks[one], self.networks[other]
            gap, low, high = compared(first, second)
            several = min(len(first.runs), len(second.runs)) > 1
            yield {
                "network": f"{ean.network} {ean.attention}",
                "compared": f"{one} against {other}",
                "data": ean.data,
                "accuracy (points)": f"{gap:+.2f} ({low:+.2f} to {high:+.2f})",
                "paper (points)": f"{self.paper[one] - self.paper[other]:+.2f}",
                "interval of": f"{len(first.runs)} and {len(second.runs)} seeds" if several else "the test images",
                "verdict": verdict(first, second),
                "epochs": ean.epochs,
                "recipe": letter,
                "eager (%)": first.increment("eager") if other == "vanilla" else "",
                "deployed (%)": first.increment("deployed") if other == "vanilla" else "",
                "timed in": timed_text(first, label) if other == "vanilla" else "",
                "EAN": f"`{ean.scheme}`",
            }

    def in_short(self, recipes: Recipes | None = None) -> str:
        """Summarize the rows in a sentence or two."""
        ean = self.networks["EAN"]
        how = (recipes or Recipes.of([*self.networks.values()])).text(ean)
        what = f"{ean.attention} `{ean.scheme}`, {ean.network} on {ean.data}, {how}"
        if len(self.pairs) < len(PAIRS):
            return f"{what}: not all three networks are trained yet."
        trainings = {name: len(self.networks[name].runs) for name in ("vanilla", "Share-full", "EAN")}
        seen: dict[str, list[str]] = {name: [] for name in IN_SHORT}
        for one, other in self.pairs:
            _, low, high = compared(self.networks[one], self.networks[other])
            within = low <= self.paper[one] - self.paper[other] <= high
            clear = "shown" if min(trainings[one], trainings[other]) > 1 and low * high > 0 else "open"
            seen[clear if within else "not seen"].append(f"{one} against {other}")
        listed = {
            name: " and ".join(filter(None, (", ".join(pairs[:-1]), *pairs[-1:]))) for name, pairs in seen.items()
        }
        texts = [IN_SHORT[name].format(listed[name]) for name, pairs in seen.items() if pairs]
        over = "trainings: " + ", ".join(f"{name} {count}" for name, count in trainings.items())
        time = "holds" if faster(ean, self.networks["Share-full"]) else "is not confirmed"
        return f"{what} ({over}): {'; '.join(texts)}. The claim about time {time}."


def _listed(items: Sequence[str]) -> str:
    """Join items as a sentence lists them: ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def find_claims(results: Sequence[Result]) -> list[Claim]:
    """Find EAN classifiers on the paper's data sets for which other networks with the same recipe exist."""
    recipes: dict[Key, list[Result]] = {}
    for each in results:
        if ACCURACY in each.runs[0].test["metrics"]:
            recipes.setdefault(each.runs[0].key.common, []).append(each)
    claims = []
    for ean in results:
        beside = recipes.get(ean.runs[0].key.common, []) if ean.connection == "EAN" else []
        networks = {each.connection: each for each in beside if each.attention in ("", ean.attention)}
        paper: dict[str, float] = {
            row.connection: row.metrics[ACCURACY]
            for row in PAPER
            if row.table == 1 and row.data == ean.data and row.attention in ("", ean.attention)
        }
        claim = Claim({**networks, "EAN": ean}, paper)
        if "EAN" in paper and claim.pairs:
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


def difference(first: Sequence[float], second: Sequence[float], noise: float) -> tuple[float, float, float]:
    """Difference of the means (first minus second) and its 95 % interval.

    Args:
        first, second: one value per seed.
        noise: standard error of a single value due to the finite number of test images.

    Returns:
        The difference and the bounds of its interval: Welch's over seeds if both have several; otherwise from the test
        images alone, which ignores the variance between trainings.

    Examples:
        >>> [round(value, 2) for value in difference([2.0, 2.2], [1.0, 1.2], noise=9)]
        [1.0, 0.39, 1.61]
        >>> [round(value, 2) for value in difference([65.6], [65.2], noise=0.5)]
        [0.4, -0.99, 1.79]
    """
    gap = statistics.fmean(first) - statistics.fmean(second)
    if min(len(first), len(second)) > 1 and len({*first}) + len({*second}) > 2:  # none for constant values
        interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
        return gap, float(interval.low), float(interval.high)
    return gap, gap - 1.96 * math.sqrt(2) * noise, gap + 1.96 * math.sqrt(2) * noise


def compared(first: Result, second: Result) -> tuple[float, float, float]:
    """Accuracy of the first network minus that of the second, in points, with the interval of :func:`difference`."""
    ours, others = first.values(ACCURACY), second.values(ACCURACY)
    share = statistics.fmean(others) / 100
    return difference(ours, others, noise=100 * math.sqrt(share * (1 - share) / first.images))


def verdict(first: Result, second: Result) -> str:
    """State whether the first network's accuracy is better or worse than the second's. Without several seeds of both,
    the interval only covers sampling of the test images, and a difference remains undecided."""
    gap, low, high = compared(first, second)
    if low <= 0 <= high:
        return "no significant difference"
    if min(len(first.runs), len(second.runs)) == 1:
        return "undecided"
    return "better" if gap > 0 else "worse"
