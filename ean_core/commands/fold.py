"""The command ``ean fold``: constants in the place of gates that hardly vary."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS
from torch import nn

from ean_core.backbone import find_backbone
from ean_core.common.config import config_name
from ean_core.common.memory import keep_freed_memory
from ean_core.common.output import say
from ean_core.common.record import write_record
from ean_core.common.tasks import Metric
from ean_core.common.writing import replacing
from ean_core.runs.folder import FOLD, Run, check_same_network, check_same_settings, chosen_checkpoint, trained_config
from ean_core.runs.outside import check_data
from ean_core.runs.terminal import announce
from ean_core.runs.training import run_training
from ean_core.search.bench import loader_of, some_images
from ean_core.search.evaluator import SupernetEvaluator
from ean_core.search.fold import Folded, Folding, compared, difference_unit, measure_constants
from ean_core.search.ledger import Ledger
from ean_core.search.scorer import scorer_of, span
from ean_core.show.table import Cells, print_table
from ean_core.weights.addresses import read_metadata
from ean_core.weights.files import WeightsFile, read_meta
from ean_core.weights.loading import load_weights

from .options import prepare, resumable, suggest

#: The folded network's checkpoint, the ledger of schemes, and the folder of the run that tunes it.
FOLDED, LEDGER, TUNED = "folded.pth", "fold.jsonl", "tuned"
#: Learning rate of the tuning, relative to the config's, which is for networks that start from nothing.
TUNING_RATE = 0.01


@dataclass(frozen=True)
class Images:
    """Images to score schemes on.

    Args:
        name: what they are, for messages and records.
        settings: settings of their data loader.
        half: 0 for those of even index, 1 for those of odd index, None for all.
    """

    name: str
    settings: Any
    half: int | None = None

    def evaluator(self, network: nn.Module, seed: int) -> SupernetEvaluator:
        """Build an evaluator of a network's schemes on these images, which reads them on first use."""
        dataset = DATASETS.build(self.settings.dataset)
        scorer = scorer_of(network)
        scorer.check(dataset)
        items = range(len(dataset))[slice(self.half, None, None if self.half is None else 2)]
        fingerprint = f"{self.name}: {scorer.fingerprint(dataset, self.settings.dataset)}"
        batches: Any = loader_of(dataset, self.settings, items, seed)
        return SupernetEvaluator(network, batches, fingerprint, images=len(items), name=self.name)


def images_of(config: Config) -> tuple[Images, Images]:
    """Return the images to choose constants on, and those to report the result on.

    The validation images and the test images, if training leaves out the former; otherwise two halves of the test
    images, those of even and of odd index.
    """
    validation, test = config.get("val_dataloader"), config.test_dataloader
    split = config.train_dataloader.dataset.get("split")
    if validation is not None and validation.dataset != test.dataset and split != "trainval":
        return Images("validation images", validation), Images("test images", test)
    return Images("test images of even index", test, 0), Images("test images of odd index", test, 1)


def training_images(config: Config) -> Any:
    """Return the settings of a loader of training images, read as test images if both are splits of one data set.

    The gates of augmented images differ: those of CIFAR images with a border of zeros, by up to 5 %.
    """
    training, test = config.train_dataloader.dataset, config.test_dataloader.dataset
    if training.get("type") != test.get("type") or "split" not in training or "split" not in test:
        return config.train_dataloader
    settings = copy.deepcopy(config.test_dataloader)
    settings.dataset.split = training.split
    return settings


