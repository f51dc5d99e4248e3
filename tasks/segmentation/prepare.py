"""``ean seg prepare``: check a VOCdevkit, optionally with SBD, and write masks and lists."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import typer
from PIL import Image, PngImagePlugin

from ean_core.commands.options import suggest
from ean_core.common.places import data_root
from ean_core.common.record import write_text
from ean_core.data.images import read_image
from tasks.pictures import save_picture
from tasks.prepared import (
    MANIFEST,
    Prepared,
    end_with_status,
    held_out,
    prepare_folder,
    relative,
    say_problems,
    say_written,
)
from tasks.prepared import read_manifest as read_prepared_manifest

from .voc import CLASSES, Found, Pair, as_image, class_pixels, find_voc, read_mask

#: Version of the file format; files of another version are written anew.
VERSION = 1
#: Image lists and their purposes.
LISTS = {
    "train": "VOC's training images",
    "trainaug": "VOC's training images and SBD's",
    "val": "VOC's validation images, as reported in papers",
    "fit": "nine tenths of the training images, for trying settings",
    "held_out": "the other tenth",
}


def prepare(found: Found, root: Path, out: Path, workers: int = 1) -> dict[str, Any]:
    """Write ``out``: ``masks/NAME.png``, ``lists/LIST.txt`` (see :data:`LISTS`) and ``manifest.json``.

    A mask is written as a PNG of labels with VOC's palette, whatever its source format. Masks whose image and source
    have not changed are kept. Files are written atomically. mmsegmentation's own data sets can read the folder with
    ``data_prefix=dict(img_path=.../JPEGImages, seg_map_path=.../masks)`` and ``ann_file=.../lists/train.txt``.

    Args:
        found: pairs, lists, and problems known so far.
        root: folder that image names are relative to.
        out: folder to write.
        workers: number of processes.

    Returns:
        The manifest; its ``made`` is the number of masks written.

    Raises:
        InUseError: if another process is preparing this folder.
        ValueError: if no pair could be prepared, or ``out`` holds another data set.
        OSError: if ``out`` cannot be written.
    """

    def describe(entries: list[dict[str, Any]]) -> dict[str, Any]:
        lists = _lists(found, {entry["name"] for entry in entries})
        for name in LISTS.keys() - lists.keys():  # left by an earlier run
            (out / "lists" / f"{name}.txt").unlink(missing_ok=True)
        for name, images in lists.items():
            write_text(out / "lists" / f"{name}.txt", "".join(f"{image}\n" for image in images))
        return {"lists": lists}

    jobs = [(pair, root, out) for pair in found.pairs]
    return prepare_folder(
        _prepare_pair,
        jobs,
        found.problems,
        root=root,
        out=out,
        workers=workers,
        version=VERSION,
        read=read_manifest,
        describe=describe,
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a prepared folder.

    Raises:
        FileNotFoundError: if the folder is not prepared.
        ValueError: if its manifest is damaged or has another version.
    """
    make = f"`ean seg prepare --out {folder}` prepares it, with --root VOCDEVKIT"
    manifest = read_prepared_manifest(folder, VERSION, make)
    names = {entry.get("name") for entry in manifest["images"]}
    lists = manifest.get("lists")
    if not isinstance(lists, dict) or not all(
        isinstance(each, list) and names.issuperset(each) for each in lists.values()
    ):
        raise ValueError(
            f"{folder / MANIFEST} has lists with images that it does not contain; delete it and prepare again"
        )
    return manifest


def _lists(found: Found, there: set[str]) -> dict[str, list[str]]:
    lists = {name: [image for image in images if image in there] for name, images in found.lists.items()}
    training = lists.get("train", [])
    apart = held_out(training)
    lists["fit"] = [image for image in training if image not in apart]
    lists["held_out"] = [image for image in training if image in apart]
    return {name: lists[name] for name in LISTS if lists.get(name)}


# ---------------------------------------------------------------- one pair


def _prepare_pair(pair: Pair, root: Path, out: Path) -> Prepared:
    path = out / "masks" / f"{pair.name}.png"
    image, mask = relative(pair.image, root), relative(pair.mask, root)
    try:
        contents = [file.read_bytes() for file in (pair.image, pair.mask)]
    except OSError as error:
        return Prepared(None, [(image, f"cannot be read: {error}; skipped")])
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]
    source = {"version": VERSION, "image": image, "image_sha256": hashes[0], "mask": mask, "mask_sha256": hashes[1]}
    entry = _unchanged(path, source)
    if entry is not None:
        return Prepared(entry)
    try:
        height, width = read_image(pair.image).shape[:2]
    except (OSError, ValueError) as error:
        return Prepared(None, [(image, f"{str(error).removeprefix(f'{pair.image} ')}; skipped")])
    try:
        labels = read_mask(pair.mask, (height, width))
    except ValueError as error:
        return Prepared(None, [(mask, f"{error}; skipped")])
    entry = {
        "name": pair.name,
        "file": relative(path, out),
        "image": image,
        "height": height,
        "width": width,
        "pixels": class_pixels(labels),
    }
    info = PngImagePlugin.PngInfo()
    info.add_text("source", json.dumps(source, sort_keys=True))
    info.add_text("entry", json.dumps(entry, sort_keys=True))
    save_picture(as_image(labels), path, pnginfo=info)
    return Prepared(entry, made=True)


def _unchanged(path: Path, source: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the entry of an earlier run if its mask is complete and made from the same files."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
            texts = image.text  # type: ignore[attr-defined]
            if json.loads(texts["source"]) != source:
                return None
            entry = json.loads(texts["entry"])
            whole = image.mode == "P" and class_pixels(np.asarray(image)) == entry["pixels"]
    except Exception:  # missing, damaged, or not written by this command
        return None
    return entry if whole else None


# ---------------------------------------------------------------- command


def prepare_command(
    root: Path | None,
    sbd: Path | None,
    out: Path | None,
    workers: int | None,
) -> None:
    """Do the work of the command; :mod:`tasks.segmentation.cli` declares its arguments and options."""
    root = root or data_root() / "VOCdevkit"
    if not root.is_dir():
        raise FileNotFoundError(f"no folder at {root}; give that of a VOCdevkit as --root")
    given = out
    out = out or data_root() / "segmentation" / "voc2012"
    manifest = prepare(find_voc(root, sbd), root, out, workers or os.cpu_count() or 1)
    say_problems(manifest["problems"], out)
    sizes = {name: len(images) for name, images in manifest["lists"].items()}
    typer.echo(", ".join(f"{name} {number:,} images" for name, number in sizes.items()))
    for name, use in (("train", "train on"), ("val", "evaluate on")):
        if name not in sizes:
            typer.echo(f"no images to {use} (list {name})", err=True)
    seen = np.sum([entry["pixels"] for entry in manifest["images"]], 0) > 0
    if not seen.all():
        typer.echo(f"no pixels of {', '.join(np.array(CLASSES)[~seen])}", err=True)
    say_written(manifest, out)
    if "train" in sizes:
        roots = [f"{name}_dataloader.dataset.root={out.resolve()}" for name in ("train", "test")]
        suggest("train a segmentor", "ean", "train", "resnet18_se_voc2012", cfg_options=roots if given else None)
    end_with_status(manifest)
