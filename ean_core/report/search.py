"""Reports of searches and of strategy comparisons, from ledgers and run records only."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from ean_core.common.record import csv_text, read_record, write_text
from ean_core.common.tasks import ACCURACY, Metric
from ean_core.inference.latency import BlockTimes
from ean_core.scheme import ConnectionScheme
from ean_core.search.ledger import read_lines
from ean_core.search.prefixes import count_bodies, walk_seconds
from ean_core.search.strategy import Evaluation
from ean_core.show.table import Cells, markdown_table, spread_text

from .search_figures import Sampling, convergence_figure, distribution_figure, front_figure

#: Deterministic strategies: one seed is enough, and the order of their evaluations is meaningless.
SEEDLESS = ("exhaustive", "hsp")

#: Captions of the figures.
FIGURES = {
    "front": "Accuracy against cost for every scheme scored, and for the finalists with batch norms re-estimated; "
    "below, the schemes on the finalists' front.",
    "convergence": "Confidence of the controllers, and best reward so far.",
    "distribution": "Accuracies of the distinct schemes in the second half of each search (of all schemes for "
    "strategies that do not learn), and Welch's t-test against random schemes, which treats schemes as independent.",
}


def figure_text(name: str, metric: Metric) -> str:
    """Caption of a figure, for a metric."""
    if metric == ACCURACY:
        return FIGURES[name]
    return FIGURES[name].replace("Accuracies", f"Values of {metric.label}").replace("Accuracy", metric.label)


@dataclass(frozen=True)
class SearchHistory:
    """A search as recorded in its ledger.

    Args:
        key: supernet, data and settings of the search.
        evaluations: all evaluations in order, including repetitions.
        steps: step number of each evaluation.
        infos: values that the strategy recorded per step, e.g. ``mean_probability``.
        finalists: evaluations with batch norms re-estimated for each scheme.
    """

    key: Mapping[str, Any]
    evaluations: list[Evaluation]
    steps: list[int]
    infos: Mapping[int, Mapping[str, float]]
    finalists: list[Evaluation]

    @property
    def best(self) -> Evaluation:
        """The first evaluation with the highest reward."""
        return max(self.evaluations, key=lambda evaluation: evaluation.reward)

    @property
    def unique(self) -> int:
        """Number of distinct schemes evaluated."""
        return len({evaluation.scheme for evaluation in self.evaluations})

    def walks(self) -> list[list[ConnectionScheme]]:
        """New schemes in each step: those the search computes if it only remembers its own scores."""
        seen: set[ConnectionScheme] = set()
        walks = []
        for _, step in groupby(zip(self.steps, self.evaluations, strict=True), key=lambda pair: pair[0]):
            fresh = {evaluation.scheme for _, evaluation in step} - seen
            seen |= fresh
            walks.append(sorted(fresh))
        return walks


def read_search(path: Path, stages: Sequence[int] | None = None) -> SearchHistory:
    """Read a ledger; one that is still being written is read up to its last complete line.

    Args:
        path: the ledger.
        stages: blocks per stage, for ledgers that do not record them.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is empty or damaged, or holds a line that is not an evaluation.
    """
    lines, _ = read_lines(path)
    if not lines:
        raise ValueError(f"{path} is empty; a ledger starts with the key of its search, which `ean search` writes")
    try:
        metric = Metric.of(lines[0])
    except ValueError as error:
        raise ValueError(f"{path}, line 1: {error}") from error
    evaluations: list[Evaluation] = []
    steps: list[int] = []
    infos: dict[int, Mapping[str, float]] = {}
    finalists: list[Evaluation] = []
    for number, line in enumerate(lines[1:], 2):
        try:
            evaluation, step = read_evaluation(line, stages or lines[0].get("stages"), metric), line["step"]
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path}, line {number}, is not an evaluation ({error!r}): {line}") from error
        if step == "finalists":
            finalists.append(evaluation)
        if not isinstance(step, int):
            continue
        evaluations.append(evaluation)
        steps.append(step)
        if "info" in line:
            infos[step] = line["info"]
    return SearchHistory(lines[0], evaluations, steps, infos, finalists)


def read_evaluation(line: Mapping[str, Any], stages: Sequence[int] | None, metric: Metric) -> Evaluation:
    """Read an evaluation from a ledger line or a record."""
    return Evaluation(
        ConnectionScheme.parse(line["scheme"], stages),
        line[metric.label],
        line["cost"],
        line["reward"],
        line.get("standard_error", 0.0),
        metric,
    )


@dataclass(frozen=True)
class SearchRun:
    """One search of a comparison.

    Args:
        strategy: name of the strategy.
        seed: random seed.
        history: its ledger.
        rule: rule that selected the returned scheme.
        returned: returned scheme; under the rule ``front``, its score is that of the finalists.
        bodies: block bodies computed if the search runs alone; None for a trainer.
        seconds: time if the search runs alone, predicted from block times; measured for a trainer.
    """

    strategy: str
    seed: int
    history: SearchHistory
    rule: str
    returned: Evaluation
    bodies: int | None
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """Searches of one supernet by several strategies, with several seeds each.

    Args:
        record: ``compare.json``.
        runs: in the record's order of strategies, then by seed.
        finalists: the best schemes of all searches, none and full, with batch norms re-estimated.
    """

    record: Mapping[str, Any]
    runs: tuple[SearchRun, ...]
    finalists: list[Evaluation]

    @cached_property
    def optimum(self) -> Evaluation | None:
        """The best of all possible schemes, if an exhaustive search took part."""
        return next((run.history.best for run in self.runs if run.strategy == "exhaustive"), None)

    def predicted_increment(self, scheme: ConnectionScheme) -> float:
        """Relative inference time increment (Eqn 9) of a scheme, predicted from the times of the supernet's parts."""
        times = _block_times(self.record)
        return times.connected(scheme) / times.whole(ConnectionScheme.none(scheme.stages))

    @property
    def metric(self) -> Metric:
        """The metric of the scores."""
        return Metric.of(self.runs[0].history.key)

    @property
    def reward(self) -> Mapping[str, Any]:
        """Settings of the reward, common to all searches."""
        reward: Mapping[str, Any] = self.runs[0].history.key["reward"]
        return reward

    def found_optimum(self, run: SearchRun) -> bool | None:
        """Whether a search found a scheme as good as the optimum; None if the optimum is unknown."""
        return None if self.optimum is None else run.history.best.reward >= self.optimum.reward

    def by_strategy(self) -> dict[str, list[SearchRun]]:
        """The searches of each strategy."""
        return {name: list(runs) for name, runs in groupby(self.runs, key=lambda run: run.strategy)}

    def rewards(self) -> dict[str, list[list[float]]]:
        """Best reward so far after each evaluation, by strategy and seed; without deterministic strategies."""
        return {
            name: [list(accumulate((each.reward for each in run.history.evaluations), max)) for run in runs]
            for name, runs in self.by_strategy().items()
            if name not in SEEDLESS
        }

    def probabilities(self) -> dict[str, list[list[float]]]:
        """Mean probability of the sampled schemes in each step, by strategy with a controller and seed."""
        return {
            name: [[info["mean_probability"] for _, info in sorted(run.history.infos.items())] for run in runs]
            for name, runs in self.by_strategy().items()
            if all(
                run.history.infos and all("mean_probability" in info for info in run.history.infos.values())
                for run in runs
            )
        }

    def samples(self) -> dict[str, dict[ConnectionScheme, float]]:
        """Scores of distinct schemes by strategy: those in the second half of each search, after learning; all for
        strategies that do not learn."""
        found = {}
        for name, runs in self.by_strategy().items():
            whole = name in (*SEEDLESS, "random")
            found[name] = {
                each.scheme: each.score
                for run in runs
                for each in run.history.evaluations[0 if whole else len(run.history.evaluations) // 2 :]
            }
        return found


def read_comparison(folder: Path) -> Comparison:
    """Read the folder of a comparison.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, or ``compare.json`` is not the record of a comparison.
    """
    record = read_record(folder / "compare.json")
    if record.get("kind") != "search comparison":
        raise ValueError(
            f"{folder / 'compare.json'} is not a comparison of searches (kind {record.get('kind')!r}); "
            "`ean search compare` makes one"
        )
    times = _block_times(record)
    return Comparison(
        record,
        tuple(
            _read_run(folder / name / f"seed_{seed}", name, seed, times, record["batches"])
            for name in record["strategies"]
            for seed in ([0] if name in SEEDLESS else record["seeds"])
        ),
        read_search(folder / "finalists.jsonl", times.stages).finalists,
    )


def _block_times(record: Mapping[str, Any]) -> BlockTimes:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record["block_times"].items()
    }
    return BlockTimes(**values)


