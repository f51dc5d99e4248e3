"""What preparing a data set takes, whatever it is made of: one process at a time, workers, a manifest that is whole."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from filelock import FileLock, Timeout

from ean_core.common.errors import InUseError, writing
from ean_core.common.progress import Progress
from ean_core.common.record import command, write_text

MANIFEST = "manifest.json"
#: One of so many training images is held out: the paper's 30 of 300 and 40 of 400 of ShanghaiTech.
HELD_OUT = 10


@dataclass(frozen=True)
class Prepared:
    """What became of one picture.

    Args:
        entry: of the manifest; None if the picture was left out.
        problems: files and what is wrong with them.
        made: whether a file was written, or the one of an earlier run is still right.
    """

    entry: Mapping[str, Any] | None
    problems: Sequence[tuple[str, str]] = ()
    made: bool = False


def prepare_folder(
    prepare_one: Callable[..., Prepared],
    jobs: Sequence[tuple[Any, ...]],
    problems: Sequence[tuple[Path, str]],
    *,
    root: Path,
    out: Path,
    workers: int,
    version: int,
    read: Callable[[Path], Mapping[str, Any]],
    describe: Callable[[list[dict[str, Any]]], Mapping[str, Any]],
) -> dict[str, Any]:
    """Prepare the pictures of a data set, and write the manifest of the folder.

    Args:
        prepare_one: what prepares one picture; of a module, so that another process finds it.
        jobs: its arguments.
        problems: files and what is known already to be wrong with them.
        root: the folder that files are named relative to.
        out: the folder to write.
        workers: processes; 1 for this one.
        version: of the manifest.
        read: what reads the manifest of an earlier run.
        describe: what else the manifest says, from its images, which it may complete.

    Returns:
        The manifest, whose ``made`` says how many files were written.

    Raises:
        InUseError: if another process prepares this folder.
        ValueError: if not a single picture could be prepared, or ``out`` holds another data set.
        OSError: if ``out`` cannot be written, or a process was killed.
    """
    with _alone(out):
        before = read(out) if (out / MANIFEST).is_file() else None
        place = _root_in_manifest(root, out)
        if before and before["root"] != place:
            raise ValueError(
                f"{out} was prepared from {(out / before['root']).resolve()}, not from {root}; give another --out, or "
                "delete it"
            )
        done: list[Prepared] = []
        with Progress("preparing", len(jobs)) as progress:
            for prepared in _run(prepare_one, jobs, workers):
                done.append(prepared)
                progress.advance()
        found = [(relative(path, root), text) for path, text in problems]
        found += [problem for prepared in done for problem in prepared.problems]
        entries = sorted((dict(p.entry) for p in done if p.entry), key=lambda entry: entry["name"])
        if not entries:
            listing = "; ".join(f"{file}: {text}" for file, text in found[:3])
            raise ValueError(f"no picture of {root} could be prepared: {listing or 'there is none'}")
        manifest = {
            "version": version,
            "root": place,
            **describe(entries),
            "command": command(),
            "images": entries,
            "problems": [{"file": file, "problem": text} for file, text in sorted(found)],
        }
        write_text(out / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        kept = {entry["file"] for entry in entries}
        for entry in before["images"] if before else ():
            if entry["file"] not in kept:  # of a picture that is gone
                (out / entry["file"]).unlink(missing_ok=True)
        return {**manifest, "made": sum(prepared.made for prepared in done)}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make a folder, and keep other processes from preparing it."""
    lock = FileLock(folder / "prepare.lock", timeout=0)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise InUseError(f"another process prepares {folder}; wait for it, or give another --out") from None
    try:
        yield
    finally:
        lock.release()


def _run(function: Callable[..., Prepared], jobs: Sequence[tuple[Any, ...]], workers: int) -> Iterator[Prepared]:
    """What became of each picture, in the order in which they are ready."""
    if workers == 1:
        yield from (function(*job) for job in jobs)
        return
    # Forking is quick, and safe here: workers use NumPy, SciPy, Pillow and HDF5 only. Elsewhere a start takes seconds.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            waiting = [pool.submit(function, *job) for job in jobs]
            for future in as_completed(waiting):
                yield future.result()
        except BrokenProcessPool:
            raise OSError(
                "a process that prepared pictures was killed, perhaps for its memory; try --workers 1"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def read_manifest(folder: Path, version: int, make: str) -> dict[str, Any]:
    """What is in a prepared folder: ``manifest.json``, whose ``images`` name files under it and pictures under its
    ``root``.

    Args:
        folder: that was prepared.
        version: that the manifest must have.
        make: how to prepare it, the end of the message where it is not.

    Raises:
        FileNotFoundError: if it is none.
        ValueError: if its manifest is damaged, of another version, or leads out of the folders.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no prepared pictures (no {MANIFEST}); {make}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["version"]
        names = [entry[key] for entry in manifest["images"] for key in ("file", "image")]
        if not isinstance(manifest["root"], str):
            raise TypeError(f"root is no text: {manifest['root']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no manifest of prepared pictures: {error!r}; delete it and prepare again"
        ) from None
    if found != version:
        raise ValueError(f"{path} is of version {found}, expected {version}; delete it and prepare again")
    for name in names:
        if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{path} names a file outside of its folders: {name!r}")
    return manifest


def _root_in_manifest(root: Path, out: Path) -> str:
    """The folder of the pictures as seen from the prepared one, so that both may move together.

    Links are resolved first: the way up from a folder is that of where it really is.
    """
    try:
        return relative(root.resolve(), out.resolve())
    except ValueError:  # two drives of Windows
        return root.resolve().as_posix()


def relative(path: Path, folder: Path) -> str:
    """The way from a folder to a path, with slashes."""
    return Path(os.path.relpath(path, folder)).as_posix()


def held_out(names: Sequence[str]) -> set[str]:
    """A tenth of the names, one at least: those with the lowest SHA-256.

    Which they are depends on names alone: a name more or less changes at most one of the others.
    """
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return set(ranked[: max(1, round(len(ranked) / HELD_OUT))])


def say_problems(problems: Sequence[Mapping[str, str]], out: Path, most: int = 20) -> None:
    """Print the first problems of a manifest, and where the others are."""
    for problem in problems[:most]:
        typer.echo(f"{problem['file']}: {problem['problem']}", err=True)
    if len(problems) > most:
        typer.echo(f"... and {len(problems) - most} more, in {out / MANIFEST}", err=True)