def run_fold(
    config: Config,
    checkpoint: Path,
    work_dir: Path,
    *,
    margin: float | None = None,
    images: int = 2000,
    epochs: int = 0,
    resume: bool = False,
) -> dict[str, Any]:
    """Find the cheapest scheme with constants within a bound; writes ``folded.pth``, ``fold.json``, ``fold.jsonl``.

    Args:
        config: the network's config.
        checkpoint: its checkpoint.
        work_dir: output folder.
        margin: largest accepted loss in the metric's unit; see :meth:`Folded.within`.
        images: training images for the means of gates.
        epochs: epochs of training after the folding, constants included.
        resume: continue the ledger, if there is one.

    Returns:
        The record's own fields.

    Raises:
        FileExistsError: if ``work_dir`` holds a ledger and ``resume`` is not set.
        FileNotFoundError: if a data set's files are missing.
        ValueError: if the config is that of a supernet, the checkpoint does not belong to its network or was trained on
            other images, no block is connected, gates are not one per channel, or ``epochs`` is given for a config that
            counts iterations.
    """
    if (work_dir / LEDGER).exists() and not resume:
        raise FileExistsError(
            f"{work_dir / LEDGER} exists; add --resume to continue it, or --work-dir to start elsewhere"
        )
    if epochs and "max_epochs" not in config.train_cfg:
        raise ValueError(
            f"--epochs {epochs}: this config counts iterations; leave it out, and train the folded network with `ean "
            "train` and load_from"
        )
    _check_one_scheme(config, f"{config_name(config)} is the config of a supernet")
    check_data(config, "train_dataloader", "val_dataloader", "test_dataloader")
    file = WeightsFile(checkpoint)
    _check_source(file, checkpoint, config)
    keep_freed_memory()
    network = MODELS.build(config.model).to(get_device()).eval()
    load_weights(network, file, strict=True)
    base = find_backbone(network).scheme
    if not base.connections:
        raise ValueError(f"scheme {str(base)!r} connects no block, so there are no gates to replace")
    seed = config.randomness.get("seed") or 0
    choice, report = images_of(config)
    evaluator = choice.evaluator(network, seed)
    training = training_images(config)
    dataset = DATASETS.build(training.dataset)
    mean_images = some_images(dataset, images, seed)
    data = f"{len(mean_images):,} training images for means, {evaluator.images:,} {choice.name} to choose constants on"
    announce("fold", config, network, data, work_dir, f"weights: {checkpoint}")
    key = {"fold": {"images": len(mean_images), "seed": seed, "margin": margin}, **evaluator.key}
    with Ledger(work_dir / LEDGER, key) as ledger:
        if ledger.notice:
            say(ledger.notice)
        measure_constants(network, loader_of(dataset, training, mean_images, seed))
        front = Folding(evaluator, base, ledger, margin).run()
    scheme = front[-1].scheme
    replaced = scheme != base
    settings = copy.deepcopy(config)
    settings.model.backbone.scheme = str(scheme)
    if replaced:
        _save(network, settings, file, work_dir / FOLDED)
    parameters = sum(each.numel() for each in MODELS.build(settings.model).parameters())
    tuned = _tuned(settings, work_dir / FOLDED, work_dir / TUNED, epochs, resume) if epochs and replaced else None
    final = report.evaluator(network, seed)
    rows = final.rows([base, scheme])
    reported = {"computed": compared(final.scorer, base, rows[base], rows[base])}
    if replaced:
        reported["folded"] = compared(final.scorer, scheme, rows[scheme], rows[base])
    if tuned is not None:
        own = report.evaluator(tuned, seed).rows([scheme])[scheme]
        reported["tuned"] = compared(final.scorer, scheme, own, rows[base])
    origin: dict[str, Any] = {"checkpoint": checkpoint.name, "sha256": file.sha256, "scheme": str(base)}
    if checkpoint.suffix == ".safetensors":
        origin["name"] = read_metadata(checkpoint).get("name")
    elif Run(checkpoint.parent).record:
        origin["training"] = Run(checkpoint.parent).record
    fields: dict[str, Any] = {
        "config": config_name(config),
        "source": origin,
        "attention": find_backbone(network).attention_cfg["type"],
        "scheme": str(scheme),
        "parameters": parameters,
        **({"checkpoint": {"name": FOLDED, "sha256": WeightsFile(work_dir / FOLDED).sha256}} if replaced else {}),
        "margin": margin,
        "seed": seed,
        **evaluator.key,
        "mean_gates": {"images": len(mean_images), "data": training.dataset.to_dict()},
        "chosen_on": {
            "which": choice.name,
            "images": evaluator.images,
            "front": [each.plain() for each in front],
        },
        "reported_on": {
            "which": report.name,
            "images": final.images,
            **{name: each.plain() for name, each in reported.items()},
        },
    }
    write_record(work_dir / FOLD, kind="fold", **fields)
    return fields


def _check_one_scheme(settings: Mapping[str, Any], what: str) -> None:
    """Refuse a supernet, whose weights belong to no scheme in particular."""
    if "scheme" in (settings.get("default_hooks") or {}):
        raise ValueError(
            f"{what}, which trains a random scheme in every iteration; fold a trained network, for example: ean fold "
            "resnet20_se_digits work_dirs/resnet20_se_digits"
        )


