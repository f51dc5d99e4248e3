"""Prepare a data set of any task: one process at a time, with workers and an atomically written manifest."""

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
from filelock import Timeout

from ean_core.common.errors import InUseError, writing
from ean_core.common.progress import Progress
from ean_core.common.record import command, read_small, write_text
from ean_core.common.text import number_of, visible
from ean_core.common.writing import file_lock, remove_leftovers

MANIFEST = "manifest.json"
#: In the problem of a file that is not used, a hint may follow; problems without it are remarks.
SKIPPED = "; skipped"
#: One in this many training images is held out: the paper's 30 of 300 and 40 of 400 of ShanghaiTech.
HELD_OUT = 10


@dataclass(frozen=True)
class Prepared:
    """Result of preparing one image.

    Args:
        entry: manifest entry; None if the image was skipped.
        problems: files and what is wrong with them.
        made: True if a file was written, False if that of an earlier run is still valid.
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
    """Prepare the images of a data set, and write the manifest of the folder.

    Args:
        prepare_one: prepares one image; a module-level function, so that it can be pickled.
        jobs: arguments of each call.
        problems: files and their problems known so far.
        root: folder that file names are relative to.
        out: folder to write.
        workers: number of processes; 1 runs in this one.
        version: manifest version.
        read: reads the manifest of an earlier run.
        describe: returns further fields of the manifest, given its image entries, which it may complete.

    Returns:
        The manifest; its ``made`` is the number of files written.

    Raises:
        InUseError: if another process is preparing this folder.
        ValueError: if no image could be prepared, or ``out`` holds another data set.
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
            raise ValueError(f"no image in {root} could be prepared: {listing or 'there is none'}")
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
            if entry["file"] not in kept:  # its image is gone
                (out / entry["file"]).unlink(missing_ok=True)
        return {**manifest, "made": sum(prepared.made for prepared in done)}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Create a folder, and lock out other processes from preparing it."""
    lock = file_lock(folder / "prepare.lock", timeout=0)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise InUseError(f"another process is preparing {folder}; wait for it, or give another --out") from None
    try:
        remove_leftovers(folder, "**/*")
        yield
    finally:
        lock.release()


def _run(function: Callable[..., Prepared], jobs: Sequence[tuple[Any, ...]], workers: int) -> Iterator[Prepared]:
    """Yield the result of each image, in order of completion."""
    if workers == 1:
        yield from (function(*job) for job in jobs)
        return
    # Fork is fast, and safe here: workers use only NumPy, SciPy, Pillow and HDF5. Spawning takes seconds per process.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            waiting = [pool.submit(function, *job) for job in jobs]
            for future in as_completed(waiting):
                yield future.result()
        except BrokenProcessPool:
            raise OSError("a worker process was killed, perhaps for lack of memory; try --workers 1") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def read_manifest(folder: Path, version: int, make: str) -> dict[str, Any]:
    """Read ``manifest.json`` of a prepared folder.

    Its ``images`` name prepared files under the folder and source images under its ``root``.

    Args:
        folder: the prepared folder.
        version: required manifest version.
        make: how to prepare the folder, the end of the message if it is not.

    Raises:
        FileNotFoundError: if the folder is not prepared.
        ValueError: if the manifest is damaged, has another version, or names files outside of its folders.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no prepared images (no {MANIFEST}); {make}")
    try:
        manifest = json.loads(read_small(path))
        found = manifest["version"]
        names = [entry[key] for entry in manifest["images"] for key in ("file", "image")]
        if not isinstance(manifest["root"], str):
            raise TypeError(f"root is not a string: {manifest['root']!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a manifest of prepared images: {error!r}; delete it and prepare again"
        ) from None
    if found != version:
        raise ValueError(f"{path} has version {found}, expected {version}; delete it and prepare again")
    for name in names:
        if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{path} names a file outside of its folders: {name!r}")
    return manifest


def _root_in_manifest(root: Path, out: Path) -> str:
    """Path of the source folder relative to the prepared one, so that both can be moved together.

    Symbolic links are resolved first, since ``..`` is relative to the real location.
    """
    try:
        return relative(root.resolve(), out.resolve())
    except ValueError:  # different drives on Windows
        return root.resolve().as_posix()


def relative(path: Path, folder: Path) -> str:
    """Return a path relative to a folder, with forward slashes."""
    return Path(os.path.relpath(path, folder)).as_posix()


def held_out(names: Sequence[str]) -> set[str]:
    """Select a tenth of the names, at least one: those with the lowest SHA-256.

    The selection depends on names alone: adding or removing a name changes at most one of the others.
    """
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return set(ranked[: max(1, round(len(ranked) / HELD_OUT))])


def say_problems(problems: Sequence[Mapping[str, str]], out: Path, most: int = 20) -> None:
    """Print the first problems of a manifest, those of skipped files before remarks, and where to find the rest."""
    for problem in sorted(problems, key=lambda problem: SKIPPED not in problem["problem"])[:most]:
        typer.echo(visible(f"{problem['file']}: {problem['problem']}"), err=True)
    if len(problems) > most:
        typer.echo(f"... and {len(problems) - most} more, in {out / MANIFEST}", err=True)


def number_skipped(problems: Sequence[Mapping[str, str]]) -> int:
    """Return the number of problems of a manifest that are skipped files."""
    return sum(SKIPPED in problem["problem"] for problem in problems)


def say_written(manifest: Mapping[str, Any], out: Path) -> None:
    """Print how much was written to a prepared folder, and how many problems there were."""
    problems, skipped = manifest["problems"], number_skipped(manifest["problems"])
    typer.echo(
        f"{out}: {manifest['made']} of {number_of(len(manifest['images']), 'file')} written, "
        f"{number_of(len(problems), 'problem')}" + f", {number_of(skipped, 'file')} skipped" * bool(skipped)
    )


def end_with_status(manifest: Mapping[str, Any]) -> None:
    """End a command with status 1 if it skipped a file; what could be used is prepared."""
    if number_skipped(manifest["problems"]):
        raise typer.Exit(1)
