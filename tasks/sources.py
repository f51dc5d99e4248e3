"""Resolve command-line inputs: images, folders, videos, webcams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ean_core.data.images import SUFFIXES

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})
#: Marks an annotated image or video, before the suffix of its file name.
OVERLAY = ".overlay"
#: The same for explanation images.
EXPLAINED = ".explained"
#: The same for label images of ``ean seg predict``.
LABELS = ".labels"
MADE = (OVERLAY, EXPLAINED, LABELS)
#: Longer numbers are not webcams.
WEBCAM_DIGITS = 4
#: The first bytes of images.
_PICTURE_STARTS = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
    *(b"P%d" % kind + space for kind in range(1, 7) for space in (b"\n", b"\r", b" ", b"\t")),
)
#: The first bytes of videos: Matroska and WebM, Windows Media, MPEG program and elementary streams.
_VIDEO_STARTS = (b"\x1aE\xdf\xa3", b"0&\xb2u\x8ef\xcf\x11", b"\0\0\x01\xba", b"\0\0\x01\xb3")
#: The first box of MP4 and QuickTime files, if not ``ftyp``, and the brands of images in such files.
_QUICKTIME = (b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
#: Bytes of a packet of an MPEG transport stream, each of which begins with ``G``.
_PACKET = 188


def check_sources(given: Sequence[str], *, videos: bool = False) -> None:
    """Refuse inputs of a command in which there is nothing to read; where there is, the others become problems.

    Args:
        given: as in :func:`find_sources`.
        videos: whether the command also reads videos and webcams.

    Raises:
        FileNotFoundError: if none of them is usable, and some do not exist.
        ValueError: if none of them is usable.
    """
    missing: list[str] = []
    for kind, source, _ in find_sources(given):
        if kind == "picture" or (kind == "video" and videos):
            return
        missing += [source] * (kind == "missing")
    if missing:
        raise FileNotFoundError(f"there is no such file or folder: {', '.join(missing)}")
    suffixes = " ".join(sorted(SUFFIXES | VIDEO_SUFFIXES if videos else SUFFIXES))
    raise ValueError(f"no image{' or video' * videos} in {', '.join(given)}; supported: {suffixes}")


def find_sources(given: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the kind (``'picture'``, ``'video'`` or ``'missing'``), the source, and a name for its outputs.

    Names are file names, with their relative paths if found in a folder; duplicates get a number appended. An image
    with the suffix of a video is an image.

    Args:
        given: files, folders (searched recursively), and webcam numbers. In folders, outputs of this package are
            skipped.
    """
    taken: set[str] = set()

    def distinct(name: str) -> str:
        numbered, number = name, 1
        while numbered.casefold() in taken:  # some file systems ignore case
            number += 1
            numbered = f"{name}.{number}"
        taken.add(numbered.casefold())
        return numbered

    for text in given:
        path = Path(text).expanduser()
        if text.isdecimal() and len(text) <= WEBCAM_DIGITS and not path.exists():
            yield "video", text, distinct(f"webcam{text}")
        elif path.is_dir():
            for file in sorted(path.rglob("*")):
                kind = _kind(file)
                if kind and file.is_file() and not any(f"{mark}." in file.name for mark in MADE):
                    yield kind, str(file), distinct(file.relative_to(path).as_posix())
        elif path.is_file():
            yield _kind(path) or "picture", str(path), distinct(path.name)
        else:
            yield "missing", text, ""


def printable(name: str) -> str:
    """Return a file name with a question mark for each undecodable byte."""
    return name.encode(errors="replace").decode()


def content_of(path: Path) -> str | None:
    """Return ``'video'`` or ``'picture'`` for a file that begins like one, whatever its suffix; None for others.

    FFmpeg, which reads videos, also knows text files that lead it to other files, and hundreds of rare formats.
    """
    try:
        with path.open("rb") as file:
            start = file.read(3 * _PACKET)
    except OSError:
        return None
    if start[4:8] == b"ftyp":
        return "picture" if start[8:12] in _PICTURE_BRANDS else "video"
    if start[:4] == b"RIFF":
        return {b"AVI ": "video", b"WEBP": "picture"}.get(start[8:12])
    if start.startswith(_PICTURE_STARTS):
        return "picture"
    packets = [start[at : at + 1] for at in range(0, len(start), _PACKET)]
    if start.startswith(_VIDEO_STARTS) or start[4:8] in _QUICKTIME or packets == [b"G"] * 3:
        return "video"
    return None


def problem_of(path: Path, error: Exception) -> str:
    """Describe why an image cannot be read, without its name: it may be a video."""
    if content_of(path) == "video":
        return f"is a video; rename it, for example to {path.with_suffix('.mp4').name}"
    return str(error).removeprefix(f"{path} ")


def _kind(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES and path.is_file():
        return "picture" if content_of(path) == "picture" else "video"
    return "picture" if suffix in SUFFIXES else "video" if suffix in VIDEO_SUFFIXES else None
