"""What `campaign.py report` writes: our rows beside the paper's, fronts of all schemes, how well supernets rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ean_core.inference.latency import BlockTimes
from ean_core.record import csv_text, read_record, write_text
from ean_core.report.results import Result, comparison_text, read_results, table_rows
from ean_core.report.search import SearchHistory, Spread, read_search
from ean_core.report.search_figures import front_figure
from ean_core.report.table import Row, markdown_table
from ean_core.scheme import ConnectionScheme
from ean_core.search.strategy import Evaluation

ATTENTION = ("SE", "DIA", "SGE")
#: How our rows differ from the paper's, by table.
DIFFERENCES = {
    1: "The paper trains ResNet-164 on a GPU, for 150 epochs of supernet; ours is ResNet-20, eight times shallower, "
    "with a supernet of 15 epochs and 24 epochs from scratch in bf16 on two CPU cores. Test images were read once a "
    "network.",
    3: "The paper's counters stand on ResNet-50 with ImageNet weights and are measured on the 316 official test "
    "images; ours stand on the ResNet-20 of the table above and are measured on the 40 images of the training set that "
    "selected their checkpoints, so that errors on others are likely to be larger. The official test images were not "
    "used.",
    5: "The paper's PSPNet stands on ResNet-50 with ImageNet weights and trains on 10,582 images; ours stands on the "
    "ResNet-20 above and trains on 200 images of VOC's training set, for 80 validation images.",
}
TITLES = {1: "Classification (Table 1)", 3: "Crowd counting (Table 3)", 5: "Segmentation (Table 5)"}


@dataclass(frozen=True)
class RankRow:
    """A scheme that was trained alone, and what its supernet had said of it."""

    titles: ClassVar[tuple[str, ...]] = (
        "attention",
        "scheme",
        "supernet (%)",
        "with its own batch norms (%)",
        "trained alone, test (%)",
        "seeds",
    )
    words: ClassVar[tuple[str, ...]] = ("attention", "scheme")

    attention: str
    scheme: ConnectionScheme
    supernet: float
    recalibrated: float | None
    alone: Sequence[float]

    def cells(self) -> dict[str, str]:
        """Column titles and texts."""
        return {
            "attention": self.attention,
            "scheme": f"`{self.scheme}`",
            "supernet (%)": f"{self.supernet:.2f}",
            "with its own batch norms (%)": f"{self.recalibrated:.2f}" if self.recalibrated is not None else "",
            "trained alone, test (%)": Spread.of(self.alone).text(2),
            "seeds": str(len(self.alone)),
        }


def write_report(
    results: Path, searches: Mapping[str, Path], chosen: Mapping[str, str], times: Mapping[str, Path]
) -> Path:
    """Write ``README.md``, ``tableN.csv`` and one figure an attention into a folder of results.

    Args:
        results: the folder.
        searches: by attention, the folder of its finished search.
        chosen: by attention, the scheme that was chosen.
        times: by attention, the table of what each connection costs, deployed.

    Returns:
        The page.
    """
    found = read_results([results])
    histories = {attention: read_search(folder / "ledger.jsonl") for attention, folder in searches.items()}
    parts = [
        "# Trained here, beside the paper",
        "Every figure is that of a record in this folder, which names command, seed, versions and machine. "
        "`python benchmarks/campaign.py report` writes this page; `python benchmarks/campaign.py` says what is still "
        "to be trained. ± is the standard deviation over seeds.",
    ]
    for table, title in TITLES.items():
        rows = table_rows(found, table)
        if not rows:
            continue
        write_text(results / f"table{table}.csv", _csv(rows))
        parts += [f"## {title}", markdown_table(rows), DIFFERENCES[table]]
        if table == 1:
            parts += ["\n".join(f"- {line}." for line in claims(found)), *_times(found)]
    parts += ["## All schemes of a supernet"]
    for attention, history in histories.items():
        figure = results / f"front_{attention.lower()}.png"
        evaluation = _finalist(history, chosen[attention])
        _draw_front(history, evaluation, times.get(attention), figure)
        parts += [_search_text(attention, history, evaluation, figure.name)]
    ranks = list(_ranks(found, histories))
    parts += [
        "## How well supernets rank",
        markdown_table(ranks) if ranks else "Nothing to compare yet.",
        _rank_text(results),
    ]
    page = results / "README.md"
    write_text(page, "\n\n".join(part for part in parts if part) + "\n")
    return page


def claims(results: Sequence[Result]) -> Iterator[str]:
    """What the classifiers say of the paper's claim: EAN as accurate as Share-full, more than the plain network, and
    faster than Share-full."""
    ours = {(each.attention, each.connection): each for each in results if each.data == "CIFAR-100"}
    plain = ours.get(("", "vanilla"))
    for attention in ATTENTION:
        ean, full = ours.get((attention, "EAN")), ours.get((attention, "Share-full"))
        for other in (full, plain):
            if ean and other:
                yield comparison_text(ean, other)
        if full and plain:
            yield comparison_text(full, plain)
        if ean and full:
            yield from _time_claims(attention, ean, full)


def _time_claims(attention: str, ean: Result, full: Result) -> Iterator[str]:
    for form in ("eager", "deployed"):
        if form in ean.timings and form in full.timings:
            shares = [100 * each.timings[form][0]["increment"] for each in (ean, full)]
            word = "less" if shares[0] < shares[1] else "more"
            yield (
                f"EAN {attention} adds {shares[0]:.1f} % to the time of the plain network, {form}, Share-full "
                f"{shares[1]:.1f} %: {abs(shares[0] - shares[1]):.1f} points {word}"
            )


def _times(results: Sequence[Result]) -> list[str]:
    """Under which conditions the increments of classifiers were measured."""
    conditions = {}
    for each in results:
        if each.data == "CIFAR-100":
            for _, record in each.timings.values():
                machine = record["environment"]
                conditions[f"{machine['cpu']}, {machine['threads']} threads"] = record
    return [
        f"Increments (Eqn 9) are over the vanilla network of the same form, in one process: batch {record['batch']} at "
        f"{record['size']} pixels, {record['dtype']}, on {where}; the paper's on a V100. 95 % intervals in brackets."
        for where, record in list(conditions.items())[-1:]
    ]


def _finalist(history: SearchHistory, scheme: str) -> Evaluation:
    return next(each for each in history.finalists if str(each.scheme) == scheme)


def _draw_front(history: SearchHistory, chosen: Evaluation, table: Path | None, path: Path) -> None:
    """Accuracy of all schemes against the time of their networks, or where none was measured, their connections."""
    cost = "connections"
    evaluations, finalists = list(history.evaluations), list(history.finalists)
    if table is not None:
        times = BlockTimes.load(table)
        cost = f"deployed network, ms a batch of {read_record(table)['batch']}: sum of its parts"
        evaluations, finalists, (chosen,) = (
            [replace(each, cost=1e3 * times.whole(each.scheme)) for each in some]
            for some in (evaluations, finalists, [chosen])
        )
    front_figure(evaluations, finalists, path, exact=True, cost=cost, chosen=chosen)


def _search_text(attention: str, history: SearchHistory, chosen: Evaluation, figure: str) -> str:
    ends = {each.scheme.connections: each for each in history.finalists if each.scheme.sparsity in (0, 1)}
    none, full = ends[0], ends[len(chosen.scheme.bits)]
    best = max(history.finalists, key=lambda each: each.accuracy)
    return (
        f"![All schemes of the {attention} supernet]({figure})\n\n"
        f"*{attention}: validation accuracy of all {history.unique} schemes against time, and of the finalists with "
        f"batch norms of their own. EAN is the finalist of highest reward (accuracy + 2 x sparsity) that leaves some "
        f"blocks out and connects some: `{chosen.scheme}`, {chosen.accuracy:.2f} %. Without attention "
        f"{none.accuracy:.2f} %, Share-full {full.accuracy:.2f} %, the best finalist regardless of cost "
        f"`{best.scheme}` {best.accuracy:.2f} %; one standard error is {chosen.standard_error:.2f}.*"
    )


def _ranks(results: Sequence[Result], histories: Mapping[str, SearchHistory]) -> Iterator[RankRow]:
    for attention, history in histories.items():
        supernet = {each.scheme: each.accuracy for each in history.evaluations}
        own = {each.scheme: each.accuracy for each in history.finalists}
        for each in results:
            if each.data == "CIFAR-100" and each.attention in ("", attention) and each.connection != "Org-full":
                scheme = each.scheme
                yield RankRow(attention, scheme, supernet[scheme], own.get(scheme), each.values("accuracy/top1"))


def _rank_text(results: Path) -> str:
    lines = []
    for path in sorted(results.glob("correlate_*/**/correlation.json")):
        record = read_record(path)
        for name, what in (("supernet", "as scored in the search"), ("recalibrated", "with batch norms of their own")):
            found: Mapping[str, Any] = record["correlations"][name]
            lines.append(
                f"- {path.relative_to(results).parts[0]}: {found['count']} random schemes, {record['epochs']} epochs "
                f"alone each, {what}: Spearman {found['spearman']:+.2f} ({found['spearman_interval'][0]:+.2f} to "
                f"{found['spearman_interval'][1]:+.2f}), Pearson {found['pearson']:+.2f} "
                f"({found['pearson_interval'][0]:+.2f} to {found['pearson_interval'][1]:+.2f}). The paper has a "
                "Pearson correlation of 0.71 over 42 schemes."
            )
    return "\n".join(lines)


def _csv(rows: Sequence[Row]) -> str:
    cells = [row.cells() for row in rows]
    titles = [title for title in rows[0].titles if any(title in line for line in cells)]
    return csv_text(titles, ([line.get(title, "") for title in titles] for line in cells))
