"""``ean crowd predict``: counts and overlays for images, folders, videos and webcams."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from ean_core.common.interrupts import held_interrupts
from ean_core.common.memory import keep_freed_memory
from ean_core.common.record import write_text
from ean_core.common.text import csv_line, visible
from ean_core.common.writing import open_new, temporary
from ean_core.data.images import read_image
from tasks.pictures import save_picture
from tasks.sources import OVERLAY, content_of, find_sources, printable, problem_of
from tasks.trained import engine_note

from .counter import Counter, Prediction, is_familiar
from .overlay import UNFAMILIAR, Heat, display_density, draw_overlay, people, people_within, round_top
from .region import Region
from .video import USUAL_FPS, above_limit, annotated, quiet_opencv, read_frames

#: Time constant for smoothing the counts of a video, in seconds.
SMOOTHING_S = 1.0
#: Problem of a video interrupted by Ctrl-C.
STOPPED = "stopped before its end"


@dataclass(frozen=True)
class Counted:
    """Result for one source.

    Args:
        file: file or webcam number.
        people: number of people, for a video the mean over its frames; None if it could not be read.
        error: 68 % of the counter's validation images are off by at most this, which grows with the count; None if
            unknown or measured on too few of them, and for regions and unfamiliar images, for which it does not hold.
        familiar: ``'yes'`` or ``'no'``: whether the image is like the training images; ``'unknown'`` for a counter that
            does not know its training images.
        strangeness: distance from the training images relative to the counter's limit, 1; for a video the median.
        count: the number of people with decimals, as the network computes it: the sum of the density.
        width, height: size in pixels.
        frames: number of frames; 1 for an image.
        peak: highest count of a frame of a video.
        overlay: file with the heat map, relative to the output folder.
        problem: why there is no count, or only a partial one.
    """

    file: str
    people: int | None = None
    error: int | None = None
    familiar: str = "unknown"
    strangeness: float | None = None
    count: float | None = None
    width: int | None = None
    height: int | None = None
    frames: int = 0
    peak: float | None = None
    overlay: str = ""
    problem: str = ""


#: Decimals of numbers in ``counts.csv``, by column.
DECIMALS = {"count": 3, "strangeness": 3}
#: Columns of ``counts.csv``.
COLUMNS = (
    "file",
    "people",
    "error",
    "familiar",
    "strangeness",
    "count",
    "width",
    "height",
    "frames",
    "overlay",
    "problem",
)


class Smoothed:
    """Exponential moving average of a count over time, which covers 63 % of a step within ``seconds``.

    Examples:
        >>> smoothed = Smoothed(seconds=1.0)
        >>> smoothed(10.0, at=0.0), round(smoothed(20.0, at=1.0), 2)
        (10.0, 16.32)
    """

    def __init__(self, seconds: float = SMOOTHING_S) -> None:
        self.seconds = seconds
        self.value: float | None = None
        self._at = 0.0

    def __call__(self, count: float, at: float) -> float:
        """Add a count and return the average.

        Args:
            count: count of a frame.
            at: time of the frame in seconds, not before that of the last one.
        """
        if self.value is None:
            self.value = count
        else:
            self.value += (count - self.value) * -math.expm1(-max(at - self._at, 0.0) / self.seconds)
        self._at = at
        return self.value


class Predictor:
    """Counts in sources one after another, and writes the results to a folder.

    Args:
        counter: counter to use.
        out: output folder.
        heat: drawing options of overlays; None draws none.
        region: part of each image to count in; all of it if None.
        seconds: maximum duration of a video or webcam; unlimited if None.
    """

    def __init__(
        self,
        counter: Counter,
        out: Path,
        *,
        heat: Heat | None,
        region: Region | None = None,
        seconds: float | None = None,
    ) -> None:
        self.counter = counter
        self.out = out
        self.heat = heat
        self.region = region
        self.seconds = seconds

    def picture(self, path: Path, name: str) -> Counted:
        """Count in an image; if it cannot be read, return a problem instead of raising."""
        try:
            pixels = read_image(path)
        except (OSError, ValueError) as error:
            return Counted(str(path), problem=problem_of(path, error))
        height, width = pixels.shape[:2]
        overlay = "" if self.heat is None else f"{name}{OVERLAY}.jpg"
        problem = self.region.problem_with((height, width)) if self.region else ""
        if problem:
            return Counted(str(path), width=width, height=height, problem=problem)
        try:
            found = self.counter(pixels)
            count, density = self._within(found)
            trust = self._trust(count, found.strangeness)
            if self.heat is not None:
                label = people_within(count, trust["error"])
                warning = UNFAMILIAR if found.familiar is False else None
                save_picture(self._drawn(pixels, density, label, self.heat, warning), self.out / overlay, quality=90)
        except MemoryError:
            return Counted(str(path), width=width, height=height, problem=_too_large(width, height))
        return Counted(
            str(path), round(count), **trust, count=count, width=width, height=height, frames=1, overlay=overlay
        )

    def _within(self, found: Prediction) -> tuple[float, NDArray[np.float32]]:
        """Count and density in the region, or in the whole image."""
        count, density = found
        return (count, density) if self.region is None else (self.region.count(density), self.region.within(density))

    def _trust(self, count: float, strangeness: float | None) -> dict[str, Any]:
        """The fields of a result that tell how far to trust it."""
        familiar = is_familiar(strangeness)
        error = None if familiar is False or self.region else self.counter.error_at(count)
        words = {None: "unknown", True: "yes", False: "no"}
        return {"error": error, "familiar": words[familiar], "strangeness": strangeness}

    def _drawn(
        self, pixels: NDArray[np.uint8], density: NDArray[np.float32], label: str, heat: Heat, warning: str | None
    ) -> Image.Image:
        if self.region is None:
            return draw_overlay(pixels, density, label, heat, warning)
        shape = (pixels.shape[0], pixels.shape[1])
        label = f"{label} in the region"
        return self.region.draw(draw_overlay(pixels, density, label, heat, warning, self.region.inside(shape)), shape)

    def video(self, source: str, name: str) -> Counted:
        """Count in the frames of a video or webcam.

        Writes an annotated video, and one line per frame to ``NAME.counts.csv``, flushed immediately. Ctrl-C stops it,
        and leaves complete files; a webcam does not end otherwise.
        """
        if source != printable(source):  # OpenCV would crash
            return Counted(source, problem="cannot be read as a video: its name is not UTF-8; rename it")
        path = Path(source).absolute()  # FFmpeg takes a relative path for an address if it has a colon
        live = source.isdecimal() and not path.is_file()
        if not live and content_of(path) != "video":
            return Counted(source, problem="cannot be read as a video")
        with quiet_opencv():
            capture = cv2.VideoCapture(int(source) if live else str(path))
        try:
            if not capture.isOpened():
                return Counted(
                    source, problem=f"webcam {source} cannot be opened" if live else "cannot be read as a video"
                )
            sides = (int(capture.get(each)) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
            problem = above_limit(*sides)
            return Counted(source, problem=problem) if problem else self._frames(capture, source, name, live)
        finally:
            capture.release()

    def _frames(self, capture: cv2.VideoCapture, source: str, name: str, live: bool) -> Counted:
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else USUAL_FPS
        smoothed = Smoothed()
        counts: list[float] = []
        strange: list[float] = []
        tops: list[float] = []
        width = height = 0
        problem = ""
        overlay = f"{name}{OVERLAY}.mp4"
        table = self.out / f"{name}.counts.csv"
        start = time.monotonic()
        with (
            open_new(table, newline="", encoding="utf-8") as file,
            annotated(self.out / overlay, fps) as annotate,
        ):
            file.write(csv_line(("frame", "seconds", "count", "smoothed", "strangeness")))
            try:
                for number, frame in enumerate(read_frames(capture)):
                    at = time.monotonic() - start if live else number / fps
                    if self.seconds is not None and at >= self.seconds and counts:
                        break
                    height, width = frame.shape[:2]
                    problem = above_limit(width, height)
                    if not problem and self.region:
                        problem = self.region.problem_with((height, width))
                    if problem:  # the size may change between frames
                        break
                    pixels = np.ascontiguousarray(frame[:, :, ::-1])  # OpenCV uses BGR
                    seen = self.counter(pixels)
                    count, density = self._within(seen)
                    steady = smoothed(count, at)
                    drawn = None
                    if self.heat is not None:
                        if len(tops) < max(1, round(fps)):  # a scale that changes with every frame would be unreadable
                            tops.append(round_top(display_density(density)))
                        heat = Heat(self.heat.opacity, self.heat.top or max(tops))
                        label = people_within(steady, self._trust(steady, seen.strangeness)["error"])
                        # A counter that knows its training images keeps the place of the warning in all frames.
                        warning = {None: None, True: "", False: UNFAMILIAR}[seen.familiar]
                        drawn = self._drawn(pixels, density, label, heat, warning)
                    with held_interrupts():  # Ctrl-C leaves as many lines as frames
                        counts.append(count)
                        strange += [] if seen.strangeness is None else [seen.strangeness]
                        strangeness = "" if seen.strangeness is None else f"{seen.strangeness:.3f}"
                        file.write(csv_line((number, f"{at:.3f}", f"{count:.3f}", f"{steady:.3f}", strangeness)))
                        file.flush()
                        if drawn is not None:
                            annotate(drawn)
            except KeyboardInterrupt:
                problem = "" if live else STOPPED
            except MemoryError:
                problem = _too_large(width, height)
        if not counts:
            return Counted(source, problem=problem or "has no readable frame")
        mean = sum(counts) / len(counts)
        trust = self._trust(mean, statistics.median(strange) if strange else None)
        return Counted(
            source,
            round(mean),
            **trust,
            count=mean,
            width=width,
            height=height,
            frames=len(counts),
            peak=max(counts),
            overlay=overlay if self.heat else "",
            problem=problem,
        )


def _too_large(width: int, height: int) -> str:
    return f"is too large for this machine's memory: {width} x {height} pixels"


# ---------------------------------------------------------------- command


def predict_command(
    sources: list[str],
    model: str,
    out: Path,
    overlay: bool,
    opacity: float,
    top: float | None,
    region: str | None,
    seconds: float | None,
    device: str | None,
) -> None:
    """Do the work of the command; :mod:`tasks.crowd_counting.cli` declares its arguments and options."""
    within = Region.read(region) if region is not None else None
    listed = list(find_sources(sources))
    keep_freed_memory()
    counter = Counter.load(model, device=device)
    predictor = Predictor(counter, out, heat=Heat(opacity, top) if overlay else None, region=within, seconds=seconds)
    table = out / "counts.csv"
    found: list[Counted] = []
    stopped = False
    with temporary(table) as partial:
        with partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            file.write(csv_line(COLUMNS))
            try:
                for kind, source, name in listed:
                    if kind == "missing":
                        one = Counted(source, problem="there is no such file or folder")
                    elif kind == "video":
                        one = predictor.video(source, name)
                    else:
                        one = predictor.picture(Path(source), name)
                    with held_interrupts():  # counts.csv and counts.json list the same sources
                        found.append(one)
                        file.write(csv_line(_cell(one, column) for column in COLUMNS))
                        file.flush()
                        _say(one)
                    stopped = one.problem == STOPPED
                    if stopped:
                        break
            except KeyboardInterrupt:
                stopped = True
        good = [one for one in found if one.count is not None]
        where = f"{table}, counts.json"
        if good or not table.exists():
            with held_interrupts():  # both are of this run
                partial.replace(table)
                write_text(out / "counts.json", _json(counter, model, within, found))
        else:
            where = f"{table} of an earlier run was kept"
    typer.echo(f"{len(good)} of {len(listed)} counted by {counter.name}{engine_note(counter)}: {where}")
    if within is None and any(one.familiar != "no" for one in good):
        typer.echo(visible(counter.reliability).replace("±", "+-"))
    elif within is not None and good:
        typer.echo("errors were measured on whole images; the error in a region is unknown")
    strange = [one for one in good if one.familiar == "no"]
    if strange:
        typer.echo(f"unlike the training images, and not to be relied on: {len(strange)} of {len(good)} (familiar: no)")
    bad = [one for one in found if one.count is None]
    if bad and len(listed) > 1:  # the end of a long output should name them once more
        typer.echo(f"not counted: {len(bad)}", err=True)
        for one in bad:
            typer.echo(f"  {visible(printable(one.file))}: {visible(one.problem)}", err=True)
    if stopped:
        raise typer.Exit(130)
    if bad or not good:
        raise typer.Exit(1)


def _cell(one: Counted, column: str) -> Any:
    """A cell of ``counts.csv``."""
    value = getattr(one, column)
    return f"{value:.{DECIMALS[column]}f}" if column in DECIMALS and value is not None else value


def _say(one: Counted) -> None:
    file, problem = visible(printable(one.file)), visible(one.problem)
    if one.count is None:
        typer.echo(f"{file}: {problem}; skipped", err=True)
        return
    error = f", +- {one.error:,}" if one.error is not None else ""
    more = f" on average over {one.frames} frames, at most {round(one.peak):,}" if one.peak is not None else ""
    doubt = f"; {UNFAMILIAR}" if one.familiar == "no" else ""
    typer.echo(f"{file}: about {people(one.count)}{error}{more}{doubt}{f' ({problem})' if problem else ''}")


def _json(counter: Counter, model: str, region: Region | None, found: Sequence[Counted]) -> str:
    errors, standing = counter.errors, counter.standing
    mae = standing.mae if errors is None else errors.mae.mean
    content: dict[str, Any] = {
        "model": model,
        "name": counter.name,
        "passes": dict(counter.engine.passes),
        "stride": counter.stride,
        "trained_on": standing.data or None,
        "mean_absolute_error": mae,
        "mean_absolute_error_interval": [errors.mae.low, errors.mae.high] if errors else None,
        "validation_images": errors.images if errors else None,
        "reliability": counter.reliability,
        "region": [list(corner) for corner in region.corners] if region else None,
    }
    return json.dumps({**content, "results": [asdict(one) for one in found]}, indent=2) + "\n"