def _read_run(folder: Path, strategy: str, seed: int, times: BlockTimes, batches: int) -> SearchRun:
    history, record = read_search(folder / "ledger.jsonl", times.stages), read_record(folder / "search.json")
    if not history.evaluations:
        raise ValueError(f"{folder / 'ledger.jsonl'} holds no evaluations; run the comparison again to complete it")
    trained, walks = record.get("training_seconds"), history.walks()
    return SearchRun(
        strategy=strategy,
        seed=seed,
        history=history,
        rule=record["rule"],
        returned=read_evaluation(record["scheme"], times.stages, Metric.of(record)),
        bodies=batches * sum(map(count_bodies, walks)) if trained is None else None,
        seconds=batches * sum(walk_seconds(walk, times) for walk in walks) if trained is None else trained,
    )


def comparison_rows(comparison: Comparison) -> list[Cells]:
    """Summarize each strategy over its seeds: the best reward and its scheme, the returned scheme, and the cost of one
    search run alone, see :class:`SearchRun`."""
    return [_cells(strategy, runs, comparison) for strategy, runs in comparison.by_strategy().items()]


def _cells(strategy: str, runs: Sequence[SearchRun], comparison: Comparison) -> Cells:
    bodies = [run.bodies for run in runs if run.bodies is not None]
    seconds = [run.seconds for run in runs]
    found = sum(map(bool, map(comparison.found_optimum, runs)))
    return {
        "strategy": strategy,
        "best reward": spread_text([run.history.best.reward for run in runs], 2),
        comparison.metric.axis: spread_text([run.history.best.score for run in runs], 2),
        "connections": spread_text([run.history.best.scheme.connections for run in runs], 1),
        "optimum found": "" if comparison.optimum is None else f"{found} of {len(runs)}",
        "reward returned": spread_text([run.returned.reward for run in runs], 2),
        "rule": runs[0].rule,
        "evaluations": spread_text([len(run.history.evaluations) for run in runs], 0),
        "unique": spread_text([run.history.unique for run in runs], 0),
        "block bodies": spread_text(bodies, 0) if bodies else "",
        "seconds": spread_text(seconds, 1 if statistics.fmean(seconds) < 100 else 0),
    }


