"""Load trained networks for inference, by zoo name, file or folder of a run."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from mmengine.device import get_device
from mmengine.logging import print_log
from torch import nn

import zoo
from ean_core.common.tasks import Task, task_of_network
from ean_core.common.text import visible
from ean_core.inference import deploy
from ean_core.inference.engine import ONNXRUNTIME, Engine
from ean_core.inference.export import FromPixels
from ean_core.networks import build_network, check_settings
from ean_core.runs.folder import chosen_checkpoint, trained_config
from ean_core.weights.addresses import read_metadata
from ean_core.weights.files import WeightsFile
from ean_core.weights.loading import check_fit, load_weights
from zoo.index import published
from zoo.names import ModelName

Network = TypeVar("Network", bound=nn.Module)
Own = TypeVar("Own", bound="Trained")


class Trained(Generic[Network]):
    """A trained network of a task, in its deployed form, on a device; on CPUs in ONNX Runtime as soon as that pays.

    Args:
        network: network in any mode; it is copied.
        name: name for reports.
        device: target device; by default a GPU if there is one.

    Raises:
        ValueError: if PyTorch cannot use the device.
    """

    task: ClassVar[Task]
    #: The class that maps normalized images to what the network computes, for ONNX Runtime.
    maps: ClassVar[type[FromPixels]]

    def __init__(self, network: Network, name: str | None = None, *, device: str | None = None) -> None:
        self.name = name or self.task.noun
        deployed: Any = deploy(network)
        chosen = device or get_device()
        try:
            self.network: Network = deployed.to(chosen)
        except (RuntimeError, AssertionError) as error:  # the latter if PyTorch lacks CUDA
            raise ValueError(f"device {chosen!r} cannot be used, use cpu: {str(error).splitlines()[0]}") from error
        self.engine = Engine(self.network, self.maps.suited(network))
        deployed.compute = self.engine

    @classmethod
    def load(cls: type[Own], model: str, *, device: str | None = None) -> Own:
        """Load a network by the name of a zoo model, by file, or by the folder of a run, which stands for its selected
        checkpoint.

        Raises:
            ValueError, OSError: as in :meth:`from_zoo` and :meth:`from_checkpoint`.
        """
        path = checkpoint_of(model)
        if path is None:
            return cls.from_zoo(model, device=device)
        trained = cls.from_checkpoint(path, device=device)
        if Path(model).is_dir():
            trained.name = visible(f"{Path(model).resolve().name}/{path.name}")  # every run has files of the same names
        return trained

    @classmethod
    def from_zoo(cls: type[Own], name: str, *, device: str | None = None) -> Own:
        """Load a published network.

        Raises:
            ValueError: if there is no model of this name, it has no weights yet, or is for another task.
            OSError: if its file cannot be read or downloaded.
        """
        known = zoo.get_weights(name)
        if known.entry.name.task != cls.task.name:
            there = ", ".join(
                each
                for each in zoo.list_models("*", pretrained=True)
                if zoo.get_weights(each).entry.name.task == cls.task.name
            )
            there = there or "none yet, give a checkpoint of `ean train`"
            raise ValueError(f"{name} is for {known.entry.name.task.lower()}; published {cls.task.noun}s: {there}")
        return cls(zoo.get_model(name, pretrained=True), name, device=device)

    @classmethod
    def from_checkpoint(cls: type[Own], path: str | os.PathLike[str], *, device: str | None = None) -> Own:
        """Load a checkpoint of ``ean train``, or the file of a published network. Nothing in it is executed.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not a checkpoint of a network of this task.
        """
        checkpoint = path if isinstance(path, WeightsFile) else WeightsFile(Path(path))
        settings = _settings(checkpoint)
        if settings is None or settings.get("type") != cls.task.networks[0]:
            found = "does not describe its network" if settings is None else f"is of type {settings.get('type')!r}"
            raise ValueError(f"{path} {found}; expected a checkpoint of `ean train` with a config of a {cls.task.noun}")
        return cls(_built(settings, checkpoint), checkpoint.path.name, device=device)


def engine_note(trained: Trained[Any]) -> str:
    """Name the engines behind a result; empty if PyTorch computed it alone."""
    return f" ({trained.engine.used})" if ONNXRUNTIME in trained.engine.passes else ""


def checkpoint_of(model: str | os.PathLike[str]) -> Path | None:
    """Return the file that a model argument stands for: itself, or the selected checkpoint in the folder of a run; None
    for zoo names, also if a file or folder has the same name: ``./NAME`` is the folder.

    Raises:
        FileNotFoundError: if a folder contains no checkpoint.
    """
    path = Path(model)
    if isinstance(model, str) and _is_published(model):
        if path.exists():
            print_log(
                f"{model} is the model of the zoo; ./{model} is the {'folder' if path.is_dir() else 'file'} here",
                "current",
                logging.WARNING,
            )
        return None
    if str(model) and path.is_dir():
        return chosen_checkpoint(path)
    return path if path.suffix in (".pth", ".safetensors") or len(path.parts) > 1 or path.is_file() else None


def _is_published(text: str) -> bool:
    try:
        return ModelName.parse(text) in published()
    except ValueError:
        return False


def load_network(model: str) -> nn.Module:
    """Load a trained network of any task, not deployed, in evaluation mode.

    Args:
        model: name of a zoo model, a checkpoint, or the folder of a run.

    Raises:
        ValueError, OSError: as in :meth:`Trained.load`.
    """
    path = checkpoint_of(model)
    if path is None:
        return zoo.get_model(model, pretrained=True).eval()
    checkpoint = WeightsFile(path)
    settings = _settings(checkpoint)
    if settings is None:
        raise ValueError(f"{path} does not describe its network; expected a checkpoint of `ean train`")
    return _built(settings, checkpoint).eval()


def _built(settings: dict[str, Any], checkpoint: WeightsFile) -> Any:
    """Build the network of a checkpoint and load its weights."""
    check_settings(settings, f"the network in {checkpoint}")

    def build() -> nn.Module:
        try:
            return build_network(settings)
        except Exception as error:  # unknown settings may raise anything in constructors
            reason = error.args[0] if isinstance(error, KeyError) and error.args else error
            raise ValueError(f"the network in {checkpoint} cannot be built: {reason}") from error

    check_fit(build, checkpoint)
    network = build()
    load_weights(network, checkpoint, strict=True)
    return network


def _settings(checkpoint: WeightsFile) -> dict[str, Any] | None:
    """Settings that build the network of a checkpoint, without those that only affect training."""
    path = checkpoint.path
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    settings: Any = None
    if path.suffix == ".safetensors":
        try:
            settings = json.loads(read_metadata(path).get("network", "null"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    else:
        config = trained_config(checkpoint)
        settings = config.to_dict().get("model") if config is not None else None
    if not isinstance(settings, Mapping):
        return None
    settings = _without_weights(settings)
    kind = str(settings.get("type")).rpartition(".")[2]
    task = task_of_network(kind)
    if task is not None and kind in task.networks[1:]:  # a library's, whose tensors and results ours has too
        settings["type"] = task.networks[0]
    if isinstance(settings.get("backbone"), Mapping):
        settings["backbone"] = _without_weights(settings["backbone"])
    return settings


def _without_weights(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the settings of a module, without those that load weights."""
    return {key: value for key, value in settings.items() if key not in ("init_cfg", "pretrained")}
