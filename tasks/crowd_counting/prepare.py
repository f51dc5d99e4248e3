"""``ean crowd prepare``: check annotated images; write points, density and provenance of each to an HDF5 file."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray

from ean_core.commands.options import suggest
from ean_core.common.places import data_root
from ean_core.common.text import number_of, visible
from ean_core.common.writing import replacing
from ean_core.data.images import read_image
from tasks.prepared import Prepared, end_with_status, held_out, prepare_folder, relative, say_problems, say_written
from tasks.prepared import read_manifest as read_prepared_manifest

from .annotations import OWN, AnnotatedPicture, Found, find_own, find_shanghaitech
from .choices import Outside
from .density import check_outside, density_map, is_inside, resolve_outside
from .doubts import doubts
from .formats import recognizes_any
from .prepared_file import packed, unchanged_entry

#: Version of the file format; files of another version are written anew.
VERSION = 1
#: Default kernels: those common in the literature for ShanghaiTech's parts, and one for custom images.
SIGMAS: dict[str, float | Literal["adaptive"]] = {"A": "adaptive", "B": 15.0, OWN: 15.0}


@dataclass(frozen=True)
class Kernel:
    """Options of density maps; see :func:`~tasks.crowd_counting.density.density_map`.

    Args:
        sigma: pixels, or ``'adaptive'``; None for the part's default, see :data:`SIGMAS`.
        beta, k: parameters of adaptive kernels.
        outside: treatment of points outside of their image.
    """

    sigma: float | Literal["adaptive"] | None = None
    beta: float = 0.3
    k: int = 3
    outside: Outside = "clamp"

    def __post_init__(self) -> None:
        check_outside(self.outside)

    def of(self, part: str) -> Kernel:
        """Return a copy with the part's default sigma if none is set."""
        return self if self.sigma is not None else replace(self, sigma=SIGMAS[part])


def prepare(found: Found, root: Path, out: Path, kernel: Kernel | None = None, workers: int = 1) -> dict[str, Any]:
    """Write ``out``: an HDF5 file per image, and ``manifest.json``, which assigns the images to splits.

    A file holds ``points`` (N, 2), x and y in pixels, ``density`` (H, W) float32 at the size of the image, and their
    provenance as attributes. Files whose image, annotation and kernel have not changed are kept. Files are written
    atomically.

    Args:
        found: images, and problems known so far.
        root: folder that image names are relative to.
        out: folder to write.
        kernel: options of the density maps.
        workers: number of processes.

    Returns:
        The manifest; its ``made`` is the number of files written.

    Raises:
        InUseError: if another process is preparing this folder.
        ValueError: if no image could be prepared, or ``out`` holds another data set.
        OSError: if ``out`` cannot be written.
    """
    kernel = kernel or Kernel()

    def describe(entries: list[dict[str, Any]]) -> dict[str, Any]:
        _choose_validation(entries)
        return {"kernel": asdict(kernel), "doubts": list(doubts(found.images, entries, root))}

    jobs = [(picture, _name(picture, root), root, out, kernel.of(picture.part)) for picture in found.images]
    return prepare_folder(
        _prepare_picture,
        jobs,
        found.problems,
        root=root,
        out=out,
        workers=workers,
        version=VERSION,
        read=read_manifest,
        describe=describe,
    )


def read_manifest(folder: Path, part: str | None = None) -> dict[str, Any]:
    """Read the manifest of a prepared folder.

    Args:
        folder: the folder.
        part: the part to be read, for the message about a folder that is not prepared.

    Raises:
        FileNotFoundError: if the folder is not prepared.
        ValueError: if its manifest is damaged or has another version.
    """
    own, shanghaitech = f"--root IMAGES --points FILE --out {folder}", f"--root SHANGHAITECH --out {folder}"
    command = f"ean crowd prepare {own if part == OWN else shanghaitech}"
    other = f", and `ean crowd prepare {own}` your own images" if part is None else ""
    return read_prepared_manifest(folder, VERSION, f"`{command}` prepares it{other}")


