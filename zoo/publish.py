"""Publish a run's checkpoint and records as a file, an index entry, and a card."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn

from ean_core import RECORDED, ConnectionScheme, EANResNet
from ean_core.backbone import describe, find_backbone
from ean_core.common.config import command_name, config_name, config_root, load_config, packaged_configs
from ean_core.common.errors import unknown_name, writing
from ean_core.common.hashes import file_hash
from ean_core.common.record import read_record, significant, write_text
from ean_core.common.tasks import CLASSIFICATION, find_dataset, find_metric, known_datasets
from ean_core.common.writing import file_lock, is_leftover, remove_leftovers
from ean_core.data.folder import shorter_side
from ean_core.inference.comparison import image_size, random_images
from ean_core.inference.cost import count_macs
from ean_core.networks import build_network
from ean_core.runs.folder import (
    FOLD,
    NETWORK_SETTINGS,
    RECORD,
    TEST,
    Run,
    check_same_network,
    check_same_settings,
    run_options,
)
from ean_core.weights.files import WeightsFile, read_meta, save_weights
from ean_core.weights.loading import load_weights

from .index import VALIDATED, VERSION, Entry, Index, file_name, find_entry, read_index_file
from .names import ModelName, variant_of
from .page import validated, write_pages
from .scrub import refuse_secrets, scrub

#: Files and folders that an interrupted publication may leave behind.
OWN = {"publish.lock", "weights", "records", "metafiles"}
#: Settings of a run that depend on the machine.
LOCAL = ("work_dir", "load_from", "experiment_name", "resume", "launcher")


def publish(
    checkpoint: Path,
    config: Config,
    root: Path,
    *,
    timing: Path | None = None,
    best: bool = False,
    replace: bool = False,
    half: bool = False,
) -> Entry:
    """Write the file of a trained network into an index, with its entry, its records and its card.

    All numbers come from records: ``record.json`` and ``test.json`` beside the checkpoint, and the timing. The training
    record of a network by ``ean fold`` is that of the network that was folded, a run's or a published model's.
    Publishing the same weights again updates their entry, and keeps its timing if none is given.

    Args:
        checkpoint: checkpoint of the whole network, by ``ean train`` or ``ean fold``.
        config: config it was trained with.
        root: folder of the index; created if missing.
        timing: record of ``ean time`` that includes the network.
        best: whether the network is the one with the best accuracy regardless of cost.
        replace: replace another network of the same name.
        half: store the weights of convolutions and linear layers in fp16. The recorded metrics were measured before
            rounding; ``ean zoo verify NAME --metrics`` tells whether they changed by more than 0.05.

    Returns:
        The entry.

    Raises:
        FileNotFoundError: if a record is missing; the message names the command that makes it.
        FileExistsError: if the folder is not an index and not empty, or the index has another network of this name.
        ValueError: if a record belongs to another checkpoint or other settings, the network has no name in the zoo, or
            something to publish holds a secret or personal data; the message names its place.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f"no checkpoint at {checkpoint}")
    others = {path.name for path in root.iterdir() if not is_leftover(path)} - OWN if root.is_dir() else set()
    if others and not (root / "model-index.yml").is_file():
        raise FileExistsError(
            f"{root} contains other files than an index of models; give a new or empty folder, or that of an index"
        )
    dataset = _dataset(config)
    file, run = WeightsFile(checkpoint), Run(checkpoint.parent)
    check_same_network(file, config)
    training, test = map(scrub, _records(file, run, config))
    network = MODELS.build(config.model).eval()
    load_weights(network, file, strict=True)
    backbone = find_backbone(network)
    name = model_name(dataset, backbone, best=best)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if (parameters, str(backbone.scheme)) != (test["parameters"], test["scheme"]):
        raise ValueError(
            f"{run.path(TEST)} is for {test['parameters']:,} parameters and scheme {test['scheme']}, "
            f"the network has {parameters:,} and {backbone.scheme}"
        )
    selected = _selected_epoch(training, checkpoint.name)
    metadata = _metadata(network, config, name, training, timing, selected)
    if half:
        metadata["Stored Precision"] = "fp16"
    training, log, collection = _published(training), run.log(), _collection(name, file)
    refuse_secrets(
        {
            RECORD: training,
            TEST: test,
            "log.jsonl": {f"line {number}": line for number, line in enumerate(log.splitlines(), 1)},
            "network": _built(config, backbone.scheme),
            "metadata": metadata,
            "collection": collection["Metadata"],
        }
    )
    with _changing(root):
        index = Index(root)
        before = index.entries.get(name)
        path = _write_file(network, config, name, root / "weights", half)
        if before and before.file != path.name and not replace:
            path.unlink()
            figures = ", ".join(f"{key} {value:.2f}" for key, value in before.metrics.items())
            raise FileExistsError(f"{root} has another {name} ({figures}); add --replace to replace it")
        if before and before.file == path.name and "Timing" in before.metadata:
            metadata.setdefault("Timing", before.metadata["Timing"])
        records = root / "records" / str(name)
        _write_records(records, training, test, log)
        fields = {
            "Name": str(name),
            "In Collection": name.collection,
            "Config": _config_path(config),
            "Metadata": metadata,
            "Results": [
                {
                    "Task": name.task,
                    "Dataset": find_dataset(name.dataset).title + (VALIDATED if validated(test) else ""),
                    "Metrics": {find_metric(key).title: round(value, 6) for key, value in test["metrics"].items()},
                }
            ],
            "Training Log": (records / "log.jsonl").relative_to(root).as_posix(),
            "Weights": path.name,
            "Size": path.stat().st_size,
            "SHA256": file_hash(path),
            "Network": _plain(_built(config, backbone.scheme)),
            **_image_size(config, name),
        }
        entry = Entry(name, fields, collection, root)
        _write_metafile(index, entry)
        if before and before.file != entry.file:
            before.packaged_file.unlink(missing_ok=True)
        write_pages(Index(root))
    return entry


