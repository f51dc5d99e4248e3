"""Sections of a report: the paper's tables and figures from records, our results beside the paper's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from ean_core.common.config import parse_name
from ean_core.common.record import significant
from ean_core.common.tasks import ACCURACY, Metric, find_dataset, known_datasets
from ean_core.common.text import number_of
from ean_core.scheme import ConnectionScheme
from ean_core.search.scorer import Difference
from ean_core.show.table import Cells, in_percent, size_text, spread_text

from .alone import SchemeGroups, TrainedAlone, read_groups
from .claim import CLAIM, find_claims, transferred_text
from .correlation import PROXIES, correlation_figure
from .gates import gates_figure
from .paper import CONVERGENCE, DISTRIBUTION, METHODS, SCHEMES, PaperRow
from .recipes import Recipes
from .records import LeaveOut, label, of_kind, read_records, refuse, slug
from .results import (
    ATTENTIONS,
    BORROWED,
    BORROWED_TEXT,
    Key,
    Result,
    find_results,
    machine_text,
    result_cells,
    schedule_text,
    table_rows,
    timing_text,
)
from .search import (
    FIGURES,
    Comparison,
    SearchHistory,
    SearchRun,
    draw_convergence,
    draw_distribution,
    figure_text,
    read_comparison,
    read_search,
)
from .search_figures import cost_title, distribution_figure, front_figure, has_all
from .trade import panels_figure, trade_points

T = TypeVar("T")
#: Strategies with a controller; Table 2 lists their schemes.
CONTROLLERS = ("ean", "enas")
#: Schemes that a search's result is compared with.
ENDS = ("full", "none")
#: The network of Tables 2 and 4 in the paper.
PAPER_NETWORK = {"network": "ResNet-164 SE", "data": "CIFAR-100"}


@dataclass(frozen=True)
class Section:
    """A part of a report: a table, a figure with its data, or text only.

    Args:
        name: stem of its files, and its anchor on the page.
        title: heading above it.
        note: text below it; paragraphs are separated by an empty line.
        rows: rows of the table, or data of the figure in six significant digits.
        draw: writes the figure to a path, in the format of its suffix; None for tables and text.
    """

    name: str
    title: str
    note: str
    rows: Sequence[Mapping[str, Any]] = ()
    draw: Callable[[Path], object] | None = None


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
        groups: records of schemes to be trained individually, and the groups they list.
        folders: folders searched.
    """

    results: Sequence[Result]
    searches: Mapping[Path, tuple[Mapping[str, Any], SearchHistory]]
    comparisons: Mapping[Path, Comparison]
    correlations: Mapping[Path, Mapping[str, Any]]
    timings: Mapping[Path, Mapping[str, Any]]
    gates: Mapping[Path, Mapping[str, Any]]
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
            folders,
        )
        everything = (found.searches, found.comparisons, found.correlations, found.timings, found.gates, found.groups)
        if not (found.results or any(everything)):
            raise FileNotFoundError(
                f"nothing to report below {', '.join(map(str, folders))}: expected records of `ean train` with "
                "`ean test`, `ean search`, `ean search compare`, `ean search correlate`, `ean time` or `ean gates` "
                "in their work directories"
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


def _network(config: str | None) -> dict[str, str]:
    """Data set and network of a search's config."""
    parts = parse_name(config or "")
    if parts is None:
        return {"network": config or "", "data": ""}
    return {"network": f"ResNet-{parts.depth} {parts.attention.upper()}", "data": find_dataset(parts.dataset).title}


def _place(record: Mapping[str, Any]) -> tuple[int, int]:
    """Sort key in the paper's order: data set, then attention."""
    parts = parse_name(record["config"] or "")
    if parts is None:
        return len(known_datasets()), 0
    attention = parts.attention.upper()
    return list(known_datasets()).index(parts.dataset), ATTENTIONS.index(attention) if attention in ATTENTIONS else 9


def _scores(comparison: Comparison) -> tuple[dict[ConnectionScheme, float], dict[ConnectionScheme, float]]:
    """Supernet score by scheme, as trained and with batch norms re-estimated."""
    # A controller's most probable scheme may never have been sampled: it is then scored for the result only.
    modes = {run.returned.scheme: run.returned.score for run in comparison.runs if run.rule == "mode"}
    scored = {each.scheme: each.score for run in comparison.runs for each in run.history.evaluations}
    scored = modes | scored
    return scored, {each.scheme: each.score for each in comparison.finalists}


# ---------------------------------------------------------------- sections


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
    yield _trade(records)
    yield _results(records, 1, "Classification: accuracy, parameters and time")
    yield _claim(records)
    yield _schemes(records)
    yield _task_schemes(records)
    for path, (record, history) in records.searches.items():
        yield _front(records.label(path), record, history)
    for path, record in records.correlations.items():
        yield _correlation(records.label(path), record)
    yield _results(records, 3, "Crowd counting")
    yield _methods(records)
    for path, (_, groups) in records.groups.items():
        yield _alone(records.label(path), records.trained_alone(groups))
    for comparison in records.comparisons.values():
        yield _distribution(comparison)
        yield _convergence(comparison)
    yield _results(records, 5, "Semantic segmentation")
    for path, record in records.gates.items():
        yield _gates(records.label(path), record)
    yield _times(records)
    yield Section("records", "Source records", SOURCES, list(_sources(records)))


TRADE = (
    "Test accuracy against relative inference time increment (Eqn 9); in each panel, circle areas are proportional to "
    "the number of parameters. Ours: eager (filled) and deployed (hollow), relative to the vanilla network in the same "
    "form; bars are standard deviations over seeds, where there are several. The paper: eager, batch 50 on a V100. "
    "Each panel has its own axes: networks, recipes and machines differ."
)
TIMES = (
    "Medians over rounds in which all networks of a record run once, in changing order, in one process; increments are "
    "relative to the vanilla network in the same form, with 95 % intervals. Networks of different records were not "
    "timed side by side."
)
SOURCES = "Paths are relative to the folders that the report was made from."


def _rounded(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Round a figure's data for its CSV file; None becomes empty."""
    return [{name: "" if value is None else significant(value) for name, value in row.items()} for row in rows]


def _trade(records: Records) -> Section | None:
    rows = table_rows(records.own, 1, everything=True)
    points = trade_points(rows, records.recipes, records.label)
    if not any(point.source == "here" for point in points):
        return None
    places = {point.timed.removeprefix(f"{BORROWED} "): None for point in points if BORROWED in point.timed}
    where = f"{BORROWED_TEXT} Those records: {', '.join(f'`{place}`' for place in places)}." if places else ""
    return Section(
        "figure1",
        "Figure 1: accuracy against time",
        " ".join(filter(None, (TRADE, where, records.recipes.note(row for row in rows if isinstance(row, Result))))),
        _rounded(map(asdict, points)),
        lambda path: panels_figure(points, path),
    )


def _results(records: Records, table: int, title: str) -> Section | None:
    rows = table_rows(records.own, table, everything=True)
    ours = [row for row in rows if isinstance(row, Result)]
    if not ours:
        return None
    theirs = [row for row in rows if isinstance(row, PaperRow)]
    sentences = ["± is the standard deviation over seeds; values without it are from a single seed."]
    for data in dict.fromkeys(each.data for each in ours):
        own = dict.fromkeys(each.network for each in ours if each.data == data)
        other = dict.fromkeys(each.network for each in theirs if each.data == data)
        if other and own != other:
            sentences.append(f"{data}: {' and '.join(own)} here, {' and '.join(other)} in the paper.")
    missing = dict.fromkeys(each.data for each in theirs if each.data not in {one.data for one in ours})
    if missing:
        sentences.append(f"Not measured here: {', '.join(missing)}.")
    if table != 1:
        sentences.append(
            "The paper's networks start from ImageNet weights; that they are ResNet-50 is inferred from this."
        )
    recipes = records.recipes
    note = " ".join(filter(None, [*sentences, recipes.note(ours), timing_text(ours)]))
    letters = [recipes.letter(row) if isinstance(row, Result) else "" for row in rows]
    cells = [result_cells(row, table, letter, records.label) for row, letter in zip(rows, letters, strict=True)]
    return Section(f"table{table}", f"Table {table}: {title.lower()}", note, cells)


def _claim(records: Records) -> Section | None:
    claims = find_claims(records.own)
    if not claims:
        return None
    recipes = records.recipes
    rows = [row for each in claims for row in each.rows(recipes, records.label)]
    marked = BORROWED_TEXT if any(BORROWED in row["timed in"] for row in rows) else ""
    first = " ".join(filter(None, (CLAIM, marked, recipes.note(each.networks["EAN"] for each in claims))))
    texts = [first, *(each.in_short(recipes) for each in claims), transferred_text(records.own, recipes)]
    return Section("claim", "The paper's claim", "\n\n".join(filter(None, texts)), rows)


def _schemes(records: Records) -> Section | None:
    rows: list[Cells] = []
    returned: dict[str, set[ConnectionScheme]] = {}
    searches = [pair for pair in records.searches.values() if Metric.of(pair[0]) == ACCURACY]
    for record, _ in searches:
        scheme = ConnectionScheme.parse(record["scheme"]["scheme"])
        returned.setdefault(record["config"] or "", set()).add(scheme)
    for record, history in searches:
        config = record["config"]
        scored = {each.scheme: each.score for each in history.evaluations}
        finalists = {each.scheme: each.score for each in history.finalists}
        listed = {ConnectionScheme.parse(record["scheme"]["scheme"]): record["strategy"]["type"]}
        shown = returned[config or ""]
        for each in records.own:  # trained with other schemes on the same data set, depth and attention
            own = each.connection == "EAN" and each.scheme not in shown
            if own and records.trained(config, each.scheme) is each:
                shown.add(each.scheme)
                listed[each.scheme] = "EAN as trained"
        rows += [_scheme(records, method, config, each, scored, finalists) for each, method in listed.items()]
    for comparison in records.comparisons.values():
        if comparison.metric != ACCURACY:
            continue
        scored, finalists = _scores(comparison)
        rows += [
            _scheme(
                records,
                f"{run.strategy}, seed {run.seed}",
                comparison.record["config"],
                run.returned.scheme,
                scored,
                finalists,
            )
            for run in comparison.runs
            if run.strategy in CONTROLLERS
        ]
    if not rows:
        return None
    rows += [
        {
            "source": "paper, Table 2",
            "method": line.method,
            **PAPER_NETWORK,
            "trained alone (%)": f"{line.accuracy:.2f}",
            "connections": str(line.scheme.count("1")),
            "scheme": f"`{line.scheme}`",
        }
        for line in SCHEMES
    ]
    damaged = ", ".join(each.method for each in SCHEMES if not each.whole)
    return Section(
        "table2",
        "Table 2: connection schemes that searches returned",
        "Squares are blocks, filled if connected to their stage's attention. Supernet accuracies are on validation "
        "images, those of networks trained alone on test images; epochs are those of networks trained alone. "
        f"The paper prints {damaged} with a wrong number of digits; it is shown as printed.",
        rows,
    )


def _scheme(
    records: Records,
    method: str,
    config: str | None,
    scheme: ConnectionScheme,
    scored: Mapping[ConnectionScheme, float],
    finalists: Mapping[ConnectionScheme, float],
) -> Cells:
    """Row for a scheme that a search returned, or that a network was trained with."""
    network = records.trained(config, scheme)
    alone = network.values("accuracy/top1") if network else []
    return {
        "source": "here",
        "method": method,
        **_network(config),
        "trained alone (%)": spread_text(alone, 2) if alone else "",
        "epochs": network.epochs if network else "",
        "recipe": records.recipes.letter(network) if network else "",
        "seeds": str(len(alone)) if alone else "",
        "supernet (%)": f"{scored[scheme]:.2f}" if scheme in scored else "",
        "with its own norms (%)": f"{finalists[scheme]:.2f}" if scheme in finalists else "",
        "connections": str(scheme.connections),
        "scheme": f"`{scheme}`",
    }


def _task_schemes(records: Records) -> Section | None:
    """Results of searches by other metrics than accuracy."""
    rows = []
    for path, (record, _) in records.searches.items():
        metric, found = Metric.of(record), record["scheme"]
        if metric == ACCURACY:
            continue
        differences = {name: Difference(**values) for name, values in record.get("differences", {}).items()}
        rows.append(
            {
                **_network(record["config"]),
                "strategy": record["strategy"]["type"],
                "connections": str(ConnectionScheme.parse(found["scheme"]).connections),
                "supernet": metric.text(found[metric.label], found["standard_error"]),
                **{f"minus {name}": differences[name].text() if name in differences else "" for name in ENDS},
                "scheme": f"`{found['scheme']}`",
                "record": records.label(path),
            }
        )
    if not rows:
        return None
    return Section(
        "task_schemes",
        "Connection schemes that searches of other tasks returned",
        "Scores of supernets on validation images, ± standard error over the images, and paired differences of the "
        "returned scheme from Share-full and from no attention over the same images. The scheme was selected on these "
        "images, which favors it.",
        rows,
    )


def _front(label: str, record: Mapping[str, Any], history: SearchHistory) -> Section | None:
    """Score against cost for a single search."""
    if not history.finalists:
        return None
    evaluations = list({each.scheme: each for each in history.evaluations}.values())
    latency = bool(history.key["reward"]["latency"])
    names = _network(record["config"])
    short = f"{names['network'].rpartition(' ')[2]} schemes" + f" ({names['data']})" * bool(names["data"])
    which = "all" if has_all(evaluations) else "scored"
    finalists = {each.scheme: each.score for each in history.finalists}
    metric, fixed = history.evaluations[0].metric, "norms" in record
    unit = " (%)" if metric == ACCURACY else f" {metric.axis}"
    return Section(
        f"schemes_{slug(record['config'] or label)}",
        f"{short}: {which} schemes of a {names['network']} supernet",
        f"{metric.label[0].upper()}{metric.label[1:]} against cost: schemes as scored in the search, and finalists"
        f"{'' if fixed else ' with batch norms re-estimated'}; the line "
        f"is the finalists' front. Strategy `{record['strategy']['type']}`, {len(history.evaluations)} evaluations. "
        f"Source: `{label}`.",
        _rounded(
            {
                "scheme": str(each.scheme),
                cost_title(latency): each.cost,
                f"supernet{unit}": each.score,
                "standard error": each.standard_error,
                **({} if fixed else {f"with its own norms{unit}": finalists.get(each.scheme)}),
            }
            for each in evaluations
        ),
        lambda path: front_figure(evaluations, history.finalists, path, latency=latency, fixed_norms=fixed),
    )


def _correlation(label: str, record: Mapping[str, Any]) -> Section:
    """Supernet score against stand-alone score."""
    name = Metric.of(record).label
    several = "accuracies" if name == ACCURACY.label else name
    return Section(
        f"correlation_{slug(record['config'] or label)}",
        f"Supernet {name} against stand-alone {name}{_of(record)}",
        f"Validation {several} of {len(record['schemes'])} random schemes, each trained for "
        f"{number_of(record['epochs'], 'epoch')}; one standard error is {record['standard_error']:.2f}. The paper "
        f"reports a Pearson correlation of 0.71 over 42 schemes. Source: `{label}`.",
        _rounded({name: row[name] for name in ("scheme", *PROXIES, "alone")} for row in record["schemes"]),
        lambda path: correlation_figure(record, path),
    )


def _methods(records: Records) -> Section | None:
    rows = [
        _method(records, comparison, runs)
        for comparison in records.comparisons.values()
        for runs in comparison.by_strategy().values()
    ]
    if not rows:
        return None
    rows += [
        {
            "source": "paper, Table 4",
            "method": line.method,
            **PAPER_NETWORK,
            "trained alone (%)": f"{line.accuracy:.2f}",
            "increment (%)": f"{line.increment:+.2f}",
        }
        for line in METHODS
    ]
    return Section(
        "table4",
        "Table 4: search methods",
        "Schemes returned by each method: mean and standard deviation over its searches. Ours are scored by the "
        "supernet on validation images, and by networks trained alone if all of a method's schemes were, with one "
        "recipe; the paper's are all trained alone. Predicted increments are sums over individually timed parts "
        "(eager).",
        rows,
    )


def _method(records: Records, comparison: Comparison, runs: Sequence[SearchRun]) -> Cells:
    """Row for the schemes returned by a strategy's searches."""
    schemes = [run.returned.scheme for run in runs]
    scored, finalists = _scores(comparison)
    networks = records.trained_alike(comparison.record["config"], schemes)
    # A scheme counts once, whatever its number of seeds.
    alone = [fmean(each.values("accuracy/top1")) for each in networks]
    increments = [100 * comparison.predicted_increment(each) for each in schemes]
    rescored = [finalists[each] for each in schemes if each in finalists]
    return {
        "source": "here",
        "method": runs[0].strategy,
        **_network(comparison.record["config"]),
        "trained alone (%)": spread_text(alone, 2) if alone else "",
        "epochs": networks[0].epochs if networks else "",
        "recipe": records.recipes.letter(networks[0]) if networks else "",
        "increment (%)": "",
        "predicted increment (%)": f"+{spread_text(increments, 2)}",
        "supernet (%)": spread_text([scored[each] for each in schemes], 2),
        "with its own norms (%)": spread_text(rescored, 2) if len(rescored) == len(runs) else "",
        "connections": spread_text([each.connections for each in schemes], 1),
        "evaluations": spread_text([len(run.history.evaluations) for run in runs], 0),
        "searches": str(len(runs)),
    }


def _alone(label: str, trained: TrainedAlone) -> Section:
    """Accuracies of networks trained individually, grouped by where their schemes come from."""
    samples, networks, config = trained.samples(), trained.networks, trained.of.config
    title = f"Figure 4, networks trained alone: random and searched schemes{_of({'config': config})}"
    if not trained.enough:
        return Section(
            "figure4_alone",
            title,
            f"{len(networks)} of {len(trained.of.schemes)} schemes are trained alone so far ({trained.counts()}): too "
            f"few to compare groups by test accuracy. Networks are trained by `{config}`; the list is in `{label}`.",
        )
    values = {name: list(found.values()) for name, found in samples.items()}
    several = sum(len(each.runs) > 1 for each in networks.values())
    means = f" ({several} with several seeds, averaged)" if several else ""
    first = next(iter(networks.values()))
    return Section(
        "figure4_alone",
        title,
        f"Test accuracies of networks trained alone, one training per scheme{means}, by `{config}` with one recipe for "
        f"all: {schedule_text(first.runs[0].training)}, measured on {first.images:,} test images. Schemes of `{label}` "
        f"trained so far: {trained.counts()}; a scheme in several groups counts in each. p is from Welch's t-test "
        f"against random schemes, which treats schemes as independent. {DISTRIBUTION}",
        _rounded(
            {"group": name, "scheme": str(scheme), "accuracy (%)": value, "seeds": len(networks[scheme].runs)}
            for name, found in samples.items()
            for scheme, value in found.items()
        ),
        lambda path: distribution_figure(values, path, trained.sampling),
    )


def _distribution(comparison: Comparison) -> Section | None:
    samples, metric = comparison.samples(), comparison.metric
    if "random" not in samples:
        return None
    several = "Accuracies" if metric == ACCURACY else f"Values of {metric.label}"
    return Section(
        "figure4",
        f"Figure 4: {several[0].lower()}{several[1:]} of random and searched schemes{_of(comparison.record)}",
        f"{figure_text('distribution', metric)} {several} are the supernet's on validation images. {DISTRIBUTION}",
        _rounded(
            {"strategy": name, "scheme": str(scheme), metric.axis: value}
            for name, found in samples.items()
            for scheme, value in found.items()
        ),
        lambda path: draw_distribution(comparison, path),
    )


def _convergence(comparison: Comparison) -> Section | None:
    curves = {"mean probability": comparison.probabilities(), "best reward": comparison.rewards()}
    if not curves["best reward"]:
        return None
    return Section(
        "figure5",
        f"Figure 5: convergence of searches{_of(comparison.record)}",
        f"{FIGURES['convergence']} {CONVERGENCE}",
        _rounded(
            {"what": what, "strategy": name, "seed": run.seed, "step": step, "value": value}
            for what, strategies in curves.items()
            for name, seeds in strategies.items()
            for run, values in zip(comparison.by_strategy()[name], seeds, strict=True)
            for step, value in enumerate(values, 1)
        ),
        lambda path: draw_convergence(comparison, path),
    )


def _gates(label: str, record: Mapping[str, Any]) -> Section:
    """Gates of a network, block by block."""
    return Section(
        f"gates_{slug(label.rpartition('gates/')[2])}".rstrip("_."),
        f"{record['attention']} gates ({record['scheme']}){_of(record)}",
        "Variation of each connected block's gate between images and between channels. Variation between channels only "
        "could be folded into the weights; variation between images (for SGE, also between positions) is the reason to "
        f"use attention. Mean and standard deviations over {record['images']:,} images.",
        _rounded(record["blocks"]),
        lambda path: gates_figure(record, path),
    )


def _of(record: Mapping[str, Any]) -> str:
    """Network and data set of a search or gates record, as the end of a title."""
    names = _network(record["config"])
    return f": {names['network']}, {names['data']}".rstrip(", ")


def _times(records: Records) -> Section | None:
    rows = [
        {
            "network": f"{row['attention']}, {name}" if "attention" in row else name,
            "median (ms)": f"{1e3 * row['median_s']:.2f}",
            "increment (%)": in_percent(row["increment"], row["increment_interval"]),
            "record": records.label(path),
            "parameters": f"{row['parameters']:,}",
            "batch": str(record["batch"]),
            "pixels": size_text(record["size"]),
            "precision": record["dtype"],
            "machine": machine_text(record),
            "scheme": f"`{row['scheme']}`",
        }
        for path, record in records.timings.items()
        for name, row in record["networks"].items()
    ]
    return Section("times", "Inference times (Eqn 9)", TIMES, rows) if rows else None


def _sources(records: Records) -> Iterator[Cells]:
    """Rows for the source records: command, seed, date, machine and version."""
    found: list[tuple[Path, Mapping[str, Any]]] = []
    for run in (run for each in records.results for run in each.runs):
        found += [(run.folder / "record.json", run.training), (run.folder / "test.json", run.test)]
    found += [(path, record) for path, (record, _) in (*records.searches.items(), *records.groups.items())]
    found += [(path, comparison.record) for path, comparison in records.comparisons.items()]
    for path, record in (*found, *records.correlations.items(), *records.timings.items(), *records.gates.items()):
        yield {
            "record": records.label(path),
            "kind": record["kind"],
            "command": f"`{record['command']}`",
            "seed": str(record.get("seed", "")),
            "finished": record["finished"][:10],
            "machine": machine_text(record),
            "PyTorch": record["environment"]["packages"]["torch"],
        }
