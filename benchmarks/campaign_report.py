"""What `campaign.py report` writes: our rows beside the paper's, fronts of all schemes, how well supernets rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ean_core.config import DATASETS
from ean_core.inference.latency import BlockTimes
from ean_core.record import read_record, write_text
from ean_core.report.paper import PAPER
from ean_core.report.results import Result, compared, comparison_text, read_results, table_rows, timing_text
from ean_core.report.search import SearchHistory, Spread, read_search
from ean_core.report.search_figures import front_figure
from ean_core.report.table import markdown_table
from ean_core.scheme import ConnectionScheme
from ean_core.search.strategy import Evaluation

#: How our rows differ from the paper's beyond what stands in them, by table.
DIFFERENCES = {
    1: "The paper trains ResNet-164, ours is ResNet-20, of the same family and an eighth of its depth, with short "
    "schedules in bf16 on two CPU cores. The paper does not say over how many seeds. Test images were read once a "
    "training.",
    3: "The paper's counters stand on networks with ImageNet weights (ResNet-50 is inferred from that) and are "
    "measured on the 316 official test images; ours stand on the ResNet-20 of the table above and are measured on 40 "
    "images of the training set, which also selected the epoch, so that errors on others are likely to be larger. The "
    "official test images were not used. Differences between our counters are those of one training each.",
    5: "The paper's segmentors stand on networks with ImageNet weights (ResNet-50 is inferred from that); it names "
    "neither their head nor the number of training images. Ours stand on the ResNet-20 of the first table and train on "
    "a sample of VOC, once each.",
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
    results: Path,
    source: str,
    searches: Mapping[str, Path],
    chosen: Mapping[str, str],
    times: Mapping[str, Path],
) -> Path:
    """Write ``README.md`` and one figure an attention into a folder of results.

    Args:
        results: the folder.
        source: the data set of the searches.
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
        "to be trained. ± is the standard deviation over seeds; without it there is one.",
    ]
    for table, title in TITLES.items():
        rows = table_rows(found, table)
        if rows:
            parts += [f"## {title}", markdown_table(rows), DIFFERENCES[table]]
            parts += [timing_text([row.of for row in rows if isinstance(row.of, Result)])]
    trained = [each for each in found if each.data == DATASETS[source][0]]
    parts += [
        "## The paper's claim",
        CLAIM,
        *(_claim(trained, attention, scheme) for attention, scheme in chosen.items()),
    ]
    parts += [_transferred(found)]
    parts += ["## All schemes of a supernet", RULE]
    for attention, history in histories.items():
        figure = results / f"front_{attention.lower()}.png"
        evaluation = _finalist(history, chosen[attention])
        _draw_front(history, evaluation, times.get(attention), figure)
        returned = read_record(searches[attention] / "search.json")["scheme"]["scheme"]
        parts += [_search_text(attention, history, evaluation, returned, figure.name)]
    ranks = list(_ranks(trained, histories))
    parts += [
        "## How well supernets rank",
        markdown_table(ranks) if ranks else "Nothing to compare yet.",
        _rank_text(results),
    ]
    page = results / "README.md"
    write_text(page, "\n\n".join(part for part in parts if part) + "\n")
    return page


CLAIM = (
    "The paper claims that connections found by its search keep or improve the accuracy of attention in all blocks "
    "(Share-full), which improves on the plain network, at a fraction of the time. With our classifiers:"
)
RULE = (
    "EAN is, in each search, the finalist of highest reward among those that leave some blocks out and connect some. "
    "The rule was written down after SE's search and before those of DIA and SGE; each search by itself returns the "
    "finalist of highest reward, whatever it connects. Times are sums of parts that are timed one by one, somewhat "
    "more than the whole network takes in Table 1."
)


def _claim(results: Sequence[Result], attention: str, scheme: str) -> str:
    """What our classifiers say of the paper's claim for one attention."""
    mine = {each.connection: each for each in results if each.attention in ("", attention)}
    for each in results:  # a searched network may have other connections than those that were chosen
        if each.attention == attention and str(each.scheme) == scheme:
            mine["EAN"] = each
    theirs = {
        row.connection: row.metrics["accuracy/top1"]
        for row in PAPER
        if row.data == "CIFAR-100" and row.attention in ("", attention)
    }
    lines: list[str] = []
    seen: dict[str, list[str]] = {"shown": [], "not seen": [], "open": []}
    seeds = min((len(each.runs) for each in mine.values()), default=0)
    for one, other in (("EAN", "Share-full"), ("EAN", "vanilla"), ("Share-full", "vanilla")):
        if one in mine and other in mine:
            paper = theirs[one] - theirs[other]
            _, low, high = compared(mine[one], mine[other])
            lines.append(f"{comparison_text(mine[one], mine[other])} (paper, on CIFAR-100: {paper:+.2f})")
            clear = "shown" if seeds > 1 and low * high > 0 else "open"
            found = clear if low <= paper <= high else "not seen"
            seen[found].append(f"{one} against {other}")
    ean, full = mine.get("EAN"), mine.get("Share-full")
    if not (ean and full and "vanilla" in mine):
        return "\n".join(
            [f"**{attention}**, EAN `{scheme}`: not all of the three networks are trained yet.", "", *_items(lines)]
        )
    for form in ("eager", "deployed"):
        if form in ean.timings and form in full.timings:
            lines.append(
                f"{form}, EAN adds {ean.increment(form)} % to the time of the plain network, Share-full "
                f"{full.increment(form)} %"
            )
    words = {
        "shown": "the paper's differences are seen here too for {}",
        "not seen": "differences as large as the paper's are not seen here for {}",
        "open": "the paper's can neither be confirmed nor excluded for {}",
    }
    over = "one training each" if seeds == 1 else f"{seeds} trainings or more of each"
    texts = [words[key].format(_and(names)) for key, names in seen.items() if names]
    time = "holds" if _faster(ean, full) else "is not shown"
    lines.append(f"**in short**, by {over}: {'; '.join(texts)}. What the claim says of time {time}")
    return "\n".join([f"**{attention}**, EAN `{scheme}`:", "", *_items(lines)])


