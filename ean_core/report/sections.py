"""What a report holds: the paper's tables and figures out of records, ours beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, TypeVar

from ean_core.common.config import parse_name
from ean_core.common.record import significant
from ean_core.common.tasks import find_dataset, known_datasets
from ean_core.scheme import ConnectionScheme
from ean_core.search.front import front
from ean_core.show.table import Row, in_percent, size_text

from .alone import SchemeGroups, TrainedAlone, read_groups
from .chart import (
    Chart,
    correlation_charts,
    distribution_chart,
    front_chart,
    gates_chart,
    lines_chart,
    trade_charts,
)
from .correlation import PROXIES, correlation_figure
from .gates import gates_figure
from .paper import CONVERGENCE, DISTRIBUTION, METHODS, SCHEMES, PaperMethod, PaperRow, PaperScheme
from .records import Labels, LeaveOut, of_kind, read_records, refuse, slug
from .results import (
    ATTENTIONS,
    Result,
    find_results,
    machine_text,
    schedule_text,
    table_rows,
    timing_text,
)
from .search import (
    FIGURES,
    Comparison,
    SearchHistory,
    SearchRun,
    Spread,
    draw_convergence,
    draw_distribution,
    read_comparison,
    read_search,
)
from .search_figures import distribution_figure, front_figure
from .trade import TradePoint, panels_figure, trade_points

T = TypeVar("T")
#: Strategies with a controller, whose schemes Table 2 lists.
CONTROLLERS = ("ean", "enas")
#: The network of Tables 2 and 4 in the paper.
PAPER_NETWORK = {"data": "CIFAR-100", "network": "ResNet-164 SE"}


@dataclass(frozen=True)
class TableSection:
    """A table of a report.

    Args:
        name: of its file, without the suffix.
        title: above it.
        rows: at least one.
        note: below it.
    """

    name: str
    title: str
    rows: Sequence[Row]
    note: str


@dataclass(frozen=True)
class FigureSection:
    """A figure of a report.

    Args:
        name: of its files, without the suffix.
        title: above it.
        header: titles of the columns of its data.
        lines: the data, in six significant digits.
        draw: writes the picture, in the format of the path's suffix.
        charts: the same for the page.
        caption: below it.
    """

    name: str
    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[Any]]
    draw: Callable[[Path], object]
    charts: Sequence[Chart]
    caption: str


@dataclass(frozen=True)
class TextSection:
    """Words in the place of a table or figure that there is too little for.

    Args:
        name: of the section.
        title: above them.
        note: the words.
    """

    name: str
    title: str
    note: str


Section = TableSection | FigureSection | TextSection


@dataclass(frozen=True)
class Records:
    """The records below some folders, by their paths.

    Args:
        results: networks that were trained and measured.
        searches: single searches, records and ledgers.
        comparisons: of search strategies.
        correlations: of what a supernet says of schemes with what they reach alone.
        timings: timing records.
        gates: records of gates, block by block.
        groups: records of schemes to be trained alone, and the groups that they list.
        labels: gives the records names for a reader.
    """

    results: Sequence[Result]
    searches: Mapping[Path, tuple[Mapping[str, Any], SearchHistory]]
    comparisons: Mapping[Path, Comparison]
    correlations: Mapping[Path, Mapping[str, Any]]
    timings: Mapping[Path, Mapping[str, Any]]
    gates: Mapping[Path, Mapping[str, Any]]
    groups: Mapping[Path, tuple[Mapping[str, Any], SchemeGroups]]
    labels: Labels

    @classmethod
    def read(cls, folders: Sequence[Path], leave_out: LeaveOut = refuse) -> Records:
        """Read them.

        Args:
            folders: searched, with all that is in them.
            leave_out: what to do with a record that is damaged, or belongs to another run than its neighbours.

        Raises:
            FileNotFoundError: if a folder is missing, or nothing is there to report.
        """
        for folder in folders:
            if not folder.is_dir():
                raise FileNotFoundError(f"there is no folder {folder}; a report is made of folders with run records")
        records = read_records(folders, leave_out)
        compared = of_kind(records, "search comparison")
        inside = {path.parent for path in compared}
        searches = {
            path: record for path, record in of_kind(records, "search").items() if inside.isdisjoint(path.parents)
        }
        listed = of_kind(records, "schemes trained alone")
        histories = _read_each(searches, lambda path: read_search(path.parent / "ledger.jsonl"), leave_out)
        found = cls(
            find_results(records, leave_out),
            {path: (searches[path], histories[path]) for path in sorted(histories, key=lambda p: _place(searches[p]))},
            _read_each(compared, lambda path: read_comparison(path.parent), leave_out),
            of_kind(records, "correlation"),
            of_kind(records, "timing"),
            of_kind(records, "gates"),
            _read_each(listed, lambda path: (listed[path], read_groups(listed[path])), leave_out),
            Labels(folders),
        )
        everything = (found.searches, found.comparisons, found.correlations, found.timings, found.gates, found.groups)
        if not (found.results or any(everything)):
            raise FileNotFoundError(
                f"nothing to report below {', '.join(map(str, folders))}: expected records as `ean train` with "
                "`ean test`, `ean search`, `ean search compare`, `ean search correlate`, `ean time` or `ean gates` "
                "leave them in their work directories"
            )
        return found

    def trained(self, config: str | None, scheme: ConnectionScheme) -> Result | None:
        """The classifier of a search's data set, depth and attention that was trained with a scheme by itself; the one
        of most epochs where there are several."""
        found = [each for each in self._networks(config) if each.scheme == scheme]
        return max(found, key=lambda each: each.runs[0].key.epochs, default=None)

    def trained_alone(self, groups: SchemeGroups) -> TrainedAlone:
        """The networks of groups of schemes that were trained and measured."""
        return TrainedAlone.find(groups, self._networks(groups.config))

    def _networks(self, config: str | None) -> list[Result]:
        """Those of a config's data set, depth and attention, whose modules are shared."""
        parts = parse_name(config or "")
        if parts is None:
            return []
        place, names = (find_dataset(parts.dataset).title, parts.depth), ("", parts.attention.upper())
        keys = ((each, each.runs[0].key) for each in self.results)
        return [each for each, key in keys if (key.data, key.depth) == place and key.shared and each.attention in names]

    @property
    def own(self) -> list[Result]:
        """Networks that stand for themselves: not those that were trained for a group of schemes only."""

        def apart(folder: Path) -> bool:
            return any(groups.holds(folder, path.parent) for path, (_, groups) in self.groups.items())

        return [each for each in self.results if not all(apart(run.folder) for run in each.runs)]


