"""A trained counter in Python: ``Counter.from_zoo('ean_resnet20_se.shanghaitech_b')(picture)``."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.registry import MODELS
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import zoo
from ean_core.addresses import read_metadata
from ean_core.checkpoint import load_weights
from ean_core.inference import deploy
from ean_core.runner import latest_checkpoint
from ean_core.training import trained_config
from zoo.index import check_settings

from .density import spread
from .network import CrowdCounter
from .pictures import read_picture, to_rgb

#: The counter that is used where none is named.
MODEL = "ean_resnet20_se.shanghaitech_b"
#: Anything that is a picture: a file, an image of Pillow's, or an array of ``read_picture``'s kind.
Picture = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]


class Prediction(NamedTuple):
    """How many people a counter sees, and where.

    Args:
        count: of people in the picture, the sum of the density.
        density: people a pixel, float32 ``(H, W)``; that of a region is the sum over it.
    """

    count: float  # type: ignore[assignment]  # a tuple's method of that name is of no use here
    density: NDArray[np.float32]


class Counter:
    """Counts people in pictures, with the deployed form of a network.

    Args:
        network: in any mode; it is copied.
        name: of it, for reports.
        device: where to; a GPU if there is one by default.

    Raises:
        ValueError: if PyTorch cannot use the device.

    Examples:
        >>> counter = Counter(CrowdCounter(dict(type='EANResNetCIFAR', depth=20, scheme='none', stem_stride=2)))
        >>> count, density = counter(np.zeros((60, 100, 3), np.uint8))
        >>> density.shape, bool(np.isclose(density.sum(), count))
        ((60, 100), True)
    """

    def __init__(self, network: CrowdCounter, name: str = "counter", *, device: str | None = None) -> None:
        self.name = name
        deployed: Any = deploy(network)
        chosen = device or get_device()
        try:
            self.network: CrowdCounter = deployed.to(chosen)
        except (RuntimeError, AssertionError) as error:  # the latter of PyTorch without CUDA
            raise ValueError(f"device {chosen!r} cannot be used, cpu can: {str(error).splitlines()[0]}") from error

    @classmethod
    def load(cls, model: str, *, device: str | None = None) -> Counter:
        """A counter by what one would type: the name of a model of the zoo, a file, or the folder of a run, which
        stands for the checkpoint that was chosen there.

        Raises:
            ValueError, OSError: as of :meth:`from_zoo` and :meth:`from_checkpoint`.
        """
        path = Path(model)
        if model and path.is_dir():
            return cls.from_checkpoint(_chosen(path), device=device)
        if path.suffix in (".pth", ".safetensors") or len(path.parts) > 1 or path.is_file():
            return cls.from_checkpoint(model, device=device)
        return cls.from_zoo(model, device=device)

    @classmethod
    def from_zoo(cls, name: str, *, device: str | None = None) -> Counter:
        """A published counter.

        Raises:
            ValueError: if there is no model of that name, it has no weights yet, or is no counter.
            OSError: if its file cannot be had.
        """
        known = zoo.get_weights(name)
        if known.entry.name.task != "Crowd Counting":
            counters = ", ".join(zoo.list_models("*.shanghaitech_?", pretrained=True))
            counters = counters or "not published yet, give a checkpoint of `ean train`"
            raise ValueError(f"{name} is for {known.entry.name.task.lower()}; counters are {counters}")
        return cls(zoo.get_model(name, pretrained=True), name, device=device)  # type: ignore[arg-type]

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], *, device: str | None = None) -> Counter:
        """A counter that ``ean train`` trained, or the file of a published one. Nothing in it is executed.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no checkpoint of a counter.
        """
        path = Path(path)
        settings = _settings(path)
        if settings is None or settings.get("type") != "CrowdCounter":
            found = "says nothing of its network" if settings is None else f"is of type {settings.get('type')!r}"
            raise ValueError(f"{path} {found}; expected a checkpoint of `ean train` with a config of a counter")
        check_settings(settings, f"the network in {path}")
        try:
            network = MODELS.build(settings)
        except Exception as error:  # whatever settings of another kind lead constructors to
            reason = error.args[0] if isinstance(error, KeyError) and error.args else error
            raise ValueError(f"the network in {path} cannot be built: {reason}") from error
        load_weights(network, path, strict=True)
        return cls(network, path.name, device=device)

    @property
    def stride(self) -> int:
        """Pixels of a cell of the network's map."""
        return self.network.stride

    @torch.inference_mode()
    def __call__(self, picture: Picture) -> Prediction:
        """Count the people in a picture of any size.

        Args:
            picture: a file, an image of Pillow's, or uint8 ``(H, W, 3)`` in RGB, or ``(H, W)`` in grey.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read as a picture.
            MemoryError: if there is too little, of the machine's or the GPU's.
        """
        pixels = _pixels(picture)
        height, width = pixels.shape[:2]
        device = next(self.network.parameters()).device

        def prepared(part: Tensor) -> Tensor:
            return self.network.data_preprocessor({"inputs": part.to(device)})["inputs"]

        image = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)[None]
        try:
            cells = self.network.count_map(image, prepare=prepared)[0, 0].double().cpu().numpy()
        except RuntimeError as error:  # as which PyTorch says it
            if "memory" not in str(error).lower():
                raise
            raise MemoryError(f"there is not enough memory to count in {width} x {height} pixels") from error
        return Prediction(float(cells.sum()), spread(cells, self.stride, (height, width)))


def _chosen(folder: Path) -> Path:
    """The best checkpoint of a run, or its last one."""
    best = sorted(folder.glob("best_*.pth"), key=lambda path: path.stat().st_mtime)
    chosen = best[-1] if best else latest_checkpoint(folder)
    if chosen is None:
        raise FileNotFoundError(f"there is no checkpoint in the folder {folder}")
    return chosen


def _pixels(picture: Picture) -> NDArray[np.uint8]:
    """RGB ``(H, W, 3)``, of at least one pixel."""
    pixels = _rgb(picture)
    if not pixels.size:
        raise ValueError(f"a picture has at least one pixel, got {pixels.shape[1]} x {pixels.shape[0]}")
    return pixels


def _rgb(picture: Picture) -> NDArray[np.uint8]:
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
            raise ValueError(
                f"expected uint8 (H, W, 3) in RGB or (H, W) in grey, got {picture.dtype} {picture.shape}; a file or an "
                "image of Pillow's may be of any kind"
            )
        return picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, 2)
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    return read_picture(Path(picture))


def _settings(path: Path) -> dict[str, Any] | None:
    """What builds the network of a checkpoint, without what is of its training only."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    settings: Any = None
    if path.suffix == ".safetensors":
        try:
            settings = json.loads(read_metadata(path).get("network", "null"))
        except Exception as error:  # the safetensors error class is not a public name in all versions
            raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    else:
        config = trained_config(path)
        settings = config.to_dict().get("model") if config is not None else None
    if not isinstance(settings, Mapping):
        return None
    settings = copy.deepcopy(dict(settings))
    for part in (settings, settings.get("backbone")):
        if isinstance(part, dict):
            part.pop("init_cfg", None)
    return settings
