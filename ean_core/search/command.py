"""The command ``ean search``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ean_core.checkpoint import load_weights
from ean_core.options import CfgOptions, ConfigName, Resume, WorkDir, prepare, resumable
from ean_core.progress import Progress
from ean_core.record import write_record
from ean_core.report.figures import network_figure
from ean_core.runner import latest_checkpoint

from .evaluator import SupernetEvaluator
from .loop import SearchResult
from .loop import search as run_loop
from .strategy import Reward, build_strategy


def run_search(config: Config, supernet: Path, work_dir: Path, *, resume: bool = False) -> SearchResult:
    """Search the connections of a trained supernet; writes ``ledger.jsonl``, ``search.json``, and the picture
    ``scheme.svg`` of the network found.

    Args:
        config: a config with ``search`` and the validation images of its supernet.
        supernet: the supernet's checkpoint.
        work_dir: where ledger and record go.
        resume: go on where the ledger ends, if there is one.

    Raises:
        FileExistsError: if ``work_dir`` holds a ledger and ``resume`` is not set.
        ValueError: if the checkpoint is not of the config's supernet, or the ledger belongs to another search.
    """
    ledger = work_dir / "ledger.jsonl"
    if ledger.exists() and not resume:
        raise FileExistsError(f"{ledger} exists; add --resume to go on with it, or --work-dir to start elsewhere")
    settings = config.search
    model = MODELS.build(config.model)
    load_weights(model, supernet, strict=True)
    seed = config.randomness.get("seed") or 0
    loader = Runner.build_dataloader(config.val_dataloader, seed=seed)
    images, fingerprint = _watched(loader), loader.dataset.fingerprint
    evaluator = SupernetEvaluator(model.to(get_device()), images, fingerprint, settings.precision)
    strategy = build_strategy(settings.strategy, evaluator.stages, seed)
    key = {"strategy": settings.strategy.to_dict(), "seed": seed}
    result = run_loop(strategy, evaluator, Reward(**settings.reward), ledger, key, typer.echo)
    record = work_dir / "search.json"
    if record.exists() and not evaluator.bodies:
        return result  # resumed after its end: the record is there
    write_record(
        record,
        kind="search",
        config=Path(config.filename).stem if config.filename else None,
        supernet=str(supernet),
        **key,
        **evaluator.key,
        reward=dict(settings.reward),
        result=_plain(result.scheme),
        best_seen=_plain(result.best_seen),
        evaluations=result.evaluations,
        distinct=result.distinct,
        block_bodies=evaluator.bodies,
    )
    network_figure(result.scheme.scheme, model.backbone.attention_cfg["type"], work_dir / "scheme.svg")
    return result


def search(
    config: ConfigName,
    supernet: Annotated[Path | None, typer.Option(help="Checkpoint of the supernet.")] = None,
    work_dir: WorkDir = None,
    resume: Resume = False,
    cfg_options: CfgOptions = None,
) -> None:
    """Search where to connect the attention of a trained supernet."""
    cfg, folder = prepare(config, work_dir, cfg_options)
    name = Path(cfg.filename).stem
    if "search" not in cfg:
        raise ValueError(f"{name} has no `search` section; for example search_resnet20_se_cifar100 has")
    checkpoint = supernet or cfg.search.supernet or _trained(name.replace("search_", "supernet_", 1))
    with resumable(folder):
        result = run_search(cfg, Path(checkpoint), folder, resume=resume)
    found, best = result.scheme, result.best_seen
    typer.echo(
        f"the strategy's choice, {found.scheme}: accuracy {found.accuracy:.2f} %, {found.cost:.0f} connections, reward "
        f"{found.reward:.2f}\nbest of {result.evaluations} evaluations ({result.distinct} different): {best.scheme}, "
        f"reward {best.reward:.2f}\ntrain it: ean train {_classification(name)} --cfg-options "
        f"model.backbone.scheme={found.scheme}"
    )


def _classification(name: str) -> str:
    """The config that trains what a packaged search config found."""
    return name.removeprefix("search_") if name.startswith("search_") else "CONFIG"


def _watched(loader: DataLoader) -> Iterator[Any]:
    with Progress("reading validation images", len(loader)) as progress:
        for batch in loader:
            yield batch
            progress.advance()


def _trained(name: str) -> Path:
    folder = Path("work_dirs") / name
    found = latest_checkpoint(folder)
    if found is None:
        raise FileNotFoundError(f"no supernet in {folder}; train it with `ean train {name}`, or give --supernet FILE")
    return found


def _plain(evaluation: Any) -> dict[str, Any]:
    return {**asdict(evaluation), "scheme": str(evaluation.scheme)}
