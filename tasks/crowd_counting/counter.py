"""A trained counter in Python: ``Counter.from_zoo(MODEL)(picture)``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import zoo
from ean_core.common.tasks import dataset_of, find_dataset, known_datasets
from ean_core.data.images import AnyImage, pixels_of
from ean_core.runs.folder import Run, trained_config
from ean_core.weights.addresses import read_metadata
from ean_core.weights.files import WeightsFile
from tasks.trained import Trained

from .density import spread
from .export import CounterMaps
from .familiar import COVERED, Errors, Pooled, few_images
from .network import CrowdCounter
from .task import TASK


class _Pair(NamedTuple):
    count: float  # type: ignore[assignment]  # hides tuple.count, which is of no use here
    density: NDArray[np.float32]


class Prediction(_Pair):
    """Number of people in an image, and where they are; unpacks into ``count, density``.

    Args:
        count: number of people in the image, the sum of the density.
        density: people per pixel, float32 ``(H, W)``; the sum over a region is the count in it.
        strangeness: distance of the image from the training images relative to the counter's limit; above 1, it is
            unlike them. None if the counter does not know its training images.
    """

    strangeness: float | None

    def __new__(cls, count: float, density: NDArray[np.float32], strangeness: float | None = None) -> Prediction:
        made = super().__new__(cls, count, density)
        made.strangeness = strangeness
        return made

    @property
    def familiar(self) -> bool | None:
        """Whether the image is like the training images; None if unknown."""
        return is_familiar(self.strangeness)


def is_familiar(strangeness: float | None) -> bool | None:
    """Whether an image of this strangeness is like the training images; None if unknown."""
    return None if strangeness is None else strangeness <= 1


@dataclass(frozen=True)
class Standing:
    """Facts about a counter that are recorded outside of its weights.

    Args:
        data: name of the data set that it was trained on; empty if unknown.
        mae: its mean absolute error on test or validation images; None if unknown.
        measured_on: these images.
    """

    data: str = ""
    mae: float | None = None
    measured_on: str = ""


class Counter(Trained[CrowdCounter]):
    """Counts people in images, with the deployed form of a network.

    Args:
        network: the network, in any mode; it is copied.
        name: name of the network, for reports.
        device: device to run on; by default a GPU if there is one.

    Raises:
        ValueError: if PyTorch cannot use the device.

    Examples:
        >>> counter = Counter(CrowdCounter(dict(type='EANResNetCIFAR', depth=20, scheme='none', stem_stride=2)))
        >>> count, density = counter(np.zeros((60, 100, 3), np.uint8))
        >>> density.shape, bool(np.isclose(density.sum(), count))
        ((60, 100), True)
    """

    task = TASK
    maps = CounterMaps
    standing = Standing()

    @classmethod
    def from_zoo(cls, name: str, *, device: str | None = None) -> Counter:
        counter = super().from_zoo(name, device=device)
        entry = zoo.get_weights(name).entry
        measured_on = str(entry.fields["Results"][0].get("Dataset", "its test images"))
        mae = entry.metrics.get("MAE")
        mae = float(mae) if isinstance(mae, (int, float)) else None
        counter.standing = Standing(find_dataset(entry.name.dataset).title, mae, measured_on)
        return counter

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], *, device: str | None = None) -> Counter:
        file = WeightsFile(Path(path))  # read once
        counter = super().from_checkpoint(file, device=device)
        counter.standing = _standing_of(file)
        return counter

    @property
    def errors(self) -> Errors | None:
        """Errors on its validation images, as stored with the weights; None if unknown."""
        return self.network.familiar.errors_known

    def error_at(self, count: float) -> int | None:
        """Expected error of an image with this count, in whole people; None if unknown or measured on too few."""
        return self.errors.at(count) if self.errors else None

    @property
    def reliability(self) -> str:
        """One sentence about its errors, for people."""
        errors, known = self.errors, self.standing
        of = f" of {known.data}" if known.data else ""
        if errors and not errors.enough:
            return f"the error of a count is unknown: {few_images(errors.images)} to measure it"
        if errors:
            return (
                f"± covers {COVERED:.0%} of {errors.images} validation images{of} (mean absolute error "
                f"{errors.mae.text()}); expect larger errors on other scenes"
            )
        if known.mae is not None:
            return (
                f"the error of a single image is unknown; mean absolute error {known.mae:.1f} on {known.measured_on}; "
                "expect larger errors on other scenes"
            )
        return "the error of this counter is unknown"

    @property
    def stride(self) -> int:
        """Side of a cell of the network's map, in pixels."""
        return self.network.stride

    @torch.inference_mode()
    def __call__(self, picture: AnyImage) -> Prediction:
        """Count the people in an image of any size.

        Args:
            picture: a file, a PIL image, or a uint8 array, RGB ``(H, W, 3)`` or gray ``(H, W)``.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read as an image.
            MemoryError: if the machine or the GPU runs out of memory.
        """
        pixels = pixels_of(picture)
        height, width = pixels.shape[:2]
        device = next(self.network.parameters()).device

        def prepared(part: Tensor) -> Tensor:
            return self.network.data_preprocessor({"inputs": part.to(device).float()})["inputs"]

        pooled = Pooled() if self.network.familiar.knows_images else None
        image = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)[None]
        try:
            cells = self.network.count_map(image, prepare=prepared, seen=pooled)[0, 0].double().cpu().numpy()
        except RuntimeError as error:  # PyTorch's out-of-memory errors
            if "memory" not in str(error).lower():
                raise
            raise MemoryError(f"not enough memory to count in {width} x {height} pixels") from error
        strangeness = self.network.familiar.strangeness(pooled) if pooled else None
        return Prediction(float(cells.sum()), spread(cells, self.stride, (height, width)), strangeness)


def _standing_of(file: WeightsFile) -> Standing:
    """Read what a checkpoint and its run say about it; nothing if they are damaged or of another program."""
    path = file.path
    if path.suffix == ".safetensors":
        dataset = known_datasets().get(read_metadata(path).get("name", "").rpartition(".")[2])
        return Standing(dataset.title if dataset else "")
    config = trained_config(file)
    loader: Any = (config or {}).get("train_dataloader") or {}
    settings = loader.get("dataset") if hasattr(loader, "get") else None
    dataset = dataset_of(settings) if isinstance(settings, dict) else None
    data = dataset.title if dataset else ""
    try:
        run = Run(path.parent)
        if path.name == run.chosen.name and (validation := run.chosen_validation):
            mae = float(validation["count/MAE"])
            return Standing(data, mae, f"{data}, validation images" if data else "its validation images")
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        pass
    return Standing(data)
