"""The command ``ean search``."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.dist import get_dist_info, is_main_process
from mmengine.registry import DATASETS, FUNCTIONS, MODELS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ean_core.checkpoint import load_weights
from ean_core.curves import search_curves, use_tensorboard
from ean_core.data.sampler import SampleKey
from ean_core.errors import unknown_name
from ean_core.inference.latency import BlockTimes
from ean_core.memory import keep_freed_memory
from ean_core.options import (
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
from ean_core.record import read_record, write_record
from ean_core.report.figures import network_figure
from ean_core.report.search_figures import front_figure
from ean_core.runner import latest_checkpoint
from ean_core.scheme import ConnectionScheme
from ean_core.seeding import Stream, generator
from ean_core.supernet import find_backbone
from ean_core.training import check_same_network, initialize_processes, trained_config

from .darts import run_darts
from .evaluator import RecalibratedEvaluator, SupernetEvaluator, dismiss, serve
from .front import best_by_coefficient
from .loop import SearchResult, best_schemes, rescore, with_extremes
from .loop import search as run_loop
from .reward import Reward
from .scores import RememberedScores
from .strategy import Evaluation, Strategy, build_strategy

#: Images of the batch on which latency is measured, as in the paper (Section 5.1).
LATENCY_BATCH = 50

#: What a config's ``search`` may leave out.
DEFAULTS: dict[str, Any] = {
    "supernet": None,
    "precision": "fp32",
    "reward": {},
    "finalists": {"count": 20, "images": 1000},
    "rule": None,
    "scores": None,
    "strategy": {"type": "ean"},
}


@dataclass
class Bench:
    """A supernet with the images to score its schemes on: what all searches of a config have in common.

    Args:
        config: with a ``search`` section.
        supernet: the supernet's checkpoint; None where only its speed matters.

    Raises:
        ValueError: if the config has no such section, or the checkpoint is not of the config's supernet.
    """

    config: Config
    supernet: Path | None

    def __post_init__(self) -> None:
        _complete(self.config)
        keep_freed_memory()
        if self.supernet is None:
            return
        before = trained_config(self.supernet)
        if before is not None and "scheme" not in (before.get("default_hooks") or {}):
            raise ValueError(
                f"{self.supernet} was trained with one scheme, {before.model.backbone.scheme!r}; a search needs a "
                f"supernet, which `ean train {_supernet(_name(self.config))}` trains"
            )
        check_same_network(self.supernet, self.config)

    @property
    def seed(self) -> int:
        """Of strategies and of calibration images."""
        return self.config.randomness.get("seed") or 0

    @cached_property
    def plain(self) -> SupernetEvaluator:
        """Scores with the supernet's own batch norms."""
        model = MODELS.build(self.config.model)
        if self.supernet is not None:
            load_weights(model, self.supernet, strict=True)
            _refuse_other_than_numbers(model, self.supernet)
        images = OwnPart(Runner.build_dataloader(self.config.val_dataloader, seed=self.seed))
        _refuse_one_class(images.dataset)
        return SupernetEvaluator(
            model.to(get_device()),
            images,
            images.dataset.fingerprint,
            self.config.search.precision,
            images=len(images.dataset),
        )

    @cached_property
    def training_images(self) -> Any:
        """The supernet's training images, augmented as it saw them."""
        return DATASETS.build(self.config.train_dataloader.dataset)

    @cached_property
    def recalibrated(self) -> RecalibratedEvaluator:
        """Scores with batch norms estimated on training images.

        These are augmented as in training: the zeros around a shifted CIFAR image belong to what the weights expect,
        and statistics without them cost some three points of accuracy.
        """
        settings, dataset = self.config.train_dataloader, self.training_images
        order = torch.randperm(len(dataset), generator=generator(self.seed, Stream.CALIBRATION)).tolist()
        chosen = [SampleKey(self.seed, 0, item) for item in order[: self.config.search.finalists.images]]
        loader = DataLoader(
            dataset,
            settings.batch_size,
            sampler=chosen,
            num_workers=settings.num_workers,
            collate_fn=FUNCTIONS.get(settings.collate_fn.type),
        )
        fingerprint = (
            f"{len(chosen)} of {dataset.fingerprint}, {json.dumps(settings.dataset)}, seed {self.seed}, batches of "
            f"{settings.batch_size}"
        )
        return RecalibratedEvaluator(self.plain, loader, fingerprint)

    @contextmanager
    def processes(self) -> Iterator[bool]:
        """True on the first process, whose searches the others serve until it leaves; they get False then."""
        evaluators = (self.plain, self.recalibrated)
        if not is_main_process():
            serve(*evaluators)
            yield False
            return
        try:
            yield True
        finally:
            if not any(evaluator.failed for evaluator in evaluators):  # else the others have left
                dismiss()

    @property
    def scores(self) -> Path:
        """The folder of scores that searches of this supernet share."""
        assert self.supernet is not None
        return Path(self.config.search.scores or self.supernet.parent)

    def reward(self, work_dir: Path) -> Reward:
        """The config's reward; block times that it needs and does not name are measured here, into ``work_dir``."""
        weights = dict(self.config.search.reward)
        table = weights.pop("table", None)
        names = {field.name for field in fields(Reward)} - {"table"}
        for name in weights:
            if name not in names:
                raise unknown_name("weight of the reward", name, {*names, "table"})
        if not weights.get("latency"):
            return Reward(**weights)
        path = Path(table) if table else work_dir / "block_times.json"
        if not table and not path.exists():
            save_block_times(self.plain, path)
        times, backbone = BlockTimes.load(path), self.plain.backbone
        measured, own = read_record(path).get("attention"), backbone.attention_cfg["type"]
        if measured not in (None, own):
            raise ValueError(f"{path} holds block times of {measured}, and this supernet has {own}; measure its own")
        return Reward(**weights, table=times)

    def search(
        self,
        strategy: Strategy,
        settings: Mapping[str, Any],
        reward: Reward,
        work_dir: Path,
        *,
        seed: int,
        finalists: bool = True,
    ) -> SearchResult:
        """Run a strategy, its ledger in ``work_dir``, from where that stands.

        Args:
            strategy: freshly built.
            settings: what it was built from, for the ledger.
            reward: what it maximises.
            work_dir: of ``ledger.jsonl``.
            seed: of the strategy.
            finalists: score the best schemes once more.
        """
        with search_curves(self.config, work_dir) as draw:
            return run_loop(
                strategy,
                RememberedScores(self.plain, self.scores),
                reward,
                work_dir / "ledger.jsonl",
                {"strategy": dict(settings), "seed": seed},
                typer.echo,
                finalists=RememberedScores(self.recalibrated, self.scores) if finalists else None,
                final_count=self.config.search.finalists.count,
                rule=self.config.search.rule,
                draw=draw,
            )

    def rescore(
        self, history: Sequence[Evaluation], reward: Reward, ledger: Path, key: Mapping[str, Any]
    ) -> list[Evaluation]:
        """Score the best schemes of several searches, ``none`` and ``full`` once more.

        Args:
            history: all evaluations of the searches.
            reward: what they maximised.
            ledger: file of the scores.
            key: what identifies the searches.
        """
        return rescore(
            with_extremes(best_schemes(history, self.config.search.finalists.count), self.plain.stages),
            RememberedScores(self.plain, self.scores),
            RememberedScores(self.recalibrated, self.scores),
            reward,
            ledger,
            key,
            typer.echo,
        )


