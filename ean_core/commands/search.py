"""The command ``ean search``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from mmengine.config import Config, ConfigDict

from ean_core.backbone import find_backbone
from ean_core.common.config import config_name, packaged_configs
from ean_core.common.output import progress_only
from ean_core.common.record import read_record, write_record
from ean_core.common.tasks import ACCURACY
from ean_core.runs.curves import use_tensorboard
from ean_core.runs.folder import Run, chosen_checkpoint
from ean_core.runs.processes import initialize_processes
from ean_core.runs.terminal import announce, data_text
from ean_core.search.bench import Bench, complete_search, supernet_name
from ean_core.search.darts import DartsSettings, GivenScheme, run_darts
from ean_core.search.evaluator import FIXED_NORMS, has_fixed_norms
from ean_core.search.front import best_by_coefficient
from ean_core.search.loop import SearchResult
from ean_core.search.scorer import Difference
from ean_core.search.strategy import Strategy, build_strategy, check_strategy

from .options import Launcher, prepare, resumable, suggest, use_bf16

#: The record of a search, in its folder.
SEARCH = "search.json"


def run_search(
    config: Config, supernet: Path, work_dir: Path, *, resume: bool = False, launcher: str = "none"
) -> SearchResult | None:
    """Search the connections of a trained supernet; writes ``ledger.jsonl``, ``search.json``, and two figures: the
    resulting network, ``scheme.svg``, and the score against cost, ``front.png``.

    Args:
        config: config with a ``search`` section and the validation images of its supernet.
        supernet: the supernet's checkpoint.
        work_dir: folder for ledger, record and figures.
        resume: continue from the end of the ledger, if there is one.
        launcher: how the processes were started; each scores its part of the images.

    Returns:
        The result of the search; None on non-zero ranks.

    Raises:
        FileExistsError: if ``work_dir`` holds a ledger and ``resume`` is not set.
        ValueError: if the checkpoint does not belong to the config's supernet, or the ledger belongs to another search.
    """
    ledger = work_dir / "ledger.jsonl"
    if ledger.exists() and not resume:
        raise FileExistsError(f"{ledger} exists; add --resume to continue it, or --work-dir to start elsewhere")
    initialize_processes(config, launcher)
    bench = Bench(config, supernet)
    settings = config.search.strategy.to_dict()
    darts = settings.get("type") == "darts"
    if darts:
        if bench.plain.metric != ACCURACY:
            raise ValueError("darts trains classifiers only; choose another strategy, such as --strategy exhaustive")
        if launcher != "none":
            raise ValueError(f"darts trains in one process; start it without --launcher {launcher}")
    announce_search("search", bench, work_dir, f"strategy: {settings.get('type')}")
    if darts:
        times = bench.reward(work_dir).table
        with progress_only():
            found = run_darts(config, supernet, work_dir / "training", times=times, resume=resume)
        strategy: Strategy = GivenScheme(found)
    else:
        strategy = build_strategy(settings, bench.plain.stages, bench.seed)
    with bench.processes() as first:
        if not first:
            return None
        reward = bench.reward(work_dir)
        result = bench.search(strategy, settings, reward, work_dir, seed=bench.seed)
        if not _is_recorded(work_dir / SEARCH, result):
            differences = bench.differences(result.scheme.scheme)
            record_search(work_dir, bench, settings, result, seed=bench.seed, differences=differences)
    # Matplotlib is slow to import, and needed here only.
    from ean_core.report.search_figures import front_figure
    from ean_core.show.figures import network_figure

    scheme = result.scheme.scheme
    network_figure(scheme, find_backbone(bench.plain.supernet).attention_cfg["type"], work_dir / "scheme.svg")
    front_figure(
        result.history,
        result.finalists,
        work_dir / "front.png",
        latency=bool(reward.latency),
        fixed_norms=has_fixed_norms(bench.plain.supernet),
    )
    return result


def announce_search(verb: str, bench: Bench, work_dir: Path, what: str) -> None:
    """Print what a search, or a command about searches, is about to do.

    Args:
        verb: what is done, such as ``'search'``.
        bench: bench of the search.
        work_dir: output folder.
        what: one more line.
    """
    data = data_text(bench.config.val_dataloader, bench.validation_images.dataset)
    more = (f"weights: {bench.supernet}", what)
    announce(verb, bench.config, bench.plain.supernet, data, work_dir, *more)


def record_search(
    work_dir: Path,
    bench: Bench,
    settings: Mapping[str, Any],
    result: SearchResult,
    *,
    seed: int,
    differences: Mapping[str, Difference] | None = None,
) -> None:
    """Write ``search.json``, the result of a search. A record with the same result is not rewritten.

    Args:
        work_dir: folder of the search; for a strategy that trains, it contains the run ``training``.
        bench: bench of the search.
        settings: settings of the strategy.
        result: result of the search.
        seed: seed of the strategy.
        differences: paired differences of the returned scheme from others, by their names.
    """
    path, training = work_dir / SEARCH, Run(work_dir / "training").record
    if _is_recorded(path, result):
        return
    norms = {"norms": FIXED_NORMS} if has_fixed_norms(bench.plain.supernet) else {}
    compared = {name: asdict(difference) for name, difference in (differences or {}).items()}
    write_record(
        path,
        kind="search",
        config=config_name(bench.config) or "config",
        supernet=str(bench.supernet),
        strategy=dict(settings),
        seed=seed,
        **bench.plain.key,
        reward=dict(bench.config.search.reward),
        **norms,
        **_found(result),
        **({"differences": compared} if compared else {}),
        best_seen=result.best_seen.plain(),
        front=[evaluation.plain() for evaluation in result.front],
        evaluations=len(result.history),
        distinct=len({evaluation.scheme for evaluation in result.history}),
        training_seconds=training["seconds"] if training else None,
    )


def search(
    config: str,
    strategy: str | None,
    supernet: Path | None,
    work_dir: Path | None,
    resume: bool,
    amp: bool,
    tensorboard: bool,
    cfg_options: list[str] | None,
    launcher: Launcher,
) -> None:
    """Do the work of the command; :mod:`ean_core.commands.cli` declares its arguments and options."""
    cfg, folder = prepare(config, work_dir, cfg_options)
    checkpoint = find_supernet(cfg, supernet)
    if strategy:
        choose_strategy(cfg, strategy, cfg_options or ())
    if cfg.search.strategy.get("type") == "darts":
        DartsSettings.read(cfg.search.strategy)
    else:
        check_strategy(cfg.search.strategy)
    if amp:
        use_bf16(cfg)
    if tensorboard:
        use_tensorboard(cfg)
    with resumable(folder):
        result = run_search(cfg, checkpoint, folder, resume=resume, launcher=launcher.value)
    if result is None:
        return
    found, best, record = result.scheme, result.best_seen, read_record(folder / SEARCH)
    before = "" if "norms" in record else ", before re-estimating batch norms"
    lines = [
        f"{found.scheme}, chosen by rule {result.rule}: {found.metric.text(found.score, found.standard_error)} "
        f"on the validation images used for selection, "
        f"{found.scheme.connections} connections, reward {found.reward:.2f}",
        *(
            f"difference from {name} on the same images: {Difference(**values).text(found.metric.unit)}"
            f"{', less is better' if found.metric.less_is_better else ''}"
            for name, values in record.get("differences", {}).items()
        ),
        f"best of {len(result.history)} evaluations "
        f"({len({evaluation.scheme for evaluation in result.history})} different){before}: "
        f"{best.scheme}, {best.text}, reward {best.reward:.2f}",
    ]
    typer.echo("\n".join(lines))
    different = {evaluation.scheme for evaluation in result.history}
    if len(different) == 2 ** len(found.scheme.bits) and not cfg.search.reward.get("latency"):
        _say_coefficients(result, before)
    if not found.scheme.connections:
        typer.echo("no connection is worth its cost: lower search.reward.sparsity, or use search.rule=best-seen")
    typer.echo(f"record: {folder / SEARCH}")
    suggest("train it", "ean", "train", _trained_by(cfg), cfg_options=[f"model.backbone.scheme={found.scheme}"])


def choose_strategy(config: Config, name: str, overrides: Sequence[str]) -> None:
    """Apply ``--strategy``: a strategy other than the config's keeps only the settings of ``search.strategy`` that
    ``overrides`` set."""
    if name == config.search.strategy.type:
        return
    prefix = "search.strategy."
    named = {text.removeprefix(prefix).split("=")[0].split(".")[0] for text in overrides if text.startswith(prefix)}
    given = {key: config.search.strategy[key] for key in named}
    config.search.strategy = ConfigDict({**given, "type": name})


def find_supernet(config: Config, given: Path | None) -> Path:
    """Return the supernet's checkpoint: the given one, the config's, or the latest in ``work_dirs``.

    Raises:
        FileNotFoundError: if there is no checkpoint of a finished training.
        ValueError: if the config has no valid ``search`` section.
    """
    complete_search(config)
    if given or config.search.supernet:
        path = Path(given or config.search.supernet)
        if not path.exists():
            raise FileNotFoundError(f"no supernet at {path}; give a checkpoint, or the folder of its run")
        return chosen_checkpoint(path)
    name = supernet_name(config)
    run = Run(Path("work_dirs") / name)
    if run.latest is None:
        raise FileNotFoundError(
            f"no supernet in {run.folder}; train it with `ean train {name}`, or give --supernet FILE"
        )
    if not run.finished:
        raise FileNotFoundError(
            f"the training of {run.latest} has not ended; continue it with `ean train {name} --resume`, or give "
            "--supernet FILE"
        )
    return run.latest


def _found(result: SearchResult) -> dict[str, Any]:
    return {"rule": result.rule, "scheme": result.scheme.plain()}


def _is_recorded(path: Path, result: SearchResult) -> bool:
    """Whether a record has this result."""
    return path.exists() and _found(result).items() <= read_record(path).items()


def _say_coefficients(result: SearchResult, before: str) -> None:
    """Print the best scheme for every weight of the sparsity, which is known once all schemes are scored.

    Args:
        result: result of the search.
        before: tells that batch norms are not re-estimated yet, if they are later.
    """
    metric = result.best_seen.metric
    typer.echo(f"best scheme for each sparsity weight, with {metric.label} at weight 1{before}:")
    for low, high, evaluation in best_by_coefficient(result.history):
        until = "    " if math.isinf(high) else f"{high:6.2f}"
        typer.echo(
            f"  {low:6.2f} to {until:>6}  {evaluation.scheme}  {evaluation.scheme.connections:2d} connections, "
            f"{metric.measured(evaluation.score)}"
        )


def _trained_by(config: Config) -> str:
    """Return the name of the config that trains the result of a packaged search config."""
    name = config_name(config) or ""
    trains = name.removeprefix("search_")
    return trains if trains != name and trains in packaged_configs() else "CONFIG"
