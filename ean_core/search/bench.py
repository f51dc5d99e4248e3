"""Set up the search of a config: supernet, evaluators, reward, stored scores."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.dist import get_dist_info, is_main_process
from mmengine.registry import DATASETS, FUNCTIONS, MODELS
from mmengine.runner import Runner
from torch import nn
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
from ean_core.runs.outside import check_data
from ean_core.scheme import ConnectionScheme
from ean_core.weights.files import WeightsFile
from ean_core.weights.loading import load_weights

from .evaluator import RecalibratedEvaluator, SupernetEvaluator, dismiss, has_fixed_norms, serve
from .loop import SearchResult, best_schemes, rescore, with_extremes
from .loop import search as run_loop
from .reward import Reward
from .scorer import Difference, scorer_of
from .scores import RememberedScores
from .strategy import Evaluation, Strategy

#: Images of the batch on which latency is measured, as in the paper (Section 5.1).
LATENCY_BATCH = 50
#: Defaults for a config's ``search`` section, as in ``configs/_base_/search.py``.
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
    """A supernet and the images to score its schemes on, shared by all searches of a config.

    Args:
        config: config with a ``search`` section.
        supernet: the supernet's checkpoint; None if only its speed matters.

    Raises:
        ValueError: if the config has no such section, or the checkpoint does not belong to the config's supernet.
    """

    config: Config
    supernet: Path | None

    def __post_init__(self) -> None:
        complete_search(self.config)
        keep_freed_memory()
        if self.supernet is None:
            return
        check_data(self.config, "val_dataloader", "train_dataloader")
        checkpoint = WeightsFile(self.supernet)
        before = trained_config(checkpoint)
        if before is not None and "scheme" not in (before.get("default_hooks") or {}):
            raise ValueError(
                f"{self.supernet} was trained with one scheme, {before.model.backbone.scheme!r}; a search needs a "
                f"supernet: train one with `ean train {supernet_name(self.config)}`"
            )
        check_same_network(checkpoint, self.config)

    @property
    def seed(self) -> int:
        """Seed of strategies and of the choice of calibration images."""
        return self.config.randomness.get("seed") or 0

    @cached_property
    def plain(self) -> SupernetEvaluator:
        """Evaluator with the supernet's own batch-norm statistics.

        Raises:
            ValueError: if no task scores such a network, or its validation images cannot distinguish schemes.
        """
        model = MODELS.build(self.config.model)
        if self.supernet is not None:
            load_weights(model, self.supernet, strict=True)
            _refuse_other_than_numbers(model, self.supernet)
        images = self.validation_images
        scorer = scorer_of(model)
        scorer.check(images.dataset)
        return SupernetEvaluator(
            model.to(get_device()),
            images,
            scorer.fingerprint(images.dataset, self.config.val_dataloader.dataset),
            self.config.search.precision,
            images=len(images.dataset),
        )

    @cached_property
    def validation_images(self) -> OwnPart:
        """Batches of the images that schemes are scored on, those of this process."""
        return OwnPart(Runner.build_dataloader(self.config.val_dataloader, seed=self.seed))

    @cached_property
    def training_images(self) -> Any:
        """The supernet's training images, with the same augmentation."""
        return DATASETS.build(self.config.train_dataloader.dataset)

    @cached_property
    def recalibrated(self) -> RecalibratedEvaluator:
        """Evaluator with batch-norm statistics re-estimated on training images, unless they were fixed in training.

        They are augmented as in training: the weights expect the zero padding around shifted CIFAR images, and
        statistics without it cost about three points of accuracy.
        """
        if has_fixed_norms(self.plain.supernet):
            return RecalibratedEvaluator(self.plain, (), "")
        settings, dataset = self.config.train_dataloader, self.training_images
        chosen = some_images(dataset, self.config.search.finalists.images, self.seed)
        loader = loader_of(dataset, settings, chosen, self.seed)
        images = self.plain.scorer.fingerprint(dataset, settings.dataset)
        fingerprint = (
            f"{len(chosen)} of {images}, {json.dumps(settings.dataset)}, seed {self.seed}, batches of "
            f"{settings.batch_size}"
        )
        return RecalibratedEvaluator(self.plain, loader, fingerprint)

    @property
    def finalists(self) -> SupernetEvaluator:
        """Evaluator of the finalists: re-estimates batch norms, unless that and fp32 change nothing."""
        exact = has_fixed_norms(self.plain.supernet) and self.plain.precision == "fp32"
        return self.plain if exact else self.recalibrated

    @contextmanager
    def processes(self) -> Iterator[bool]:
        """Yield True on rank 0; the other ranks serve its searches until it exits the context, and then yield False."""
        evaluators = (self.plain, self.recalibrated)
        if not is_main_process():
            serve(*evaluators)
            yield False
            return
        try:
            yield True
        finally:
            # After a failure the other ranks have already returned.
            if not any(evaluator.failed for evaluator in evaluators):
                dismiss()

    @property
    def scores(self) -> Path:
        """Folder of scores shared by all searches of this supernet."""
        assert self.supernet is not None
        return Path(self.config.search.scores or self.supernet.parent)

    def reward(self, work_dir: Path) -> Reward:
        """Build the config's reward; if it needs block times and names none, they are measured into ``work_dir``."""
        weights = dict(self.config.search.reward)
        table = weights.pop("table", None)
        without = Reward.of({**weights, "latency": 0.0}, None, self.plain.metric)  # raises if a weight is unknown
        if not weights.get("latency"):
            return without
        path = Path(table) if table else work_dir / "block_times.json"
        if not table and not path.exists():
            save_block_times(self.plain, path)
        times, backbone = BlockTimes.load(path), self.plain.backbone
        measured, own = read_record(path).get("attention"), backbone.attention_cfg["type"]
        if measured not in (None, own):
            raise ValueError(f"{path} has block times of {measured}, but this supernet has {own}; measure them for it")
        return Reward.of(weights, times, self.plain.metric)

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
        """Run a strategy, continuing the ledger in ``work_dir`` if there is one.

        Args:
            strategy: newly built strategy.
            settings: settings it was built from, for the ledger.
            reward: reward that it maximizes.
            work_dir: folder of ``ledger.jsonl``.
            seed: seed of the strategy.
            finalists: score the best schemes again with re-estimated batch norms.
        """
        with search_curves(self.config, work_dir) as draw:
            return run_loop(
                strategy,
                RememberedScores(self.plain, self.scores),
                reward,
                work_dir / "ledger.jsonl",
                {"strategy": dict(settings), "seed": seed},
                finalists=RememberedScores(self.finalists, self.scores) if finalists else None,
                final_count=self.config.search.finalists.count,
                rule=self.config.search.rule,
                draw=draw,
            )

    def differences(self, scheme: ConnectionScheme) -> dict[str, Difference]:
        """Compare a scheme with ``full`` and ``none`` on the same images, as the finalists are scored; not with
        itself."""
        stages, scorer = self.plain.stages, self.plain.scorer
        ends = {"full": ConnectionScheme.full(stages), "none": ConnectionScheme.none(stages)}
        rows = self.finalists.rows([scheme, *ends.values()])
        return {name: scorer.difference(rows[scheme], rows[end]) for name, end in ends.items() if end != scheme}

    def rescore(
        self, history: Sequence[Evaluation], reward: Reward, ledger: Path, key: Mapping[str, Any]
    ) -> list[Evaluation]:
        """Score the best schemes of several searches, and ``none`` and ``full``, again.

        Args:
            history: all evaluations of the searches.
            reward: reward that they maximized.
            ledger: file of the scores.
            key: values that identify the searches.
        """
        return rescore(
            with_extremes(best_schemes(history, self.config.search.finalists.count), self.plain.stages),
            RememberedScores(self.plain, self.scores),
            RememberedScores(self.finalists, self.scores),
            reward,
            ledger,
            key,
        )


