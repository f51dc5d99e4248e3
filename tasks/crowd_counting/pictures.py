"""Reading pictures of any kind as RGB, upright and within limits."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

#: The most pixels that a picture may have; three bytes each are needed for it, and as much again while it is read.
MAX_PIXELS = 500_000_000
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"}
)
_WIDE_MODES = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}
_LOCK = threading.Lock()


def read_picture(source: Path | IO[bytes], max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """A picture as RGB ``(H, W, 3)``, turned as its EXIF orientation says.

    Grey pictures and palettes become RGB, CMYK is converted, what is transparent becomes white, 16 bits a channel
    become 8; of several frames the first counts.

    Args:
        source: a file, or an open one.
        max_pixels: refuse more, before any memory is taken for them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no picture, damaged, or too large; the message begins with its name.
    """
    name = str(source) if isinstance(source, Path) else str(getattr(source, "name", "the picture"))
    try:
        with warnings.catch_warnings(), _opened(source) as image:
            warnings.simplefilter("ignore")  # of metadata that is damaged or unknown
            width, height = image.size
            if width * height > max_pixels:
                raise ValueError(
                    f"{width} x {height} are {width * height / 1e6:.1f} million pixels, more than the limit of "
                    f"{max_pixels / 1e6:.1f} million; make it smaller"
                )
            return to_rgb(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"no picture at {name}") from None
    except MemoryError as error:
        raise ValueError(f"{name} cannot be read as a picture: there is not enough memory for it") from error
    except Exception as error:  # Pillow's plugins raise whatever a damaged file leads them to
        raise ValueError(f"{name} cannot be read as a picture: {str(error) or type(error).__name__}") from error


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """An image of Pillow's, of any mode, as RGB ``(H, W, 3)``, turned as its EXIF orientation says."""
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in _WIDE_MODES:
        image = Image.fromarray(_to_bytes(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _to_bytes(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey values of more than 8 bits as 8 bits: whole numbers as of 16 bits, fractions as of 0 to 1 or to 255."""
    if np.issubdtype(values.dtype, np.integer):
        whole = np.clip(values.astype(np.int64), 0, 65535)
        return (whole >> 8).astype(np.uint8) if whole.max(initial=0) > 255 else whole.astype(np.uint8)
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=255.0, neginf=0.0)
    highest = finite.max(initial=0.0)
    scale = 255.0 if highest <= 1 else 1.0 if highest <= 255 else 255.0 / highest
    return np.clip(np.rint(finite * scale), 0, 255).astype(np.uint8)


@contextmanager
def _opened(source: Path | IO[bytes]) -> Iterator[Image.Image]:
    """An image whose header was read; the limit of pixels is the caller's, not Pillow's, which is the process's."""
    with _LOCK:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(source)
        finally:
            Image.MAX_IMAGE_PIXELS = before
    with image:
        yield image
