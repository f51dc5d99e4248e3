"""Sections of searches: schemes they returned, their fronts, methods compared, supernet against stand-alone scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ean_core.common.tasks import ACCURACY, Metric
from ean_core.common.text import number_of
from ean_core.scheme import ConnectionScheme
from ean_core.search.scorer import Difference
from ean_core.show.table import Cells, spread_text

from .alone import TrainedAlone
from .correlation import PROXIES, correlation_figure
from .gathered import Records
from .paper import CONVERGENCE, DISTRIBUTION, METHODS, SCHEMES
from .records import slug
from .rows import schedule_text
from .search import FIGURES, Comparison, SearchHistory, SearchRun, draw_convergence, draw_distribution, figure_text
from .search_figures import cost_title, distribution_figure, front_figure, has_all
from .section import Section, network_cells, of_network, rounded

#: Strategies with a controller; Table 2 lists their schemes.
CONTROLLERS = ("ean", "enas")
#: Schemes that a search's result is compared with.
ENDS = ("full", "none")
#: The network of Tables 2 and 4 in the paper.
PAPER_NETWORK = {"network": "ResNet-164 SE", "data": "CIFAR-100"}


def schemes_section(records: Records) -> Section | None:
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
        **network_cells(config),
        "trained alone (%)": spread_text(alone, 2) if alone else "",
        "epochs": network.epochs if network else "",
        "recipe": records.recipes.letter(network) if network else "",
        "seeds": str(len(alone)) if alone else "",
        "supernet (%)": f"{scored[scheme]:.2f}" if scheme in scored else "",
        "with its own norms (%)": f"{finalists[scheme]:.2f}" if scheme in finalists else "",
        "connections": str(scheme.connections),
        "scheme": f"`{scheme}`",
    }


def task_schemes_section(records: Records) -> Section | None:
    """Results of searches by other metrics than accuracy."""
    rows = []
    for path, (record, _) in records.searches.items():
        metric, found = Metric.of(record), record["scheme"]
        if metric == ACCURACY:
            continue
        differences = {name: Difference(**values) for name, values in record.get("differences", {}).items()}
        rows.append(
            {
                **network_cells(record["config"]),
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


def front_section(label: str, record: Mapping[str, Any], history: SearchHistory) -> Section | None:
    """Score against cost for a single search."""
    if not history.finalists:
        return None
    evaluations = list({each.scheme: each for each in history.evaluations}.values())
    latency = bool(history.key["reward"]["latency"])
    names = network_cells(record["config"])
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
        rounded(
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


def correlation_section(label: str, record: Mapping[str, Any]) -> Section:
    """Supernet score against stand-alone score."""
    name = Metric.of(record).label
    several = "accuracies" if name == ACCURACY.label else name
    return Section(
        f"correlation_{slug(record['config'] or label)}",
        f"Supernet {name} against stand-alone {name}{of_network(record)}",
        f"Validation {several} of {len(record['schemes'])} random schemes, each trained for "
        f"{number_of(record['epochs'], 'epoch')}; one standard error is {record['standard_error']:.2f}. The paper "
        f"reports a Pearson correlation of 0.71 over 42 schemes. Source: `{label}`.",
        rounded({name: row[name] for name in ("scheme", *PROXIES, "alone")} for row in record["schemes"]),
        lambda path: correlation_figure(record, path),
    )


def methods_section(records: Records) -> Section | None:
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
        **network_cells(comparison.record["config"]),
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


def alone_section(label: str, trained: TrainedAlone) -> Section:
    """Accuracies of networks trained individually, grouped by where their schemes come from."""
    samples, networks, config = trained.samples(), trained.networks, trained.of.config
    title = f"Figure 4, networks trained alone: random and searched schemes{of_network({'config': config})}"
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
        rounded(
            {"group": name, "scheme": str(scheme), "accuracy (%)": value, "seeds": len(networks[scheme].runs)}
            for name, found in samples.items()
            for scheme, value in found.items()
        ),
        lambda path: distribution_figure(values, path, trained.sampling),
    )


def distribution_section(comparison: Comparison) -> Section | None:
    samples, metric = comparison.samples(), comparison.metric
    if "random" not in samples:
        return None
    several = "Accuracies" if metric == ACCURACY else f"Values of {metric.label}"
    return Section(
        "figure4",
        f"Figure 4: {several[0].lower()}{several[1:]} of random and searched schemes{of_network(comparison.record)}",
        f"{figure_text('distribution', metric)} {several} are the supernet's on validation images. {DISTRIBUTION}",
        rounded(
            {"strategy": name, "scheme": str(scheme), metric.axis: value}
            for name, found in samples.items()
            for scheme, value in found.items()
        ),
        lambda path: draw_distribution(comparison, path),
    )


def convergence_section(comparison: Comparison) -> Section | None:
    curves = {"mean probability": comparison.probabilities(), "best reward": comparison.rewards()}
    if not curves["best reward"]:
        return None
    return Section(
        "figure5",
        f"Figure 5: convergence of searches{of_network(comparison.record)}",
        f"{FIGURES['convergence']} {CONVERGENCE}",
        rounded(
            {"what": what, "strategy": name, "seed": run.seed, "step": step, "value": value}
            for what, strategies in curves.items()
            for name, seeds in strategies.items()
            for run, values in zip(comparison.by_strategy()[name], seeds, strict=True)
            for step, value in enumerate(values, 1)
        ),
        lambda path: draw_convergence(comparison, path),
    )


def _scores(comparison: Comparison) -> tuple[dict[ConnectionScheme, float], dict[ConnectionScheme, float]]:
    """Supernet score by scheme, as trained and with batch norms re-estimated."""
    # A controller's most probable scheme may never have been sampled: it is then scored for the result only.
    modes = {run.returned.scheme: run.returned.score for run in comparison.runs if run.rule == "mode"}
    scored = {each.scheme: each.score for run in comparison.runs for each in run.history.evaluations}
    scored = modes | scored
    return scored, {each.scheme: each.score for each in comparison.finalists}
