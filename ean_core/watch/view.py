"""Render the state of runs with rich, for terminals of at least 60 columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ean_core.common.progress import duration
from ean_core.common.tasks import Metric, find_metric, headline, task_of_network
from ean_core.common.text import number_of, visible
from ean_core.report.search import read_evaluation
from ean_core.scheme import ConnectionScheme
from ean_core.search.strategy import Evaluation
from ean_core.show.table import metric_texts
from ean_core.show.terminal import packed, shortened, sparkline, squares

from .state import Several, Standing

#: Width of the labels on the left of a panel, and maximum width of a panel.
LABELS, WIDEST = 13, 100
#: Terminal colors closest to Okabe and Ito's; the state is also written in words.
RUNNING, FINISHED, SILENT = "cyan", "green", "yellow"
Rows = list[tuple[str, RenderableType]]


def show(seen: Standing | Several | str, width: int) -> RenderableType:
    """Render one or several runs for a terminal of ``width`` columns."""
    match seen:
        case Standing():
            return _panel(seen, min(width, WIDEST))
        case Several():
            return _several(seen, width)
    return Text(visible(seen, "\n"))


def _literal(part: RenderableType) -> RenderableType:
    """Show text as it is: rich would take ``[red]`` for markup, and pass on escape sequences."""
    return Text(visible(part, "\n")) if isinstance(part, str) else part


# ---------------------------------------------------------------- one run


def _panel(seen: Standing, width: int) -> Panel:
    inner = width - LABELS - 5
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=LABELS, style="dim", no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for row in _search(seen, inner) if seen.history else _training(seen, inner):
        grid.add_row(*(_literal(part) for part in row))
    title = Text(shortened(visible(str(seen.run.folder)), width - 6), "bold")
    return Panel(grid, title=title, title_align="left", box=box.ROUNDED, width=width)


def _training(seen: Standing, inner: int) -> Rows:
    run, scheme, validations = seen.run, _scheme(seen), _validations(seen)
    strip = [packed([squares(scheme)], inner, " ")] if scheme else []
    rows: Rows = [
        ("config", shortened(visible(run.config or "unknown"), inner)),
        ("network", packed([*_description(seen), *strip], inner)),
        ("state", _state(seen, inner)),
        *_pace(seen, inner),
    ]
    if validations:
        when, best = list(validations)[-1], _best(seen)
        rows.append(("validation", packed([when, *metric_texts(validations[when])], inner)))
        if best != when:
            rows.append(("best", packed([best, *metric_texts(validations[best])], inner)))
        elif len(validations) > 1:
            rows.append(("best", "the last one"))
        key = headline(validations[when])[0]
        values = [metrics[key] for metrics in validations.values() if key in metrics]
        if len(values) > 2:
            rows.append(_curve("", find_metric(key).label, values, inner))
    if run.test:
        rows.append(("test", packed(metric_texts(run.test["metrics"]), inner)))
    if checkpoint := run.latest or run.best:
        rows.append(("checkpoint", visible(checkpoint.name)))
    return rows


def _pace(seen: Standing, inner: int) -> Rows:
    """Progress, speed, times and loss curve of a training."""
    progress, record = seen.run.progress or {}, (seen.record or {}) if seen.finished else {}
    if not progress and not record:
        return []
    epochs = (progress or record)["epochs"]
    notes = [f"epoch {progress.get('epoch', epochs)} of {epochs}"] if epochs else []
    notes += [f"iteration {seen.done} of {seen.total or 'unknown'}"] if progress else []
    speed = (record.get("images_per_second") if epochs else None) or progress.get("images_per_second")
    more = [*notes[1:], *([f"{speed:.0f} images/s"] if speed else [])]
    rows: Rows = [("progress", _bar(seen, notes[0] if notes else "")), *([("", packed(more, inner))] if more else [])]
    if seen.finished:
        seconds = record["seconds"] if record else progress["updated"] - progress["start"]
        times = [f"{duration(seconds)} of training"]
    else:
        seconds = progress["updated"] - progress["start"] + (seen.silence or 0) * seen.running
        times = [duration(seconds) + f" since start {progress['starts']}" * (progress["starts"] > 1)]
        times += [f"about {duration(seen.left)} left"] if seen.left and seen.running else []
    rows.append(("time", packed(times, inner)))
    if progress.get("loss") is not None:
        rows.append(_curve("loss", f"{progress['loss']:.4f}", [value for _, value in progress["losses"]], inner))
        rows.append(("learning rate", f"{progress['learning_rate']:.3g}"))
    return rows


def _search(seen: Standing, inner: int) -> Rows:
    history, record = seen.history, seen.record or {}
    assert history is not None
    origin = [f"strategy {_strategy(seen)}", f"seed {history.key.get('seed', 0)}"]
    origin += [visible(str(record["config"]))] if record.get("config") else []
    rows: Rows = [
        ("search", packed(origin, inner)),
        ("state", _state(seen, inner)),
        ("progress", _bar(seen, f"of {seen.total} evaluations" if seen.total else f"{seen.done}")),
    ]
    if history.evaluations:
        counts = [f"step {max(history.steps) + 1}", f"{seen.done} evaluations", f"{history.unique} distinct schemes"]
        counts += [f"about {duration(seen.left)} left"] if seen.left and seen.running else []
        rewards = list(accumulate((evaluation.reward for evaluation in history.evaluations), max))
        rows.append(("", packed(counts, inner)))
        rows.append(_curve("best reward", f"{rewards[-1]:.2f}", rewards, inner))
        rows.append(("", packed(_measured(history.best)[:-1], inner)))
    sampled = [info["mean_probability"] for _, info in sorted(history.infos.items()) if "mean_probability" in info]
    if sampled:
        rows.append(_curve("mean prob.", f"{sampled[-1]:.3f}", sampled, inner))
    if history.finalists:
        scored = len(history.finalists)
        if not seen.finished:
            wanted = max(scored, min(history.key.get("finalists", {}).get("count", 0), history.unique))
            rows.append(("finalists", f"{scored} of about {wanted} rescored"))
        top = max(history.finalists, key=lambda evaluation: evaluation.reward)
        rows.append((f"best of {scored}" if seen.finished else "", packed(_measured(top), inner)))
    if seen.finished:
        scheme = ConnectionScheme.parse(record["scheme"]["scheme"])
        strip, *measured = _measured(read_evaluation(record["scheme"], None, Metric.of(record)))
        rows.append(("found", packed([strip, str(scheme), *measured, f"by rule {record['rule']}"], inner)))
    return rows


def _bar(seen: Standing, note: str) -> Table:
    """Progress bar with the percentage and a note on the right."""
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True)
    done, total = (seen.done, seen.total) if seen.total else (0, 1)
    share = f"{min(100, 100 * done / total):.0f} % " if seen.total else ""
    bar = ProgressBar(total=total, completed=done, complete_style=RUNNING, finished_style=FINISHED)
    row.add_row(bar, Text(f"{share}{note}", FINISHED if done >= total else ""))
    return row


def _curve(label: str, text: str, values: Sequence[float], inner: int) -> tuple[str, Text]:
    return label, Text(f"{text}  {sparkline(values, inner - len(text) - 2)}")


def _state(seen: Standing, inner: int) -> Text:
    if seen.silence is None:
        why = ["started before progress was recorded", "or without ProgressFileHook"]
        return Text(packed(["no progress.json", *why], inner), SILENT)
    since = duration(seen.silence, units=1)
    if seen.finished:
        return Text(f"finished {since} ago", FINISHED)
    usual = [f"usually every {duration(seen.usual)}"] if seen.usual and 1 <= seen.usual < seen.silence else []
    if seen.running:
        return Text(packed([f"running, last update {since} ago", *usual], inner), RUNNING)
    return Text(packed([f"no update for {duration(seen.silence)}", *usual, "stopped or stalled"], inner), SILENT)


def _description(seen: Standing) -> list[str]:
    """Backbone, attention and connections, and the kind of model, as far as the settings specify them."""
    model = seen.run.settings.get("model") or {}
    backbone = model.get("backbone") or {}
    task, kind = task_of_network(model.get("type")), str(model.get("type") or "")
    kind = "gates of DARTS" if kind == "RelaxedClassifier" else task.noun if task else kind
    if kind == "classifier" and "scheme" in _hooks(seen):
        kind = "supernet"
    depth, attention, scheme = backbone.get("depth"), backbone.get("attention"), backbone.get("scheme")
    network = str(backbone.get("type") or "")
    if depth and "ResNet" in network:
        network = f"ResNet-{depth}"
    name = str(attention.get("type") if isinstance(attention, Mapping) else attention or "")
    if scheme == "none":
        name = "no attention"
    elif scheme == "full" and kind not in ("supernet", "gates of DARTS"):
        name += " Share-full" if backbone.get("shared", True) else " Org-full"
    elif scheme != "full" and name and scheme:
        name += f" {scheme}"
    return [part for part in (network, name, kind) if part] or ["unknown"]


def _scheme(seen: Standing) -> ConnectionScheme | None:
    text = str(((seen.run.settings.get("model") or {}).get("backbone") or {}).get("scheme"))
    fixed = re.fullmatch(r"[01c]+(-[01c]+)+", text) and "scheme" not in _hooks(seen)
    return ConnectionScheme.parse(text) if fixed else None


def _hooks(seen: Standing) -> Mapping[str, Any]:
    return seen.run.settings.get("default_hooks") or {}


def _validations(seen: Standing) -> dict[str, Mapping[str, float]]:
    """Metrics of each validation by its time, such as ``epoch 3``."""
    named: dict[str, Mapping[str, float]] = {}
    for one in seen.run.validations:
        metrics = {name: value for name, value in one.items() if name not in ("epoch", "iteration")}
        if metrics:
            named[f"epoch {one['epoch']}" if "epoch" in one else f"iteration {one['iteration']}"] = metrics
    return named


def _best(seen: Standing) -> str:
    """Time of the best validation, by the metric that selects the checkpoint, or else by the task's main metric."""
    validations, checkpoint = _validations(seen), _hooks(seen).get("checkpoint", {})
    settings = (checkpoint.get(key) for key in ("save_best", "rule"))
    chosen, rule = (next(iter(each), None) if isinstance(each, (list, tuple)) else each for each in settings)
    measured = {name for metrics in validations.values() for name in metrics}
    name = chosen if chosen in measured else headline(next(iter(validations.values())))[0]
    values = {when: metrics[name] for when, metrics in validations.items() if name in metrics}
    less = rule == "less" if rule and name == chosen else find_metric(name).less_is_better
    return (min if less else max)(values, key=values.__getitem__)


