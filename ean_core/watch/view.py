"""A run's state as rich shows it, from 60 columns on."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ean_core.scheme import ConnectionScheme
from ean_core.search.strategy import Evaluation
from ean_core.show.table import headline, metric_texts

from .state import Run, Runs, SearchRun, State, TrainingRun

#: A panel is no wider, on however wide a terminal.
WIDEST = 100
#: Of the names on the left of a panel.
LABELS = 13
LEVELS = "▁▂▃▄▅▆▇█"
#: What our configs train, by the type of their model.
KINDS = {
    "ImageClassifier": "classifier",
    "RelaxedClassifier": "gates of DARTS",
    "CrowdCounter": "counter",
    "EncoderDecoder": "segmentor",
    "Segmentor": "segmentor",
}
#: Okabe and Ito's, as far as terminals have them; every colour goes with a word.
RUNNING, FINISHED, SILENT = "cyan", "green", "yellow"


def show(seen: Run | Runs | None, width: int) -> RenderableType:
    """A run, or several, for a terminal of ``width`` columns."""
    match seen:
        case TrainingRun():
            return _training(seen, min(width, WIDEST))
        case SearchRun():
            return _search(seen, min(width, WIDEST))
        case Runs():
            return _several(seen, width)
    return Text("a search has begun and written nothing yet")


# ---------------------------------------------------------------- words


def squares(scheme: ConnectionScheme) -> str:
    """A scheme as squares, one a block, filled where it is connected, stages apart.

    Examples:
        >>> squares(ConnectionScheme.parse('010-100'))
        '□■□ ■□□'
    """
    return " ".join("".join("■" if bit else "□" for bit in stage) for stage in scheme.by_stage)


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as at most ``width`` bars between the lowest and the highest of them, means where there are more values.

    Examples:
        >>> sparkline([3.0, 2.0, 1.0, 1.0], width=4)
        '█▅▁▁'
        >>> sparkline([1.0, 3.0, 5.0, 7.0], width=2)
        '▁█'
    """
    values = [value for value in values if abs(value) < float("inf")]  # neither infinite nor nan
    count = min(width, len(values))
    ends = [len(values) * i // count for i in range(count + 1)] if count > 0 else []
    means = [fmean(values[low:high]) for low, high in pairwise(ends)]
    if not means:
        return ""
    low, high = min(means), max(means)
    return "".join(
        LEVELS[round((mean - low) / (high - low) * (len(LEVELS) - 1)) if high > low else 0] for mean in means
    )


def duration(seconds: float, units: int = 2) -> str:
    """A time for a reader, in its largest units.

    Examples:
        >>> duration(7.2), duration(75), duration(3900), duration(180000), duration(720)
        ('7 s', '1 min 15 s', '1 h 5 min', '2 d 2 h', '12 min')
        >>> duration(4000, units=1)
        '1 h'
    """
    left = max(0, round(seconds))
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size or parts or unit == "s":
            parts.append((left // size, unit))
        left %= size
    return " ".join(f"{number} {unit}" for i, (number, unit) in enumerate(parts[:units]) if number or not i)


def packed(parts: Sequence[str], width: int, joint: str = ", ") -> str:
    """Parts in as few lines as they need, none of them broken.

    Examples:
        >>> packed(['epoch 3', 'MAE 11.20', 'RMSE 20.10'], width=20)
        'epoch 3, MAE 11.20,\\nRMSE 20.10'
    """
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(joint) + len(part) + 1 <= width:
            lines[-1] += joint + part
        else:
            lines.append(part)
    return (joint.rstrip() + "\n").join(lines)


def shortened(text: str, width: int, tail: float = 1.0) -> str:
    """A path without its beginning, or its middle, where it is too long.

    Examples:
        >>> shortened('work_dirs/resnet20_se', 12), shortened('ean_resnet20_se.cifar100', 13, tail=0.7)
        ('…resnet20_se', 'ean_…cifar100')
    """
    if len(text) <= width:
        return text
    end = round((width - 1) * tail)
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def _state(state: State, width: int) -> Text:
    since = duration(state.silence, units=1)
    if state.finished:
        return Text(f"finished {since} ago", FINISHED)
    usual = [f"usually every {duration(state.usual)}"] if state.usual and 1 <= state.usual < state.silence else []
    if state.running:
        return Text(packed([f"running, last news {since} ago", *usual], width), RUNNING)
    return Text(packed([f"no news for {duration(state.silence)}", *usual, "stopped or stalled"], width), SILENT)


def _short_state(run: Run | str | None, progress: str = "") -> Text:
    """One cell of a table; it says how far a run is where no other one does."""
    if run is None:
        return Text("waiting", "dim")
    if isinstance(run, str):
        return Text("cannot be read", SILENT)  # watching its own folder says why
    since = duration(run.state.silence, units=1)
    if run.state.finished:
        return Text(f"finished {since} ago", FINISHED)
    if run.state.running:
        return Text(f"running, {progress or since + ' ago'}", RUNNING)
    return Text(f"no news {since}" + f", {progress}" * bool(progress), SILENT)


def _description(run: TrainingRun) -> list[str]:
    """What is trained: its backbone, attention and connections, and what for, as far as the settings say."""
    model = run.settings.get("model") or {}
    backbone = model.get("backbone") or {}
    kind = KINDS.get(str(model.get("type")), str(model.get("type") or ""))
    if "scheme" in run.hooks and kind == "classifier":
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


def _scheme(run: TrainingRun) -> ConnectionScheme | None:
    text = str(((run.settings.get("model") or {}).get("backbone") or {}).get("scheme"))
    return ConnectionScheme.parse(text) if re.fullmatch(r"[01]+(-[01]+)+", text) and "scheme" not in run.hooks else None


def _strip(scheme: ConnectionScheme, width: int) -> str:
    """Squares, in several lines of whole stages where one is too short."""
    return packed(squares(scheme).split(), width, " ")


def _measured(evaluation: Evaluation) -> list[str]:
    return [
        f"{evaluation.accuracy:.2f} ± {evaluation.standard_error:.2f} %",
        f"{evaluation.scheme.connections} connections",
        f"reward {evaluation.reward:.2f}",
    ]


# ---------------------------------------------------------------- one run


def _panel(title: str, rows: Sequence[tuple[str, RenderableType]], width: int) -> Panel:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=LABELS, style="dim", no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for label, value in rows:
        grid.add_row(label, value)
    return Panel(
        grid, title=Text(shortened(title, width - 6), "bold"), title_align="left", box=box.ROUNDED, width=width
    )


def _bar(done: float, total: float | None, note: str) -> Table:
    """How far something is, as a bar with its share and a note at the right."""
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True)
    complete = bool(total) and done >= (total or 0)
    bar = ProgressBar(total=total or 1, completed=done if total else 0, complete_style=RUNNING, finished_style=FINISHED)
    share = f"{min(100, 100 * done / total):.0f} % " if total else ""
    row.add_row(bar, Text(f"{share}{note}", FINISHED if complete else ""))
    return row


def _training(run: TrainingRun, width: int) -> Panel:
    inner = width - LABELS - 5
    scheme = _scheme(run)
    rows: list[tuple[str, RenderableType]] = [
        ("config", shortened(run.config, inner)),
        ("network", packed([*_description(run), *([_strip(scheme, inner)] if scheme else [])], inner)),
        ("state", _state(run.state, inner)),
    ]
    epochs = f"epoch {run.epoch} of {run.epochs}" if run.epochs else f"epoch {run.epoch}"
    whole = (run.total if run.state.finished else None) or run.step  # the last iterations of an epoch have no line
    rows.append(("progress", _bar(whole, run.total, epochs)))
    if run.step:
        speed = run.images_per_second
        parts = [f"iteration {whole}" + (f" of {run.total}" if run.total else "")]
        rows.append(("", packed([*parts, *([f"{speed:.0f} images/s"] if speed else [])], inner)))
    rows.append(("time", packed(_times(run), inner)))
    if run.iterations:
        losses, last = [line["loss"] for line in run.iterations], run.iterations[-1]
        text = f"{losses[-1]:.4f}"
        rows.append(("loss", Text(f"{text}  {sparkline(losses, inner - len(text) - 2)}")))
        if "lr" in last:
            rows.append(("learning rate", f"{last['lr']:.3g}"))
    if run.validations:
        newest = max(run.validations)
        rows.append(("validation", packed([f"epoch {newest}", *metric_texts(run.validations[newest])], inner)))
        if run.best is not None and run.best != newest:
            rows.append(("best", packed([f"epoch {run.best}", *metric_texts(run.validations[run.best])], inner)))
        elif len(run.validations) > 1:
            rows.append(("best", "the last one"))
        key = headline(run.validations[newest])[0]
        curve = [metrics[key] for metrics in run.validations.values() if key in metrics]
        if len(curve) > 2:
            rows.append(("", Text(f"{key}  {sparkline(curve, inner - len(key) - 2)}")))
    if run.test:
        rows.append(("test", packed(metric_texts(run.test), inner)))
    if run.checkpoint:
        rows.append(("checkpoint", shortened(run.checkpoint.name, inner)))
    return _panel(str(run.folder), rows, width)


def _times(run: TrainingRun) -> list[str]:
    parts = []
    if run.elapsed is not None:
        parts.append(f"{duration(run.elapsed)} of training" if run.state.finished else duration(run.elapsed))
    number = sum(1 for lines in run.starts.values() if lines)
    if number > 1 and not run.state.finished:
        parts[-1:] = [f"{part} since start {number}" for part in parts[-1:]]
    if run.left is not None:
        parts.append(f"about {duration(run.left)} left")
    return parts or ["unknown"]


def _search(run: SearchRun, width: int) -> Panel:
    inner = width - LABELS - 5
    history, record = run.history, run.record or {}
    origin = [str(record[name]) for name in ("config",) if record.get(name)]
    rows: list[tuple[str, RenderableType]] = [
        ("search", packed([f"strategy {run.strategy}", f"seed {history.key.get('seed', 0)}", *origin], inner)),
        ("state", _state(run.state, inner)),
        ("progress", _bar(run.done, run.budget, f"of {run.budget} evaluations" if run.budget else f"{run.done}")),
    ]
    if history.evaluations:
        done = [f"step {max(history.steps) + 1}", f"{run.done} evaluations", f"{history.unique} distinct schemes"]
        rows.append(("", packed([*done, *([f"about {duration(run.left)} left"] if run.left else [])], inner)))
        best = run.history.best
        text = f"{best.reward:.2f}"
        rows.append(("best reward", Text(f"{text}  {sparkline(run.best_rewards, inner - len(text) - 2)}")))
        rows.append(("", packed([_strip(best.scheme, inner), *_measured(best)[:2]], inner)))
    if run.probabilities:
        text = f"{run.probabilities[-1]:.3f}"
        line = sparkline(run.probabilities, inner - len(text) - 2)
        rows.append(("mean prob.", Text(f"{text}  {line}")))
    if run.finalists and not run.state.finished:
        rows.append(("finalists", "{} of about {} scored once more".format(*run.finalists)))
    if history.finalists:
        top = max(history.finalists, key=lambda evaluation: evaluation.reward)
        name = f"best of {len(history.finalists)}" if run.state.finished else ""
        rows.append((name, packed([_strip(top.scheme, inner), *_measured(top)], inner)))
    if run.state.finished:
        found = _evaluation(record["scheme"])
        parts = [_strip(found.scheme, inner), str(found.scheme), *_measured(found), f"by rule {record['rule']}"]
        rows.append(("found", packed(parts, inner)))
    return _panel(str(run.folder), rows, width)


def _evaluation(entry: Mapping[str, object]) -> Evaluation:
    return Evaluation(**{**entry, "scheme": ConnectionScheme.parse(entry["scheme"])})  # type: ignore[arg-type]


# ---------------------------------------------------------------- several runs


def _several(runs: Runs, width: int) -> Group:
    parts: list[RenderableType] = [
        Text(shortened(str(runs.folder), width), "bold"),
        Text(packed(_title(runs), width)),
        _table(runs, width),
    ]
    if runs.kind == "quickstart" and runs.running:
        parts.append(show(runs.running[0], width))
    return Group(*parts)


def _title(runs: Runs) -> list[str]:
    count, going = len(runs.parts), f"{len(runs.running)} running"
    done = sum(isinstance(run, Run) and run.state.finished for run in runs.parts.values())
    if runs.kind == "quickstart":
        return ["quickstart", "finished" if runs.finished else f"{done} of {count} networks and searches finished"]
    if runs.record:
        of = f"comparison of {len(runs.record['strategies'])} strategies"
        return [of, f"{runs.record['evaluations']} evaluations a search", "finished"]
    what = ["comparison"] if runs.kind == "comparison" else []
    return [*what, f"{count} {'run' if count == 1 else 'runs'}", going, f"{done} finished"]


def _table(runs: Runs, width: int) -> Table:
    """One line a run; where there is no room, the columns that are least needed are left out."""
    before, after = _common(list(runs.parts))
    cells = [_cells(name.removeprefix(before).removesuffix(after), run, runs) for name, run in runs.parts.items()]
    if runs.kind == "quickstart":
        cells.append(_timing(runs))
    header = {"run": f"run, {before}…{after}" if before or after else "run"}

    def needed(title: str) -> int:
        return max(len(header.get(title, title)), *(len(row[title]) for row in cells))

    shown = [
        title for title in ("run", "what", "progress", "result", "scheme", "state") if any(r[title] for r in cells)
    ]
    for title, enough in (("what", 40), ("scheme", 24), ("progress", 20), ("result", 20)):
        if min(needed("run"), enough) + sum(needed(other) + 2 for other in shown[1:]) > width and title in shown:
            shown.remove(title)
            if title == "progress":
                for row, run in zip(cells, runs.parts.values(), strict=False):
                    row["state"] = _short_state(run, row["progress"].plain)
    spare = max(8, width - sum(needed(title) + 2 for title in shown[1:]))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for title in shown:
        table.add_column(header.get(title, title), no_wrap=True, overflow="ellipsis")
    for row in cells:
        row["run"] = Text(shortened(row["run"].plain, spare, tail=0.6))
        table.add_row(*(row[title] for title in shown))
    return table


def _common(names: Sequence[str]) -> tuple[str, str]:
    """The folders that all names begin with, and the one that they end with, which need not be said of each.

    Examples:
        >>> _common(['a/b/seed_0', 'a/c/seed_0']), _common(['a/b/seed_0']), _common(['a', 'b'])
        (('a/', '/seed_0'), ('', ''), ('', ''))
    """
    if len(names) < 2:
        return "", ""
    before = os.path.commonpath(names)
    after = {name.removeprefix(before).rpartition("/")[2] for name in names if "/" in name.removeprefix(f"{before}/")}
    every = all("/" in name.removeprefix(f"{before}/") for name in names)
    return f"{before}/" if before else "", f"/{after.pop()}" if every and len(after) == 1 else ""


def _cells(name: str, run: Run | str | None, runs: Runs) -> dict[str, Text]:
    what = progress = result = strip = ""
    if isinstance(run, TrainingRun):
        what = "supernet" if "scheme" in run.hooks else "training"
        progress = f"{run.record['epochs']} epochs" if run.state.finished and run.record else f"epoch {run.epoch}"
        if not run.state.finished and run.epochs:
            progress += f"/{run.epochs}"
        measured = run.test or (run.validations[run.best] if run.best is not None else {})
        if measured:
            key, value = headline(measured)
            result = metric_texts({key: value})[0].replace(key, key.rpartition("/")[2])
            result += " test" if run.test else " val"
        elif run.iterations:
            result = f"loss {run.iterations[-1]['loss']:.3f}"
        scheme = _scheme(run)
        strip = squares(scheme) if scheme else ""
    if isinstance(run, SearchRun):
        what = f"search {run.strategy}"
        progress = f"{run.done}/{run.budget or '?'}"
        if run.history.evaluations:
            best = run.history.best
            result, strip = f"reward {best.reward:.2f}", squares(best.scheme)
    return {
        "run": Text(name),
        "what": Text(what if runs.kind == "runs" else ""),
        "progress": Text(progress),
        "result": Text(result),
        "scheme": Text(strip),
        "state": _short_state(run),
    }


def _timing(runs: Runs) -> dict[str, Text]:
    """The last step of a quickstart."""
    row = {name: Text("") for name in ("what", "progress", "result", "scheme")}
    if runs.record is None:
        return {"run": Text("timing"), **row, "state": Text("waiting", "dim")}
    found = runs.record["networks"]["EAN"]["increment"]
    row["result"] = Text(f"EAN {100 * found:+.1f} % time")
    return {"run": Text("timing"), **row, "state": Text("finished", FINISHED)}