def _check_source(file: WeightsFile, checkpoint: Path, config: Config) -> None:
    """Refuse a checkpoint of a supernet or of another network, and one trained on other images than the config's.

    Images that the config leaves out of training may have been training images of that checkpoint.
    """
    check_same_network(file, config)
    before = trained_config(file)
    if before is not None:
        _check_one_scheme(before, f"{checkpoint} is a checkpoint of a supernet")
        images = [f"train_dataloader.dataset.{entry}" for entry in ("type", "part", "split", "dataset")]
        own = Run(checkpoint.parent).config
        hint = f" (its config is {own})" if own not in (None, config_name(config)) else ""
        check_same_settings(before, config, images, f"{checkpoint}{hint} was trained with")


def _save(network: nn.Module, config: Config, source: WeightsFile, path: Path) -> None:
    """Write the checkpoint of a folded network: the tensors that a network of this config has."""
    own = MODELS.build(config.model).state_dict()
    state = {name: value.cpu() for name, value in network.state_dict().items() if name in own}
    meta = {**read_meta(source), "cfg": config.pretty_text}
    with replacing(path) as partial:
        torch.save({"meta": meta, "state_dict": state}, partial)


def _tuned(config: Config, checkpoint: Path, work_dir: Path, epochs: int, resume: bool) -> nn.Module:
    """Train a folded network for some epochs, with a low and constant learning rate; return it with its new weights."""
    settings = copy.deepcopy(config)
    settings.load_from = str(checkpoint)
    settings.train_cfg.max_epochs = epochs
    settings.optim_wrapper.optimizer.lr *= TUNING_RATE
    settings.param_scheduler = None
    final = run_training(settings, work_dir, resume=resume)
    network = MODELS.build(config.model).to(get_device()).eval()
    load_weights(network, final, strict=True)
    return network


def _cells(name: str, found: Folded, metric: Metric) -> Cells:
    """Return the table row of a network."""
    low, high = span(found.score, found.score.standard_error)
    less, more = found.difference.span
    return {
        "network": name,
        "scheme": str(found.scheme),
        metric.axis: f"{found.score:.2f} ({low:.2f} to {high:.2f})",
        f"difference ({difference_unit(metric)})": f"{found.difference.value:+.2f} ({less:+.2f} to {more:+.2f})",
    }


def fold(
    config: str,
    checkpoint: Path,
    work_dir: Path | None,
    margin: float | None,
    images: int,
    epochs: int,
    resume: bool,
    cfg_options: list[str] | None,
) -> None:
    """Do the work of the command; :mod:`ean_core.commands.cli` declares its arguments and options."""
    checkpoint = chosen_checkpoint(checkpoint)
    cfg, _ = prepare(config, work_dir, cfg_options)
    folder = work_dir or Path("work_dirs") / f"fold_{config_name(cfg)}"
    with resumable(folder):
        record = run_fold(cfg, checkpoint, folder, margin=margin, images=images, epochs=epochs, resume=resume)
    metric, choice, reported = Metric.of(record), record["chosen_on"], dict(record["reported_on"])
    which, number = reported.pop("which"), reported.pop("images")
    names = [f"{line['connections']} computed" for line in choice["front"][:-1]] + ["chosen"]
    rows = [_cells(name, Folded.of(line), metric) for name, line in zip(names, choice["front"], strict=True)]
    print_table(rows, title=f"Best schemes on {choice['images']:,} {choice['which']}, which chose among them")
    rows = [_cells(name, Folded.of(line), metric) for name, line in reported.items()]
    print_table(rows, title=f"On {number:,} {which}, read once, and not used for the choice")
    typer.echo("in brackets: 95 % intervals; differences are paired, from the network with all gates computed")
    if "folded" not in reported:
        typer.echo(f"no gate can be constant within the margin; record: {folder / FOLD}")
        return
    saved = folder / TUNED if "tuned" in reported else folder / FOLDED
    typer.echo(f"checkpoint: {saved}, record: {folder / FOLD}")
    _suggest_next(config, saved, record["scheme"], cfg_options or ())


def _suggest_next(config: str, saved: Path, scheme: str, cfg_options: Sequence[str]) -> None:
    """Suggest the test, the export and the timing of a folded network, with the options that the command had."""
    entry = "model.backbone.scheme="
    options = [*(each for each in cfg_options if not each.startswith(entry)), f"{entry}{scheme}"]
    suggest("test it", "ean", "test", config, saved, cfg_options=options)
    suggest("deploy it", "ean", "export", config, saved, "--format", "onnx", cfg_options=options)
    suggest("time it", "ean", "time", config, cfg_options=options)
