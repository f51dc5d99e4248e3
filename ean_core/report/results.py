"""Trained and measured networks, gathered from records over seeds, beside the paper's results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ean_core.common.bits import unpack_bits
from ean_core.common.config import parse_name
from ean_core.common.tasks import ACCURACY, dataset_of, find_dataset, known_datasets
from ean_core.runs.folder import RECORD, TEST, Run
from ean_core.scheme import ConnectionScheme
from ean_core.show.table import in_percent

from .paired import Flags
from .records import LeaveOut, of_kind, read_records, refuse

#: Metrics of each table of the paper: name in records, and the paper's title.
METRICS: dict[int, dict[str, str]] = {
    1: {"accuracy/top1": "accuracy (%)"},
    3: {"count/MAE": "MAE", "count/RMSE": "MSE (RMSE)"},
    5: {"mIoU": "mIoU (%)", "mAcc": "mAcc (%)", "aAcc": "allAcc (%)"},
}
#: Forms whose times stand in tables.
FORMS = ("eager", "deployed")
ORDER = ("vanilla", "Org-full", "Share-full", "EAN", "Folded")
ATTENTIONS = ("", "SE", "SGE", "DIA")
#: Marks a time that was not measured in a network's own folder.
BORROWED = "†"
BORROWED_TEXT = (
    f"{BORROWED}: not timed in a folder of its runs; the time is that of an equal network (same connections, same "
    "number of parameters) in the record named."
)
#: Settings that define a recipe, apart from those of the network's attention.
_RECIPE = ("model", "train_dataloader", "optim_wrapper", "param_scheduler", "custom_hooks", "load_from")


class Key(NamedTuple):
    """Properties shared by runs that differ in their seed only.

    ``images`` is the number of test images, ``recipe`` the settings of training and of the test images as text.
    ``epochs`` are passes over the training images, also where training counts iterations.
    """

    data: str
    depth: int
    attention: str
    scheme: ConnectionScheme
    shared: bool
    parameters: int
    epochs: float
    processes: int
    images: int
    recipe: str

    @property
    def common(self) -> Key:
        """The key without attention and connections: equal for all networks of one recipe."""
        return self._replace(attention="", scheme=ConnectionScheme.none(self.scheme.stages), shared=True, parameters=0)


@dataclass(frozen=True)
class Measured:
    """A network trained with one seed, and its test results.

    Args:
        folder: folder of ``record.json`` and ``test.json``.
        training: training record.
        test: test record.
    """

    folder: Path
    training: Mapping[str, Any]
    test: Mapping[str, Any]

    @cached_property
    def key(self) -> Key:
        """Properties shared with runs of other seeds.

        Raises:
            ValueError: if its network is not from this package.
        """
        parts = parse_name(self.training["config"] or "")
        settings = self.training["settings"]
        backbone = settings["model"].get("backbone") or {}
        if not str(backbone.get("type", "EANResNet")).rpartition(".")[2].startswith("EANResNet"):
            raise ValueError(f"backbone is {backbone['type']}, expected EANResNet or EANResNetCIFAR")
        scheme = ConnectionScheme.parse(self.test["scheme"])
        attention = backbone.get("attention", "SE") if scheme.gates else ""
        return Key(
            find_dataset(parts.dataset).title if parts else _data_name(settings, self.test),
            parts.depth if parts else backbone.get("depth", 50),
            attention if isinstance(attention, str) else attention["type"],
            scheme,
            backbone.get("shared", True) or not scheme.gates,
            self.test["parameters"],
            _passes(self.training),
            self.training.get("world_size", 1),
            self.test["images"],
            _recipe(settings, self.test),
        )

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in percent."""
        return self.test["metrics"][ACCURACY.name]

    @cached_property
    def correct(self) -> Flags | None:
        """Whether each test image was classified correctly ``(images,)``; None for other networks than classifiers, and
        in records of earlier versions.

        Raises:
            ValueError: if the bits do not give the accuracy beside them.
        """
        if "correct" not in self.test:
            return None
        flags = np.array(unpack_bits(self.test["correct"]["bits"], self.test["images"]))
        share = 100 * float(flags.mean())
        if abs(share - self.accuracy) > 1e-6:
            raise ValueError(f"test.json has an accuracy of {self.accuracy}, its images that were right give {share}")
        return flags


def _data_name(settings: Mapping[str, Any], test: Mapping[str, Any]) -> str:
    """Name of the data that a network was measured on, from its settings."""
    dataset = _test_data(settings, test)
    dataset = dataset.get("dataset", dataset)
    known = dataset_of(dataset)
    return known.title if known else Path(dataset.get("root") or dataset.get("data_root") or "").name or dataset["type"]