def _strategy(seen: Standing) -> str:
    return seen.history.key.get("strategy", {}).get("type", "unknown") if seen.history else ""


def _measured(evaluation: Evaluation) -> list[str]:
    return [
        squares(evaluation.scheme),
        evaluation.metric.text(evaluation.score, evaluation.standard_error),
        f"{evaluation.scheme.connections} connections",
        f"reward {evaluation.reward:.2f}",
    ]


# ---------------------------------------------------------------- several runs


def _several(several: Several, width: int) -> Group:
    running = [run for run in several.runs if run.running]
    finished = sum(run.finished for run in several.runs)
    count, record = len(several.parts), several.record
    title = [*([several.kind] if several.kind != "runs" else []), f"{count} {'run' if count == 1 else 'runs'}"]
    title += [f"{len(running)} running", f"{finished} finished"]
    if several.kind == "quickstart":
        title = ["quickstart", "finished" if record else f"{finished} of {count} networks and searches finished"]
    elif record:
        title = [f"comparison of {len(record['strategies'])} strategies"]
        title += [f"{record['evaluations']} evaluations per search", "finished"]
    parts: list[RenderableType] = [
        Text(shortened(visible(str(several.folder)), width), "bold"),
        Text(packed(title, width)),
        _table(several, width),
    ]
    if several.kind == "quickstart" and running:
        parts.append(show(running[0], width))
    return Group(*parts)


