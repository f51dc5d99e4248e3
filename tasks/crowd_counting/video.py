"""Frames of videos: read them, and write annotated ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ean_core.common.interrupts import held_interrupts
from ean_core.common.writing import replacing
from ean_core.data.images import MAX_PIXELS

#: Frame rate assumed for a webcam that does not report one.
USUAL_FPS = 25.0


def read_frames(capture: cv2.VideoCapture) -> Iterator[NDArray[np.uint8]]:
    """Yield the remaining frames of an opened video, BGR ``(H, W, 3)``."""
    while True:
        good, frame = capture.read()
        if not good:
            return
        yield frame  # type: ignore[misc]  # OpenCV's type is wider than that of video frames


@contextmanager
def annotated(path: Path, fps: float) -> Iterator[Callable[[Image.Image], None]]:
    """Yield a function that adds an image to an MP4, which gets its name when it is complete; without images, none is
    written.

    Args:
        path: file to write.
        fps: frames per second.

    Raises:
        OSError: if it cannot be written.
    """
    writer: cv2.VideoWriter | None = None
    with ExitStack() as stack:

        def annotate(drawn: Image.Image) -> None:
            nonlocal writer
            if writer is None:
                partial = stack.enter_context(replacing(path, suffix=True))
                writer = _video_writer(partial, path, fps, drawn.size)
                stack.callback(writer.release)
            writer.write(_even(np.asarray(drawn))[:, :, ::-1])

        yield annotate
        with held_interrupts():
            stack.close()


def _video_writer(partial: Path, path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    width, height = size
    even = (width - width % 2, height - height % 2)  # codecs need even sides
    fps = fps if fps < 65 else round(fps, 1)  # MPEG-4 limits numerator and denominator to 65535
    writer = cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*"mp4v"), fps, even)
    if not writer.isOpened():
        raise OSError(f"{path} cannot be written: this OpenCV build has no MP4 writer, or the folder is not writable")
    return writer


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Silence OpenCV, which prints half a dozen lines about a missing camera."""
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def above_limit(width: int, height: int) -> str:
    """The problem of frames with more pixels than an image may have; empty otherwise."""
    if width * height <= MAX_PIXELS:
        return ""
    return (
        f"has frames of {width} x {height}, {width * height / 1e6:.1f} million pixels, more than the limit of "
        f"{MAX_PIXELS / 1e6:.1f} million; scale it down"
    )


def _even(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    return np.ascontiguousarray(pixels[: height - height % 2, : width - width % 2])