def write_comparison(folder: Path) -> list[Cells]:
    """Write the report of a comparison into its folder.

    Files: ``comparison.md``, ``comparison.csv`` (unrounded, one line per search), and the figures ``front.png``,
    ``convergence.png`` and, if random search took part, ``distribution.png``.

    Returns:
        The table's rows, for :func:`ean_core.show.table.print_table`.

    Raises:
        FileNotFoundError: if a file of the comparison is missing.
        ValueError: if a file is damaged.
    """
    comparison = read_comparison(folder)
    rows, figures = comparison_rows(comparison), _write_figures(comparison, folder)
    pictures = "\n\n".join(f"![{name}]({name}.png)\n\n{figure_text(name, comparison.metric)}" for name in figures)
    text = f"{_title(comparison)}\n\n{markdown_table(rows)}\n\n{_caption(comparison)}\n\n{pictures}\n"
    write_text(folder / "comparison.md", text)
    write_text(folder / "comparison.csv", _csv(comparison))
    return rows


def _write_figures(comparison: Comparison, folder: Path) -> list[str]:
    """Draw the figures that there is data for, and return their names."""
    front_figure(
        (evaluation for run in comparison.runs for evaluation in run.history.evaluations),
        comparison.finalists,
        folder / "front.png",
        latency=bool(comparison.reward["latency"]),
    )
    draw_convergence(comparison, folder / "convergence.png")
    if not draw_distribution(comparison, folder / "distribution.png"):
        return ["front", "convergence"]
    return list(FIGURES)