def _table(several: Several, width: int) -> Table:
    """One line per run; if columns do not fit, the least important are dropped, then names are shortened."""
    ends = {Path(name).name if "/" in name else "" for name in several.parts}
    end = f"/{next(iter(ends))}" if len(several.parts) > 1 and len(ends) == 1 and "" not in ends else ""
    rows = [_cells(visible(name.removesuffix(end)), part) for name, part in several.parts.items()]
    if several.kind == "quickstart":
        timing = several.record and f"EAN {100 * several.record['networks']['EAN']['increment']:+.1f} % time"
        state = {"state": "finished", "style": FINISHED} if timing else {"state": "waiting", "style": "dim"}
        rows.append({"run": "timing", "result": timing or "", **state})
    titles = ["run", "what", "progress", "result", "scheme", "state"]
    titles = [title for title in titles if any(row.get(title) for row in rows)]

    def needed(title: str) -> int:
        return max(len(title), *(len(row.get(title, "")) for row in rows)) + 2

    for title, name in (("what", 42), ("scheme", 26), ("progress", 22), ("result", 20)):
        full = min(needed("run"), name) + sum(map(needed, titles[1:])) > width + 2
        if title in titles and (full or (title == "what" and several.kind != "runs")):
            titles.remove(title)
            if title == "progress":
                rows = [{**row, "state": row.get("short", row["state"])} for row in rows]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for title in (f"run, …{end}" if end else "run", *titles[1:]):
        table.add_column(Text(visible(title)), no_wrap=True, overflow="ellipsis")
    spare = max(8, width - sum(map(needed, titles[1:])))
    for row in rows:
        cells = {**row, "run": shortened(row["run"], spare, tail=0.6)}
        styles = (row["style"] if title == "state" else "" for title in titles)
        table.add_row(
            *(Text(visible(cells.get(title, "")), style) for title, style in zip(titles, styles, strict=True))
        )
    return table


