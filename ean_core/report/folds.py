"""Networks with constants in the place of gates, from the records of ``ean fold``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ean_core.common.tasks import Metric
from ean_core.common.text import number_of
from ean_core.scheme import CONSTANT, ConnectionScheme
from ean_core.search.fold import POINTS, Folded, difference_unit
from ean_core.search.scorer import Difference
from ean_core.show.table import Cells

from .results import FORMS, Timing
from .rows import timed_text
from .section import network_cells

#: How a network is called that was measured on the images not used for the choice.
REPORTED = {"folded": "folded", "tuned": "folded and tuned"}
COMPUTED = "all gates computed"


@dataclass(frozen=True)
class Fold:
    """A folded network.

    Args:
        record: its record.
        metric: its task's metric.
        base: the scheme with all gates computed.
        front: the best scheme of each number of computed gates that was tried, fewest first; the last one is chosen.
        reported: the networks measured on the images not used for the choice, by their names in the record.
    """

    record: Mapping[str, Any]
    metric: Metric
    base: ConnectionScheme
    front: Sequence[Folded]
    reported: Mapping[str, Folded]

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Fold:
        """Read a record of ``ean fold``.

        Raises:
            ValueError, KeyError, TypeError: if it has another form.
        """
        front = [Folded.of(line) for line in record["chosen_on"]["front"]]
        names = [name for name in ("computed", *REPORTED) if name in record["reported_on"]]
        reported = {name: Folded.of(record["reported_on"][name]) for name in names}
        base = ConnectionScheme.parse(record["source"]["scheme"])
        if not front or str(front[-1].scheme) != record["scheme"]:
            raise ValueError(f"scheme {record['scheme']} is not the last one of 'front'")
        return cls(record, Metric.of(record), base, front, reported)

    @property
    def scheme(self) -> ConnectionScheme:
        """The chosen scheme."""
        return self.front[-1].scheme

    @property
    def source(self) -> str:
        """The network that was folded: name of a published model, or of a checkpoint's file."""
        return self.record["source"].get("name") or self.record["source"]["checkpoint"]

    def rows(self, timings: Mapping[str, Timing], label: Callable[[Path], str], place: Path) -> Iterator[Cells]:
        """One row per scheme of the front, and per network measured on other images.

        Args:
            timings: times of the folded network, by form.
            label: names records.
            place: path of the record.
        """
        choice, report = self.record["chosen_on"], self.record["reported_on"]
        folded = self.scheme != self.base

        def cells(found: Folded, where: Mapping[str, Any], result: str, times: Mapping[str, Timing]) -> Cells:
            return {
                **network_cells(self.record["config"]),
                f"difference ({difference_unit(self.metric)})": _text(found.difference),
                f"{self.metric.axis} before": f"{found.score - found.difference.value:.2f}",
                "after": f"{found.score:.2f}",
                "checkpoint": f"`{self.source}`",
                "images": f"{where['images']:,} {where['which']}",
                "result": result,
                "constant": f"{found.scheme.constants} of {self.base.gates}",
                **{f"{form} (%)": times[form].increment if form in times else "" for form in FORMS},
                "timed in": timed_text(times, label) if times else "",
                "scheme": f"`{found.scheme}`",
                "record": label(place),
            }

        for found in self.front[:-1]:
            yield cells(found, choice, "beyond the margin", {})
        yield cells(self.front[-1], choice, "chosen" if folded else COMPUTED, timings)
        names = REPORTED if folded else {"computed": COMPUTED}
        for name, result in names.items():
            if name in self.reported:
                yield cells(self.reported[name], report, result, timings if name == "folded" else {})

    def text(self) -> str:
        """Name the gates that became constant, or the loss if none did, in a sentence."""
        names, unit = network_cells(self.record["config"]), difference_unit(self.metric)
        data = f" on {names['data']}" if names["data"] else ""
        start = f"{names['network']} `{self.base}`{data} (`{self.source}`), margin {self._margin()}:"
        gates = number_of(self.base.connections, "gate")
        constants = self.scheme.constants - self.base.constants
        if constants:
            chosen, measured = self.front[-1].difference, self.reported.get("folded")
            others = f", and by {_text(measured.difference, unit)} on the others" if measured else ""
            return (
                f"{start} {constants} of {gates} became constant ({blocks_text(self.scheme)}); the network differs by "
                f"{_text(chosen, unit)} on the images that chose{others}."
            )
        if len(self.front) < 2:
            return f"{start} none of {gates} became constant."
        best = self.front[-2]
        return (
            f"{start} none of {gates} became constant; the best scheme with a constant gate, `{best.scheme}`, differs "
            f"by {_text(best.difference, unit)} on the images that chose."
        )

    def _margin(self) -> str:
        margin, unit = self.record["margin"], difference_unit(self.metric)
        if margin is not None:
            return f"{margin} {unit}"
        points = f"{POINTS} points or " if self.metric.unit == "%" else ""
        return f"{points}one standard error of the difference{', whichever is larger' * bool(points)}"


def _text(difference: Difference, unit: str = "") -> str:
    """Format a difference and its interval."""
    low, high = difference.span
    return f"{difference.value:+.2f}{' ' * bool(unit)}{unit} ({low:+.2f} to {high:+.2f})"


def blocks_text(scheme: ConnectionScheme) -> str:
    """Name the blocks with a constant gate.

    Examples:
        >>> blocks_text(ConnectionScheme.parse('0c0-100-00c'))
        'stage 1, block 2; stage 3, block 3'
    """
    return "; ".join(
        f"stage {stage}, block {block}"
        for stage, marks in enumerate(scheme.marks_by_stage, 1)
        for block, mark in enumerate(marks, 1)
        if mark == CONSTANT
    )
