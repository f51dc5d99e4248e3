"""Pascal VOC's files: lists, images and masks of a VOCdevkit, and of the Semantic Boundaries Dataset (SBD).

SBD extends the training set from 1,464 to 10,582 images ("Semantic Contours from Inverse Detectors", Hariharan et al.,
ICCV 2011).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.matlab import read_matlab

#: Names of the labels 0 to 20.
CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
#: Label of ignored pixels: object borders, and objects marked as too difficult.
IGNORED = 255
LAYOUT = "VOC2012/{JPEGImages/NAME.jpg, SegmentationClass[Aug]/NAME.png, ImageSets/Segmentation/{train,val}.txt}"
#: Mask folders, the better one first: SBD's masks have no ignored borders.
_MASKS = ("SegmentationClass", "SegmentationClassAug")
_SBD = "benchmark_RELEASE"


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Args:
        name: name of both, without a suffix.
        image: path of the JPEG.
        mask: path of the PNG, or of SBD's ``.mat`` file.
    """

    name: str
    image: Path
    mask: Path


@dataclass
class Found:
    """Contents of a data set.

    Args:
        pairs: one for each listed name that has both an image and a mask.
        lists: names by list: ``train``, ``val``, and ``trainaug`` if there are more training images.
        problems: files and what is wrong with them.
    """

    pairs: list[Pair] = field(default_factory=list)
    lists: dict[str, list[str]] = field(default_factory=dict)
    problems: list[tuple[Path, str]] = field(default_factory=list)


def colours() -> NDArray[np.uint8]:
    """VOC's color map ``(256, 3)``: bits 0, 3 and 6 of a label are the high bits of red, 1, 4 and 7 those of green, and
    2 and 5 those of blue.

    Examples:
        >>> colours()[[0, 1, 15, 255]].tolist()
        [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]
    """
    labels = np.arange(256)
    table = np.zeros((256, 3), int)
    for bit in range(8):
        for channel in range(3):
            table[:, channel] |= ((labels >> (3 * bit + channel)) & 1) << (7 - bit)
    return table.astype(np.uint8)


def find_voc(root: Path, sbd: Path | None = None) -> Found:
    """Find images, masks and lists.

    The list ``trainaug`` is the devkit's ``trainaug.txt``, or ``train.txt`` with ``aug.txt``, or ``train.txt`` with all
    images that SBD has masks for. Images of ``val``, and images of ``trainval.txt`` that are not in ``train.txt``, are
    excluded from it; if no list names such images, nothing is taken from SBD.

    Args:
        root: a ``VOC2012`` folder, or the folder that contains it.
        sbd: folder of SBD's archive; ``benchmark_RELEASE`` beside or in ``root`` if None.

    Raises:
        FileNotFoundError: if ``root`` has no such folder or lists, or ``sbd`` has no masks.
    """
    devkit = next((path for path in (root, root / "VOC2012", root / "VOCdevkit/VOC2012") if _is_devkit(path)), None)
    if devkit is None:
        raise FileNotFoundError(f"{root} holds no VOC segmentation data; expected {LAYOUT}")
    boundaries = _find_sbd(root, devkit, sbd)
    found = Found()
    named = {
        path.stem: _read_list(path, found) for path in sorted((devkit / "ImageSets" / "Segmentation").glob("*.txt"))
    }
    lists: dict[str, list[str]] = {name: named[name] for name in ("train", "val") if name in named}
    if not lists:
        raise FileNotFoundError(f"{devkit}/ImageSets/Segmentation has neither train.txt nor val.txt")
    kept_out = {*lists.get("val", ()), *(set(named.get("trainval", ())) - set(lists.get("train", ())))}
    more = named.get("trainaug") or named.get("aug") or (sorted(boundaries) if kept_out else [])
    if more:
        lists["trainaug"] = list(dict.fromkeys([*lists.get("train", ()), *more]))
    for name in ("train", "trainaug"):
        seen = [image for image in lists.get(name, ()) if image in kept_out]
        # SBD covers images of val on purpose; a list made for training should not.
        if seen and (name in named or "aug" in named):
            where = devkit / "ImageSets/Segmentation" / f"{name if name in named else 'aug'}.txt"
            found.problems.append((where, f"has {len(seen)} images of val, the first {seen[0]}; excluded from {name}"))
        if name in lists:
            lists[name] = [image for image in lists[name] if image not in kept_out]
    found.pairs = list(
        _pairs(dict.fromkeys(name for names in lists.values() for name in names), devkit, boundaries, found)
    )
    there = {pair.name for pair in found.pairs}
    found.lists = {name: [image for image in names if image in there] for name, names in lists.items()}
    return found


