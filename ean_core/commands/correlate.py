"""The command ``ean search correlate``: how well a supernet ranks stand-alone networks."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import typer
from mmengine.config import Config

from ean_core.common.config import config_name
from ean_core.common.output import progress_only, say
from ean_core.common.record import csv_text, read_record, write_record, write_text
from ean_core.common.tasks import Metric
from ean_core.report.correlation import correlation_figure
from ean_core.runs.capture import use_capture
from ean_core.runs.folder import RUN_SETTINGS, Run, check_same_settings
from ean_core.runs.training import run_training
from ean_core.scheme import ConnectionScheme
from ean_core.search.bench import Bench
from ean_core.search.correlate import Correlation, correlation, sample_schemes
from ean_core.search.scores import RememberedScores

from .options import prepare, resumable, use_bf16
from .search import announce_search, find_supernet


def run_correlation(
    config: Config, supernet: Path, work_dir: Path, *, schemes: int, resume: bool = False
) -> dict[str, Correlation]:
    """Train networks with random schemes stand-alone, for a few epochs on the training split, and compare their
    validation scores with those in the supernet; writes ``correlation.json``, ``.csv`` and ``.png``.

    Each scheme has its own run in ``work_dir``; finished ones are not trained again.

    Args:
        config: search config, a supernet's with a ``search`` section; ``train_cfg.max_epochs`` is the length of each
            training.
        supernet: checkpoint of its supernet.
        work_dir: folder for all output.
        schemes: number of schemes, at least 3.
        resume: continue existing runs.

    Returns:
        The correlations of the stand-alone metric with the supernet's (``'supernet'``), and with the supernet's as
        finalists are scored, after re-estimating batch norms unless they are fixed (``'recalibrated'``).

    Raises:
        FileExistsError: if ``work_dir`` holds runs and ``resume`` is not set.
    """
    bench = Bench(config, supernet)
    announce_search("correlate", bench, work_dir, f"{schemes} schemes, {config.train_cfg.max_epochs} epochs each")
    chosen = sample_schemes(bench.plain.stages, schemes, bench.seed)
    rows: list[dict[str, Any]] = []
    for number, scheme in enumerate(chosen, 1):
        say(f"{number}/{schemes}: training {scheme} stand-alone")
        alone_score = _train_alone(config, scheme, work_dir / str(scheme), resume, bench.plain.metric)
        rows.append({"scheme": str(scheme), "connections": scheme.connections, "alone": alone_score})
    for name, evaluator in (("supernet", bench.plain), ("recalibrated", bench.finalists)):
        scores = RememberedScores(evaluator, bench.scores).evaluate(chosen)
        for row, score in zip(rows, scores, strict=True):
            row[name] = float(score)
    alone = [row["alone"] for row in rows]
    write_text(work_dir / "correlation.csv", csv_text(rows[0], (row.values() for row in rows)))
    found = {name: correlation([row[name] for row in rows], alone, bench.seed) for name in ("supernet", "recalibrated")}
    write_record(
        work_dir / "correlation.json",
        kind="correlation",
        config=config_name(config),
        supernet=str(supernet),
        seed=bench.seed,
        epochs=config.train_cfg.max_epochs,
        # of a network alone; of other metrics, as in the supernet
        standard_error=bench.plain.standard_error(fmean(alone)) or fmean(score.standard_error for score in scores),
        **bench.plain.key,
        correlations={name: asdict(each) for name, each in found.items()},
        schemes=rows,
    )
    correlation_figure(read_record(work_dir / "correlation.json"), work_dir / "correlation.png")
    return found


def correlate(
    config: str,
    schemes: int,
    epochs: int,
    supernet: Path | None,
    work_dir: Path | None,
    resume: bool,
    amp: bool,
    capture: bool,
    cfg_options: list[str] | None,
) -> None:
    """Do the work of the command; :mod:`ean_core.commands.cli` declares its arguments and options."""
    cfg, folder = prepare(config, work_dir, [*(cfg_options or ()), f"train_cfg.max_epochs={epochs}"])
    folder = work_dir or folder.with_name(f"correlate_{folder.name}")
    if amp:
        use_bf16(cfg)
    if capture:
        use_capture(cfg)
    with resumable(folder):
        found = run_correlation(cfg, find_supernet(cfg, supernet), folder, schemes=schemes, resume=resume)
    for name, each in found.items():
        typer.echo(
            f"{name:>12}: Pearson {each.pearson:+.2f} ({_span(each.pearson_interval)}), "
            f"Spearman {each.spearman:+.2f} ({_span(each.spearman_interval)}) over {each.count} schemes"
        )
    typer.echo(f"95 % intervals in parentheses; record and figure: {folder}")


def _train_alone(config: Config, scheme: ConnectionScheme, folder: Path, resume: bool, metric: Metric) -> float:
    """Train one scheme and return its metric on the validation images after the last epoch."""
    settings = copy.deepcopy(config)
    settings.pop("search")
    settings.default_hooks.pop("scheme")
    settings.model.backbone.scheme = str(scheme)
    run = Run(folder)
    if resume and run.latest and run.record:
        what = (*RUN_SETTINGS, "train_cfg.max_epochs")
        check_same_settings(run.record["settings"], settings, what, f"{folder} holds a run with")
    else:
        with progress_only():
            run_training(settings, folder, resume=resume)
        run = Run(folder)
    assert run.record is not None  # the training has ended
    return float(run.record["validation"][metric.name])


def _span(interval: tuple[float, float]) -> str:
    return "{:+.2f} to {:+.2f}".format(*interval)
