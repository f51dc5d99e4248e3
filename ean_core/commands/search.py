"""The command ``ean search``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from mmengine.config import Config, ConfigDict

from ean_core.backbone import find_backbone
from ean_core.common.config import config_name
from ean_core.common.record import read_record, write_record
from ean_core.report.search_figures import front_figure
from ean_core.runs.curves import use_tensorboard
from ean_core.runs.folder import Run
from ean_core.runs.processes import initialize_processes
from ean_core.search.bench import Bench, complete_search, supernet_name
from ean_core.search.darts import GivenScheme, run_darts
from ean_core.search.front import best_by_coefficient
from ean_core.search.loop import SearchResult
from ean_core.search.strategy import Evaluation, Strategy, build_strategy
from ean_core.show.figures import network_figure

from .options import (
    Amp,
    CfgOptions,
    ConfigName,
    Launcher,
    LauncherName,
    Resume,
    Tensorboard,
    WorkDir,
    prepare,
    resumable,
    use_bf16,
)

Supernet = Annotated[Path | None, typer.Option(help="Checkpoint of the supernet.")]


def run_search(
    config: Config, supernet: Path, work_dir: Path, *, resume: bool = False, launcher: str = "none"
) -> SearchResult | None:
    """Search the connections of a trained supernet; writes ``ledger.jsonl``, ``search.json``, and two pictures: the
    network found, ``scheme.svg``, and accuracy against cost, ``front.png``.

    Args:
        config: a config with ``search`` and the validation images of its supernet.
        supernet: the supernet's checkpoint.
        work_dir: where ledger and record go.
        resume: go on where the ledger ends, if there is one.
        launcher: how the processes were started, each of which scores its part of the images.

    Returns:
        What was found; None on processes other than the first.

    Raises:
        FileExistsError: if ``work_dir`` holds a ledger and ``resume`` is not set.
        ValueError: if the checkpoint is not of the config's supernet, or the ledger belongs to another search.
    """
    ledger = work_dir / "ledger.jsonl"
    if ledger.exists() and not resume:
        raise FileExistsError(f"{ledger} exists; add --resume to go on with it, or --work-dir to start elsewhere")
    initialize_processes(config, launcher)
    bench = Bench(config, supernet)
    settings = config.search.strategy.to_dict()
    if settings.get("type") == "darts":
        if launcher != "none":
            raise ValueError(f"darts trains in one process, got --launcher {launcher}; start it without")
        times = bench.reward(work_dir).table
        strategy: Strategy = GivenScheme(run_darts(config, supernet, work_dir / "training", times=times, resume=resume))
    else:
        strategy = build_strategy(settings, bench.plain.stages, bench.seed)
    with bench.processes() as first:
        if not first:
            return None
        reward = bench.reward(work_dir)
        result = bench.search(strategy, settings, reward, work_dir, seed=bench.seed)
    record_search(work_dir, bench, settings, result, seed=bench.seed)
    scheme = result.scheme.scheme
    network_figure(scheme, find_backbone(bench.plain.supernet).attention_cfg["type"], work_dir / "scheme.svg")
    front_figure(result.history, result.finalists, work_dir / "front.png", latency=bool(reward.latency))
    return result


def record_search(
    work_dir: Path, bench: Bench, settings: Mapping[str, Any], result: SearchResult, *, seed: int
) -> None:
    """Write ``search.json``: what a search found. A record that says so already is left as it is.

    Args:
        work_dir: of the search; ``training`` in it is the run of a strategy that is a trainer.
        bench: what was searched.
        settings: of the strategy.
        result: of the search.
        seed: of the strategy.
    """
    path, training = work_dir / "search.json", Run(work_dir / "training").record
    found = {"rule": result.rule, "scheme": plain_values(result.scheme)}
    if path.exists() and found.items() <= read_record(path).items():
        return
    write_record(
        path,
        kind="search",
        config=config_name(bench.config) or "config",
        supernet=str(bench.supernet),
        strategy=dict(settings),
        seed=seed,
        **bench.plain.key,
        reward=dict(bench.config.search.reward),
        **found,
        best_seen=plain_values(result.best_seen),
        front=[plain_values(evaluation) for evaluation in result.front],
        evaluations=len(result.history),
        distinct=len({evaluation.scheme for evaluation in result.history}),
        training_seconds=training["seconds"] if training else None,
    )


def search(
    config: ConfigName,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="ean, exhaustive, local, random, hsp, enas, darts, ga, tpe, optuna; the config's by default."
        ),
    ] = None,
    supernet: Supernet = None,
    work_dir: WorkDir = None,
    resume: Resume = False,
    amp: Amp = False,
    tensorboard: Tensorboard = False,
    cfg_options: CfgOptions = None,
    launcher: LauncherName = Launcher.none,
) -> None:
    """Search where to connect the attention of a trained supernet."""
    cfg, folder = prepare(config, work_dir, cfg_options)
    checkpoint = find_supernet(cfg, supernet)
    if strategy:
        choose_strategy(cfg, strategy, cfg_options or ())
    if amp:
        use_bf16(cfg)
    if tensorboard:
        use_tensorboard(cfg)
    with resumable(folder):
        result = run_search(cfg, checkpoint, folder, resume=resume, launcher=launcher.value)
    if result is None:
        return
    found, best = result.scheme, result.best_seen
    typer.echo(
        f"{found.scheme}, chosen by rule {result.rule}: {found.accuracy:.2f} +- {found.standard_error:.2f} % of the "
        f"validation images, on which it was selected, "
        f"{found.scheme.connections} connections, reward {found.reward:.2f}\n"
        f"best of {len(result.history)} evaluations "
        f"({len({evaluation.scheme for evaluation in result.history})} different), before batch norms were estimated "
        f"anew: {best.scheme}, reward {best.reward:.2f}"
    )
    different = {evaluation.scheme for evaluation in result.history}
    if len(different) == 2 ** len(found.scheme.bits) and not cfg.search.reward.get("latency"):
        _say_coefficients(result)
    if not found.scheme.connections:
        typer.echo("no connection earns what it costs: lower search.reward.sparsity, or take search.rule=best-seen")
    typer.echo(
        f"record: {folder / 'search.json'}\n"
        f"train it: ean train {_classification(cfg)} --cfg-options model.backbone.scheme={found.scheme}"
    )


def choose_strategy(config: Config, name: str, overrides: Sequence[str]) -> None:
    """What ``--strategy`` does: the strategy of that name, with the config's settings if they are its own, else with
    the ``overrides`` that name ``search.strategy`` alone."""
    if name == config.search.strategy.type:
        return
    prefix = "search.strategy."
    named = {text.removeprefix(prefix).split("=")[0].split(".")[0] for text in overrides if text.startswith(prefix)}
    given = {key: config.search.strategy[key] for key in named}
    config.search.strategy = ConfigDict({**given, "type": name})


def find_supernet(config: Config, given: Path | None) -> Path:
    """The supernet's checkpoint: as given, as the config says, or the latest in ``work_dirs``.

    Raises:
        FileNotFoundError: if there is none whose training has ended.
        ValueError: if the config is not of a search.
    """
    complete_search(config)
    if given or config.search.supernet:
        return Path(given or config.search.supernet)
    name = supernet_name(config)
    run = Run(Path("work_dirs") / name)
    if run.latest is None:
        raise FileNotFoundError(
            f"no supernet in {run.folder}; train it with `ean train {name}`, or give --supernet FILE"
        )
    if not run.finished:
        raise FileNotFoundError(
            f"the training of {run.latest} has not ended; go on with `ean train {name} --resume`, or give "
            "--supernet FILE"
        )
    return run.latest


def plain_values(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation for a record."""
    return {**asdict(evaluation), "scheme": str(evaluation.scheme)}


def _say_coefficients(result: SearchResult) -> None:
    """All schemes are known: which of them is best is known for every weight of the sparsity."""
    typer.echo(
        "best scheme for each weight of the sparsity beside an accuracy of weight 1, before batch norms were estimated "
        "anew:"
    )
    for low, high, evaluation in best_by_coefficient(result.history):
        until = "    " if math.isinf(high) else f"{high:6.2f}"
        typer.echo(
            f"  {low:6.2f} to {until:>6}  {evaluation.scheme}  {evaluation.scheme.connections:2d} connections, "
            f"{evaluation.accuracy:.2f} %"
        )


def _classification(config: Config) -> str:
    """The config that trains what a packaged search config found."""
    name = config_name(config) or ""
    return name.removeprefix("search_") if name.startswith("search_") else "CONFIG"