def _test_data(settings: Mapping[str, Any], test: Mapping[str, Any]) -> Any:
    """Settings of the images that a network was measured on; older tests do not record them."""
    return test.get("data") or settings["test_dataloader"]["dataset"]


def _passes(training: Mapping[str, Any]) -> float:
    """Number of passes of a training over its images."""
    if "iterations" not in training:
        return training["epochs"]
    loader = training["settings"]["train_dataloader"]
    seen = training["iterations"] * (loader.get("batch_size") or 1) * training.get("world_size", 1)
    return seen / training["images"]


def _recipe(settings: Mapping[str, Any], test: Mapping[str, Any]) -> str:
    recipe = {name: settings.get(name) for name in _RECIPE}
    recipe["test_data"] = _test_data(settings, test)
    # In a resumed run this is the checkpoint it continued from; otherwise only the file name matters.
    recipe["load_from"] = "" if settings.get("resume") else Path(recipe["load_from"] or "").name
    # Capturing iterations as CUDA graphs does not change the recipe.
    hooks = [hook for hook in recipe["custom_hooks"] or () if hook.get("type") != "CaptureHook"]
    recipe["custom_hooks"] = hooks or None
    model = {name: value for name, value in settings["model"].items() if name != "compile_blocks"}
    if isinstance(model.get("backbone"), Mapping):  # networks of one recipe may differ in these
        model["backbone"] = {
            name: value for name, value in model["backbone"].items() if name not in ("attention", "scheme", "shared")
        }
    loader = {
        k: v for k, v in (recipe["train_dataloader"] or {}).items() if k not in ("num_workers", "persistent_workers")
    }
    return json.dumps({**recipe, "model": model, "train_dataloader": loader}, sort_keys=True, default=str)


class Timing(NamedTuple):
    """A network's row in a timing record.

    ``own`` is whether the record lies in the folder of one of the network's runs; otherwise the time is that of an
    equal network, with the same connections and number of parameters.
    """

    row: Mapping[str, Any]
    record: Mapping[str, Any]
    path: Path
    own: bool

    @property
    def increment(self) -> str:
        """Relative inference time increment with its interval, in percent."""
        return in_percent(self.row["increment"], self.row["increment_interval"])

    def place(self, label: Callable[[Path], str]) -> str:
        """Where it was timed: ``own folder``, or the marked label of another record."""
        return "own folder" if self.own else f"{BORROWED} {label(self.path)}"


@dataclass(frozen=True)
class Result:
    """A network over the seeds it was trained with.

    Args:
        runs: one per seed, in ascending order.
        timings: its times by form.
    """

    runs: tuple[Measured, ...]
    timings: Mapping[str, Timing]

    @property
    def data(self) -> str:
        """Name of the data set."""
        return self.runs[0].key.data

    @property
    def network(self) -> str:
        """The backbone, e.g. ``ResNet-20``."""
        return f"ResNet-{self.runs[0].key.depth}"

    @property
    def attention(self) -> str:
        """``SE``, ``SGE``, ``DIA`` …; empty for the plain network."""
        return self.runs[0].key.attention

    @property
    def scheme(self) -> ConnectionScheme:
        """Its connections."""
        return self.runs[0].key.scheme

    @property
    def connection(self) -> str:
        """``vanilla``, ``Org-full``, ``Share-full``, ``EAN``, or ``Folded`` if some gates are constant."""
        scheme = self.scheme
        if not scheme.gates:
            return "vanilla"
        if scheme.constants:
            return "Folded"
        if scheme.sparsity:
            return "EAN"
        return "Share-full" if self.runs[0].key.shared else "Org-full"

    @property
    def title(self) -> str:
        """Connection and attention, e.g. ``EAN SE``."""
        return " ".join(filter(None, (self.connection, self.attention)))

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return self.runs[0].key.parameters

    @property
    def images(self) -> int:
        """Number of images it was measured on."""
        return self.runs[0].key.images

    @property
    def epochs(self) -> str:
        """Passes over the training images; in three significant digits where they are not whole."""
        epochs = self.runs[0].key.epochs
        return str(int(epochs)) if epochs == int(epochs) else f"{epochs:.3g}"

    def values(self, metric: str) -> list[float]:
        """Value of a metric for each seed."""
        return [run.test["metrics"][metric] for run in self.runs]

    def increment(self, form: str) -> str:
        """Relative inference time increment in a form with its interval, in percent; empty if it was not timed."""
        return self.timings[form].increment if form in self.timings else ""


