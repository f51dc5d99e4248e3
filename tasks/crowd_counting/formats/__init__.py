"""Annotation formats for custom images: a table of names, recognizers and readers, see :data:`FORMATS`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ean_core.common.errors import unknown_name

from .base import Entry, Listing, NoImageError, Pictures, Source, resolve_file, split_of
from .coco import read_coco, recognizes_coco
from .cvat import read_cvat, recognizes_cvat
from .jhu import LABELS, read_jhu, recognizes_jhu
from .labelme import read_labelme, recognizes_labelme
from .mat import read_mat, recognizes_mat, recognizes_qnrf
from .nwpu import read_nwpu, recognizes_nwpu
from .plain_json import read_json, recognizes_json
from .tables import read_csv, recognizes_csv

__all__ = [
    "FORMATS",
    "Annotations",
    "Entry",
    "Format",
    "Pictures",
    "formats_text",
    "read_annotations",
    "recognizes_any",
    "resolve_file",
    "split_of",
]

#: Number of files of each kind in a folder that are looked at to recognize their format.
SAMPLE = 8
#: Files of this package, and lists of data sets, which annotate no image.
NOT_ANNOTATIONS = frozenset({"manifest.json", LABELS, "train.txt", "val.txt", "test.txt"})


@dataclass(frozen=True)
class Format:
    """An annotation format.

    Args:
        files: its files, in a few words.
        suffixes: suffixes of its files.
        recognizes: whether a file looks like this format; may raise ValueError if the file cannot be read.
        read: reads a file; raises ValueError, beginning with its path, if it has another format.
    """

    files: str
    suffixes: tuple[str, ...]
    recognizes: Callable[[Source], bool]
    read: Callable[[Source, Pictures], Listing]


#: All formats by name. The first that recognizes a file reads it.
FORMATS: dict[str, Format] = {
    "csv": Format("table with the columns image,x,y", (".csv", ".tsv", ".txt"), recognizes_csv, read_csv),
    "coco": Format("JSON of images and annotations", (".json",), recognizes_coco, read_coco),
    "labelme": Format("JSON per image with shapes", (".json",), recognizes_labelme, read_labelme),
    "nwpu": Format("NWPU-Crowd, JSON per image with points", (".json",), recognizes_nwpu, read_nwpu),
    "json": Format("JSON of image: [[x, y], ...]", (".json",), recognizes_json, read_json),
    "cvat": Format("XML of CVAT for images", (".xml",), recognizes_cvat, read_cvat),
    "jhu": Format("JHU-CROWD++, gt/*.txt of x y w h o b", (".txt",), recognizes_jhu, read_jhu),
    "qnrf": Format("UCF-QNRF, *_ann.mat per image", (".mat",), recognizes_qnrf, read_mat),
    "mat": Format(".mat per image with N x 2 points", (".mat",), recognizes_mat, read_mat),
}
#: The format of an unrecognized file, whose reader says what is wrong with it.
_PLAIN = {".csv": "csv", ".tsv": "csv", ".json": "json", ".xml": "cvat"}


@dataclass
class Annotations:
    """Annotations of a file or folder.

    Args:
        format: name of the format.
        files: number of files read.
        entries: annotation file and entry of each image.
        problems: files and what is wrong with them.
        lost: files that belong to no image, and the stem of the image that each should have.
        others: numbers of files in other formats that were not read.
    """

    format: str
    files: int = 0
    entries: list[tuple[Path, Entry]] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    lost: list[tuple[Path, str]] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        also = ", ".join(f"{name} ({number} files)" for name, number in self.others.items())
        hint = f"; also there, not read: {also}; --format chooses" if also else ""
        return f"annotation format: {self.format}, from {self.files} file{'s' * (self.files != 1)}{hint}"


def read_annotations(place: Path, pictures: Pictures, name: str | None = None) -> Annotations:
    """Read the annotations of a file, or of all files of one format in a folder.

    Args:
        place: annotation file, or a folder of them, searched recursively.
        pictures: the images.
        name: name of the format; if None, the one that most files have.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if no format, or not the given one, fits; the message lists the formats. Damaged files in a folder
            are problems instead.
    """
    if name is not None and name not in FORMATS:
        raise unknown_name("annotation format", name, FORMATS)
    if place.is_file():
        return _read_file(Source(place), pictures, name)
    if not place.is_dir():
        raise FileNotFoundError(f"no points file at {place}")
    found = {name: _files(place, FORMATS[name].suffixes)} if name else _guesses(place)
    if not any(found.values()):
        of = f"of format {name} ({FORMATS[name].files}) " if name else ""
        raise ValueError(f"no annotations {of}in {place}; {formats_text()}")
    chosen = max(found, key=lambda each: len(found[each]))  # the first of several
    annotations = Annotations(chosen, others={each: len(files) for each, files in found.items() if each != chosen})
    for file in found[chosen]:
        try:
            listing = FORMATS[chosen].read(Source(file), pictures)
        except NoImageError as error:
            annotations.lost.append((file, error.stem))
            continue
        except (ValueError, OSError) as error:
            text = str(error).removeprefix(f"{file} ").removeprefix(f"{file}: ").removeprefix(f"{file}, ")
            annotations.problems.append((file, f"{text}; skipped"))
            continue
        _add(annotations, file, listing, place)
    return annotations


def recognizes_any(folder: Path) -> bool:
    """Whether a folder holds annotations of any format."""
    return bool(_guesses(folder))


def formats_text() -> str:
    """List the formats for a message."""
    return "formats: " + "; ".join(f"{name} ({format.files})" for name, format in FORMATS.items())


def _read_file(source: Source, pictures: Pictures, name: str | None) -> Annotations:
    path = source.path
    guess = name or _recognized(source)
    plain = guess or _PLAIN.get(path.suffix.lower())
    if plain is None:
        raise ValueError(f"{path} has no annotation format that is known; {formats_text()}")
    annotations = Annotations(plain)
    try:
        _add(annotations, path, FORMATS[plain].read(source, pictures), path.parent)
        if not annotations.entries:
            raise ValueError(f"{path} lists no images")
    except NoImageError as error:
        raise ValueError(f"{error}{pictures.suggestion(error.stem)}") from error
    except ValueError as error:
        raise error if guess else ValueError(f"{error}; {formats_text()}") from error
    return annotations


def _add(annotations: Annotations, file: Path, listing: Listing, place: Path) -> None:
    annotations.files += 1
    annotations.problems += [(file, note) for note in listing.notes]
    annotations.entries += [(file, entry) for entry in listing.entries]


def _recognized(source: Source) -> str | None:
    for name, format in FORMATS.items():
        try:
            if source.path.suffix.lower() in format.suffixes and format.recognizes(source):
                return name
        except (ValueError, OSError):  # said by the reader
            continue
    return None


def _guesses(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each format that is recognized among the first files of a suffix."""
    found: dict[str, list[Path]] = defaultdict(list)
    for suffix in sorted({suffix for format in FORMATS.values() for suffix in format.suffixes}):
        files = _files(folder, (suffix,))
        names = [name for name in map(_recognized, map(Source, files[:SAMPLE])) if name]
        if names:
            found[max(FORMATS, key=names.count)] += files
    return {name: found[name] for name in FORMATS if name in found}


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in suffixes and path.name not in NOT_ANNOTATIONS and path.is_file()
    ]
