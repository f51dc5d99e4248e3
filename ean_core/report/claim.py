"""The paper's claim, held against networks trained here: accuracy kept or improved, at a fraction of the time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from ean_core.show.table import Cells

from .paper import PAPER
from .results import METRICS, Key, Result

ACCURACY = "accuracy/top1"
CLAIM = (
    "The paper claims that connections found by its search keep or improve the accuracy of attention in all blocks "
    "(Share-full), which improves on the plain network, at a fraction of the time. Differences are in percentage "
    "points of test accuracy, with 95 % intervals: over seeds where both networks have several, else of the test "
    "images alone, taken as two samples, which says nothing of how trainings differ. Times are increments over vanilla."
)
PAIRS = (("EAN", "Share-full"), ("EAN", "vanilla"), ("Share-full", "vanilla"))
#: Metrics of the tasks to which networks are transferred, by which each is judged, and whether more is better.
TRANSFERRED = {"count/MAE": False, "mIoU": True}
IN_SHORT = {
    "shown": "the paper's differences are seen here too for {}",
    "not seen": "the paper's differences lie outside of the intervals here for {}",
    "open": "the paper's can neither be confirmed nor excluded for {}",
}


@dataclass(frozen=True)
class Claim:
    """An EAN, and the networks of its recipe that the claim compares it with.

    Args:
        networks: by connection: the EAN, and Share-full, vanilla or both.
        paper: the paper's accuracies with that attention on that data set, likewise.
    """

    networks: Mapping[str, Result]
    paper: Mapping[str, float]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Those of :data:`PAIRS` of which both are there."""
        return [pair for pair in PAIRS if self.networks.keys() >= {*pair}]

    def rows(self) -> Iterator[Cells]:
        """One row per pair."""
        ean = self.networks["EAN"]
        for one, other in self.pairs:
            first, second = self.networks[one], self.networks[other]
            gap, low, high = compared(first, second)
            several = min(len(first.runs), len(second.runs)) > 1
            yield {
                "data": ean.data,
                "network": f"{ean.network} {ean.attention}",
                "EAN": f"`{ean.scheme}`",
                "compared": f"{one} against {other}",
                "accuracy (points)": f"{gap:+.2f} ({low:+.2f} to {high:+.2f})",
                "interval of": f"{len(first.runs)} and {len(second.runs)} seeds" if several else "the test images",
                "verdict": verdict(first, second),
                "paper (points)": f"{self.paper[one] - self.paper[other]:+.2f}",
                "eager (%)": first.increment("eager") if other == "vanilla" else "",
                "deployed (%)": first.increment("deployed") if other == "vanilla" else "",
            }

    def in_short(self) -> str:
        """The rows in a sentence or two."""
        ean = self.networks["EAN"]
        what = f"{ean.attention} `{ean.scheme}`, {ean.network} on {ean.data}"
        if len(self.pairs) < len(PAIRS):
            return f"{what}: not all of the three networks are trained yet."
        seeds = min(len(each.runs) for each in self.networks.values())
        seen: dict[str, list[str]] = {name: [] for name in IN_SHORT}
        for one, other in self.pairs:
            _, low, high = compared(self.networks[one], self.networks[other])
            within = low <= self.paper[one] - self.paper[other] <= high
            clear = "shown" if seeds > 1 and low * high > 0 else "open"
            seen[clear if within else "not seen"].append(f"{one} against {other}")
        texts = [IN_SHORT[name].format(", ".join(pairs)) for name, pairs in seen.items() if pairs]
        over = "one training each" if seeds == 1 else f"{seeds} trainings or more of each"
        time = "holds" if faster(ean, self.networks["Share-full"]) else "is not shown"
        return f"{what}, by {over}: {'; '.join(texts)}. Of time, the claim {time}."


def find_claims(results: Sequence[Result]) -> list[Claim]:
    """The classifiers' EANs that have networks of their recipe beside them, on data sets of the paper."""
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


def transferred_text(results: Sequence[Result]) -> str:
    """Networks on each of the tasks they were transferred to, best first; empty where no two can be compared."""
    titles = {name: title for metrics in METRICS.values() for name, title in metrics.items()}
    sentences = []
    for metric, more_is_better in TRANSFERRED.items():
        measured = [each for each in results if metric in each.runs[0].test["metrics"]]
        for data in dict.fromkeys(each.data for each in measured):
            means = [(statistics.fmean(each.values(metric)), each) for each in measured if each.data == data]
            means.sort(key=lambda pair: pair[0], reverse=more_is_better)
            texts = [f"{each.title} {mean:.2f}" for mean, each in means]
            seeds = min(len(each.runs) for _, each in means)
            over = "one training each" if seeds == 1 else f"means over {seeds} trainings or more"
            if len(means) > 1:
                sentences.append(f"{data}, {titles[metric]}, {over}: {', '.join(texts)}.")
    return f"Transferred, best first. {' '.join(sentences)}" if sentences else ""


def faster(first: Result, second: Result) -> bool:
    """Whether one network is faster: the intervals of both increments lie apart, in each form that was timed."""
    intervals = [
        (first.timings[form][0]["increment_interval"], second.timings[form][0]["increment_interval"])
        for form in first.timings.keys() & second.timings.keys()
    ]
    return bool(intervals) and all(mine and other and mine[1] < other[0] for mine, other in intervals)


def difference(first: Sequence[float], second: Sequence[float], noise: float) -> tuple[float, float, float]:
    """Mean of the first less mean of the second, and a 95 % interval.

    Args:
        first, second: a value a seed.
        noise: standard error of a single value, from the finite number of test images.

    Returns:
        The difference and the ends of its interval: Welch's over seeds where both have several; else that of the test
        images alone, which knows nothing of how trainings differ.

    Examples:
        >>> [round(value, 2) for value in difference([2.0, 2.2], [1.0, 1.2], noise=9)]
        [1.0, 0.39, 1.61]
        >>> [round(value, 2) for value in difference([65.6], [65.2], noise=0.5)]
        [0.4, -0.99, 1.79]
    """
    gap = statistics.fmean(first) - statistics.fmean(second)
    if min(len(first), len(second)) > 1 and len({*first}) + len({*second}) > 2:  # with values all alike there is none
        interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
        return gap, float(interval.low), float(interval.high)
    return gap, gap - 1.96 * math.sqrt(2) * noise, gap + 1.96 * math.sqrt(2) * noise


def compared(first: Result, second: Result) -> tuple[float, float, float]:
    """By how many points the accuracy of one network is higher than that of another, as :func:`difference` has it."""
    ours, others = first.values(ACCURACY), second.values(ACCURACY)
    share = statistics.fmean(others) / 100
    return difference(ours, others, noise=100 * math.sqrt(share * (1 - share) / first.images))


def verdict(first: Result, second: Result) -> str:
    """Whether the accuracy of one network is better or worse than that of another; without several seeds of both,
    nothing but chance of the test images is excluded, and a difference stays undecided."""
    gap, low, high = compared(first, second)
    if low <= 0 <= high:
        return "no difference is shown"
    if min(len(first.runs), len(second.runs)) == 1:
        return "undecided"
    return "better" if gap > 0 else "worse"
