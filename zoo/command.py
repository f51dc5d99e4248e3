"""The commands ``ean zoo list | info | download | clean | verify | publish | retime | import``.

What only one command needs is imported there: listing models takes neither PyTorch, nor mmengine, nor downloads.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ean_core.commands.options import CfgOptions, ConfigName, prepare
from ean_core.common.config import check_config
from ean_core.common.tasks import find_metric, headline
from ean_core.common.text import visible
from ean_core.common.writing import check_folder, replacing
from ean_core.show.table import Cells, print_table, size_text

from .index import PACKAGED, Entry, Index, find_entry, published
from .listing import get_weights, list_models
from .names import ModelName
from .page import increment
from .places import cache, places

if TYPE_CHECKING:
    from .cleaning import Cached
    from .verify import Verdict

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Names = Annotated[list[str] | None, typer.Argument(help="Models, or patterns such as 'ean_*'; all of them by default.")]


def list_(
    pattern: Annotated[str, typer.Argument(help="Model names, with wildcards such as 'ean_resnet*_se*'.")] = "*",
    all_: Annotated[bool, typer.Option("--all", help="Include models without weights.")] = False,
    as_json: Json = False,
) -> None:
    """List pretrained models, one per line; a wide terminal shows more columns, and `ean zoo info` everything."""
    with _log_elsewhere(as_json):
        entries = {str(name): entry for name, entry in published().items()}
        names = list_models(pattern, pretrained=not all_)
    if not names:
        others = [] if all_ else list_models(pattern)
        near = list_models(f"*{pattern}*", pretrained=not all_)
        hint = f"; models without weights: {', '.join(others)}" if others else ""
        hint = hint or (f"; '*{pattern}*' matches {len(near)}" if near else "; `ean zoo list` lists them")
        raise ValueError(f"no model matches {pattern!r}{hint}")
    if as_json:
        _print_json([get_weights(name).meta if name in entries else {"name": name} for name in names])
    else:
        rows = [_model_cells(name, entries.get(name)) for name in names]
        print_table(rows, title="Models", extra=("connections", "increment (%)", "parameters", "MB", "weights"))


def info(name: Annotated[str, typer.Argument(help="Name of a model.")], as_json: Json = False) -> None:
    """Show the details of a model: accuracy, connections, file, training."""
    with _log_elsewhere(as_json):
        weights = get_weights(name)
        meta = weights.meta
    if as_json:
        _print_json({**meta, "weights": _place(weights.entry)})
        return
    training = meta.pop("training")
    timing = meta.pop("timing")
    meta["metrics"] = ", ".join(f"{key} {value:.2f}" for key, value in meta["metrics"].items())
    if "categories" in meta:
        names = meta["categories"]
        meta["categories"] = f"{len(names)}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
    for row in timing:
        more = "" if row["Interval (%)"] == [0.0, 0.0] else f"{row['Increment (%)']:+.1f} % over no attention, "
        images = f"batch {row['Batch Size']} at {size_text(row['Image Size'])} pixels"
        meta[f"time, {row['Form']}"] = f"{row['Latency (ms)']:.2f} ms, {more}{images}, {row['Device']}"
    facts = {**meta, "size": f"{meta['size'] / 1e6:.2f} MB", "weights": _place(weights.entry), **training}
    print_table([{"field": key, "value": _text(value)} for key, value in facts.items()], title=name)


def download(
    names: Names = None,
    to: Annotated[Path | None, typer.Option(help="Also copy the files into this folder.")] = None,
    backbone: Annotated[
        bool, typer.Option("--backbone", help="Write only backbone weights to --to; they load without a prefix.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Download weights into the cache, for offline use."""
    if backbone and to is None:
        raise ValueError("--backbone writes new files: give --to FOLDER")
    if to is not None:
        check_folder(to)
    with _log_elsewhere(as_json):
        chosen = _chosen(names)
    files: dict[str, str] = {}
    for entry in chosen:
        with _log_elsewhere(as_json):
            path = _located(entry)
        if to is not None:
            path = _copied(entry, path, to, backbone=backbone)
        files[str(entry.name)] = str(path)
        if not as_json:
            typer.echo(f"{entry.name}: {path}")
    if as_json:
        _print_json(files)