# ---------------------------------------------------------------- one image


def _prepare_picture(picture: AnnotatedPicture, name: str, root: Path, out: Path, kernel: Kernel) -> Prepared:
    path = out / f"{name}.h5"
    try:
        content, truth = picture.image.read_bytes(), _truth(picture)
    except OSError as error:
        return Prepared(None, [(relative(picture.image, root), f"cannot be read: {error}; skipped")])
    source = {
        "version": VERSION,
        "image": relative(picture.image, root),
        "image_sha256": hashlib.sha256(content).hexdigest(),
        "truth": relative(picture.truth, root),
        "truth_sha256": hashlib.sha256(truth).hexdigest(),
        **asdict(kernel),
    }
    entry = unchanged_entry(path, source)
    made = entry is None
    if entry is None:
        try:
            pixels = read_image(picture.image)
            points, number = picture.heads()
        except (OSError, ValueError) as error:
            text = str(error)
            for file in (picture.image, picture.truth):
                text = text.removeprefix(f"{file} ").removeprefix(f"{file}: ")
            wrong = picture.truth if str(picture.truth) in str(error) else picture.image
            return Prepared(None, [(relative(wrong, root), f"{text}; skipped")])
        try:
            entry = _write(path, pixels.shape[:2], points, number, kernel, source)
        except MemoryError:
            size = f"{pixels.shape[1]} x {pixels.shape[0]}"
            return Prepared(None, [(source["image"], f"is too large for this machine's memory: {size}; skipped")])
    facts = {"name": name, "part": picture.part, "split": picture.split, "file": f"{name}.h5", **entry}
    return Prepared(facts, list(_problems(picture, entry, root, kernel)), made)