def _read_each(records: Iterable[Path], read: Callable[[Path], T], leave_out: LeaveOut) -> dict[Path, T]:
    """What stands beside each record."""
    found = {}
    for path in records:
        try:
            found[path] = read(path)
        except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
            leave_out(path, str(error) if isinstance(error, (ValueError, OSError)) else f"it is not whole: {error!r}")
    return found


# ---------------------------------------------------------------- rows


def _network(config: str | None) -> dict[str, str]:
    """Data set and network of a search's config."""
    parts = parse_name(config or "")
    if parts is None:
        return {"data": "", "network": config or ""}
    return {"data": find_dataset(parts.dataset).title, "network": f"ResNet-{parts.depth} {parts.attention.upper()}"}


def _place(record: Mapping[str, Any]) -> tuple[int, int]:
    """Where the paper would have a search: by data set, then attention."""
    parts = parse_name(record["config"] or "")
    if parts is None:
        return len(known_datasets()), 0
    attention = parts.attention.upper()
    return list(known_datasets()).index(parts.dataset), ATTENTIONS.index(attention) if attention in ATTENTIONS else 9


@dataclass(frozen=True)
class SchemeRow:
    """A scheme that a search returned, or that a network was trained with (Table 2).

    Args:
        method: the strategy, and its seed.
        config: of the search; None for the paper's.
        scheme: its connections, as text.
        supernet: accuracy as scored in the search, in percent.
        own_norms: accuracy with batch norms estimated for it.
        alone: test accuracies of the network trained with it, one a seed.
        whose: where it is from.
    """

    titles: ClassVar[tuple[str, ...]] = (
        "method",
        "data",
        "network",
        "connections",
        "trained alone (%)",
        "seeds",
        "supernet (%)",
        "with its own norms (%)",
        "scheme",
        "whose",
    )
    words: ClassVar[tuple[str, ...]] = ("method", "data", "network", "scheme", "whose")

    method: str
    config: str | None
    scheme: str
    supernet: float | None
    own_norms: float | None
    alone: Sequence[float]
    whose: str

    def cells(self) -> dict[str, str]:
        """Column titles and texts."""
        cells = {
            "method": self.method,
            **(_network(self.config) if self.config else PAPER_NETWORK),
            "scheme": f"`{self.scheme}`",
            "connections": str(self.scheme.count("1")),
            "whose": self.whose,
        }
        if self.alone:
            cells["trained alone (%)"] = Spread.of(self.alone).text(2)
        if self.alone and self.config:
            cells["seeds"] = str(len(self.alone))
        if self.supernet is not None:
            cells["supernet (%)"] = f"{self.supernet:.2f}"
        if self.own_norms is not None:
            cells["with its own norms (%)"] = f"{self.own_norms:.2f}"
        return cells