def renew_timing(name: ModelName, timing: Path, root: Path) -> Entry:
    """Replace the timing in a published model's entry by the rows of a timing record, and regenerate its pages.

    Args:
        name: name of the model.
        timing: record of ``ean time`` that includes the network.
        root: folder of the index.

    Returns:
        The new entry.

    Raises:
        ValueError: if the index has no such model, or the record does not time its network.
    """
    record = read_record(timing)
    with _changing(root):
        index = Index(root)
        before = index.entries.get(name)
        if before is None:
            raise unknown_name("model of this index", str(name), map(str, index.entries))
        rows = _timing(record, build_network(before.network).eval(), timing)
        refuse_secrets({timing.name: rows})
        entry = replaced(before, fields={**before.fields, "Metadata": {**before.metadata, "Timing": rows}})
        _write_metafile(index, entry)
        write_pages(Index(root))
    return entry


@contextmanager
def _changing(root: Path) -> Iterator[None]:
    """Create the folder of an index if needed, and lock it against changes by other processes."""
    with writing(root, alone=False):
        root.mkdir(parents=True, exist_ok=True)
        with file_lock(root / "publish.lock"):
            remove_leftovers(root, "**/*")
            yield


def model_name(dataset: str, backbone: EANResNet, *, best: bool = False) -> ModelName:
    """Return the name of a network in the zoo.

    Raises:
        ValueError: if the connections have no name, or others are on record for this data set.
    """
    variant = variant_of(backbone.scheme, backbone.shared)
    if best and variant:
        variant = "best"
    recorded = RECORDED.get((backbone.family, backbone.depth, backbone.attention_cfg["type"], dataset))
    if variant == "ean" and recorded and recorded.scheme.leading(len(backbone.stage_blocks)) != backbone.scheme:
        raise ValueError(
            f"scheme {backbone.scheme} cannot be named ean_… on {dataset}, where {recorded.scheme} is on record; "
            "--best names a network best_…"
        )
    attention = backbone.attention_cfg["type"].lower() if variant else ""
    return ModelName(backbone.depth, dataset, variant, attention)


def _config_path(config: Config) -> str:
    """Path of a packaged config in the repository; file name of any other."""
    path = Path(config.filename)
    if packaged_configs().get(path.stem) != path:
        return path.name
    return f"configs/{path.relative_to(config_root()).as_posix()}"


