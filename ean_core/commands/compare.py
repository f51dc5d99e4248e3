"""The command ``ean search compare``: compare strategies on one supernet, with equal budgets."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from mmengine.config import Config, ConfigDict

from ean_core.common.config import config_name
from ean_core.common.output import progress_only, say
from ean_core.common.record import write_record
from ean_core.common.tasks import ACCURACY
from ean_core.inference.latency import BlockTimes
from ean_core.report.search import SEEDLESS, write_comparison
from ean_core.runs.curves import use_tensorboard
from ean_core.search.bench import Bench
from ean_core.search.darts import GivenScheme, run_darts
from ean_core.search.reward import Reward
from ean_core.search.strategy import Evaluation, Strategy, build_strategy, strategy_class
from ean_core.show.table import Cells, print_table

from .options import prepare, resumable, use_bf16
from .search import announce_search, find_supernet, record_search

#: Cost of a training step in forward passes: the forward pass, and a backward pass with twice the operations.
PASSES_PER_STEP = 3


def run_comparison(
    config: Config, supernet: Path, work_dir: Path, *, strategies: Sequence[str], evaluations: int, seeds: int
) -> list[Cells]:
    """Run strategies on one supernet, each with every seed, and write the report that
    :func:`ean_core.report.search.write_comparison` describes.

    Each search has its own ledger in ``work_dir/STRATEGY/seed_K`` and continues from it. Scores are shared between
    searches. ``exhaustive`` and ``hsp`` run once, on as many schemes as they define (``hsp`` at most ``evaluations``);
    ``darts`` trains for the number of epochs that costs about as many forward passes as the evaluations. Finally, the
    best schemes of all searches are scored again.

    Args:
        config: search config.
        supernet: checkpoint of its supernet.
        work_dir: folder for all output.
        strategies: names, in the order of the table.
        evaluations: budget of each search.
        seeds: number of seeds, starting at 0.

    Returns:
        The table's rows.

    Raises:
        ValueError: for an unknown or repeated strategy, or a ledger of another search.
    """
    if not strategies or len(set(strategies)) < len(strategies):
        raise ValueError(
            f"a comparison needs at least one strategy, each only once; got {', '.join(strategies) or 'none'}"
        )
    for name in strategies:  # refuse unknown names before anything runs
        if name != "darts":
            strategy_class(name)
    config.search.rule = None  # each strategy uses its own rule
    bench = Bench(config, supernet)
    if "darts" in strategies and bench.plain.metric != ACCURACY:
        others = ",".join(name for name in strategies if name != "darts")
        raise ValueError(f"darts trains classifiers only; leave it out: --strategies {others or 'exhaustive'}")
    announce_search("compare", bench, work_dir, f"strategies: {', '.join(strategies)}")
    reward = bench.reward(work_dir)
    history: list[Evaluation] = []
    for name in sorted(strategies, key=lambda name: name != "exhaustive"):  # first: the others reuse its scores
        for seed in range(1 if name in SEEDLESS else seeds):
            say(f"{name}, seed {seed}")
            folder = work_dir / name / f"seed_{seed}"
            settings: dict[str, Any] = {"type": name}
            if name == "darts":
                settings["epochs"] = _equal_epochs(bench, evaluations)
                strategy = _trained(bench, settings, reward, folder / "training", seed)
            else:
                if strategy_class(name).budgeted:
                    settings["evaluations"] = evaluations
                strategy = build_strategy(settings, bench.plain.stages, seed)
            result = bench.search(strategy, settings, reward, folder, seed=seed, finalists=False)
            record_search(folder, bench, settings, result, seed=seed)
            history += result.history
    finalists = work_dir / "finalists.jsonl"
    finalists.unlink(missing_ok=True)  # may be from fewer searches; the scores themselves are stored
    bench.rescore(history, reward, finalists, {"comparison": list(strategies)})
    write_record(
        work_dir / "compare.json",
        kind="search comparison",
        config=config_name(config),
        supernet=str(supernet),
        strategies=list(strategies),
        evaluations=evaluations,
        seeds=list(range(seeds)),
        images=bench.plain.images,
        batches=len(bench.plain.batches),
        block_times=asdict(_block_times(bench, work_dir / "scoring_times.json")),
        reward=dict(config.search.reward),
        **bench.plain.key,
    )
    return write_comparison(work_dir)


def compare(
    config: str,
    strategies: str,
    evaluations: int,
    seeds: int,
    supernet: Path | None,
    work_dir: Path | None,
    resume: bool,
    amp: bool,
    tensorboard: bool,
    cfg_options: list[str] | None,
) -> None:
    """Do the work of the command; :mod:`ean_core.commands.cli` declares its arguments and options."""
    cfg, folder = prepare(config, work_dir, cfg_options)
    folder = work_dir or folder.with_name(f"compare_{folder.name}")
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise FileExistsError(f"{folder} is not empty; add --resume to continue it, or --work-dir to start elsewhere")
    if amp:
        use_bf16(cfg)
    if tensorboard:
        use_tensorboard(cfg)
    names = [name.strip() for name in strategies.split(",") if name.strip()]
    with resumable(folder):
        rows = run_comparison(
            cfg, find_supernet(cfg, supernet), folder, strategies=names, evaluations=evaluations, seeds=seeds
        )
    print_table(rows, title=f"{evaluations} evaluations per search, mean and standard deviation over {seeds} seeds")
    typer.echo(f"report and figures: {folder / 'comparison.md'}")


def _equal_epochs(bench: Bench, evaluations: int) -> int:
    """Return the epochs of DARTS that cost about as many forward passes as scoring ``evaluations`` schemes on all
    validation images; each DARTS iteration trains on two batches."""
    passes = evaluations * bench.plain.images
    return max(1, round(passes / (2 * PASSES_PER_STEP * len(bench.training_images))))


def _trained(bench: Bench, settings: dict[str, Any], reward: Reward, folder: Path, seed: int) -> Strategy:
    """Run DARTS and return its scheme as a strategy that proposes only this scheme."""
    config = copy.deepcopy(bench.config)
    config.randomness.seed = seed
    config.search.strategy = ConfigDict(settings)
    assert bench.supernet is not None
    with progress_only():
        return GivenScheme(run_darts(config, bench.supernet, folder, times=reward.table, resume=True))


def _block_times(bench: Bench, path: Path) -> BlockTimes:
    """Time the blocks on batches of the scored size; measured once per comparison."""
    if not path.exists():
        images = len(bench.plain.batches[0]["inputs"])
        bench.plain.block_times(images).save(path, images=images, device=str(bench.plain.device))
    return BlockTimes.load(path)