@dataclass(frozen=True)
class MethodRow:
    """What the schemes that a search method returned come to, over its seeds (Table 4).

    Args:
        of: the searches of a strategy in a comparison, or the paper's line.
        comparison: that comparison; None for the paper's.
        alone: a test accuracy a search, the mean over the trainings with its scheme; empty where one was not trained.
    """

    titles: ClassVar[tuple[str, ...]] = (
        "method",
        "data",
        "network",
        "trained alone (%)",
        "increment (%)",
        "predicted increment (%)",
        "supernet (%)",
        "with its own norms (%)",
        "connections",
        "evaluations",
        "searches",
        "whose",
    )
    words: ClassVar[tuple[str, ...]] = ("method", "data", "network", "whose")

    of: Sequence[SearchRun] | PaperMethod
    comparison: Comparison | None = None
    alone: Sequence[float] = ()

    def cells(self) -> dict[str, str]:
        """Column titles and texts."""
        if isinstance(self.of, PaperMethod):
            return {
                "method": self.of.method,
                **PAPER_NETWORK,
                "trained alone (%)": f"{self.of.accuracy:.2f}",
                "increment (%)": f"{self.of.increment:+.2f}",
                "whose": "paper, Table 4",
            }
        assert self.comparison is not None
        schemes = [run.returned.scheme for run in self.of]
        scored, finalists = _scores(self.comparison)
        increments = [100 * self.comparison.predicted_increment(each) for each in schemes]
        cells = {
            "method": self.of[0].strategy,
            **_network(self.comparison.record["config"]),
            "predicted increment (%)": f"+{Spread.of(increments).text(2)}",
            "supernet (%)": Spread.of([scored[each] for each in schemes]).text(2),
            "connections": Spread.of([each.connections for each in schemes]).text(1),
            "evaluations": Spread.of([len(run.history.evaluations) for run in self.of]).text(0),
            "searches": str(len(self.of)),
            "whose": "here",
        }
        if all(each in finalists for each in schemes):
            cells["with its own norms (%)"] = Spread.of([finalists[each] for each in schemes]).text(2)
        if self.alone:
            cells["trained alone (%)"] = Spread.of(self.alone).text(2)
        return cells


def _scores(comparison: Comparison) -> tuple[dict[ConnectionScheme, float], dict[ConnectionScheme, float]]:
    """By scheme, what the supernet of a comparison says of it, and with batch norms of its own."""
    # What a controller holds most probable, its search may never have asked for: it is scored for the result alone.
    modes = {run.returned.scheme: run.returned.accuracy for run in comparison.runs if run.rule == "mode"}
    scored = {each.scheme: each.accuracy for run in comparison.runs for each in run.history.evaluations}
    scored = modes | scored
    return scored, {each.scheme: each.accuracy for each in comparison.finalists}


