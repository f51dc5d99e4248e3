"""All records below some folders, gathered for a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ean_core.common.config import parse_name
from ean_core.common.tasks import find_dataset, known_datasets
from ean_core.scheme import ConnectionScheme

from .alone import SchemeGroups, TrainedAlone, read_groups
from .folds import Fold
from .per_image import Values, read_values
from .recipes import Recipes
from .records import LeaveOut, label, of_kind, read_records, refuse
from .results import ATTENTIONS, Key, Result, find_results
from .search import Comparison, SearchHistory, read_comparison, read_search

T = TypeVar("T")


@dataclass(frozen=True)
class Records:
    """Records below some folders, by path.

    Args:
        results: trained and measured networks.
        searches: records and ledgers of single searches.
        comparisons: comparisons of search strategies.
        correlations: correlations of supernet accuracy with stand-alone accuracy.
        timings: timing records.
        gates: records of gates, block by block.
        folds: networks with constants in the place of gates.
        tables: rows of Table 3, whose folders have the counts of each image.
        values: the metric of each image by its name, for tests that keep it, by the folder of the run.
        groups: records of schemes to be trained individually, and the groups they list.
        folders: folders searched.
    """

    results: Sequence[Result]
    searches: Mapping[Path, tuple[Mapping[str, Any], SearchHistory]]
    comparisons: Mapping[Path, Comparison]
    correlations: Mapping[Path, Mapping[str, Any]]
    timings: Mapping[Path, Mapping[str, Any]]
    gates: Mapping[Path, Mapping[str, Any]]
    folds: Mapping[Path, Fold]
    tables: Mapping[Path, Mapping[str, Any]]
    values: Mapping[Path, Values]
    groups: Mapping[Path, tuple[Mapping[str, Any], SchemeGroups]]
    folders: Sequence[Path]

    @classmethod
    def read(cls, folders: Sequence[Path], leave_out: LeaveOut = refuse) -> Records:
        """Read all records below some folders.

        Args:
            folders: folders to search recursively.
            leave_out: called for damaged records and those inconsistent with their neighbors.

        Raises:
            FileNotFoundError: if a folder is missing, or there is nothing to report.
        """
        for folder in folders:
            if not folder.is_dir():
                raise FileNotFoundError(f"there is no folder {folder}; reports are made from folders with run records")
        records = read_records(folders, leave_out)
        compared = of_kind(records, "search comparison")
        inside = {path.parent for path in compared}
        searches = {
            path: record for path, record in of_kind(records, "search").items() if inside.isdisjoint(path.parents)
        }
        folds, listed = of_kind(records, "fold"), of_kind(records, "schemes trained alone")
        histories = _read_each(searches, lambda path: read_search(path.parent / "ledger.jsonl"), leave_out)
        results, tables = find_results(records, leave_out), of_kind(records, "table 3")
        found = cls(
            results=results,
            searches={
                path: (searches[path], histories[path]) for path in sorted(histories, key=lambda p: _place(searches[p]))
            },
            comparisons=_read_each(compared, lambda path: read_comparison(path.parent), leave_out),
            correlations=of_kind(records, "correlation"),
            timings=of_kind(records, "timing"),
            gates=of_kind(records, "gates"),
            folds=_read_each(
                sorted(folds, key=lambda p: _place(folds[p])), lambda path: Fold.read(folds[path]), leave_out
            ),
            tables=tables,
            values=read_values(results, tables, leave_out),
            groups=_read_each(listed, lambda path: (listed[path], read_groups(listed[path])), leave_out),
            folders=folders,
        )
        everything = (found.searches, found.comparisons, found.correlations, found.timings, found.gates, found.folds)
        if not (found.results or found.groups or any(everything)):
            raise FileNotFoundError(
                f"nothing to report below {', '.join(map(str, folders))}: expected records of `ean train` with "
                "`ean test`, `ean search`, `ean search compare`, `ean search correlate`, `ean time`, `ean gates` "
                "or `ean fold` in their work directories"
            )
        return found

    @cached_property
    def recipes(self) -> Recipes:
        """Names of the recipes of all results, the same in all tables."""
        return Recipes.of(self.results)

    def label(self, path: Path) -> str:
        """Name of a record for readers."""
        return label(path, self.folders)

    def trained(self, config: str | None, scheme: ConnectionScheme) -> Result | None:
        """Return the classifier with a search's data set, depth and attention that was trained with this scheme; the
        one with the most epochs if there are several."""
        found = [each for each in self._networks(config) if each.scheme == scheme]
        return max(found, key=lambda each: each.runs[0].key.epochs, default=None)

    def trained_alike(self, config: str | None, schemes: Sequence[ConnectionScheme]) -> list[Result]:
        """Return the networks of a search's schemes that were all trained with one recipe; of several, the recipe
        with the most epochs. Empty if no recipe covers all schemes."""
        recipes: dict[Key, dict[ConnectionScheme, Result]] = {}
        for each in self._networks(config):
            recipes.setdefault(each.runs[0].key.common, {})[each.scheme] = each
        whole = {key: found for key, found in recipes.items() if found.keys() >= {*schemes}}
        longest = max(whole, key=lambda key: key.epochs, default=None)
        return [] if longest is None else [whole[longest][scheme] for scheme in schemes]

    def trained_alone(self, groups: SchemeGroups) -> TrainedAlone:
        """Return the trained and measured networks of the groups' schemes."""
        return TrainedAlone.find(groups, self._networks(groups.config))

    def _networks(self, config: str | None) -> list[Result]:
        """Networks with a config's data set, depth and attention, and with shared modules."""
        parts = parse_name(config or "")
        if parts is None:
            return []
        place, names = (find_dataset(parts.dataset).title, parts.depth), ("", parts.attention.upper())
        keys = ((each, each.runs[0].key) for each in self.results)
        return [each for each, key in keys if (key.data, key.depth) == place and key.shared and each.attention in names]

    @property
    def own(self) -> list[Result]:
        """Results without networks that were only trained for a group of schemes."""

        def apart(folder: Path) -> bool:
            return any(groups.holds(folder, path.parent) for path, (_, groups) in self.groups.items())

        return [each for each in self.results if not all(apart(run.folder) for run in each.runs)]


def _read_each(records: Iterable[Path], read: Callable[[Path], T], leave_out: LeaveOut) -> dict[Path, T]:
    """Read what belongs to each record."""
    found = {}
    for path in records:
        try:
            found[path] = read(path)
        except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
            leave_out(path, str(error) if isinstance(error, (ValueError, OSError)) else f"incomplete: {error.args[0]}")
    return found


def _place(record: Mapping[str, Any]) -> tuple[int, int]:
    """Sort key in the paper's order: data set, then attention."""
    parts = parse_name(record["config"] or "")
    if parts is None:
        return len(known_datasets()), 0
    attention = parts.attention.upper()
    return list(known_datasets()).index(parts.dataset), ATTENTIONS.index(attention) if attention in ATTENTIONS else 9