def _refuse_other_than_numbers(model: nn.Module, path: Path) -> None:
    """A supernet whose training went wrong scores all schemes alike."""
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            raise ValueError(f"{path}: {name} holds numbers that are not finite; train the supernet again")


def _refuse_one_class(images: Any) -> None:
    """By images of one class schemes cannot be told apart."""
    labels = getattr(images, "labels", None)  # data sets of one's own may not tell
    found = set(map(int, labels)) if labels is not None else set()
    if len(found) == 1:
        raise ValueError(
            f"all {len(images)} validation images are of class {found.pop()}: they say nothing of schemes; choose "
            "others in val_dataloader.dataset"
        )


class OwnPart:
    """The batches of this process, without the images that the sampler repeats at its end.

    Args:
        loader: of a data set in order.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.dataset = loader.dataset

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rank, world_size = get_dist_info()
        left = len(range(rank, len(self.dataset), world_size))
        for batch in self.loader:
            if left > 0:
                yield {name: value[:left] for name, value in batch.items()}
            left -= len(batch["labels"])


class GivenScheme(Strategy):
    """Asks for one scheme, and returns it: how the scheme that a trainer ended in is scored and written down."""

    rule = "mode"

    def __init__(self, scheme: ConnectionScheme) -> None:
        super().__init__(scheme.stages, evaluations=1)
        self.scheme = scheme
        self.asked = False

    def ask(self) -> list[ConnectionScheme]:
        return [] if self.asked else [self.scheme]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self.asked = True

    def mode(self) -> ConnectionScheme:
        return self.scheme


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
    different = {evaluation.scheme: evaluation for evaluation in result.history}
    front_figure(
        list(different.values()),
        result.finalists,
        work_dir / "front.png",
        exact=len(different) == 2 ** len(scheme.bits),
        cost="attention time (ms a batch)" if reward.latency else "connections",
    )
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
    path, training = work_dir / "search.json", work_dir / "training" / "record.json"
    found = {"rule": result.rule, "scheme": plain_values(result.scheme)}
    if path.exists() and found.items() <= read_record(path).items():
        return
    write_record(
        path,
        kind="search",
        config=_name(bench.config),
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
        training_seconds=read_record(training)["seconds"] if training.exists() else None,
    )


def save_block_times(evaluator: SupernetEvaluator, path: Path) -> BlockTimes:
    """Measure what each part of a supernet takes, on up to 50 validation images, and write it down."""
    times = evaluator.block_times(LATENCY_BATCH)
    times.save(path, images=LATENCY_BATCH, device=str(evaluator.device))
    return times


# ---------------------------------------------------------------- commands

Supernet = Annotated[Path | None, typer.Option(help="Checkpoint of the supernet.")]


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
        f"train it: ean train {_classification(_name(cfg))} --cfg-options model.backbone.scheme={found.scheme}"
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
    _complete(config)
    if given or config.search.supernet:
        return Path(given or config.search.supernet)
    name = _supernet(_name(config))
    folder = Path("work_dirs") / name
    found = latest_checkpoint(folder)
    if found is None:
        raise FileNotFoundError(f"no supernet in {folder}; train it with `ean train {name}`, or give --supernet FILE")
    if not (folder / "record.json").exists():
        raise FileNotFoundError(
            f"the training of {found} has not ended; go on with `ean train {name} --resume`, or give --supernet FILE"
        )
    return found


def _complete(config: Config) -> None:
    """Fill what a config's ``search`` leaves out, as ``configs/_base_/search.py`` has it.

    Raises:
        ValueError: if it has no such section, or nothing to score finalists on.
    """
    if "search" not in config:
        raise ValueError(f"{_name(config)} has no `search` section; for example search_resnet20_se_cifar100 has")
    for name, value in DEFAULTS.items():
        config.search.setdefault(name, copy.deepcopy(value))
    config.search.finalists = {**DEFAULTS["finalists"], **config.search.finalists}
    for name, number in config.search.finalists.items():
        if name not in DEFAULTS["finalists"]:
            raise unknown_name("setting of search.finalists", name, DEFAULTS["finalists"])
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"search.finalists.{name} is a whole number from 1 on, got {number!r}")


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


def _name(config: Config) -> str:
    return Path(config.filename).stem if config.filename else "config"


def _supernet(name: str) -> str:
    """The config of the supernet that a packaged search config searches."""
    return name.replace("search_", "supernet_", 1)


def _classification(name: str) -> str:
    """The config that trains what a packaged search config found."""
    return name.removeprefix("search_") if name.startswith("search_") else "CONFIG"