def read_mask(path: Path, shape: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read a mask as labels ``(H, W)`` from 0 to 20, and 255.

    Supported are palette PNGs (the indices are the labels), gray PNGs (the values are), RGB PNGs in VOC's colors, and
    SBD's ``.mat`` files.

    Args:
        path: mask file.
        shape: height and width of its image, upright; a PNG of another size is refused before it is decoded.

    Raises:
        ValueError: if it cannot be read, has another size, or has other labels or colors. The message does not name
            the file.
    """
    if path.suffix == ".mat":
        labels = _read_boundaries(path)
        _check_size(labels.shape, shape)
    else:
        try:
            with Image.open(path, formats=("PNG",)) as image:
                _check_size(image.size[::-1], shape)
                image.load()
                labels = _labels_of(image)
        except ValueError:
            raise
        except Exception as error:  # Pillow's plugins raise all kinds of errors on damaged files
            raise ValueError(f"cannot be read as a mask: {error}") from error
    wrong = np.setdiff1d(labels, [*range(len(CLASSES)), IGNORED])
    if wrong.size:
        listing = ", ".join(map(str, wrong[:5].tolist()))
        raise ValueError(f"has labels other than 0 to {len(CLASSES) - 1} and {IGNORED} (ignored): {listing}")
    return labels


def _check_size(found: tuple[int, ...], shape: tuple[int, int] | None) -> None:
    if shape is not None and found != shape:
        raise ValueError(f"is {found[1]} x {found[0]} pixels, its image {shape[1]} x {shape[0]} (upright)")


def _is_devkit(folder: Path) -> bool:
    return (folder / "JPEGImages").is_dir() and (folder / "ImageSets/Segmentation").is_dir()


def _find_sbd(root: Path, devkit: Path, given: Path | None) -> dict[str, Path]:
    """SBD's masks by image name."""
    places = [given] if given else [folder / _SBD for folder in (root, root.parent, devkit, devkit.parent)]
    for place in places:
        for folder in (place / "dataset/cls", place / "cls"):
            if folder.is_dir():
                return {path.stem: path for path in sorted(folder.glob("*.mat"))}
    if given:
        raise FileNotFoundError(f"{given} holds no SBD; expected {_SBD}/dataset/cls/NAME.mat")
    return {}


def _read_list(path: Path, found: Found) -> list[str]:
    """Read the distinct names in a list."""
    names = [
        line.split()[0] for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
    ]
    strange = [name for name in names if not name.replace("_", "").replace("-", "").isalnum()]
    for name in dict.fromkeys(strange):
        found.problems.append((path, f"lists {name!r}, expected image names without folder and suffix; skipped"))
    good = [name for name in names if name not in strange]
    distinct = list(dict.fromkeys(good))
    if len(distinct) < len(good):
        found.problems.append((path, f"lists {len(good) - len(distinct)} images more than once; each is used once"))
    return distinct


def _pairs(names: Iterable[str], devkit: Path, boundaries: dict[str, Path], found: Found) -> Iterable[Pair]:
    for name in names:
        image = devkit / "JPEGImages" / f"{name}.jpg"
        masks = [devkit / folder / f"{name}.png" for folder in _MASKS]
        mask = next((path for path in masks if path.is_file()), boundaries.get(name))
        if not image.is_file():
            found.problems.append((image, "is listed but missing; skipped"))
        elif mask is None:
            found.problems.append((image, f"has no mask in {' or '.join(_MASKS)}; skipped"))
        else:
            yield Pair(name, image, mask)


def _labels_of(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in ("P", "L"):
        return np.array(image)
    if image.mode not in ("RGB", "RGBA"):
        raise ValueError(f"has mode {image.mode}; expected a palette or gray mask, or VOC's colors")
    pixels = np.asarray(image.convert("RGB"), dtype=np.int32)
    codes = pixels @ (1 << 16, 1 << 8, 1)
    table = {int(code): label for label, code in enumerate(colours().astype(np.int32) @ (1 << 16, 1 << 8, 1))}
    present, places = np.unique(codes, return_inverse=True)
    wrong = [int(code) for code in present if table.get(int(code)) not in (*range(len(CLASSES)), IGNORED)]
    if wrong:
        listing = ", ".join(str((code >> 16, code >> 8 & 255, code & 255)) for code in wrong[:3])
        raise ValueError(f"has colors that do not belong to a VOC class: {listing}")
    labels = np.array([table[int(code)] for code in present], np.uint8)
    return labels[places].reshape(codes.shape)


def _read_boundaries(path: Path) -> NDArray[np.uint8]:
    try:
        labels = np.asarray(read_matlab(path)["GTcls"][0]["Segmentation"])
        if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"Segmentation is {labels.dtype} {labels.shape}")
    except (ValueError, OSError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"cannot be read as a mask of SBD (GTcls.Segmentation): {error!r}") from error
    if labels.size and (labels.min() < 0 or labels.max() > IGNORED):
        raise ValueError(f"has labels from {labels.min()} to {labels.max()}, expected 0 to {len(CLASSES) - 1}")
    return labels.astype(np.uint8)


def as_image(labels: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> Image.Image:
    """Convert labels ``(H, W)`` to a palette image, as VOC's masks are; the default palette is :func:`colours`."""
    image = Image.fromarray(labels)
    image.putpalette((colours() if palette is None else palette).tobytes())
    return image


def class_pixels(labels: NDArray[np.uint8]) -> list[int]:
    """Number of pixels of each of the 21 classes in labels ``(H, W)``."""
    return np.bincount(labels.ravel(), minlength=256)[: len(CLASSES)].tolist()


def constant_answer(pixels: Sequence[int]) -> dict[str, float]:
    """``mIoU``, ``mAcc`` and ``aAcc``, in percent, of labeling every pixel background.

    Args:
        pixels: number of pixels of each class, over all evaluated images.

    Examples:
        >>> {name: round(value, 1) for name, value in constant_answer([75, 25]).items()}
        {'mIoU': 37.5, 'mAcc': 50.0, 'aAcc': 75.0}
    """
    share = 100 * pixels[0] / sum(pixels)
    classes = sum(number > 0 for number in pixels)
    return {"mIoU": share / classes, "mAcc": (100 if pixels[0] else 0) / classes, "aAcc": share}
