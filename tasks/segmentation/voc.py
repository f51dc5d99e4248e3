"""Pascal VOC's files: lists, images and masks of a VOCdevkit, and the Semantic Boundaries Dataset (SBD), which gives
masks to 10,582 images instead of 1,464 ("Semantic Contours from Inverse Detectors", Hariharan et al., ICCV 2011)."""

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
#: The label of pixels that count for nothing: the borders of objects, and what is too hard.
IGNORED = 255
LAYOUT = "VOC2012/{JPEGImages/NAME.jpg, SegmentationClass[Aug]/NAME.png, ImageSets/Segmentation/{train,val}.txt}"
#: Folders of masks, the better one first: that of SBD's has no ignored borders.
_MASKS = ("SegmentationClass", "SegmentationClassAug")
_SBD = "benchmark_RELEASE"


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Args:
        name: of both, without a suffix.
        image: a JPEG.
        mask: a PNG, or a ``.mat`` file of SBD.
    """

    name: str
    image: Path
    mask: Path


@dataclass
class Found:
    """What there is of a data set.

    Args:
        pairs: one for each name in a list whose image and mask are there.
        lists: names by list: ``train``, ``val``, and where there is more to train on ``trainaug``.
        problems: files and what is wrong with them.
    """

    pairs: list[Pair] = field(default_factory=list)
    lists: dict[str, list[str]] = field(default_factory=dict)
    problems: list[tuple[Path, str]] = field(default_factory=list)


def colours() -> NDArray[np.uint8]:
    """The colours ``(256, 3)`` in which VOC's masks show labels: bits 0, 3 and 6 of a label are the high bits of red,
    1, 4 and 7 of green, 2 and 5 of blue, and so on.

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
    """Look for images, masks and lists.

    The list ``trainaug`` is the devkit's own ``trainaug.txt``, or ``train.txt`` with ``aug.txt``, or with all that SBD
    has masks of. Images of ``val``, and of ``trainval.txt`` that are not in ``train.txt``, are kept out of it; where no
    list names any, nothing is taken from SBD.

    Args:
        root: a ``VOC2012`` folder, or one that it is in.
        sbd: the folder of SBD's archive; ``benchmark_RELEASE`` beside or in ``root`` if None.

    Raises:
        FileNotFoundError: if ``root`` has no such folder or lists, or ``sbd`` no masks.
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
        # SBD covers images of val on purpose; a list that was made for training should not.
        if seen and (name in named or "aug" in named):
            where = devkit / "ImageSets/Segmentation" / f"{name if name in named else 'aug'}.txt"
            found.problems.append((where, f"has {len(seen)} images of val, the first {seen[0]}; left out of {name}"))
        if name in lists:
            lists[name] = [image for image in lists[name] if image not in kept_out]
    found.pairs = list(
        _pairs(dict.fromkeys(name for names in lists.values() for name in names), devkit, boundaries, found)
    )
    there = {pair.name for pair in found.pairs}
    found.lists = {name: [image for image in names if image in there] for name, names in lists.items()}
    return found


def read_mask(path: Path, shape: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Labels ``(H, W)`` from 0 to 20 and 255 of a mask.

    Read are PNGs with a palette, whose indices are the labels, in grey, whose values are, and in VOC's colours; and
    SBD's ``.mat`` files.

    Args:
        path: of the mask.
        shape: height and width of its image, upright; a PNG of another size is refused before it is decoded.

    Raises:
        ValueError: if it cannot be read, is of another size, or has other labels or colours. The message does not name
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
        except Exception as error:  # Pillow's plugins raise whatever a damaged file leads them to
            raise ValueError(f"cannot be read as a mask: {error}") from error
    wrong = np.setdiff1d(labels, [*range(len(CLASSES)), IGNORED])
    if wrong.size:
        listing = ", ".join(map(str, wrong[:5].tolist()))
        raise ValueError(f"has labels outside of 0 to {len(CLASSES) - 1} and {IGNORED} (ignored): {listing}")
    return labels


def _check_size(found: tuple[int, ...], shape: tuple[int, int] | None) -> None:
    if shape is not None and found != shape:
        raise ValueError(f"is {found[1]} x {found[0]} pixels, its image {shape[1]} x {shape[0]} (upright)")


def _is_devkit(folder: Path) -> bool:
    return (folder / "JPEGImages").is_dir() and (folder / "ImageSets/Segmentation").is_dir()


def _find_sbd(root: Path, devkit: Path, given: Path | None) -> dict[str, Path]:
    """SBD's masks by the names of their images."""
    places = [given] if given else [folder / _SBD for folder in (root, root.parent, devkit, devkit.parent)]
    for place in places:
        for folder in (place / "dataset/cls", place / "cls"):
            if folder.is_dir():
                return {path.stem: path for path in sorted(folder.glob("*.mat"))}
    if given:
        raise FileNotFoundError(f"{given} holds no SBD; expected {_SBD}/dataset/cls/NAME.mat")
    return {}