@dataclass(frozen=True)
class TimeRow:
    """A network in a timing record.

    Args:
        label: of the record.
        name: of the network in it.
        record: the whole of it.
    """

    titles: ClassVar[tuple[str, ...]] = (
        "record",
        "network",
        "scheme",
        "parameters",
        "batch",
        "pixels",
        "precision",
        "median (ms)",
        "increment (%)",
        "machine",
    )
    words: ClassVar[tuple[str, ...]] = ("record", "network", "scheme", "precision", "machine")

    label: str
    name: str
    record: Mapping[str, Any]

    def cells(self) -> dict[str, str]:
        """Column titles and texts."""
        row = self.record["networks"][self.name]
        return {
            "record": self.label,
            "network": f"{row['attention']}, {self.name}" if "attention" in row else self.name,
            "scheme": f"`{row['scheme']}`",
            "parameters": f"{row['parameters']:,}",
            "batch": str(self.record["batch"]),
            "pixels": size_text(self.record["size"]),
            "precision": self.record["dtype"],
            "median (ms)": f"{1e3 * row['median_s']:.2f}",
            "increment (%)": in_percent(row["increment"], row["increment_interval"]),
            "machine": machine_text(self.record),
        }


@dataclass(frozen=True)
class SourceRow:
    """A record that a report is made of: how to come to it again.

    Args:
        label: of its folder.
        record: the whole of it.
    """

    titles: ClassVar[tuple[str, ...]] = ("record", "kind", "command", "seed", "finished", "machine", "PyTorch")
    words: ClassVar[tuple[str, ...]] = titles

    label: str
    record: Mapping[str, Any]

    def cells(self) -> dict[str, str]:
        """Column titles and texts."""
        return {
            "record": self.label,
            "kind": self.record["kind"],
            "command": f"`{self.record['command']}`",
            "seed": str(self.record.get("seed", "")),
            "finished": self.record["finished"][:10],
            "machine": machine_text(self.record),
            "PyTorch": self.record["environment"]["packages"]["torch"],
        }


# ---------------------------------------------------------------- sections


def sections(records: Records) -> list[Section]:
    """The tables and figures that records hold anything for, in the paper's order; then times, and the records
    themselves. No two have one name."""
    found: dict[str, Section] = {}
    for section in _sections(records):
        if section is None:
            continue
        names = [section.name, *(f"{section.name}_{number}" for number in range(2, len(found) + 2))]
        name = next(name for name in names if name not in found)
        found[name] = replace(section, name=name)
    return list(found.values())


def _sections(records: Records) -> Iterator[Section | None]:
    own = records.own
    first = table_rows(own, 1, everything=True)
    yield _trade(trade_points(first))
    yield _results(own, 1, "Classification: accuracy, parameters and time")
    yield _schemes(records)
    for path, (record, history) in records.searches.items():
        yield _front(records.labels.of(path), record, history)
    for path, record in records.correlations.items():
        yield _correlation(records.labels.of(path), record)
    yield _results(own, 3, "Crowd counting")
    yield _methods(records)
    for path, (_, groups) in records.groups.items():
        yield _alone(records.labels.of(path), records.trained_alone(groups))
    for comparison in records.comparisons.values():
        yield _distribution(comparison)
        yield _convergence(comparison)
    yield _results(own, 5, "Semantic segmentation")
    for path, record in records.gates.items():
        yield _gates(records.labels.of(path), record)
    times = [
        TimeRow(records.labels.of(path), name, each)
        for path, each in records.timings.items()
        for name in each["networks"]
    ]
    if times:
        yield TableSection("times", "Inference times (Eqn 9)", times, TIMES)
    yield TableSection("records", "The records behind all this", list(_sources(records)), SOURCES)


TIMES = (
    "Medians over rounds in which all networks of a record run once, in changing order, in one process; increments "
    "over the vanilla network of the same form, with 95 % intervals. Networks of different records were not timed side "
    "by side."
)
SOURCES = "Paths are in the folders that the report was made of."


