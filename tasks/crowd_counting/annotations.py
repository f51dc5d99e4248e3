"""Head annotations: ShanghaiTech's folders and ``.mat`` files, and custom images in any of the formats."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ean_core.data.images import SUFFIXES, stored_frame
from tasks.matlab import read_matlab

from .density import as_points
from .formats import Entry, Pictures, formats_text, read_annotations, resolve_file, split_of

#: ``part_A`` in the official archive, ``part_A_final`` in the one commonly passed around.
_PART = re.compile(r"part_([ab])(?:_final)?", re.IGNORECASE)
_TRUTH = ("ground-truth", "ground_truth")
OWN = "own"
LAYOUT = "part_{A,B}[_final]/{train,test}_data/{images/IMG_n.jpg, ground-truth|ground_truth/GT_IMG_n.mat}"


@dataclass(frozen=True)
class AnnotatedPicture:
    """An image and its head annotations.

    Args:
        part: ``'A'``, ``'B'``, or ``'own'``.
        split: ``'test'``, ``'val'`` or ``'train'``; if no image is ``'val'``, validation images are taken from
            ``'train'``.
        image: path of the image.
        truth: path of the annotation file.
        points: heads ``(N, 2)`` of custom images; None if ``truth`` is to be read as ShanghaiTech's.
        number: number of heads of a custom image as stated in ``truth``, if any.
        size: width and height of a custom image as stated in ``truth``, if any.
        turned: whether ``points`` were turned with the image, since ``truth`` states its size before EXIF turned it.
    """

    part: str
    split: str
    image: Path
    truth: Path
    points: NDArray[np.float64] | None = None
    number: int | None = None
    size: tuple[int, int] | None = None
    turned: bool = False

    def heads(self) -> tuple[NDArray[np.float64], int | None]:
        """Heads ``(N, 2)`` in pixels, and the number of heads stated in the file, if any."""
        return read_mat(self.truth) if self.points is None else (self.points, self.number)


@dataclass
class Found:
    """Annotated images found in a folder.

    Args:
        images: images with their heads, in order.
        problems: files and what is wrong with them.
        source: format and number of the annotation files of custom images.
    """

    images: list[AnnotatedPicture] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    source: str = ""


def find_shanghaitech(root: Path) -> Found:
    """Find the images of ShanghaiTech under a folder, in either public layout, and files without a counterpart.

    Args:
        root: the folder of the parts, a folder one or two levels above it, or a part itself.

    Raises:
        FileNotFoundError: if there is no part in it.
        ValueError: if it holds a part more than once.
    """
    places = [root, *(place for depth in ("*/", "*/*/", "*/*/*/") for place in sorted(root.glob(depth)))]
    parts = {
        place: match[1].upper()
        for place in places
        if (match := _PART.fullmatch(place.name or place.resolve().name))
        and any((place / f"{split}_data").is_dir() for split in ("train", "test"))
    }
    if not parts:
        raise FileNotFoundError(
            f"no part of ShanghaiTech in {root}: expected {LAYOUT}; for your own images give --points FILE, a file or "
            f"folder of annotations; {formats_text()}"
        )
    twice = [part for part in "AB" if list(parts.values()).count(part) > 1]
    if twice:
        where = " and ".join(str(place) for place, part in parts.items() if part == twice[0])
        raise ValueError(f"{root} holds part {twice[0]} more than once: {where}; give the one you mean as --root")
    found = Found()
    for place, part in sorted(parts.items(), key=lambda item: item[1]):
        for split in ("train", "test"):
            folder = place / f"{split}_data"
            if folder.is_dir():
                _find_pairs(folder, part, split, found)
    return found


def _find_pairs(folder: Path, part: str, split: str, found: Found) -> None:
    truth = next((folder / name for name in _TRUTH if (folder / name).is_dir()), folder / _TRUTH[0])
    images = _by_number(folder / "images", r"IMG_(\d+)", SUFFIXES)
    truths = _by_number(truth, r"GT_IMG_(\d+)", {".mat"})
    for number in sorted(images.keys() | truths.keys()):
        if number not in truths:
            found.problems.append((images[number], f"has no annotation {truth.name}/GT_IMG_{number}.mat; skipped"))
        elif number not in images:
            found.problems.append((truths[number], f"has no image images/IMG_{number}.jpg; skipped"))
        else:
            special = [path for path in (images[number], truths[number]) if path.exists() and not path.is_file()]
            if special:  # a FIFO would never end
                found.problems.append((special[0], "is not a regular file; skipped"))
            else:
                found.images.append(AnnotatedPicture(part, split, images[number], truths[number]))


def _by_number(folder: Path, stem: str, suffixes: set[str] | frozenset[str]) -> dict[int, Path]:
    numbers = {}
    for path in sorted(folder.glob("*")):
        match = re.fullmatch(stem, path.stem, re.IGNORECASE)
        if match and path.suffix.lower() in suffixes:
            numbers[int(match[1])] = path
    return numbers


def find_own(root: Path, truth: Path, format: str | None = None) -> Found:
    """Find the images of a folder that custom annotations list.

    For a missing image, the only one with its file name in any subfolder is taken, unless that has its own annotation.

    Args:
        root: folder of the images.
        truth: annotation file, or a folder of them, see :func:`~tasks.crowd_counting.formats.read_annotations`; names
            are relative to ``root``.
        format: name of the annotation format; by default it is recognized.

    Raises:
        FileNotFoundError: if there is no such folder or file, or no image in the folder.
        ValueError: as for :func:`~tasks.crowd_counting.formats.read_annotations`.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no image folder at {root}")
    pictures = Pictures(root)
    annotations = read_annotations(truth, pictures, format)
    if not pictures.paths:
        raise FileNotFoundError(f"no image in {root}; give the folder of the images that {truth} annotates as --root")
    taken = {Path(entry.name).as_posix() for _, entry in annotations.entries}
    found = Found(problems=list(annotations.problems), source=str(annotations))
    base = root.resolve()
    names: dict[Path, str] = {}
    for file, entry in sorted(annotations.entries, key=lambda item: (item[1].name, item[0])):
        name, points = entry.name, entry.points
        resolved, exists = resolve_file(root, name)
        if not exists and (only := pictures.only(name)) and only not in taken:
            name = only
            resolved, exists = resolve_file(root, name)
        path = root / name
        if resolved in names:
            other = f"is {names[resolved]!r} under another name" if names[resolved] != name else "is annotated twice"
            found.problems.append((path, f"{other}; these {len(points)} points are skipped"))
            continue
        names[resolved] = name
        if not resolved.is_relative_to(base):
            found.problems.append((path, f"is outside of {root}; skipped"))
        elif not exists:
            hint = pictures.suggestion(name, taken)
            found.problems.append((path, f"does not exist, but {file.name} has points for it; skipped{hint}"))
        else:
            found.images.append(_own_picture(path, root, file, truth, entry))
    for file, stem in annotations.lost:
        found.problems.append((file, f"has no image {stem}.* in {root}; skipped{pictures.suggestion(stem, taken)}"))
    named = {image.image.resolve() for image in found.images}
    for path in pictures.paths:
        if path.resolve() not in named:
            found.problems.append(
                (path, f"has no entry in {truth.name}; skipped (for an image without heads, add an empty entry)")
            )
    return found