def _items(lines: Sequence[str]) -> list[str]:
    return [f"- {line}." for line in lines]


def _and(names: Sequence[str]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1]) if len(names) > 1 else names)


def _transferred(results: Sequence[Result]) -> str:
    """What our counters and segmentors say, best first."""
    lines = []
    for metric, higher_is_better, unit in (("count/MAE", False, ""), ("mIoU", True, " %")):
        for data in dict.fromkeys(each.data for each in results if metric in each.runs[0].test["metrics"]):
            found = [each for each in results if each.data == data and metric in each.runs[0].test["metrics"]]
            if len(found) < 2:
                continue
            ordered = sorted(found, key=lambda each: each.values(metric)[0], reverse=higher_is_better)
            texts = [f"{each.title} {each.values(metric)[0]:.2f}{unit}" for each in ordered]
            lines.append(f"{data}, {metric.rpartition('/')[2]}: {', '.join(texts)}")
    if not lines:
        return ""
    return "\n".join(["Transferred, best first, one training each on few images:", "", *_items(lines)])


def _faster(ean: Result, full: Result) -> bool:
    """Whether the intervals of both increments lie apart, in each form that was timed."""
    forms = ean.timings.keys() & full.timings.keys()
    return bool(forms) and all(
        ean.timings[form][0]["increment_interval"][1] < full.timings[form][0]["increment_interval"][0] for form in forms
    )


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


def _search_text(attention: str, history: SearchHistory, chosen: Evaluation, returned: str, figure: str) -> str:
    ends = {each.scheme.connections: each for each in history.finalists if each.scheme.sparsity in (0, 1)}
    none, full = ends[0], ends[len(chosen.scheme.bits)]
    best = max(history.finalists, key=lambda each: each.accuracy)
    return (
        f"![All schemes of the {attention} supernet]({figure})\n\n"
        f"*{attention}: validation accuracy of all {history.unique} schemes against time, and of the finalists with "
        f"batch norms of their own. EAN `{chosen.scheme}` has {chosen.accuracy:.2f} %, and a reward (accuracy plus "
        f"{history.key['reward']['sparsity']:g} times sparsity) of {chosen.reward:.2f}; no attention "
        f"{none.accuracy:.2f} % and {none.reward:.2f}; Share-full "
        f"{full.accuracy:.2f} % and {full.reward:.2f}; the most accurate finalist, "
        f"`{best.scheme}`, {best.accuracy:.2f} %. One standard error is {chosen.standard_error:.2f}. The search itself "
        f"returned `{returned}`.*"
    )


def _ranks(results: Sequence[Result], histories: Mapping[str, SearchHistory]) -> Iterator[RankRow]:
    for attention, history in histories.items():
        supernet = {each.scheme: each.accuracy for each in history.evaluations}
        own = {each.scheme: each.accuracy for each in history.finalists}
        for each in results:
            if each.attention in ("", attention) and each.connection != "Org-full":
                scheme = each.scheme
                yield RankRow(attention, scheme, supernet[scheme], own.get(scheme), each.values("accuracy/top1"))


def _rank_text(results: Path) -> str:
    lines = []
    for path in sorted(results.glob("correlate_*/**/correlation.json")):
        record = read_record(path)
        for name, what in (("supernet", "as scored in the search"), ("recalibrated", "with batch norms of their own")):
            found: Mapping[str, Any] = record["correlations"][name]
            spearman, pearson = (
                f"{key.title()} {found[key]:+.2f} ({low:+.2f} to {high:+.2f})"
                for key in ("spearman", "pearson")
                for low, high in [found[f"{key}_interval"]]
            )
            folder = path.parent.relative_to(results)
            lines.append(
                f"{folder}: {found['count']} schemes, {record['epochs']} epochs each, {what}: {spearman}, {pearson}"
            )
    if not lines:
        return ""
    head = (
        "The two or three schemes of a supernet in this table are too few for a correlation. Random ones, trained "
        "alone for a few epochs on the training part and measured on the validation part (the paper has a Pearson "
        "correlation of 0.71 over 42):"
    )
    return "\n".join([head, "", *_items(lines)])