def _dataset(config: Config) -> str:
    """Key of the data set that a config trains on, from the config's name."""
    stem = config_name(config) or ""
    dataset = next((key for key in known_datasets() if stem.endswith(f"_{key}")), None)
    if dataset is None:
        raise ValueError(
            f"config {stem!r} does not end in the name of a data set ({', '.join(known_datasets())}), "
            "which becomes part of the model's name"
        )
    return dataset


def _records(checkpoint: WeightsFile, run: Run, config: Config) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the training and test records of a checkpoint; check that they belong to it."""
    stem, training, test = config_name(config), _training(run, checkpoint), run.test
    if training is None or test is None:
        given = run.settings or config.to_dict()
        name, command = RECORD, _command("train", config, given)
        if training is not None:
            name, command = TEST, _command("test", config, given, checkpoint.path)
        raise FileNotFoundError(
            f"there is no {name} beside {checkpoint}: metrics are taken from records only; `{command}` writes it"
        )
    if training["epochs"] is None:
        raise ValueError(
            f"{run.path(RECORD)} is for a training of {training['iterations']} iterations; the zoo describes trainings "
            "by their epochs: train with train_cfg.type=EpochBasedTrainLoop"
        )
    epoch = _selected_epoch(training, checkpoint.path.name) or training["epochs"]
    settings = copy.deepcopy(training["settings"])
    if "fold" in training:
        settings["model"]["backbone"]["scheme"] = training["fold"]["scheme"]
    if test["checkpoint"]["sha256"] != checkpoint.sha256:
        raise ValueError(
            f"{run.path(TEST)} is for {test['checkpoint']['name']} with SHA-256 "
            f"{test['checkpoint']['sha256'][:8]}…, {checkpoint.path.name} has {checkpoint.sha256[:8]}…; run "
            f"`{_command('test', config, settings, checkpoint.path)}`"
        )
    check_same_settings(settings, config, NETWORK_SETTINGS, f"{run.path(RECORD)} is for a run with")
    meta = read_meta(checkpoint)
    for what, there, expected in (
        ("epochs", meta.get("epoch"), epoch),
        ("seed", meta.get("seed"), training["seed"]),
        ("training config", training["config"], stem),
        ("test config", test["config"], stem),
        ("test data", test.get("data"), _plain(config.test_dataloader.dataset.to_dict())),
    ):
        if there is not None and there != expected:
            raise ValueError(
                f"{checkpoint} and its records differ in {what}: {there!r}, expected {expected!r}; publish the "
                "last or the selected checkpoint of a finished run of this config, tested with this config"
            )
    return training, test


def _command(name: str, config: Config, settings: Mapping[str, Any], *words: object) -> str:
    """The command ``ean NAME CONFIG`` with the options that a run had."""
    options = run_options(settings, load_config(config.filename))
    spread = ["--cfg-options", *options] if options else []
    return shlex.join(["ean", name, command_name(config), *map(str, words), *spread])


def _training(run: Run, checkpoint: WeightsFile) -> Mapping[str, Any] | None:
    """Return the training record of a checkpoint. If it was folded, it is that of the network before, with the record
    of the folding as ``fold``.

    Raises:
        FileNotFoundError: if there is no training record of the network that was folded.
    """
    fold = run.fold
    if fold is None or fold.get("checkpoint", {}).get("sha256") != checkpoint.sha256:
        return run.record
    source = dict(fold["source"])
    training = source.pop("training", None)
    if training is None and source.get("name"):
        training = find_entry(source["name"]).record("record")
    if training is None:
        raise FileNotFoundError(
            f"{run.path(FOLD)}: {source['checkpoint']}, which was folded, lay beside no {RECORD}, and is not a "
            "published model; fold the folder of its run"
        )
    return {**training, "fold": {**fold, "source": source}}


def _selected_epoch(training: Mapping[str, Any], name: str) -> int | None:
    """Epoch of a checkpoint that its run selected on validation images; None for other checkpoints."""
    best = training.get("best", {})
    trained = training["fold"]["source"]["checkpoint"] if "fold" in training else name
    return best["epoch"] if trained == best.get("checkpoint") else None


def _built(config: Config, scheme: ConnectionScheme) -> dict[str, Any]:
    """Settings of a network, without those that only affect training."""
    settings = config.model.to_dict()
    for entry in ("label_smoothing", "compile_blocks", "loss", "init_cfg"):
        settings.pop(entry, None)
    settings["backbone"].pop("init_cfg", None)
    settings["backbone"]["scheme"] = str(scheme)  # 'ean' may mean another scheme one day
    return dict(scrub(settings))


def _write_file(network: nn.Module, config: Config, name: ModelName, folder: Path, half: bool) -> Path:
    """Write the file of a network, named by its hash; the same tensors give the same file."""
    backbone = find_backbone(network)
    description = {
        **describe(backbone),
        "name": str(name),
        "network": json.dumps(_built(config, backbone.scheme), sort_keys=True),
    }
    unnamed = folder / "unnamed.safetensors"  # overwrites one that a killed process left; the index is locked
    save_weights(_halved(network) if half else network.state_dict(), unnamed, description)
    final = folder / file_name(name, file_hash(unnamed))
    return unnamed.replace(final)


def _halved(network: nn.Module) -> dict[str, Tensor]:
    """Tensors of a network, with weights of convolutions and linear layers in fp16.

    Raises:
        ValueError: if a weight exceeds the range of fp16.
    """
    state = dict(network.state_dict())
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            key = f"{name}.weight"
            state[key] = state[key].half()
            if not state[key].isfinite().all():
                raise ValueError(f"{key} exceeds the range of fp16; publish without --half")
    return state


def _published(training: Mapping[str, Any]) -> dict[str, Any]:
    """Training record without the settings that depend on the machine."""
    settings = {key: value for key, value in training["settings"].items() if key not in LOCAL}
    return {**training, "settings": settings}


def _write_records(folder: Path, training: Mapping[str, Any], test: Mapping[str, Any], log: str) -> None:
    write_text(folder / RECORD, json.dumps(training, indent=2) + "\n")
    write_text(folder / TEST, json.dumps(test, indent=2) + "\n")
    write_text(folder / "log.jsonl", log)


def _metadata(
    network: nn.Module,
    config: Config,
    name: ModelName,
    training: Mapping[str, Any],
    timing: Path | None,
    selected: int | None,
) -> dict[str, Any]:
    backbone = find_backbone(network)
    size = image_size(config) or backbone.usual_size
    images = random_images(1, (backbone.in_channels, size), torch.float32, "cpu")
    machine = training["environment"]
    settings = training["settings"]  # including changes from the command line
    schedules = settings.get("param_scheduler") or []
    schedules = [schedules] if isinstance(schedules, Mapping) else schedules
    techniques = [settings["optim_wrapper"]["optimizer"]["type"], *(schedule["type"] for schedule in schedules)]
    return {
        "Architecture": [f"ResNet-{backbone.depth}", *([name.module] if name.module else [])],
        "Training Data": find_dataset(name.dataset).title,
        **({"Training Images": training["images"]} if "images" in training else {}),  # older records lack them
        "Parameters": sum(parameter.numel() for parameter in network.parameters()),
        "FLOPs": count_macs(network, images),  # multiply-accumulates, as OpenMMLab counts
        "Scheme": str(backbone.scheme),
        "Connections": backbone.scheme.connections,
        **({"Constant Gates": backbone.scheme.constants} if backbone.scheme.constants else {}),
        "Shared": backbone.shared,
        "Epochs": training["epochs"],
        **({"Selected Epoch": selected} if selected else {}),
        "Batch Size": settings["train_dataloader"]["batch_size"] * training["world_size"],
        "Seed": training["seed"],
        "Training Techniques": techniques,
        "Training Resources": ", ".join(machine["gpus"]) or _processor(machine),
        "Training Time (s)": round(training["seconds"]),
        "Training Command": training["command"],
        "Finished": training["finished"],
        "Versions": {"python": machine["python"], **machine["packages"]},
        **({"Timing": _timing(read_record(timing), network, timing)} if timing else {}),
    }


def _timing(record: Mapping[str, Any], network: nn.Module, path: Path) -> list[dict[str, Any]]:
    """Rows of a network in a timing record, one per form."""
    if record.get("kind") != "timing" or "networks" not in record:
        raise ValueError(f"{path} is not a record of `ean time`")
    backbone = find_backbone(network)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    rows = [
        row
        for row in record["networks"].values()
        if (row["scheme"], row["parameters"]) == (str(backbone.scheme), parameters)
        and (not backbone.scheme.gates or row["attention"] == backbone.attention_cfg["type"])
    ]
    if not rows:
        raise ValueError(f"{path} has no network with scheme {backbone.scheme} and {parameters:,} parameters")
    machine = record["environment"]
    device = _processor(machine) if record["device"] == "cpu" else ", ".join(machine["gpus"])
    return [
        {
            "Form": row["form"],
            "Latency (ms)": significant(1e3 * row["median_s"]),
            "Increment (%)": significant(100 * row["increment"]),
            "Interval (%)": [significant(100 * value) for value in row["increment_interval"] or ()],
            "Batch Size": record["batch"],
            "Image Size": record["size"],
            "Precision": record["dtype"],
            "Device": device,
            "Command": scrub(record["command"]),
        }
        for row in rows
    ]


def _processor(machine: Mapping[str, Any]) -> str:
    return f"{machine['cpu']}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}"


def _image_size(config: Config, name: ModelName) -> dict[str, int]:
    """Test image size, and resizing, of classifiers."""
    size = config.get("image_size")
    if name.task != CLASSIFICATION.name or not size:
        return {}
    tree = config.test_dataloader.dataset.type == "ImageTree"
    return {"Image Size": size, **({"Resize": shorter_side(size)} if tree else {})}


def _collection(name: ModelName, checkpoint: WeightsFile) -> dict[str, Any]:
    title = find_dataset(name.dataset).title
    classes = read_meta(checkpoint).get("dataset_meta", {}).get("classes")
    categories = {"Categories": [str(label) for label in classes]} if classes else {}
    return {
        "Name": name.collection,
        "Metadata": {"Training Data": title, "Architecture": [f"ResNet-{name.depth}"], **categories},
        "Paper": {
            "URL": "https://arxiv.org/abs/2011.14058",
            "Title": "Efficient Attention Network: Accelerate Attention by Searching Where to Plug",
        },
        "README": "README.md",
    }


def _write_metafile(index: Index, entry: Entry) -> None:
    """Write an entry into the metafile of its collection, and list the metafile in the index."""
    collection = entry.name.collection
    alike = {**index.entries, entry.name: entry}
    entries = [each for each in sorted(alike.values(), key=lambda e: e.name) if each.name.collection == collection]
    metafile = f"metafiles/{collection.replace('.', '_')}.yml"
    known = next((each.collection for each in index.entries.values() if each.name.collection == collection), {})
    described = {**entry.collection, "Metadata": {**known.get("Metadata", {}), **entry.collection["Metadata"]}}
    path = index.root / metafile
    before = dict(read_index_file(path)) if path.is_file() else {}
    names = {each.fields["Name"] for each in entries}
    unknown = [fields for fields in before.get("Models") or () if fields["Name"] not in names]  # of later versions
    others = [each for each in before.get("Collections") or () if each["Name"] != collection]
    content = {
        **before,
        "Collections": [described, *others],
        "Models": [*(dict(each.fields) for each in entries), *unknown],
    }
    write_text(path, _yaml(content))
    head = index.root / "model-index.yml"
    listed = dict(read_index_file(head)) if head.is_file() else {}
    listed = {"Format Version": VERSION, **listed, "Import": sorted({*listed.get("Import", ()), metafile})}
    write_text(head, _yaml(listed))


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(_plain(content), sort_keys=False, allow_unicode=True, width=120)


def _plain(value: Any) -> Any:
    """Convert values to JSON types: no tuples, no NumPy numbers."""
    return json.loads(json.dumps(value))
