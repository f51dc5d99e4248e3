"""Where heads are: ShanghaiTech's folders and ``.mat`` files, and points of one's own as CSV or JSON."""

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
from tasks.matlab import read_matlab
from tasks.pictures import SUFFIXES

from .density import as_points

#: ``part_A`` of the official archive, ``part_A_final`` of the one that is passed around.
_PART = re.compile(r"part_([ab])(?:_final)?", re.IGNORECASE)
_TRUTH = ("ground-truth", "ground_truth")
OWN = "own"
LAYOUT = "part_{A,B}[_final]/{train,test}_data/{images/IMG_n.jpg, ground-truth|ground_truth/GT_IMG_n.mat}"


@dataclass(frozen=True)
class AnnotatedPicture:
    """A picture and where its heads are said to be.

    Args:
        part: ``'A'``, ``'B'``, or ``'own'``.
        split: ``'test'``, ``'val'``, or ``'train'`` for what validation images are taken from where none are named.
        image: the picture.
        truth: the file with its heads.
        points: heads ``(N, 2)``, where ``truth`` holds those of many pictures.
    """

    part: str
    split: str
    image: Path
    truth: Path
    points: NDArray[np.float64] | None = None

    def heads(self) -> tuple[NDArray[np.float64], int | None]:
        """Heads ``(N, 2)`` in pixels, and the number that the file says there are, if it does."""
        return read_mat(self.truth) if self.points is None else (self.points, None)


@dataclass
class Found:
    """What was found in a folder.

    Args:
        images: pictures with their heads, in order.
        problems: what is wrong, file by file.
    """

    images: list[AnnotatedPicture] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)


def find_shanghaitech(root: Path) -> Found:
    """The pictures of ShanghaiTech under a folder, in either public layout, and those that lack their pair.

    Args:
        root: the folder of the parts, one a level or two above it, or a part itself.

    Raises:
        FileNotFoundError: if there is no part in it.
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
            f"no part of ShanghaiTech in {root}: expected {LAYOUT}; for pictures of your own give --points FILE, a CSV "
            "of image,x,y or a JSON of image: [[x, y], ...]"
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
            found.problems.append((images[number], f"has no annotation {truth.name}/GT_IMG_{number}.mat; left out"))
        elif number not in images:
            found.problems.append((truths[number], f"has no picture images/IMG_{number}.jpg; left out"))
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
    """Pictures in a folder, by the file that says where their heads are.

    Args:
        root: the folder of the pictures.
        truth: see :func:`read_points`; names are relative to ``root``.

    Raises:
        FileNotFoundError: if there is no such folder or file.
        ValueError: as of :func:`read_points`.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of pictures at {root}")
    listed = read_points(truth)
    found = Found()
    base = root.resolve()
    names: dict[Path, str] = {}
    for name, (points, split) in sorted(listed.items()):
        path = root / name
        other = names.setdefault(path.resolve(), name)
        if other != name:
            found.problems.append((path, f"is {other!r} under another name; these {len(points)} points are left out"))
        elif not path.resolve().is_relative_to(base):
            found.problems.append((path, f"is outside of {root}; left out"))
        elif not path.is_file():
            found.problems.append((path, f"does not exist, but {truth.name} has points of it; left out"))
        else:
            found.images.append(AnnotatedPicture(OWN, split, path, truth, points))
    named = {image.image.resolve() for image in found.images}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file() and path.resolve() not in named:
            found.problems.append((path, f"has no entry in {truth.name}; left out (an empty one says: no heads)"))
    return found


def read_mat(path: Path) -> tuple[NDArray[np.float64], int | None]:
    """Heads ``(N, 2)`` of one of ShanghaiTech's files, and the number that it says there are.

    Raises:
        ValueError: if the file is not of that kind; the message begins with its name.
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
            f"{path} is no annotation of ShanghaiTech: it has no N x 2 points in image_info[0,0][0,0][0] ({error})"
        ) from error
    return points, number


def read_points(path: Path) -> dict[str, tuple[NDArray[np.float64], str]]:
    """Heads of many pictures: points ``(N, 2)`` and split, ``'train'``, ``'val'`` or ``'test'``, by the picture's name.

    A CSV file has the columns ``image,x,y``, one line a head, and perhaps ``split``; a line with x and y empty says
    that a picture has no heads. A JSON file maps names to lists of ``[x, y]``, or to ``{"points": [...], "split":
    "test"}``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is of neither kind; the message names the file and line or picture.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file of points at {path}")
    readers = {".csv": _read_csv, ".json": _read_json}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: points are read from a .csv or .json file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error
    listed = readers[path.suffix.lower()](path, text)
    if not listed:
        raise ValueError(f"{path} names no picture")
    return listed


def _read_csv(path: Path, text: str) -> dict[str, tuple[NDArray[np.float64], str]]:
    try:
        lines = csv.DictReader(text.splitlines(), skipinitialspace=True)
        header = [name.strip().lower() for name in lines.fieldnames or ()]
        if header[:3] != ["image", "x", "y"] or header[3:] not in ([], ["split"]):
            hint = "; columns are separated by commas" if ";" in "".join(header) else ""
            raise ValueError(
                f"{path}: expected the columns image,x,y and perhaps split, got {','.join(header)!r}{hint}"
            )
        lines.fieldnames = header
        points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        splits: dict[str, str] = {}
        for line in lines:
            where = f"{path}, line {lines.line_num}"
            values = [line.get(name) for name in header]
            if None in line or not all(isinstance(value, str) for value in values):
                raise ValueError(f"{where}: expected {len(header)} values")
            name, x, y, *split = (str(value).strip() for value in values)
            if not name:
                raise ValueError(f"{where}: there is no name of a picture")
            heads = points[name]  # which may stay empty
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
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected pictures' names with their points, got {type(content).__name__}")
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
        raise ValueError(f"{where}: x and y are numbers of pixels, got {x!r} and {y!r}") from None
    if not np.isfinite(point).all():
        raise ValueError(f"{where}: x and y are finite, got {x} and {y}")
    return point
