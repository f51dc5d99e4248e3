"""Common parts of the annotation formats: entries, the images they belong to, and checked values of untrusted files."""

from __future__ import annotations

import difflib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ean_core.common.record import read_json, read_small
from ean_core.data.images import SUFFIXES

T = TypeVar("T")
#: Names of folders and subsets by split.
SPLITS: dict[str, str] = {
    **dict.fromkeys(("train", "training", "train_data"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "val_data"), "val"),
    **dict.fromkeys(("test", "testing", "test_data"), "test"),
}
#: Labels of people; if a file has these and others, the others are skipped.
PEOPLE = frozenset({"person", "people", "head", "heads", "face", "pedestrian", "human", "crowd"})
#: Number of missing images for which a similar name is sought, which takes time.
SUGGESTIONS = 50
#: Minimum similarity of a suggested name.
SIMILAR = 0.8
#: Maximum length of an image name.
MAX_NAME = 1000


@dataclass(frozen=True)
class Entry:
    """Annotation of one image.

    Args:
        name: path of the image relative to the image folder.
        points: heads ``(N, 2)``, x and y in pixels.
        split: ``'train'``, ``'val'`` or ``'test'``; None if the file does not say.
        size: width and height of the image as stated in the file, if any.
        number: number of heads as stated in the file, if any.
    """

    name: str
    points: NDArray[np.float64]
    split: str | None = None
    size: tuple[int, int] | None = None
    number: int | None = None


