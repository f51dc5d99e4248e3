"""A search config ready to run: supernet, evaluators, reward, remembered scores."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import typer
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_dist_info, is_main_process
from mmengine.registry import DATASETS, FUNCTIONS, MODELS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ean_core.common.config import config_name
from ean_core.common.errors import unknown_name
from ean_core.common.memory import keep_freed_memory
from ean_core.common.record import read_record
from ean_core.common.seeding import Stream, generator
from ean_core.data.sampler import SampleKey
from ean_core.inference.latency import BlockTimes
from ean_core.runs.curves import search_curves
from ean_core.runs.folder import check_same_network, trained_config
from ean_core.weights.files import WeightsFile
from ean_core.weights.loading import load_weights

from .evaluator import RecalibratedEvaluator, SupernetEvaluator, dismiss, serve
from .loop import SearchResult, best_schemes, rescore, with_extremes
from .loop import search as run_loop
from .reward import Reward
from .scores import RememberedScores
from .strategy import Evaluation, Strategy

#: Images of the batch on which latency is measured, as in the paper (Section 5.1).
LATENCY_BATCH = 50
#: What a config's ``search`` may leave out, as ``configs/_base_/search.py`` has it.
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
        complete_search(self.config)
        keep_freed_memory()
        if self.supernet is None:
            return
        checkpoint = WeightsFile(self.supernet)
        before = trained_config(checkpoint)
        if before is not None and "scheme" not in (before.get("default_hooks") or {}):
            raise ValueError(
                f"{self.supernet} was trained with one scheme, {before.model.backbone.scheme!r}; a search needs a "
                f"supernet, which `ean train {supernet_name(self.config)}` trains"
            )
        check_same_network(checkpoint, self.config)

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


def complete_search(config: Config) -> None:
    """Fill in what a config's ``search`` leaves out, by :data:`DEFAULTS`.

    Raises:
        ValueError: if it has no such section, or nothing to score finalists on.
    """
    if "search" not in config:
        name = config_name(config) or "config"
        raise ValueError(f"{name} has no `search` section; for example search_resnet20_se_cifar100 has")
    for name, value in DEFAULTS.items():
        config.search.setdefault(name, copy.deepcopy(value))
    config.search.finalists = {**DEFAULTS["finalists"], **config.search.finalists}
    for name, number in config.search.finalists.items():
        if name not in DEFAULTS["finalists"]:
            raise unknown_name("setting of search.finalists", name, DEFAULTS["finalists"])
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"search.finalists.{name} is a whole number from 1 on, got {number!r}")


def supernet_name(config: Config) -> str:
    """The config of the supernet that a packaged search config searches."""
    return (config_name(config) or "config").replace("search_", "supernet_", 1)


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


def save_block_times(evaluator: SupernetEvaluator, path: Path) -> BlockTimes:
    """Measure what each part of a supernet takes, on up to 50 validation images, and write it down."""
    times = evaluator.block_times(LATENCY_BATCH)
    times.save(path, images=LATENCY_BATCH, device=str(evaluator.device))
    return times


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