def _cells(name: str, part: Standing | str) -> dict[str, str]:
    """Texts of a run by column; ``short`` is its state when there is no progress column."""
    if isinstance(part, str):
        return {"run": name, "state": part, "style": "dim" if part == "waiting" else SILENT}
    what = progress = result = ""
    scheme = part.history.best.scheme if part.history and part.history.evaluations else _scheme(part)
    if part.history:
        what, progress = f"search {_strategy(part)}", f"{part.done}/{part.total or '?'}"
        result = f"reward {part.history.best.reward:.2f}" if scheme else ""
    else:
        file, test, validations = part.run.progress or {}, part.run.test or {}, _validations(part)
        what = "supernet" if "scheme" in _hooks(part) else "training"
        if part.finished and part.record and "iterations" in part.record:
            progress = number_of(part.record["iterations"], "iteration")
        elif part.finished and part.record and (file.get("epochs") or not file):
            progress = number_of(part.record["epochs"], "epoch")
        elif file:
            counted = f"{part.done}/{part.total or '?'}"
            progress = f"epoch {file['epoch']}/{file['epochs']}" if file["epochs"] else counted
        if measured := test.get("metrics") or (validations and validations[_best(part)]):
            metric, value = headline(measured)
            result = f"{find_metric(metric).text(value)} {'test' if test else 'val'}"
        elif file.get("loss") is not None:
            result = f"loss {file['loss']:.3f}"
    since, style = duration(part.silence or 0, units=1), SILENT
    state = short = f"no update {since}" if part.silence is not None else "no progress.json"
    if part.finished:
        state = short = f"finished {since} ago"
        style = FINISHED
    elif part.running:
        state, short, style = f"running, {since} ago", "running", RUNNING
    if progress and not part.finished:
        short = f"{short}, {progress}"
    strip = squares(scheme) if scheme else ""
    cells = {"run": name, "what": what, "progress": progress, "result": result, "scheme": strip}
    return {**cells, "state": state, "short": short, "style": style}