def _trade(points: list[TradePoint]) -> FigureSection | None:
    if not any(point.whose == "here" for point in points):
        return None
    return FigureSection(
        "figure1",
        "Figure 1: accuracy against time",
        [field.name for field in fields(TradePoint) if field.name != "interval"] + ["low", "high"],
        [_numbers(*astuple(point)[:-1], *(point.interval or ("", ""))) for point in points],
        lambda path: panels_figure(points, path),
        trade_charts(points),
        "Test accuracy against relative inference time increment (Eqn 9), circles as large as the networks of their "
        "panel have parameters. Ours: eager and, hollow, deployed, each over the vanilla network of its form; bars are "
        "standard deviations over seeds, where there are several. The paper: eager, batch 50, a V100. The panels have "
        "axes of their own: networks, schedules and machines differ.",
    )


def _numbers(*values: Any) -> list[Any]:
    return ["" if value is None else significant(value) for value in values]


def _results(results: Sequence[Result], table: int, title: str) -> TableSection | None:
    rows = table_rows(results, table, everything=True)
    ours = [row.of for row in rows if isinstance(row.of, Result)]
    if not ours:
        return None
    theirs = [row.of for row in rows if isinstance(row.of, PaperRow)]
    sentences = ["± is the standard deviation over seeds; without it there is one."]
    for data in dict.fromkeys(each.data for each in ours):
        own = dict.fromkeys(each.network for each in ours if each.data == data)
        other = dict.fromkeys(each.network for each in theirs if each.data == data)
        if other and own != other:
            sentences.append(f"{data}: {' and '.join(own)} here, {' and '.join(other)} in the paper.")
    missing = dict.fromkeys(each.data for each in theirs if each.data not in {one.data for one in ours})
    if missing:
        sentences.append(f"Not measured here: {', '.join(missing)}.")
    if table != 1:
        sentences.append("The paper's networks start from weights of ImageNet; ResNet-50 is inferred from that.")
    return TableSection(
        f"table{table}", f"Table {table}: {title.lower()}", rows, " ".join([*sentences, timing_text(ours)]).strip()
    )


def _schemes(records: Records) -> TableSection | None:
    rows: list[SchemeRow] = []
    returned: dict[str, set[ConnectionScheme]] = {}
    for record, _ in records.searches.values():
        scheme = ConnectionScheme.parse(record["scheme"]["scheme"])
        returned.setdefault(record["config"] or "", set()).add(scheme)
    for record, history in records.searches.values():
        scheme = ConnectionScheme.parse(record["scheme"]["scheme"])
        scored = {each.scheme: each.accuracy for each in history.evaluations}
        finalists = {each.scheme: each.accuracy for each in history.finalists}
        rows.append(_scheme_row(records, record["strategy"]["type"], record, scheme, scored, finalists))
        shown = returned[record["config"] or ""]
        for each in records.own:  # networks of the search's kind that were trained with other schemes
            own = each.connection == "EAN" and each.scheme not in shown
            if own and records.trained(record["config"], each.scheme) is each:
                shown.add(each.scheme)
                rows.append(_scheme_row(records, "EAN as trained", record, each.scheme, scored, finalists))
    for comparison in records.comparisons.values():
        scored, finalists = _scores(comparison)
        rows += [
            _scheme_row(
                records, f"{run.strategy}, seed {run.seed}", comparison.record, run.returned.scheme, scored, finalists
            )
            for run in comparison.runs
            if run.strategy in CONTROLLERS
        ]
    if not rows:
        return None
    rows += [_paper_scheme(each) for each in SCHEMES]
    damaged = ", ".join(each.method for each in SCHEMES if not each.whole)
    return TableSection(
        "table2",
        "Table 2: connection schemes that searches returned",
        rows,
        "Squares are blocks, filled where they are connected to their stage's attention. Accuracies of the supernet "
        "are on validation images, those of networks trained alone on test images. "
        f"The paper prints {damaged} with a wrong number of digits; its line stands as printed.",
    )


def _scheme_row(
    records: Records,
    method: str,
    record: Mapping[str, Any],
    scheme: ConnectionScheme,
    scored: Mapping[ConnectionScheme, float],
    finalists: Mapping[ConnectionScheme, float],
) -> SchemeRow:
    network, config = records.trained(record["config"], scheme), record["config"]
    alone = network.values("accuracy/top1") if network else []
    return SchemeRow(method, config, str(scheme), scored.get(scheme), finalists.get(scheme), alone, "here")


