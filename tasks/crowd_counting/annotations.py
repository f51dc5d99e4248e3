"""Head annotations: ShanghaiTech's folders and ``.mat`` files, and custom points as CSV or JSON."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ean_core.common.errors import unknown_name
from ean_core.common.record import read_small
from ean_core.common.text import from_csv_cell
from ean_core.data.images import SUFFIXES
from tasks.matlab import read_matlab

from .density import as_points

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
        points: heads ``(N, 2)`` if ``truth`` annotates several images.
    """

    part: str
    split: str
    image: Path
    truth: Path
    points: NDArray[np.float64] | None = None

    def heads(self) -> tuple[NDArray[np.float64], int | None]:
        """Heads ``(N, 2)`` in pixels, and the number of heads stated in the file, if any."""
        return read_mat(self.truth) if self.points is None else (self.points, None)


@dataclass
class Found:
    """Annotated images found in a folder.

    Args:
        images: images with their heads, in order.
        problems: files and what is wrong with them.
    """

    images: list[AnnotatedPicture] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)


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
            f"no part of ShanghaiTech in {root}: expected {LAYOUT}; for your own images give --points FILE, a CSV "
            "with image,x,y or a JSON of image: [[x, y], ...]"
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
            found.images.append(AnnotatedPicture(part, split, images[number], truths[number]))


def _by_number(folder: Path, stem: str, suffixes: set[str] | frozenset[str]) -> dict[int, Path]:
    numbers = {}
    for path in sorted(folder.glob("*")):
        match = re.fullmatch(stem, path.stem, re.IGNORECASE)
        if match and path.suffix.lower() in suffixes:
            numbers[int(match[1])] = path
    return numbers


def find_own(root: Path, truth: Path) -> Found:
    """Find the images of a folder that a custom annotation file lists.

    Args:
        root: folder of the images.
        truth: annotation file, see :func:`read_points`; names are relative to ``root``.

    Raises:
        FileNotFoundError: if there is no such folder or file.
        ValueError: as for :func:`read_points`.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no image folder at {root}")
    listed = read_points(truth)
    found = Found()
    base = root.resolve()
    names: dict[Path, str] = {}
    for name, (points, split) in sorted(listed.items()):
        path = root / name
        other = names.setdefault(path.resolve(), name)
        if other != name:
            found.problems.append((path, f"is {other!r} under another name; these {len(points)} points are skipped"))
        elif not path.resolve().is_relative_to(base):
            found.problems.append((path, f"is outside of {root}; skipped"))
        elif not path.is_file():
            found.problems.append((path, f"does not exist, but {truth.name} has points for it; skipped"))
        else:
            found.images.append(AnnotatedPicture(OWN, split, path, truth, points))
    named = {image.image.resolve() for image in found.images}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file() and path.resolve() not in named:
            found.problems.append(
                (path, f"has no entry in {truth.name}; skipped (for an image without heads, add an empty entry)")
            )
    return found


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


def read_points(path: Path) -> dict[str, tuple[NDArray[np.float64], str]]:
    """Read the heads of several images: points ``(N, 2)`` and split (``train``, ``val`` or ``test``) by image name.

    A CSV file has the columns ``image,x,y`` and optionally ``split``, one line per head; a line with empty x and y
    marks an image without heads. A JSON file maps names to lists of ``[x, y]``, or to ``{"points": [...], "split":
    "test"}``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has neither format; the message names the file and the line or image.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no points file at {path}")
    readers = {".csv": _read_csv, ".json": _read_json}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: expected a .csv or .json file of points")
    try:
        text = read_small(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    listed = readers[path.suffix.lower()](path, text)
    if not listed:
        raise ValueError(f"{path} lists no images")
    return listed


def _read_csv(path: Path, text: str) -> dict[str, tuple[NDArray[np.float64], str]]:
    try:
        lines = csv.DictReader(text.splitlines(), skipinitialspace=True)
        header = [name.strip().lower() for name in lines.fieldnames or ()]
        if header[:3] != ["image", "x", "y"] or header[3:] not in ([], ["split"]):
            hint = "; columns are separated by commas" if ";" in "".join(header) else ""
            raise ValueError(
                f"{path}: expected the columns image,x,y and optionally split, got {','.join(header)!r}{hint}"
            )
        lines.fieldnames = header
        points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        splits: dict[str, str] = {}
        for line in lines:
            where = f"{path}, line {lines.line_num}"
            values = [line.get(name) for name in header]
            if None in line or not all(isinstance(value, str) for value in values):
                raise ValueError(f"{where}: expected {len(header)} values")
            name, x, y, *split = (from_csv_cell(str(value)).strip() for value in values)
            if not name:
                raise ValueError(f"{where}: the image name is missing")
            heads = points[name]  # stays empty for an image without heads
            if splits.setdefault(name, _split(split[0] if split else "", where)) != _split("".join(split), where):
                raise ValueError(f"{where}: {name} is in two splits")
            if x or y:
                heads.append(_point(x, y, where))
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from error
    return {name: (as_points(heads), splits[name]) for name, heads in points.items()}


def _read_json(path: Path, text: str) -> dict[str, tuple[NDArray[np.float64], str]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected a mapping of image names to points, got {type(content).__name__}")
    listed = {}
    for name, value in content.items():
        where = f"{path}, {name!r}"
        entry: Mapping[str, Any] = value if isinstance(value, Mapping) else {"points": value}
        if "points" not in entry or entry.keys() - {"points", "split"} or not isinstance(entry["points"], list):
            raise ValueError(f"{where}: expected [[x, y], ...] or {{'points': [...], 'split': 'test'}}")
        try:
            listed[name] = (as_points(entry["points"]), _split(entry.get("split", ""), where))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return listed


def _split(text: object, where: str) -> str:
    if text not in ("", "train", "val", "test"):
        raise ValueError(f"{where}: {unknown_name('split', text, ('train', 'val', 'test'))}")
    return str(text) or "train"


def _point(x: str, y: str, where: str) -> tuple[float, float]:
    try:
        point = float(x), float(y)
    except ValueError:
        raise ValueError(f"{where}: x and y must be numbers of pixels, got {x!r} and {y!r}") from None
    if not np.isfinite(point).all():
        raise ValueError(f"{where}: x and y must be finite, got {x} and {y}")
    return point
