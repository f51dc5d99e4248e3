"""Prepared images as training crops with density and points, and as whole images for evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, FUNCTIONS, HOOKS
from mmengine.runner import Runner
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from ean_core.common.errors import unknown_name
from ean_core.common.places import data_root
from ean_core.data.images import read_image
from ean_core.data.sampler import SampleKey
from ean_core.data.split import Split, check_split

from .annotations import OWN
from .density import is_inside, last_below, resample
from .prepare import read_manifest
from .prepared_file import read_prepared


@DATASETS.register_module()
class CrowdDataset(Dataset):
    """Images prepared by ``ean crowd prepare``.

    An item is a dict of ``inputs`` (3, h, w) uint8, ``points`` (N, 2) float32, x and y in pixels of ``inputs``,
    ``name``, and if augmented ``density`` (1, h, w) float32, people per pixel. Use it with ``collate_fn=dict(type=
    'crowd_batch')``.

    With ``augment``, an item indexed by a :class:`~ean_core.data.SampleKey` is a random crop of the image, randomly
    scaled, mirrored and recolored, with its density. All draws depend on the key alone. Points and density are
    transformed exactly as the image is: density keeps its mass, and a point is either inside or outside of a crop.

    Args:
        split: ``train`` and ``val`` (a tenth of the training images), ``trainval`` for both, or ``test``.
        root: the prepared folder; relative paths are looked up in ``EAN_DATA``.
        part: ``'A'``, ``'B'`` or ``'own'``; all parts in the folder if None.
        augment: augment training items; otherwise they are whole images.
        crop: height and width of training items; smaller images are enlarged to it. None for whole images, which are
            only mirrored.
        scale: smallest and largest scale factor applied before cropping; drawn uniformly on a logarithmic axis, so that
            halving is as frequent as doubling.
        flip: mirror left to right with probability 1/2.
        jitter: change of brightness, contrast and saturation, each by a factor of up to ``1 +- jitter``.
        gray: probability of a gray crop, as from a monochrome camera.
        blur: probability of a Gaussian blur with a standard deviation of 0.5 to 2 pixels.
        last: crops of the last epochs, whose number ``LastEpochsHook`` sets: ``size``, a factor of ``crop``, and
            ``scale``. Those of all epochs if None.
        blank: probability of an image without people in place of the crop: a plain color, noise, or smooth spots.
            Without such images a counter finds people in noise.

    Raises:
        FileNotFoundError: if the folder is not prepared.
        ValueError: if it has no image of this split and part, or ``scale`` is given without ``crop``.
    """

    def __init__(
        self,
        split: Split,
        root: str | os.PathLike[str] = "crowd/shanghaitech",
        part: str | None = None,
        *,
        augment: bool = False,
        crop: Sequence[int] | None = None,
        scale: Sequence[float] = (1.0, 1.0),
        flip: bool = False,
        jitter: float = 0.0,
        gray: float = 0.0,
        blur: float = 0.0,
        blank: float = 0.0,
        last: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.pictures, self.entries = _listed(split, root, part)
        self.augment = augment
        self.crop = Crop.of(crop, scale)
        if last is not None and last.keys() != {"size", "scale"}:
            raise ValueError(f"last must have size, a factor of crop, and scale, got {dict(last)}")
        self.last = self.crop if last is None or crop is None else self.crop.changed(**last)
        #: First epoch with the crops of ``last``; none if None.
        self.last_from: int | None = None
        self.flip = flip
        self.blank = blank
        for name, value in (("jitter", jitter), ("gray", gray), ("blur", blur), ("blank", blank)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        self.colors = _color_transforms(jitter, gray, blur)
        self.metainfo = {"part": part or "all"}

    @classmethod
    def check_files(
        cls, split: Split, root: str | os.PathLike[str] = "crowd/shanghaitech", part: str | None = None, **options: Any
    ) -> None:
        """Raise as the constructor does if the folder is not prepared, or has no such image."""
        _listed(split, root, part)

    @cached_property
    def mean_count(self) -> float:
        """Mean number of heads per image."""
        return sum(entry["heads"] for entry in self.entries) / len(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        """Return a training item if indexed by a key with ``augment`` set, else the whole image with its points."""
        entry = self.entries[key.item if isinstance(key, SampleKey) else key]
        pixels = read_image(self.pictures / entry["image"])
        if pixels.shape[:2] != (entry["height"], entry["width"]):
            raise ValueError(
                f"{self.pictures / entry['image']} is {pixels.shape[0]} x {pixels.shape[1]} pixels, "
                f"{entry['height']} x {entry['width']} when it was prepared; run `ean crowd prepare` again"
            )
        if not (self.augment and isinstance(key, SampleKey)):
            points, _ = read_prepared(self.folder / entry["file"])
            return {
                "inputs": _channels_first(pixels),
                "points": _tensor(points, pixels.shape[:2]),
                "name": entry["name"],
            }
        draw = key.generator()
        late = self.last_from is not None and key.epoch >= self.last_from
        crop = self.last if late else self.crop
        size = crop.size or pixels.shape[:2]
        window = draw_window(pixels.shape[:2], size, crop.scale, draw)
        mirrored = self.flip and bool(torch.rand((), generator=draw) < 0.5)
        points, density = read_prepared(self.folder / entry["file"], window.slices)
        pixels = window.cut(pixels, size)
        points = window.move(points, size)
        if mirrored:
            pixels, density, points = pixels[:, ::-1], density[:, ::-1], mirror(points, size[1])
        if density.shape != size:
            density = resample(density, size)
        if self.blank and torch.rand((), generator=draw) < self.blank:
            return {
                "inputs": draw_blank(size, draw),
                "points": torch.zeros(0, 2),
                "density": torch.zeros(1, *size),
                "name": entry["name"],
            }
        return {
            "inputs": self._recolor(_channels_first(pixels), draw),
            "points": _tensor(points, size),
            "density": torch.from_numpy(np.ascontiguousarray(density, dtype=np.float32))[None],
            "name": entry["name"],
        }

    def _recolor(self, image: Tensor, draw: torch.Generator) -> Tensor:
        """Apply the color transforms to an image (3, h, w), uint8."""
        if not self.colors:
            return image
        # torchvision's transforms draw from the global generator: seed it for this image, then restore it.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=draw)))
            for transform in self.colors:
                image = transform(image)
        return image


def _listed(split: Split, root: str | os.PathLike[str], part: str | None) -> tuple[Path, Path, list[Mapping[str, Any]]]:
    """Return a prepared folder, that of its source images, and its manifest entries of a split and part."""
    check_split(split)
    folder = data_root() / Path(root).expanduser()
    manifest = read_manifest(folder, part)
    parts = sorted({entry["part"] for entry in manifest["images"]})
    if part is not None and part not in parts:
        raise unknown_name(f"part of {folder}", part, parts)
    wanted = ("train", "val") if split == "trainval" else (split,)
    entries = [entry for entry in manifest["images"] if entry["split"] in wanted and part in (None, entry["part"])]
    if not entries:
        there = sorted({entry["split"] for entry in manifest["images"] if part in (None, entry["part"])})
        raise ValueError(
            f"{folder} has no image in split {split!r}{f' of part {part}' if part not in (None, OWN) else ''}, only in "
            f"{' and '.join(map(repr, there))}; annotations may name the split of an image, and --cfg-options "
            f"{'test' if split == 'test' else 'val'}_dataloader.dataset.split=SPLIT selects another"
        )
    return folder, folder / manifest["root"], entries


@dataclass(frozen=True)
class Crop:
    """Size and scale of random crops.

    Args:
        size: height and width in pixels; None for whole images.
        scale: smallest and largest scale factor.
    """

    size: tuple[int, int] | None
    scale: tuple[float, float]

    @classmethod
    def of(cls, crop: Sequence[float] | None, scale: Sequence[float]) -> Crop:
        """Check the settings of a config.

        Raises:
            ValueError: if they are malformed, or whole images are to be scaled.
        """
        if crop is not None and (len(crop) != 2 or min(crop) < 1):
            raise ValueError(f"crop must be height and width in pixels, got {tuple(crop)}")
        low, high = scale
        if not 0 < low <= high:
            raise ValueError(f"scale must be the smallest and largest scale factor, both above 0, got {tuple(scale)}")
        if crop is None and (low, high) != (1.0, 1.0):
            raise ValueError(f"scale={tuple(scale)} needs a crop; whole images keep their size")
        return cls(None if crop is None else (int(crop[0]), int(crop[1])), (float(low), float(high)))

    def changed(self, size: float, scale: Sequence[float]) -> Crop:
        """Crops of another size, by a factor, and scale."""
        return Crop.of(None if self.size is None else [round(size * side) for side in self.size], scale)


@HOOKS.register_module()
class LastEpochsHook(Hook):
    """Train the last epochs on the crops that the data set calls ``last``.

    Crops of all scales teach a counter that people have many sizes; a few epochs on larger crops near the images' own
    scale fit it to the scale at which it will be used.

    Args:
        epochs: number of epochs at the end of training; at most a third of them.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def before_train(self, runner: Runner) -> None:
        if not self.epochs:
            return
        dataset = runner.train_dataloader.dataset
        if not isinstance(dataset, CrowdDataset):
            raise ValueError(
                f"LastEpochsHook needs a CrowdDataset, got a {type(dataset).__name__}; turn the hook off with "
                "default_hooks.last.epochs=0"
            )
        # The workers of the data loader are not started yet, and get this with the data set.
        dataset.last_from = runner.max_epochs - min(self.epochs, runner.max_epochs // 3)


def _color_transforms(jitter: float, gray: float, blur: float) -> list[nn.Module]:
    """The transforms of :class:`CrowdDataset` that are in use, for uint8 images (3, h, w)."""
    transforms: list[nn.Module] = []
    if not (jitter or gray or blur):
        return transforms
    from torchvision.transforms import v2  # slow to import, and not needed for evaluation

    if jitter:
        transforms.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
    if gray:
        transforms.append(v2.RandomGrayscale(gray))
    if blur:
        transforms.append(v2.RandomApply([v2.GaussianBlur(7, (0.5, 2.0))], blur))
    return transforms


@dataclass(frozen=True)
class Window:
    """A rectangle of whole pixels of an image.

    Args:
        top, left, height, width: position and size, in pixels.
    """

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the window."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def cut(self, pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Cut the window out of an image ``(H, W, 3)``, resized to the given height and width."""
        inner = pixels[self.slices]
        if inner.shape[:2] == size:
            return inner
        return np.array(Image.fromarray(inner).resize(size[::-1], Image.Resampling.BILINEAR))

    def move(self, points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
        """Return the heads ``(N, 2)`` in the window, in pixels of :meth:`cut`."""
        points = points - (self.left, self.top)
        points = points[is_inside(points, (self.height, self.width))]
        factors = np.array([size[1] / self.width, size[0] / self.height])
        return points * factors


def draw_window(
    shape: tuple[int, int], size: tuple[int, int], scale: tuple[float, float], generator: torch.Generator
) -> Window:
    """Draw the source window of a random crop: ``size / s`` pixels, for a random scale factor ``s``.

    Args:
        shape: height and width of the image.
        size: height and width of the crop.
        scale: smallest and largest scale factor; exceeded if the image is smaller than the crop.
        generator: source of all draws.
    """
    draws = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    enlargement = scale[0] * (scale[1] / scale[0]) ** draws[0]
    enlargement = max(enlargement, *(wanted / side for wanted, side in zip(size, shape, strict=True)))
    sides = [min(side, max(1, round(wanted / enlargement))) for wanted, side in zip(size, shape, strict=True)]
    corner = [int(draw * (side - length + 1)) for draw, side, length in zip(draws[1:], shape, sides, strict=True)]
    return Window(*corner, *sides)


def draw_blank(size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw an image without people, ``(3, height, width)`` uint8: a plain color with noise of any strength, or spots.

    Args:
        size: height and width.
        generator: source of all draws.
    """
    color = torch.rand(3, 1, 1, generator=generator)
    kind, strength, cells = torch.rand(3, generator=generator).tolist()
    if kind < 0.25:
        image = color.expand(3, *size)
    elif kind < 0.75:
        image = color + strength * (torch.rand(3, *size, generator=generator) - color)
    else:
        spots = torch.rand(1, 3, 2 + int(30 * cells), 2 + int(40 * cells), generator=generator)
        image = F.interpolate(spots, tuple(size), mode="bilinear")[0]
    return (255 * image).round().byte()


def mirror(points: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mirror the heads ``(N, 2)`` of an image left to right: pixel c becomes pixel ``width - 1 - c``.

    Examples:
        >>> mirror(np.array([[0.5, 3.0], [9.5, 3.0]]), 10).tolist()
        [[9.5, 3.0], [0.5, 3.0]]
    """
    x = np.minimum(width - points[:, 0], last_below(width))  # 0, the left edge of pixel 0, lies in the last pixel
    return np.stack([x, points[:, 1]], 1)


def _channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def _tensor(points: NDArray[np.float64], size: Sequence[int]) -> Tensor:
    """Convert heads to float32, keeping those inside an image of this height and width inside it."""
    rounded = points.astype(np.float32).reshape(-1, 2)
    for axis, side in enumerate(size[::-1]):
        rounded[(points[:, axis] < side) & (rounded[:, axis] >= side), axis] = last_below(side)
    return torch.from_numpy(rounded)


@FUNCTIONS.register_module()
def crowd_batch(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collate items: images and densities of equal size are stacked, points and names stay lists.

    Raises:
        ValueError: if the images differ in size.
    """
    sizes = {tuple(item["inputs"].shape) for item in items}
    if len(sizes) > 1:
        raise ValueError(f"cannot batch images of different sizes: {sorted(sizes)}; set batch_size=1, or crop")
    batch: dict[str, Any] = {key: [item[key] for item in items] for key in items[0]}
    for key in ("inputs", "density"):
        if key in batch:
            batch[key] = torch.stack(batch[key])
    return batch