def _paper_scheme(line: PaperScheme) -> SchemeRow:
    return SchemeRow(line.method, None, line.scheme, None, None, [line.accuracy], "paper, Table 2")


def _front(label: str, record: Mapping[str, Any], history: SearchHistory) -> FigureSection | None:
    """Accuracy against cost of a single search."""
    if not history.finalists:
        return None
    evaluations = list({each.scheme: each for each in history.evaluations}.values())
    exact = len(evaluations) == 2 ** len(evaluations[0].scheme.bits)
    cost = "attention time (ms a batch)" if history.key["reward"]["latency"] else "connections"
    names = _network(record["config"])
    short = f"{names['network'].rpartition(' ')[2]} schemes" + f" ({names['data']})" * bool(names["data"])
    title = f"{short}: {'all those' if exact else 'those scored'} of a {names['network']} supernet"
    finalists = {each.scheme: each for each in history.finalists}
    return FigureSection(
        f"schemes_{slug(record['config'] or label)}",
        title,
        ["scheme", cost, "supernet (%)", "standard error", "with its own norms (%)"],
        [
            _numbers(
                str(each.scheme),
                each.cost,
                each.accuracy,
                each.standard_error,
                finalists[each.scheme].accuracy if each.scheme in finalists else None,
            )
            for each in evaluations
        ],
        lambda path: front_figure(evaluations, history.finalists, path, exact=exact, cost=cost),
        [front_chart(evaluations, history.finalists, front(history.finalists), cost)],
        "Accuracy against cost: the schemes as scored in the search, and finalists with batch norms re-estimated; the "
        f"line is their front. By `{record['strategy']['type']}`, {len(history.evaluations)} evaluations. From "
        f"`{label}`.",
    )


def _correlation(label: str, record: Mapping[str, Any]) -> FigureSection:
    """What a supernet says of schemes against what they reach alone."""
    names = _network(record["config"])
    return FigureSection(
        f"correlation_{slug(record['config'] or label)}",
        f"Supernet against training alone: {names['network']}, {names['data']}".rstrip(", "),
        ["scheme", *PROXIES, "alone"],
        [_numbers(*(row[name] for name in ("scheme", *PROXIES, "alone"))) for row in record["schemes"]],
        lambda path: correlation_figure(record, path),
        correlation_charts(record),
        f"Validation accuracies of {len(record['schemes'])} random schemes, {record['epochs']} epochs of training for "
        f"each; one standard error is {record['standard_error']:.2f}. The paper has a Pearson correlation of 0.71 over "
        f"42. From `{label}`.",
    )


def _methods(records: Records) -> TableSection | None:
    rows: list[MethodRow] = []
    for comparison in records.comparisons.values():
        for runs in comparison.by_strategy().values():
            networks = [records.trained(comparison.record["config"], run.returned.scheme) for run in runs]
            alone = [fmean(each.values("accuracy/top1")) for each in networks if each]
            rows.append(MethodRow(runs, comparison, alone if all(networks) else []))
    if not rows:
        return None
    rows += [MethodRow(each) for each in METHODS]
    return TableSection(
        "table4",
        "Table 4: search methods",
        rows,
        "The schemes that each method returned: mean and standard deviation over its searches. Ours are judged by the "
        "supernet on validation images, and by networks trained alone where each scheme of a method was; the paper's "
        "are all trained alone. Predicted increments are sums of parts that were timed one by one (eager).",
    )