def some_images(dataset: Any, count: int, seed: int) -> list[int]:
    """Draw up to ``count`` images of a data set, by index, without repetition."""
    return torch.randperm(len(dataset), generator=generator(seed, Stream.CALIBRATION)).tolist()[:count]


def loader_of(dataset: Any, settings: Any, items: Sequence[int], seed: int) -> DataLoader[Any]:
    """Return a loader of some images of a data set, in this order.

    Args:
        dataset: the data set.
        settings: settings of a data loader, for batches and workers.
        items: indices of the images.
        seed: seed of their augmentation.
    """
    return DataLoader(
        dataset,
        settings.batch_size,
        sampler=[SampleKey(seed, 0, item) for item in items],
        num_workers=settings.num_workers,
        collate_fn=FUNCTIONS.get(settings.collate_fn.type) if "collate_fn" in settings else pseudo_collate,
    )


def complete_search(config: Config) -> None:
    """Fill in missing settings of a config's ``search`` section from :data:`DEFAULTS`.

    Raises:
        ValueError: if there is no such section, or it has unknown settings, or ``search.finalists`` is invalid.
    """
    if "search" not in config:
        name = config_name(config) or "config"
        raise ValueError(
            f"{name} has no `search` section; use a search config, for example search_resnet20_se_cifar100"
        )
    for name in config.search:
        if name not in DEFAULTS:
            raise unknown_name("setting of search", name, DEFAULTS)
    for name, value in DEFAULTS.items():
        config.search.setdefault(name, copy.deepcopy(value))
    config.search.finalists = {**DEFAULTS["finalists"], **config.search.finalists}
    for name, number in config.search.finalists.items():
        if name not in DEFAULTS["finalists"]:
            raise unknown_name("setting of search.finalists", name, DEFAULTS["finalists"])
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"search.finalists.{name} must be an integer of at least 1, got {number!r}")


def supernet_name(config: Config) -> str:
    """Return the name of the supernet config that belongs to a packaged search config."""
    return (config_name(config) or "config").replace("search_", "supernet_", 1)


class OwnPart:
    """Batches of this process, without the images that the sampler repeats as padding.

    Args:
        loader: data loader without shuffling.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.dataset = loader.dataset

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rank, world_size = get_dist_info()
        left = len(range(rank, len(self.dataset), world_size))
        for batch in self.loader:
            if left > 0:
                yield {name: value[:left] for name, value in batch.items()}
            left -= len(batch["inputs"])


def save_block_times(evaluator: SupernetEvaluator, path: Path) -> BlockTimes:
    """Time each part of a supernet on up to 50 images of a validation batch, and write the times."""
    times = evaluator.block_times(LATENCY_BATCH)
    times.save(path, images=evaluator.images_timed(LATENCY_BATCH), device=str(evaluator.device))
    return times


def _refuse_other_than_numbers(model: nn.Module, path: Path) -> None:
    """Refuse non-finite weights: a diverged supernet scores all schemes alike."""
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            raise ValueError(f"{path}: {name} has NaN or infinite values; train the supernet again")