def _own_picture(path: Path, root: Path, file: Path, place: Path, entry: Entry) -> AnnotatedPicture:
    """Return an image with its annotation; its points are turned if they belong to the image before EXIF turned it."""
    split = entry.split or split_of(path.relative_to(root)) or _split_of_file(file, place) or "train"
    points, turned = entry.points, False
    if entry.size is not None:
        try:
            frame = stored_frame(path)
        except (OSError, ValueError):  # said when the image is prepared
            frame = None
        turned = frame is not None and entry.size == (frame.width, frame.height) != frame.upright
        if frame is not None and turned:
            points = frame.turned(points)
    return AnnotatedPicture(OWN, split, path, file, points, entry.number, entry.size, turned)


def _split_of_file(file: Path, place: Path) -> str | None:
    return split_of(file.relative_to(place)) if file != place else None


def read_mat(path: Path) -> tuple[NDArray[np.float64], int | None]:
    """Read one ShanghaiTech annotation: heads ``(N, 2)``, and the stated number of heads, if any.

    Raises:
        ValueError: if the file is not a ShanghaiTech annotation; the message begins with its name.
    """
    try:
        content = read_matlab(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a .mat file: {error}") from error
    try:
        info = list(content["image_info"][0][0].values())
        points = as_points(info[0])
        numbers = np.asarray(info[1]).ravel() if len(info) > 1 else np.zeros(0)
        number = int(numbers[0]) if numbers.size else None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{path} is not a ShanghaiTech annotation: no N x 2 points in image_info[0,0][0,0][0] ({error})"
        ) from error
    return points, number