def _alone(label: str, trained: TrainedAlone) -> FigureSection | TextSection:
    """Accuracies of networks trained alone, by the groups of their schemes."""
    samples, networks, config = trained.samples(), trained.networks, trained.of.config
    names = _network(config)
    title = f"Figure 4, trained alone: random and searched schemes: {names['network']}, {names['data']}"
    if not trained.enough:
        return TextSection(
            "figure4_alone",
            title,
            f"{len(networks)} of {len(trained.of.schemes)} schemes are trained alone so far ({trained.counts()}), too "
            f"few to compare groups by test accuracies of networks trained by `{config}`; the list is in `{label}`.",
        )
    values = {name: list(found.values()) for name, found in samples.items()}
    several = sum(len(each.runs) > 1 for each in networks.values())
    means = f" ({several} with several seeds: their means)" if several else ""
    first = next(iter(networks.values()))
    return FigureSection(
        "figure4_alone",
        title,
        ["group", "scheme", "accuracy (%)", "seeds"],
        [
            _numbers(name, str(scheme), value, len(networks[scheme].runs))
            for name, found in samples.items()
            for scheme, value in found.items()
        ],
        lambda path: distribution_figure(values, path, trained.sampling),
        [distribution_chart(values, trained.sampling)],
        f"Test accuracies of networks trained alone, one training a scheme{means}, by `{config}` with one recipe for "
        f"all: {schedule_text(first.runs[0].training)}, measured on {first.images:,} test images. Trained of the "
        f"schemes listed in `{label}`: {trained.counts()}; a scheme of several groups counts in each. p is of Welch's "
        f"t-test against random schemes, which takes schemes as independent of each other. {DISTRIBUTION}",
    )


def _distribution(comparison: Comparison) -> FigureSection | None:
    samples = comparison.samples()
    if "random" not in samples:
        return None
    return FigureSection(
        "figure4",
        f"Figure 4: accuracies of random and of searched schemes{_of(comparison)}",
        ["strategy", "scheme", "accuracy (%)"],
        [_numbers(name, str(scheme), value) for name, found in samples.items() for scheme, value in found.items()],
        lambda path: draw_distribution(comparison, path),
        [distribution_chart({name: list(found.values()) for name, found in samples.items()})],
        f"{FIGURES['distribution']} Accuracies are the supernet's on validation images. {DISTRIBUTION}",
    )


def _convergence(comparison: Comparison) -> FigureSection | None:
    curves = {"mean probability": comparison.probabilities(), "best reward": comparison.rewards()}
    if not curves["best reward"]:
        return None
    charts = [
        lines_chart("Controllers", "step", "mean probability of what is sampled", curves["mean probability"]),
        lines_chart("All strategies", "evaluations", "best reward so far", curves["best reward"], logarithmic=True),
    ]
    return FigureSection(
        "figure5",
        f"Figure 5: how searches converge{_of(comparison)}",
        ["what", "strategy", "seed", "step", "value"],
        [
            _numbers(what, name, run.seed, step, value)
            for what, strategies in curves.items()
            for name, seeds in strategies.items()
            for run, values in zip(comparison.by_strategy()[name], seeds, strict=True)
            for step, value in enumerate(values, 1)
        ],
        lambda path: draw_convergence(comparison, path),
        [chart for chart in charts if chart["series"]],
        f"{FIGURES['convergence']} {CONVERGENCE}",
    )


def _gates(label: str, record: Mapping[str, Any]) -> FigureSection:
    """Gates of one network, block by block."""
    names = _network(record["config"])
    return FigureSection(
        f"gates_{slug(label.removeprefix('gates/'))}".rstrip("_."),
        f"{record['attention']} gates ({record['scheme']}): {names['network']}, {names['data']}".rstrip(", "),
        list(record["blocks"][0]),
        [_numbers(*block.values()) for block in record["blocks"]],
        lambda path: gates_figure(record, path),
        [gates_chart(record)],
        "How much the gate of each connected block differs between images, and between channels. What differs between "
        "channels only could be folded into weights; what differs between images (for SGE, also between positions) is "
        f"what attention is for. Mean and standard deviations over {record['images']:,} images.",
    )


def _of(comparison: Comparison) -> str:
    names = _network(comparison.record["config"])
    return f": {names['network']}, {names['data']}".rstrip(", ")


def _sources(records: Records) -> Iterator[SourceRow]:
    label = records.labels.of
    for each in records.results:
        for run in each.runs:
            yield SourceRow(label(run.folder / "record.json"), run.training)
            yield SourceRow(label(run.folder / "test.json"), run.test)
    for path, (record, _) in (*records.searches.items(), *records.groups.items()):
        yield SourceRow(label(path), record)
    for path, comparison in records.comparisons.items():
        yield SourceRow(label(path), comparison.record)
    for path, record in (*records.correlations.items(), *records.timings.items(), *records.gates.items()):
        yield SourceRow(label(path), record)