def clean(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Show the size of the cache, and remove old versions of models, damaged files, and abandoned downloads.

    It lists them and asks first. Kept are current files, links, files of models that the index does not have, and
    downloads in progress. --json removes nothing without --yes.
    """
    from .cleaning import contents, remove

    with _log_elsewhere(as_json):
        found = contents()
    useless = [each for each in found if each.useless]
    if as_json:
        failed = {} if dry_run or not yes else {each.path: why for each in useless if (why := remove(each))}
        rows = [
            {"file": each.path.name, "bytes": each.size, "note": each.note, "useless": each.useless} for each in found
        ]
        removed = [] if dry_run or not yes else [each.path.name for each in useless if each.path not in failed]
        _print_json({"cache": str(cache()), "files": rows, "removed": removed})
    else:
        failed = _cleaned(found, dry_run=dry_run, yes=yes)
    if failed:
        raise typer.Exit(1)


def verify(
    names: Names = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="Measure on the test images again.")] = False,
    as_json: Json = False,
) -> None:
    """Check files against the index: hash, network, scheme, records, and with --metrics also the accuracy."""
    with _log_elsewhere(as_json):
        chosen = _chosen(names)
        from .verify import verify as verify_model

        verdicts = []
        for entry in chosen:
            if metrics and not as_json:
                typer.echo(f"measuring {entry.name} ...", err=True)
            verdicts.append(verify_model(entry, metrics=metrics))
    if as_json:
        _print_json(
            [
                {"name": v.name, "good": v.good, "problems": v.problems, "measured": v.measured, "note": v.note}
                for v in verdicts
            ]
        )
    else:
        print_table([_verdict_cells(verdict) for verdict in verdicts], title="Published files")
    if not all(verdict.good for verdict in verdicts):
        raise typer.Exit(1)


def publish(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="Checkpoint of the whole network, or its run's folder, with record.json and test.json."),
    ],
    config: ConfigName,
    to: Annotated[
        Path | None,
        typer.Option(help="Folder of the index; EAN_ZOO_INDEX, or in a checkout the package's, by default."),
    ] = None,
    timing: Annotated[Path | None, typer.Option(help="A record of `ean time` that includes the network.")] = None,
    best: Annotated[bool, typer.Option("--best", help="Name it best_…: best accuracy regardless of cost.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace another model of the same name.")] = False,
    half: Annotated[
        bool, typer.Option("--half", help="Store convolutions and linear layers in fp16, in half the space.")
    ] = False,
    cfg_options: CfgOptions = None,
    as_json: Json = False,
) -> None:
    """Publish a trained network: plain tensors named by their hash, an entry with its recorded metrics, a card."""
    check_config(config, cfg_options or ())
    with _log_elsewhere(as_json):
        from ean_core.runs.folder import chosen_checkpoint

        from .publish import publish as publish_model

        cfg, _ = prepare(config, None, cfg_options)
        checkpoint = chosen_checkpoint(checkpoint)
        entry = publish_model(checkpoint, cfg, to or _own_index(), timing=timing, best=best, replace=replace, half=half)
    if as_json:
        _print_json(dict(entry.fields))
        return
    figures = ", ".join(f"{key} {value:.2f}" for key, value in entry.metrics.items())
    typer.echo(visible(f"{entry.name}: {figures}; {entry.packaged_file}, {entry.size / 1e6:.2f} MB"))
    if half:
        typer.echo(f"metrics are those before rounding to fp16; `ean zoo verify {entry.name} --metrics` measures again")
    if entry.root != PACKAGED and entry.name in Index(PACKAGED).entries:
        typer.echo("if EAN_ZOO_INDEX names its folder, it takes precedence over the package's model of the same name")


def retime(
    name: Annotated[str, typer.Argument(help="Name of a published model.")],
    timing: Annotated[Path, typer.Argument(help="A record of `ean time` that includes the network.")],
    to: Annotated[
        Path | None,
        typer.Option(help="Folder of the index; EAN_ZOO_INDEX, or in a checkout the package's, by default."),
    ] = None,
) -> None:
    """Update the times on a published model's card from a record of `ean time`."""
    parsed, folder = ModelName.parse(name), to or _own_index()
    from .publish import renew_timing

    entry = renew_timing(parsed, timing, folder)
    for row in entry.metadata["Timing"]:
        text = f"{row['Form']}: {row['Latency (ms)']:.2f} ms, {row['Increment (%)']:+.1f} %, {row['Device']}"
        typer.echo(visible(text))


def import_(
    source: Annotated[
        str, typer.Argument(help="A checkpoint of torchvision or of the authors, or torchvision://resnet50.")
    ],
    out: Annotated[Path, typer.Argument(help="File to write, .safetensors.")],
    scheme: Annotated[
        str | None, typer.Option(help="Connections of the authors' network; ean is the recorded scheme.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert a ResNet checkpoint of torchvision or of the paper's authors into plain tensors with our names."""
    if out.suffix != ".safetensors":
        raise ValueError(f"import writes safetensors: expected a file such as {out.stem}.safetensors, got {out.name}")
    from ean_core.backbone import describe, find_backbone
    from ean_core.weights.files import save_weights

    from .foreign import import_weights

    with _log_elsewhere(as_json):
        found = import_weights(source, scheme)
    backbone = find_backbone(found.network)
    description = {**describe(backbone), "network": json.dumps(found.settings, sort_keys=True)}
    save_weights(found.network.state_dict(), out, description)
    if as_json:
        _print_json({"file": str(out), "source": found.source, "network": found.settings, "unused": found.unused})
        return
    typer.echo(f"{out}: ResNet-{backbone.depth} of {found.source}, scheme {backbone.scheme}")
    if found.unused:
        typer.echo(
            f"left out, with no block connected to them: {', '.join(sorted({n.split('.')[0] for n in found.unused}))}"
        )
    settings = ", ".join(f"{key}={value!r}" for key, value in found.settings["backbone"].items())
    typer.echo(f"backbone=dict({settings}, init_cfg=dict(type='Pretrained', checkpoint='{out}', prefix='backbone.'))")


# ---------------------------------------------------------------- between commands


@contextmanager
def _log_elsewhere(as_json: bool) -> Iterator[None]:
    """With ``--json``, send mmengine's log to standard error instead of standard output.

    Its handlers keep the stream that was standard output when the log began, which may be in this block.
    """
    if not as_json:
        yield
        return
    if "mmengine.logging" in sys.modules:
        from mmengine.logging import MMLogger

        for handler in MMLogger.get_current_instance().handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.stream = sys.stderr
    with redirect_stdout(sys.stderr):
        yield


def _cleaned(found: Sequence[Cached], *, dry_run: bool, yes: bool) -> dict[Path, str]:
    """List the files of the cache, ask, and remove the useless ones; return those that remain, and why."""
    from .cleaning import remove

    useless = [each for each in found if each.useless]
    if found:
        rows = [
            {"file": each.path.name, "MB": f"{each.size / 1e6:.2f}", "": "remove" * each.useless, "note": each.note}
            for each in found
        ]
        print_table(rows, title=f"Cache {cache()}")
    typer.echo(f"{_sized(found)} in {cache()}; {_sized(useless)} to remove")
    if not useless or dry_run or not (yes or typer.confirm("Remove them?")):
        return {}
    failed = {each.path: why for each in useless if (why := remove(each))}
    for path, why in failed.items():
        typer.echo(visible(f"{path} was kept: {why}"), err=True)
    typer.echo(f"removed {_sized([each for each in useless if each.path not in failed])}")
    return failed


def _sized(files: Sequence[Cached]) -> str:
    return f"{len(files)} {'file' if len(files) == 1 else 'files'}, {sum(each.size for each in files) / 1e6:.2f} MB"


def _chosen(names: Sequence[str] | None) -> list[Entry]:
    """Return the published models matching these names and patterns, without duplicates."""
    entries = published()
    chosen: dict[str, Entry] = {}
    for pattern in names or ("*",):
        if not any(sign in pattern for sign in "*?["):
            chosen[pattern] = find_entry(pattern)
            continue
        matching = {str(name): entry for name, entry in entries.items() if fnmatchcase(str(name), pattern)}
        if not matching and names:
            raise ValueError(f"no published model matches {pattern!r}; `ean zoo list` lists them")
        chosen.update(matching)
    return list(chosen.values())


def _located(entry: Entry) -> Path:
    """Return the file of a model; show a progress bar during a download."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from .files import locate

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(str(entry.name), total=entry.size)
        return locate(entry, progress=lambda done: bar.update(task, completed=done))


def _copied(entry: Entry, path: Path, folder: Path, *, backbone: bool) -> Path:
    """Copy a model's file, or only its backbone's weights, into a folder."""
    if backbone:
        from ean_core.weights.addresses import BACKBONE, read_metadata
        from ean_core.weights.files import read_state_dict, save_weights

        out = folder / f"{entry.name}-backbone-{entry.sha256[:8]}.safetensors"
        meta = {**read_metadata(path), "network": json.dumps(entry.network["backbone"], sort_keys=True)}
        save_weights(read_state_dict(path, prefix=BACKBONE), out, meta)
        return out

    out = folder / entry.file
    with replacing(out) as partial:
        shutil.copyfile(path, partial)
    return out


def _own_index() -> Path:
    """Default index to publish to."""
    given = os.environ.get("EAN_ZOO_INDEX")
    if given:
        return Path(given).expanduser()
    if (PACKAGED.parent / "pyproject.toml").is_file():
        return PACKAGED
    raise ValueError("give --to FOLDER for a custom index, or set EAN_ZOO_INDEX to one")


def _model_cells(name: str, entry: Entry | None) -> Cells:
    """Row of a model in ``ean zoo list``; without an entry it has no weights yet."""
    if entry is None:
        return {"model": name, "result": "no weights yet"}
    key, value = headline(entry.metrics)
    return {
        "model": name,
        "result": find_metric(key).text(value),
        "images": "val" if entry.split == "validation" else entry.split,
        "connections": str(entry.scheme),
        "increment (%)": increment(entry, "eager"),
        "parameters": f"{entry.metadata['Parameters']:,}",
        "MB": f"{entry.size / 1e6:.2f}",
        "weights": _place(entry),
    }


def _verdict_cells(found: Verdict) -> Cells:
    """Row of a model in ``ean zoo verify``."""
    measured = ", ".join(f"{key} {value:.2f}" for key, value in (found.measured or {}).items())
    good = "good, not measured" if found.note else "good"
    word = "; ".join(found.problems) or (good if found.file else "not on this machine")
    return {"model": found.name, "verdict": word, "measured": measured or found.note}


def _place(entry: Entry) -> str:
    if entry.packaged_file.is_file():
        return "with the package" if entry.root == PACKAGED else f"in {entry.root}"
    return "in the cache" if next(places(entry), None) else "not downloaded"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)


def _print_json(value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    typer.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))
