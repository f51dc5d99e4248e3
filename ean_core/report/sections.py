"""Sections of a report: the paper's tables and figures from records, our results beside the paper's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ean_core.common.tasks import known_tasks
from ean_core.show.table import Cells

from .gate_sections import folds_section, gates_section
from .gathered import Records
from .network_sections import claim_section, pairs_section, results_section, times_section, trade_section
from .rows import machine_text
from .search_sections import (
    alone_section,
    convergence_section,
    correlation_section,
    distribution_section,
    front_section,
    methods_section,
    schemes_section,
    task_schemes_section,
)
from .section import Section

SOURCES = "Paths are relative to the folders that the report was made from."


def sections(records: Records) -> list[Section]:
    """Build the tables and figures that there are records for, in the paper's order; then times, and a list of the
    records. Names and titles are unique."""
    found: dict[str, Section] = {}
    titles: Counter[str] = Counter()
    for section in _sections(records):
        if section is None:
            continue
        names = [section.name, *(f"{section.name}_{number}" for number in range(2, len(found) + 2))]
        name = next(name for name in names if name not in found)
        titles[section.title] += 1
        title = section.title + f" ({titles[section.title]})" * (titles[section.title] > 1)
        found[name] = replace(section, name=name, title=title)
    return list(found.values())


def _sections(records: Records) -> Iterator[Section | None]:
    yield trade_section(records)
    yield results_section(records, 1, "Classification: accuracy, parameters and time")
    yield claim_section(records)
    yield schemes_section(records)
    yield task_schemes_section(records)
    for path, (record, history) in records.searches.items():
        yield front_section(records.label(path), record, history)
    for path, record in records.correlations.items():
        yield correlation_section(records.label(path), record)
    yield results_section(records, 3, "Crowd counting")
    for task in known_tasks():
        yield pairs_section(records, task)
    yield methods_section(records)
    for path, (_, groups) in records.groups.items():
        yield alone_section(records.label(path), records.trained_alone(groups))
    for comparison in records.comparisons.values():
        yield distribution_section(comparison)
        yield convergence_section(comparison)
    yield results_section(records, 5, "Semantic segmentation")
    for path, record in records.gates.items():
        yield gates_section(records.label(path), record)
    yield folds_section(records)
    yield times_section(records)
    yield Section("records", "Source records", SOURCES, list(_sources(records)))


def _sources(records: Records) -> Iterator[Cells]:
    """Rows for the source records: command, seed, date, machine and version."""
    found: list[tuple[Path, Mapping[str, Any]]] = []
    for run in (run for each in records.results for run in each.runs):
        found += [(run.folder / "record.json", run.training), (run.folder / "test.json", run.test)]
    found += [(path, record) for path, (record, _) in (*records.searches.items(), *records.groups.items())]
    found += [(path, comparison.record) for path, comparison in records.comparisons.items()]
    found += [(path, fold.record) for path, fold in records.folds.items()]
    kinds = (records.correlations, records.timings, records.gates, records.tables)
    for path, record in (*found, *(pair for each in kinds for pair in each.items())):
        yield {
            "record": records.label(path),
            "kind": record["kind"],
            "command": f"`{record['command']}`",
            "seed": str(record.get("seed", "")),
            "finished": record["finished"][:10],
            "machine": machine_text(record),
            "PyTorch": record["environment"]["packages"]["torch"],
        }
