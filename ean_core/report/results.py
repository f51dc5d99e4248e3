"""Networks that were trained and measured, gathered from their records, over seeds; beside the paper's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ean_core.common.config import parse_name
from ean_core.common.tasks import dataset_of, find_dataset, known_datasets
from ean_core.runs.folder import RECORD, TEST, Run
from ean_core.scheme import ConnectionScheme
from ean_core.show.table import Cells, in_percent, size_text, spread_text

from .paper import PAPER, PaperRow
from .records import LeaveOut, of_kind, read_records, refuse

#: Metrics of each table of the paper: their names in records, and the paper's titles.
METRICS: dict[int, dict[str, str]] = {
    1: {"accuracy/top1": "accuracy (%)"},
    3: {"count/MAE": "MAE", "count/RMSE": "MSE (RMSE)"},
    5: {"mIoU": "mIoU (%)", "mAcc": "mAcc (%)", "aAcc": "allAcc (%)"},
}
ORDER = ("vanilla", "Org-full", "Share-full", "EAN")
ATTENTIONS = ("", "SE", "SGE", "DIA")
#: Settings that make a training another one, beside those of the network's attention.
_RECIPE = ("model", "train_dataloader", "optim_wrapper", "param_scheduler", "custom_hooks", "load_from")


class Key(NamedTuple):
    """What runs of other seeds have in common.

    ``images`` is how many it was measured on, ``recipe`` the settings of the training as text.
    """

    data: str
    depth: int
    attention: str
    scheme: ConnectionScheme
    shared: bool
    parameters: int
    epochs: int
    processes: int
    images: int
    recipe: str

    @property
    def common(self) -> Key:
        """The key without what tells networks of one recipe apart: attention and connections."""
        return self._replace(attention="", scheme=ConnectionScheme.none(self.scheme.stages), shared=True, parameters=0)


@dataclass(frozen=True)
class Measured:
    """A network that one seed trained, and what it was measured to do.

    Args:
        folder: of ``record.json`` and ``test.json``.
        training: the record of its training.
        test: that of its test.
    """

    folder: Path
    training: Mapping[str, Any]
    test: Mapping[str, Any]

    @cached_property
    def key(self) -> Key:
        """What it has in common with the runs of other seeds.

        Raises:
            ValueError: if its network is none of this package's.
        """
        parts = parse_name(self.training["config"] or "")
        settings = self.training["settings"]
        backbone = settings["model"].get("backbone") or {}
        if not str(backbone.get("type", "EANResNet")).rpartition(".")[2].startswith("EANResNet"):
            raise ValueError(f"its backbone is {backbone['type']}, reports are of EANResNet and EANResNetCIFAR")
        scheme = ConnectionScheme.parse(self.test["scheme"])
        attention = backbone.get("attention", "SE") if scheme.connections else ""
        return Key(
            find_dataset(parts.dataset).title if parts else _data_name(settings, self.test),
            parts.depth if parts else backbone.get("depth", 50),
            attention if isinstance(attention, str) else attention["type"],
            scheme,
            backbone.get("shared", True) or not scheme.connections,
            self.test["parameters"],
            self.training["epochs"],
            self.training.get("world_size", 1),
            self.test["images"],
            _recipe(settings),
        )


def _data_name(settings: Mapping[str, Any], test: Mapping[str, Any]) -> str:
    """What to call the data that a network was measured on, by its settings."""
    dataset = test.get("data") or settings["test_dataloader"]["dataset"]
    dataset = dataset.get("dataset", dataset)
    known = dataset_of(dataset)
    return known.title if known else Path(dataset.get("root") or dataset.get("data_root") or "").name or dataset["type"]


def _recipe(settings: Mapping[str, Any]) -> str:
    recipe = {name: settings.get(name) for name in _RECIPE}
    # A resumed run has the checkpoint that it went on from there; of others the place says nothing.
    recipe["load_from"] = "" if settings.get("resume") else Path(recipe["load_from"] or "").name
    # How iterations are launched makes no other training of it.
    hooks = [hook for hook in recipe["custom_hooks"] or () if hook.get("type") != "CaptureHook"]
    recipe["custom_hooks"] = hooks or None
    model = {name: value for name, value in settings["model"].items() if name != "compile_blocks"}
    if isinstance(model.get("backbone"), Mapping):  # a network without attention is the same whichever it might have
        model["backbone"] = {
            name: value for name, value in model["backbone"].items() if name not in ("attention", "scheme", "shared")
        }
    loader = {
        k: v for k, v in (recipe["train_dataloader"] or {}).items() if k not in ("num_workers", "persistent_workers")
    }
    return json.dumps({**recipe, "model": model, "train_dataloader": loader}, sort_keys=True, default=str)


@dataclass(frozen=True)
class Result:
    """A network over the seeds it was trained with.

    Args:
        runs: one a seed, the lowest first.
        timings: its rows in timing records, by form, each with the record it is of.
    """

    runs: tuple[Measured, ...]
    timings: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]

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
        """``vanilla``, ``Org-full``, ``Share-full`` or ``EAN``."""
        scheme = self.scheme
        if not scheme.connections:
            return "vanilla"
        if scheme.sparsity:
            return "EAN"
        return "Share-full" if self.runs[0].key.shared else "Org-full"

    @property
    def title(self) -> str:
        """Connection and attention, e.g. ``EAN SE``."""
        return " ".join(filter(None, (self.connection, self.attention)))

    @property
    def parameters(self) -> int:
        """Number of them."""
        return self.runs[0].key.parameters

    @property
    def images(self) -> int:
        """Images that it was measured on."""
        return self.runs[0].key.images

    def values(self, metric: str) -> list[float]:
        """A metric of each seed."""
        return [run.test["metrics"][metric] for run in self.runs]

    def increment(self, form: str) -> str:
        """Relative inference time increment in a form, with its interval, in percent; empty where it was not timed."""
        row = self.timings.get(form)
        return in_percent(row[0]["increment"], row[0]["increment_interval"]) if row else ""


def find_runs(records: Mapping[Path, Mapping[str, Any]], leave_out: LeaveOut = refuse) -> list[Measured]:
    """All runs among some records that were measured, sorted by their path.

    Args:
        records: by path, as :func:`~ean_core.report.records.read_records` gives them.
        leave_out: what to do with a test that is of another checkpoint than the training beside it ends with, and with
            networks that are none of this package's.
    """
    found = []
    for path, test in of_kind(records, "test").items():
        folder = Run(path.parent)
        training = records.get(folder.path(RECORD))
        if path != folder.path(TEST) or training is None or training["kind"] != "training":
            continue
        run = Measured(path.parent, training, test)
        try:
            best = training.get("best") or {"checkpoint": f"epoch_{training['epochs']}.pth"}
            trained, tested = (training["config"], best["checkpoint"]), (test["config"], test["checkpoint"]["name"])
            if trained != tested:
                says = f"record.json is of {trained[0]} and ends with {trained[1]}, "
                raise ValueError(f"{says}test.json is of {tested[0]} and {tested[1]}")
            hash(run.key)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            leave_out(path.parent, str(error) if isinstance(error, ValueError) else f"its records lack {error!r}")
            continue
        found.append(run)
    return found


def find_results(records: Mapping[Path, Mapping[str, Any]], leave_out: LeaveOut = refuse) -> list[Result]:
    """Networks that were trained and measured, each with its seeds and times.

    Sorted as the paper does: by data set, by attention, then vanilla, Org-full, Share-full, EAN.

    Args:
        records: by path, as :func:`~ean_core.report.records.read_records` gives them.
        leave_out: what to do with a run whose records disagree, and with one that is there twice.
    """
    grouped: dict[Key, dict[int, Measured]] = {}
    for run in find_runs(records, leave_out):
        seeds = grouped.setdefault(run.key, {})
        first = seeds.setdefault(run.training["seed"], run)
        if first is not run:
            leave_out(run.folder, f"{first.folder} is the same training with the same seed")
    results = []
    for key, seeds in grouped.items():
        mine: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
        for record in of_kind(records, "timing").values():
            for row in record["networks"].values():
                same = (row.get("scheme"), row.get("parameters")) == (str(key.scheme), key.parameters)
                if same and row.get("attention") in (key.attention or row.get("attention"), None):
                    mine.setdefault(row.get("form", "eager"), (row, record))
        results.append(Result(tuple(run for _, run in sorted(seeds.items())), mine))
    return sorted(results, key=_place)


def read_results(folders: Sequence[Path]) -> list[Result]:
    """Networks that were trained and measured below some folders, see :func:`find_results`.

    Raises:
        ValueError: if a record is damaged, a test is not of the training beside it, or a seed is there twice.
    """
    return find_results(read_records(folders))


def _place(result: Result) -> tuple[int, str, int, str, int]:
    """Where the paper would have a network: by data set, attention, connection."""
    key = result.runs[0].key
    names = [dataset.title for dataset in known_datasets().values()]
    known = ATTENTIONS.index(key.attention) if key.attention in ATTENTIONS else len(ATTENTIONS)
    data = names.index(key.data) if key.data in names else len(names)
    return data, key.data, known, key.attention, ORDER.index(result.connection)


def result_cells(row: Result | PaperRow, table: int) -> Cells:
    """A network, ours or the paper's, in the form of one of the paper's tables: 1, 3 or 5."""
    if isinstance(row, PaperRow):
        metrics = [f"{row.metrics[name]:.2f}" if table != 3 else f"{row.metrics[name]:g}" for name in METRICS[table]]
        seeds, connections, deployed, whose = "", "", "", f"paper, Table {row.table}"
        parameters = f"{row.parameters:.3f} M" if row.parameters else ""
        eager = f"{row.increment:+.2f}" if row.increment is not None else ""
    else:
        metrics = [spread_text(row.values(name), 2) for name in METRICS[table]]
        seeds, connections = str(len(row.runs)), f"{row.scheme.connections} `{row.scheme}`"
        parameters, eager, deployed = f"{row.parameters:,}", row.increment("eager"), row.increment("deployed")
        split = row.runs[0].test.get("data", {}).get("split", "test")
        split = {"val": "validation"}.get(split, split)
        whose = f"here, {schedule_text(row.runs[0].training)}, {row.images:,} {split} images"
    return {
        "data": row.data,
        "network": " ".join(filter(None, (row.network, row.attention))),
        "connection": row.connection,
        **dict(zip(METRICS[table].values(), metrics, strict=True)),
        "seeds": seeds,
        "parameters": parameters,
        "connections": connections,
        "increment (%)": eager,
        "deployed (%)": deployed,
        "whose": whose,
    }


def schedule_text(training: Mapping[str, Any]) -> str:
    """How long a network was trained, e.g. ``24 epochs on 50,000 images``."""
    images = f" on {training['images']:,} images" if "images" in training else ""  # older records lack them
    return f"{training['epochs']} epochs{images}"


def table_rows(results: Sequence[Result], table: int, *, everything: bool = False) -> list[Result | PaperRow]:
    """The rows of one of the paper's tables, by data set: ours, then the paper's.

    Args:
        results: networks, of which those are taken that have the table's metrics.
        table: 1, 3 or 5.
        everything: the paper's rows also of data sets that no network of ours was measured on.
    """
    metrics = METRICS[table]
    ours = [each for each in results if metrics.keys() <= each.runs[0].test["metrics"].keys()]
    theirs = [row for row in PAPER if row.table == table]
    own = dict.fromkeys(map(_plain_data, ours))
    rows: list[Result | PaperRow] = []
    for data in {**own, **dict.fromkeys(row.data for row in theirs if everything)}:
        rows += [each for each in ours if _plain_data(each) == data]
        rows += [row for row in theirs if row.data == data]
    return rows


def _plain_data(result: Result) -> str:
    """The data set as the paper calls it."""
    return result.data.removesuffix(" with SBD")


def machine_text(record: Mapping[str, Any]) -> str:
    """The machine that a record was made on: its GPU where that did the work, else its processor."""
    where = record["environment"]
    if str(record.get("device", "cpu")) != "cpu" and where["gpus"]:
        return str(where["gpus"][0])
    return f"{where['cpu']}, {where['threads']} threads"


def timing_text(results: Sequence[Result]) -> str:
    """Under which conditions the increments of some networks were measured; empty where none was."""
    conditions: dict[str, list[str]] = {}
    for each in results:
        for _, record in each.timings.values():
            where = (
                f"batch {record['batch']} at {size_text(record['size'])} pixels, {record['dtype']}, "
                f"{machine_text(record)}, {record['rounds']} rounds"
            )
            names = conditions.setdefault(where, [])
            names += [each.attention] * bool(each.attention and each.attention not in names)
    if not conditions:
        return ""
    measured = "; ".join(f"{', '.join(names)}: {where}" for where, names in conditions.items() if names)
    return (
        "Increments (Eqn 9) are medians over rounds in which all networks of an attention run side by side, each over "
        "the vanilla network of its form, with 95 % intervals within that one process. "
        f"{f'{measured}. ' if measured else ''}The paper's: batch 50, a V100."
    )