def _read_list(path: Path, found: Found) -> list[str]:
    """The names in a list, each once."""
    names = [
        line.split()[0] for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
    ]
    strange = [name for name in names if not name.replace("_", "").replace("-", "").isalnum()]
    for name in dict.fromkeys(strange):
        found.problems.append((path, f"names {name!r}, expected names of images without folder and suffix; left out"))
    good = [name for name in names if name not in strange]
    distinct = list(dict.fromkeys(good))
    if len(distinct) < len(good):
        found.problems.append((path, f"names {len(good) - len(distinct)} images more than once; they count once"))
    return distinct


def _pairs(names: Iterable[str], devkit: Path, boundaries: dict[str, Path], found: Found) -> Iterable[Pair]:
    for name in names:
        image = devkit / "JPEGImages" / f"{name}.jpg"
        masks = [devkit / folder / f"{name}.png" for folder in _MASKS]
        mask = next((path for path in masks if path.is_file()), boundaries.get(name))
        if not image.is_file():
            found.problems.append((image, "is in a list and not there; left out"))
        elif mask is None:
            found.problems.append((image, f"has no mask in {' or '.join(_MASKS)}; left out"))
        else:
            yield Pair(name, image, mask)


def _labels_of(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in ("P", "L"):
        return np.array(image)
    if image.mode not in ("RGB", "RGBA"):
        raise ValueError(f"is of mode {image.mode}; expected labels with a palette or in grey, or VOC's colours")
    pixels = np.asarray(image.convert("RGB"), dtype=np.int32)
    codes = pixels @ (1 << 16, 1 << 8, 1)
    table = {int(code): label for label, code in enumerate(colours().astype(np.int32) @ (1 << 16, 1 << 8, 1))}
    present, places = np.unique(codes, return_inverse=True)
    wrong = [int(code) for code in present if table.get(int(code)) not in (*range(len(CLASSES)), IGNORED)]
    if wrong:
        listing = ", ".join(str((code >> 16, code >> 8 & 255, code & 255)) for code in wrong[:3])
        raise ValueError(f"has colours that stand for no class of VOC: {listing}")
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
    """Labels ``(H, W)`` as VOC has them: a picture with a palette, that of :func:`colours` if None is given."""
    image = Image.fromarray(labels)
    image.putpalette((colours() if palette is None else palette).tobytes())
    return image


def class_pixels(labels: NDArray[np.uint8]) -> list[int]:
    """How many pixels of each of the 21 classes labels ``(H, W)`` have."""
    return np.bincount(labels.ravel(), minlength=256)[: len(CLASSES)].tolist()


def constant_answer(pixels: Sequence[int]) -> dict[str, float]:
    """``mIoU``, ``mAcc`` and ``aAcc``, in percent, of calling every pixel background.

    Args:
        pixels: of each class, over all images that are measured.

    Examples:
        >>> {name: round(value, 1) for name, value in constant_answer([75, 25]).items()}
        {'mIoU': 37.5, 'mAcc': 50.0, 'aAcc': 75.0}
    """
    share = 100 * pixels[0] / sum(pixels)
    classes = sum(number > 0 for number in pixels)
    return {"mIoU": share / classes, "mAcc": (100 if pixels[0] else 0) / classes, "aAcc": share}