def _write(
    path: Path,
    shape: tuple[int, int],
    points: NDArray[np.float64],
    number: int | None,
    kernel: Kernel,
    source: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the file of one image, and return its manifest entry."""
    kept, _ = resolve_outside(points, shape, kernel.outside)
    sigma: Any = kernel.sigma
    density = density_map(points, shape, sigma, kernel.beta, kernel.k, outside=kernel.outside)
    entry = {
        "image": source["image"],
        "height": shape[0],
        "width": shape[1],
        "heads": len(kept),
        "outside": int((~is_inside(points, shape)).sum()),
        "number": len(points) if number is None else number,
        "annotated": len(points),
    }
    with replacing(path) as partial:
        partial.write_bytes(packed(kept, density.astype(np.float32), source, entry))
    return entry


def _problems(
    picture: AnnotatedPicture, entry: Mapping[str, Any], root: Path, kernel: Kernel
) -> Iterator[tuple[str, str]]:
    truth, image = relative(picture.truth, root), relative(picture.image, root)
    if entry["number"] != entry["annotated"]:
        yield truth, f"states {entry['number']} heads but has {entry['annotated']} points; the points are used"
    if entry["outside"]:
        became = {"clamp": "moved to the nearest pixel", "drop": "dropped", "keep": "kept in place"}
        what = f"{entry['outside']} of {entry['annotated']} points outside of {image}"
        yield truth, f"has {what} ({entry['width']} x {entry['height']}); {became[kernel.outside]}"


def _truth(picture: AnnotatedPicture) -> bytes:
    """Return the annotation of one image as bytes."""
    return picture.truth.read_bytes() if picture.points is None else picture.points.tobytes()


def _name(picture: AnnotatedPicture, root: Path) -> str:
    """Name of an image in the manifest, also that of its file without the suffix."""
    if picture.part == OWN:
        return f"{OWN}/{relative(picture.image, root)}"
    return f"{picture.part}/{picture.split}/{picture.image.stem}"


def _choose_validation(entries: Sequence[dict[str, Any]]) -> None:
    """Move a tenth of each part's training images to validation, unless its annotations name validation images."""
    for part in {entry["part"] for entry in entries}:
        own = [entry for entry in entries if entry["part"] == part]
        training = [entry for entry in own if entry["split"] == "train"]
        if len(training) < 2 or any(entry["split"] == "val" for entry in own):
            continue
        chosen = held_out([entry["name"] for entry in training])
        for entry in training:
            entry["split"] = "val" if entry["name"] in chosen else "train"


# ---------------------------------------------------------------- command


def prepare_command(
    root: Path | None,
    points: Path | None,
    format: str | None,
    out: Path | None,
    sigma: str | None,
    beta: float,
    k: int,
    outside: str,
    workers: int | None,
) -> None:
    """Do the work of the command; :mod:`tasks.crowd_counting.cli` declares its arguments and options."""
    if (points or format) and root is None:
        raise ValueError("give the folder of your images, too: --root IMAGES --points FILE")
    root = root or data_root() / "ShanghaiTech"
    if not root.is_dir():
        raise FileNotFoundError(f"no folder at {root}; give that of ShanghaiTech or of your own images as --root")
    kernel = Kernel(_sigma(sigma), beta, k, outside)  # type: ignore[arg-type]
    found = find_own(root, points or root, format) if points or format else _find(root)
    if found.source:
        typer.echo(found.source)
    given = out
    out = out or data_root() / "crowd" / (OWN if found.source else "shanghaitech")
    manifest = prepare(found, root, out, kernel, workers or os.cpu_count() or 1)
    say(manifest, out)
    _suggest_training(manifest, out, chosen=given is not None)
    end_with_status(manifest)


def _suggest_training(manifest: Mapping[str, Any], out: Path, *, chosen: bool) -> None:
    """Suggest the training of a counter on the prepared images, if there are any to train and validate it on.

    Args:
        manifest: manifest of the prepared folder.
        out: the folder.
        chosen: whether ``--out`` named it, so that the config does not find it by itself.
    """
    splits: dict[str, set[str]] = {}
    for entry in manifest["images"]:
        splits.setdefault(entry["part"], set()).add(entry["split"])
    part = next((part for part in sorted(splits) if {"train", "val"} <= splits[part]), None)
    if part is None:
        return
    config = "resnet18_se_crowd" if part == OWN else f"resnet18_se_shanghaitech_{part.lower()}"
    roots = [f"{name}_dataloader.dataset.root={out.resolve()}" for name in ("train", "val", "test")]
    suggest("train a counter", "ean", "train", config, cfg_options=roots if chosen else None)


def _find(root: Path) -> Found:
    """Find ShanghaiTech in a folder, or else custom images with annotations of a known format."""
    try:
        return find_shanghaitech(root)
    except FileNotFoundError:
        if not recognizes_any(root):
            raise
        return find_own(root, root)


def say(manifest: Mapping[str, Any], out: Path) -> None:
    """Print the problems found, what may be wrong, and the number of images and heads in each split."""
    say_problems(manifest["problems"], out)
    for doubt in manifest["doubts"]:
        typer.echo(visible(f"warning: {doubt}"), err=True)
    heads: Counter[tuple[str, str]] = Counter()
    images: Counter[tuple[str, str]] = Counter()
    for entry in manifest["images"]:
        images[entry["part"], entry["split"]] += 1
        heads[entry["part"], entry["split"]] += entry["heads"]
    for part in sorted({part for part, _ in images}):
        splits = [split for split in ("train", "val", "test") if images[part, split]]
        texts = [
            f"{split} {number_of(images[part, split], 'image')} with {number_of(heads[part, split], 'head')}"
            for split in splits
        ]
        typer.echo(f"{'own images' if part == OWN else f'part {part}'}: {', '.join(texts)}")
        missing = {
            "train": "training images",
            "val": "validation images to measure the error on",
            "test": "test images to evaluate it on",
        }
        for split, what in missing.items():
            if not images[part, split]:
                typer.echo(f"no {what}", err=True)
    say_written(manifest, out)


def _sigma(text: str | None) -> float | Literal["adaptive"] | None:
    if text is None or text == "adaptive":
        return text  # type: ignore[return-value]
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise ValueError(f"--sigma must be a number of pixels or adaptive, got {text!r}")
    return float(text)