@dataclass
class Listing:
    """Content of an annotation file.

    Args:
        entries: annotated images.
        notes: parts of the file that were not used, for the user.
    """

    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Source:
    """An annotation file, read at most once by each parser, also if that fails.

    Its properties raise ValueError, beginning with its path, if it is too large or cannot be parsed. The content is
    kept as long as the source. A folder takes new sources after its format is recognized: only one file is in memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parsed: dict[Callable[[Path], Any], tuple[Any, Exception | None]] = {}

    @property
    def text(self) -> str:
        return self.parsed(_text)

    @property
    def json(self) -> Any:
        return self.parsed(_json)

    def parsed(self, parse: Callable[[Path], T]) -> T:
        """Return the result of a parser, or raise its error again."""
        if parse not in self._parsed:
            try:
                self._parsed[parse] = parse(self.path), None
            except (ValueError, OSError) as error:
                self._parsed[parse] = None, error
        found, problem = self._parsed[parse]
        if problem is not None:
            raise problem
        return found


def _text(path: Path) -> str:
    try:
        return read_small(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error


def _json(path: Path) -> Any:
    return read_json(path, "cannot be read as JSON")


class NoImageError(ValueError):
    """An annotation file belongs to no image.

    Args:
        text: the message.
        stem: stem of the image that it should have.
    """

    def __init__(self, text: str, stem: str) -> None:
        super().__init__(text)
        self.stem = stem


class Pictures:
    """The images of a folder and its subfolders, by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._suggestions = SUGGESTIONS
        self._lists: dict[Path, Mapping[str, str]] = {}

    @cached_property
    def paths(self) -> list[Path]:
        return [path for path in sorted(self.root.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]

    @cached_property
    def _by_file_name(self) -> Mapping[str, list[Path]]:
        return _grouped(self.paths, lambda path: path.name.lower())

    @cached_property
    def _by_stem(self) -> Mapping[str, list[Path]]:
        return _grouped(self.paths, lambda path: path.stem.lower())

    def named(self, name: str, file: Path) -> str | None:
        """Return the name, relative to the folder, of the image that an annotation tool calls ``name``; None if there
        is none.

        That is the path itself, relative to this folder or to that of the annotation file.
        """
        name = name.replace("\\", "/")
        base = self.root.resolve()
        for folder in (self.root, file.parent):
            path, exists = resolve_file(folder, name)
            if exists and path.is_relative_to(base):
                return name if folder == self.root else path.relative_to(base).as_posix()
        return None

    def only(self, name: str) -> str | None:
        """Return the name of the only image with the file name of ``name``, in any subfolder; None if there is none, or
        more than one."""
        same = self._by_file_name.get(_file_name(name), [])
        return self._relative(same[0]) if len(same) == 1 else None

    def of(self, file: Path, *stems: str) -> str:
        """Return the name of the image that an annotation file belongs to: one with the same stem, and with the most
        folder names in common.

        Args:
            file: the annotation file.
            stems: stems of the image; that of the file by default.

        Raises:
            NoImageError: if there is none.
            ValueError: if there is more than one.
        """
        stems = stems or (file.stem,)
        found = [path for stem in stems for path in self._by_stem.get(stem.lower(), [])]
        if not found:
            raise NoImageError(f"{file} has no image {stems[0]}.* in {self.root}", stems[0])
        folders = set(file.resolve().parent.parts)
        shared = [len(folders & set(path.resolve().parent.parts)) for path in found]
        best = [path for path, number in zip(found, shared, strict=True) if number == max(shared)]
        if len(best) > 1:
            raise ValueError(f"{file} belongs to several images: {', '.join(map(self._relative, best[:3]))}")
        return self._relative(best[0])

    def listed(self, path: Path) -> Mapping[str, str]:
        """Return the lines of a list of images by the stem of their first word; empty if there is no such file.

        Raises:
            ValueError: if it is too large.
        """
        if path not in self._lists:
            lines = read_small(path).decode("utf-8", "replace").splitlines() if path.is_file() else []
            words = ((re.split(r"[,\s]", line.strip(), maxsplit=1)[0], line.strip()) for line in lines if line.strip())
            self._lists[path] = {Path(word).stem: line for word, line in words}
        return self._lists[path]

    def suggestion(self, name: str, taken: Container[str] = ()) -> str:
        """Return ``"; did you mean ...?"`` with the most similar image name, or nothing.

        Args:
            name: name or stem of a missing image.
            taken: names of images with an annotation of their own, which are not suggested.
        """
        wanted = name.replace("\\", "/").lower()
        last = _file_name(name)
        groups = (self._by_file_name.get(last), self._by_stem.get(last.rpartition(".")[0]), self._by_stem.get(last))
        same = [each for paths in groups for each in map(self._relative, paths or ()) if each not in taken]
        if same:
            above = same[0][: -len(wanted) - 1] if same[0].lower().endswith(f"/{wanted}") else ""
            return f"; did you mean {same[0]!r}{f', or --root {self.root / above}' if above else ''}?"
        if self._suggestions > 0:
            self._suggestions -= 1
            free = [each for each in map(self._relative, self.paths) if each not in taken]
            known = {(each if "." in last else Path(each).stem).lower(): each for each in reversed(free)}
            near = difflib.get_close_matches(wanted, known, n=1, cutoff=SIMILAR)
            if near:
                return f"; did you mean {known[near[0]]!r}?"
        return ""

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def resolve_file(folder: Path, name: str) -> tuple[Path, bool]:
    """Resolve an untrusted name in a folder, and tell whether it leads to a file.

    A name that is not one of a file system, since it is too long or not Unicode, or leads into a loop of links, is
    returned as it is: no file has it.
    """
    path = folder / name
    try:
        return path.resolve(), path.is_file()
    except (OSError, RuntimeError, ValueError):  # RuntimeError for loops, before Python 3.13
        return folder.resolve() / name, False


def _file_name(name: str) -> str:
    """The file name at the end of a path of any system, in lower case."""
    return name.replace("\\", "/").rpartition("/")[2].lower()


def _grouped(paths: Iterable[Path], key: Callable[[Path], str]) -> Mapping[str, list[Path]]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return groups


def split_of(path: Path) -> str | None:
    """Return the split that a path names by one of its folders; None if it names none.

    Examples:
        >>> split_of(Path('Train/img_0001.jpg')), split_of(Path('images/testing.jpg'))
        ('train', None)
    """
    return next((SPLITS[part.lower()] for part in path.parent.parts if part.lower() in SPLITS), None)


def split_in(stem: str) -> str | None:
    """Return the split that the name of a file contains as a word, also before a year.

    Examples:
        >>> split_in('instances_val2017'), split_in('contest')
        ('val', None)
    """
    match = re.search(r"(?<![a-z])(train|val|test)(?![a-z])", stem.lower())
    return match[1] if match else None


def image_name(value: object, where: str) -> str:
    """Return an image name from an untrusted file.

    Raises:
        ValueError: if it is not a name.
    """
    if not isinstance(value, str) or not value.strip() or "\0" in value or len(value) > MAX_NAME:
        raise ValueError(f"{where}: the image name is missing or not a name")
    return value.strip()


def number(value: object, where: str) -> float:
    """Return a coordinate from an untrusted file, a finite number or text of one.

    Raises:
        ValueError: if it is anything else.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        found = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{where}: coordinates must be numbers of pixels, got {str(value)[:50]!r}") from None
    if not math.isfinite(found):
        raise ValueError(f"{where}: coordinates must be finite, got {value}")
    return found


def pair(value: object, where: str) -> tuple[float, float]:
    """Return one point ``(x, y)`` from an untrusted file; errors as in :func:`number`."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError(f"{where}: expected [x, y], got {str(value)[:50]}")
    return number(value[0], where), number(value[1], where)


def stated_size(width: object, height: object) -> tuple[int, int] | None:
    """Return width and height as stated in a file; None unless both are positive integers."""
    try:
        size = int(str(width)), int(str(height))
    except ValueError:
        return None
    return size if min(size) > 0 else None


def items(value: object, where: str) -> list[Mapping[str, Any]]:
    """Return a list of JSON objects.

    Raises:
        ValueError: if it is anything else.
    """
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise ValueError(f"{where}: expected a list of objects")
    return value


def skipped_labels(labels: Iterable[str]) -> set[str]:
    """Return the labels that are not people, if others are; nothing if none or all are.

    Examples:
        >>> sorted(skipped_labels(['person', 'car'])), sorted(skipped_labels(['a', 'b']))
        (['car'], [])
    """
    known = set(labels)
    return {label for label in known if label.lower() not in PEOPLE} if _has_people(known) else set()


def _has_people(labels: set[str]) -> bool:
    return any(label.lower() in PEOPLE for label in labels)


def counted(kinds: Mapping[str, int]) -> str:
    """List kinds and their numbers.

    Examples:
        >>> counted({'polygon': 2, 'line': 1})
        '1 line, 2 polygon'
    """
    names = sorted(kinds)
    more = f" and {len(names) - 5} other kinds" if len(names) > 5 else ""
    return ", ".join(f"{kinds[name]} {name[:40]}" for name in names[:5]) + more
