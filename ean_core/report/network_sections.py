"""Sections of networks trained here: accuracy against time, the result tables, the paper's claim, times."""

from __future__ import annotations

from dataclasses import asdict

from ean_core.common.tasks import Task
from ean_core.show.table import in_percent, size_text

from .claim import CLAIM, METHOD, find_claims, transferred_text
from .gathered import Records
from .paper import PaperRow
from .per_image import pair_rows
from .records import slug
from .results import BORROWED, BORROWED_TEXT, Result
from .rows import machine_text, result_cells, table_rows, timing_text
from .section import Section, rounded
from .trade import panels_figure, trade_points

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


def trade_section(records: Records) -> Section | None:
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
        rounded(map(asdict, points)),
        lambda path: panels_figure(points, path),
    )


def results_section(records: Records, table: int, title: str) -> Section | None:
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


def claim_section(records: Records) -> Section | None:
    claims = find_claims(records.own)
    if not claims:
        return None
    recipes = records.recipes
    rows = [row for each in claims for row in each.rows(recipes, records.label)]
    marked = BORROWED_TEXT if any(BORROWED in row["timed in"] for row in rows) else ""
    first = " ".join(filter(None, (CLAIM, marked, recipes.note(each.networks["EAN"] for each in claims))))
    parts = dict.fromkeys(text for each in claims for text in each.paragraphs(recipes))  # some EANs share a Share-full
    texts = [first, METHOD, *parts, transferred_text(records.own, recipes)]
    return Section("claim", "The paper's claim", "\n\n".join(filter(None, texts)), rows)


def pairs_section(records: Records, task: Task) -> Section | None:
    """Networks of a task compared image by image; None if their tests keep no values, or there are no two."""
    rows = pair_rows(records.own, records.values, task, records.recipes)
    if not rows:
        return None
    label = task.metrics[0].label
    note = (
        f"Differences of {label}, first minus second, over the same images, with paired 95 % bootstrap intervals over "
        "these images; they hold for these trainings."
    )
    ours = [each for each in records.own if task.metrics[0].name in each.runs[0].test["metrics"]]
    return Section(
        f"pairs_{slug(task.noun)}",
        f"{task.noun.capitalize()}s compared image by image",
        " ".join(filter(None, (note, records.recipes.note(ours)))),
        rows,
    )


def times_section(records: Records) -> Section | None:
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
