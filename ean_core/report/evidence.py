"""Evidence on a difference between two networks: its interval, McNemar's counts, a verdict, and data still needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from ean_core.common.intervals import Interval
from ean_core.common.tasks import ACCURACY
from ean_core.common.text import number_of

from .paired import Flags, McNemar, images_needed, over_images, over_seeds, seeds_needed, two_samples
from .results import Measured, Result

#: Seeds in common from which on the interval is that over seeds.
SEEDS = 3
#: Margins of non-inferiority in points: with fewer seeds in common than :data:`SEEDS`, and with as many or more.
MARGINS = (1.0, 0.5)
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Evidence:
    """Accuracy of a network minus that of another one on the same test images.

    Args:
        difference: in points, with the 95 % interval that the verdict is made by.
        basis: origin of the interval: the spread over ``seeds`` in common; the ``images``, on which trainings of both
            are compared one by one; or ``accuracies`` alone, as of two samples of images.
        images: number of test images.
        gaps: differences of the trainings with equal seeds, by seed.
        counts: McNemar's counts of those for which it is recorded which images were right, by seed.
    """

    difference: Interval
    basis: Literal["seeds", "images", "accuracies"]
    images: int
    gaps: Mapping[int, float]
    counts: Mapping[int, McNemar]

    @classmethod
    def of(cls, first: Result, second: Result) -> Evidence:
        """Compare two networks that were measured on the same images.

        The interval is over seeds if both networks have at least :data:`SEEDS` in common; otherwise over images, paired
        if it is recorded which of them were right.
        """
        ours, theirs = ({run.training["seed"]: run for run in each.runs} for each in (first, second))
        pairs = {seed: (run, theirs[seed]) for seed, run in ours.items() if seed in theirs}
        gaps = {seed: one.accuracy - other.accuracy for seed, (one, other) in pairs.items()}
        flags = {seed: found for seed, pair in pairs.items() if (found := _flags(*pair))}
        counts = {seed: McNemar.of(*both) for seed, both in flags.items()}
        spread = over_seeds([*gaps.values()]) if len(gaps) >= SEEDS else None
        if spread:
            return cls(spread, "seeds", first.images, gaps, counts)
        if counts:
            return cls(over_images(*zip(*flags.values(), strict=True)), "images", first.images, gaps, counts)
        ours_mean, theirs_mean = (fmean(each.values(ACCURACY.name)) for each in (first, second))
        unpaired = two_samples(ours_mean, theirs_mean, first.images)
        return cls(unpaired, "accuracies", first.images, gaps, counts)

    @property
    def source(self) -> str:
        """The basis in words."""
        if self.basis == "seeds":
            return number_of(len(self.gaps), "seed")
        images, seeds = number_of(self.images, "image"), number_of(len(self.gaps), "seed")
        if self.basis == "accuracies":
            return f"{images}, unpaired"
        of = f"{len(self.counts)} of " * (len(self.counts) < len(self.gaps))
        return images + f", {of}{seeds}" * (len(self.gaps) > 1)

    @property
    def margin(self) -> float:
        """Margin of non-inferiority in points."""
        return MARGINS[len(self.gaps) >= SEEDS]

    def bound(self, kept: bool) -> float:
        """The difference in points above which a claim holds: that the first network keeps the second's accuracy but
        for the margin, or else that it is better."""
        return -self.margin if kept else 0.0

    def verdict(self, kept: bool) -> str:
        """State whether the interval lies above the bound of a claim: ``shown``, ``not shown`` or ``contradicted``."""
        if self.difference.low > self.bound(kept):
            return "shown"
        return "contradicted" if self.difference.high < self.bound(kept) else "not shown"

    def needed(self, kept: bool) -> str:
        """Name the data that would show a claim which is not shown, in a sentence."""
        bound = self.bound(kept)
        seeds = f"{SEEDS} seeds of each" + f" (margin {points_of(MARGINS[1])})" * kept
        if self.basis == "seeds":
            number = seeds_needed([*self.gaps.values()], bound)
            if number is None:
                return "No number of seeds would show it at this difference and spread."
            return f"Needed at this difference and spread: about {number_of(number, 'seed')} of each."
        if self.basis == "accuracies":
            return f"Needed: `ean test` of both networks again, which records them; or {seeds}."
        number = images_needed(self.difference, bound, self.images)
        if number is None:
            others = f"{seeds} would tell whether other trainings differ."
            return f"No number of images would show it at this difference; {others}"
        return f"Needed at this difference: about {number_of(number, 'test image')}; or {seeds}."

    def counts_text(self) -> str:
        """McNemar's counts, b and c, for each seed in common."""
        if not self.counts:
            return NOT_RECORDED
        found = (self.counts.get(seed) for seed in self.gaps)
        return "; ".join(f"{each.b}, {each.c}" if each else NOT_RECORDED for each in found)

    def p_text(self) -> str:
        """McNemar's p-values, for each seed with counts."""
        return "; ".join(f"{each.p:.2g}" for each in self.counts.values())

    def seeds_text(self) -> str:
        """The difference over seeds with Student's interval; empty without several seeds in common."""
        spread = over_seeds([*self.gaps.values()])
        return points_text(spread) if spread else ""

    def numbers(self, first: str, second: str, paper: float | None) -> str:
        """The difference and its evidence, in a sentence or two.

        Args:
            first, second: names of the networks.
            paper: the paper's difference in points; None if it has none.
        """
        low, high = self.difference.low, self.difference.high
        beside = "" if paper is None else f"; the paper: {paper:+.2f}"
        text = (
            f"The difference is {self.difference.mean:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}{beside}) "
            f"over {self.source}"
        )
        if not self.counts:
            return f"{text}; the images that each network got right are {NOT_RECORDED}."
        several = len(self.gaps) > 1
        each = "; ".join(
            f"seed {seed}: " * several + f"{found.b:,} and {found.c:,} (p = {found.p:.2g})"
            for seed, found in self.counts.items()
        )
        return f"{text}. Images that only {first} and only {second} got right: {each}."


def _flags(one: Measured, other: Measured) -> tuple[Flags, Flags] | None:
    """Return the images that two trainings got right; None if one does not record them, or they are other images."""
    if one.correct is None or other.correct is None:
        return None
    alike = one.test["correct"]["labels"] == other.test["correct"]["labels"]
    return (one.correct, other.correct) if alike else None


def points_of(value: float) -> str:
    """Format a number of points.

    Examples:
        >>> points_of(0.5), points_of(1.0)
        ('0.5 points', '1.0 point')
    """
    return f"{value} point{'s' * (value != 1)}"


def points_text(found: Interval) -> str:
    """Format a difference in points and its interval.

    Examples:
        >>> points_text(Interval(0.5, -0.25, 1.25))
        '+0.50 (-0.25 to +1.25)'
    """
    return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