def find_runs(records: Mapping[Path, Mapping[str, Any]], leave_out: LeaveOut = refuse) -> list[Measured]:
    """Find all runs with a training and a test record, sorted by path.

    Args:
        records: records by path, from :func:`~ean_core.report.records.read_records`.
        leave_out: called for a test of another checkpoint than the one its training produced, and for networks that
            are not from this package.
    """
    found = []
    for path, test in of_kind(records, "test").items():
        folder = Run(path.parent)
        training = records.get(folder.path(RECORD))
        if path != folder.path(TEST) or training is None or training["kind"] != "training":
            continue
        run = Measured(path.parent, training, test)
        try:
            trained, tested = (training["config"], _produced(training)), (test["config"], test["checkpoint"]["name"])
            if trained != tested:
                produced = f"record.json is for {trained[0]} and {trained[1]}, "
                raise ValueError(f"{produced}test.json for {tested[0]} and {tested[1]}")
            hash(run.key)
            _ = run.correct  # which may be damaged
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            leave_out(path.parent, str(error) if isinstance(error, ValueError) else f"its records lack {error.args[0]}")
            continue
        found.append(run)
    return found


def _produced(training: Mapping[str, Any]) -> str:
    """File name of the checkpoint that represents a training: the folded one, the best one or the last one."""
    if "fold" in training:
        return training["fold"]["checkpoint"]["name"]
    unit, length = ("iter", "iterations") if "iterations" in training else ("epoch", "epochs")
    return training["best"]["checkpoint"] if training.get("best") else f"{unit}_{training[length]}.pth"


def find_results(records: Mapping[Path, Mapping[str, Any]], leave_out: LeaveOut = refuse) -> list[Result]:
    """Find trained and measured networks, each with its seeds and times.

    Sorted as in the paper: by data set, by attention, then vanilla, Org-full, Share-full, EAN.

    Args:
        records: records by path, from :func:`~ean_core.report.records.read_records`.
        leave_out: called for runs with inconsistent records and for duplicates.
    """
    grouped: dict[Key, dict[int, Measured]] = {}
    for run in find_runs(records, leave_out):
        seeds = grouped.setdefault(run.key, {})
        first = seeds.setdefault(run.training["seed"], run)
        if first is not run:
            leave_out(run.folder, f"{first.folder} is the same training with the same seed")
    results = []
    for key, seeds in grouped.items():
        runs = tuple(run for _, run in sorted(seeds.items()))
        of_network = (str(key.scheme), key.parameters, key.attention)
        timings = find_timings(*of_network, [run.folder for run in runs], of_kind(records, "timing"))
        results.append(Result(runs, timings))
    return sorted(results, key=_place)


def find_timings(
    scheme: str,
    parameters: int,
    attention: str,
    folders: Sequence[Path],
    records: Mapping[Path, Mapping[str, Any]],
) -> dict[str, Timing]:
    """Times of a network by form, from its own folders if they are there, otherwise from the nearest folder.

    Args:
        scheme, parameters: its connections and number of parameters.
        attention: its attention module; empty for the plain network, which is timed beside any.
        folders: folders of its runs.
        records: timing records.
    """

    def far(path: Path) -> tuple[bool, int]:
        shared = (len({*folder.parents, folder} & {*path.parents}) for folder in folders)
        return path.parent not in folders, -max(shared)

    found: dict[str, Timing] = {}
    for path in sorted(records, key=far):
        for row in records[path]["networks"].values():
            same = (row.get("scheme"), row.get("parameters")) == (scheme, parameters)
            if same and row.get("attention") in (attention or row.get("attention"), None):
                timing = Timing(row, records[path], path, path.parent in folders)
                found.setdefault(row.get("form", "eager"), timing)
    return found


def read_results(folders: Sequence[Path]) -> list[Result]:
    """Read trained and measured networks below some folders, see :func:`find_results`.

    Raises:
        ValueError: if a record is damaged, a test does not belong to the training beside it, or a seed occurs twice.
    """
    return find_results(read_records(folders))


def _place(result: Result) -> tuple[int, str, int, str, int]:
    """Sort key in the paper's order: data set, attention, connection."""
    key = result.runs[0].key
    names = [dataset.title for dataset in known_datasets().values()]
    known = ATTENTIONS.index(key.attention) if key.attention in ATTENTIONS else len(ATTENTIONS)
    data = names.index(key.data) if key.data in names else len(names)
    return data, key.data, known, key.attention, ORDER.index(result.connection)