def draw_convergence(comparison: Comparison, path: Path) -> None:
    """Plot the convergence of the searches (Figure 5)."""
    convergence_figure(
        comparison.rewards(),
        comparison.probabilities(),
        path,
        budget=comparison.record["evaluations"],
        optimum=None if comparison.optimum is None else comparison.optimum.reward,
    )


def draw_distribution(comparison: Comparison, path: Path) -> bool:
    """Plot the distribution of scores (Figure 4) if random search took part; return whether it did."""
    samples = {name: list(schemes.values()) for name, schemes in comparison.samples().items()}
    if "random" in samples:
        distribution_figure(samples, path, Sampling(f"validation {comparison.metric.axis}"))
    return "random" in samples


def _title(comparison: Comparison) -> str:
    name, stages = comparison.record["config"] or "one supernet", comparison.record["block_times"]["stages"]
    return f"# Search strategies on {name}, {sum(stages)} blocks in stages of {', '.join(map(str, stages))}"


def _caption(comparison: Comparison) -> str:
    record, best = comparison.record, max((run.history.best for run in comparison.runs), key=lambda e: e.reward)
    metric = comparison.metric
    units = {metric.label: metric.axis, "sparsity": "sparsity", "latency": "share of the attention's time saved"}
    weights = {unit: comparison.reward[name] for name, unit in units.items()}
    weights[metric.axis] *= -1 if metric.less_is_better else 1
    images = f"{record['images']:,} " if "images" in record else ""
    sentences = [
        f"{record['evaluations']} evaluations per search including repetitions, with seeds "
        f"{', '.join(map(str, record['seeds']))}: mean ± sample standard deviation over seeds, omitted if all agree. "
        "Deterministic strategies run once, on as many schemes as they define.",
        f"Reward: {' + '.join(f'{weight:g} x {unit}' for unit, weight in weights.items() if weight)}.",
        f"{_plural(metric)} are the supernet's on {images}validation images, the same for all schemes; the standard "
        f"error is {_error_text(best)} at {metric.measured(best.score)}.",
        "Block bodies are counted and seconds predicted as if each search ran alone, evaluating its new schemes step "
        "by step with shared prefixes, from the measured times of the network's parts (the actual searches shared "
        "their scores).",
    ]
    if any(run.rule == "front" for run in comparison.runs):
        sentences.append(
            "The rule `front` returns the best of the search's finalists. Their rewards use the "
            f"{metric.label} with batch norms re-estimated for each scheme: compare them with each other, not with the "
            "best reward seen."
        )
    trainers = [name for name, runs in comparison.by_strategy().items() if runs[0].bodies is None]
    if trainers:
        sentences.append(
            f"`{'` and `'.join(trainers)}` trains, for about as many forward passes as the other "
            "strategies' evaluations take; it minimizes the validation loss and sees no reward. Its time is measured."
        )
    return " ".join(sentences)


def _plural(metric: Metric) -> str:
    return "Accuracies" if metric == ACCURACY else f"Values of {metric.label}"


def _error_text(evaluation: Evaluation) -> str:
    unit = "percentage points" if evaluation.metric.unit == "%" else evaluation.metric.unit
    return f"{evaluation.standard_error:.2f} {unit}".rstrip()


def _csv(comparison: Comparison) -> str:
    lines = [
        {
            "strategy": run.strategy,
            "seed": run.seed,
            "best_scheme": run.history.best.scheme,
            "best_reward": run.history.best.reward,
            f"best_{comparison.metric.label}": run.history.best.score,
            "best_standard_error": run.history.best.standard_error,
            "best_connections": run.history.best.scheme.connections,
            "found_optimum": comparison.found_optimum(run),
            "rule": run.rule,
            "returned_scheme": run.returned.scheme,
            "returned_reward": run.returned.reward,
            f"returned_{comparison.metric.label}": run.returned.score,
            "returned_connections": run.returned.scheme.connections,
            "evaluations": len(run.history.evaluations),
            "unique": run.history.unique,
            "block_bodies": run.bodies,
            "seconds": run.seconds,
        }
        for run in comparison.runs
    ]
    return csv_text(lines[0], (line.values() for line in lines))
