"""Reading pictures of any kind as RGB, upright and within limits; writing them whole."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from ean_core.common.errors import writing

#: Anything that is a picture: a file, an image of Pillow's, or an array of ``read_picture``'s kind.
Picture = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
#: The most pixels that a picture may have; while it is read, about a dozen bytes are needed for each.
MAX_PIXELS = 500_000_000
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"}
)
#: By Pillow's names. It knows others that no camera writes, and starts a program for some of them, such as PostScript.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
_WIDE_MODES = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}
#: What makes a picture upright, by its EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Filters of warnings and Pillow's limit of pixels are the process's: one picture at a time.
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
        ValueError: if it is no picture, damaged, or too large. Both messages begin with its name.
    """
    name = str(source) if isinstance(source, Path) else str(getattr(source, "name", "the picture"))
    try:
        with _LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata that is damaged or unknown
            try:
                return _read(source, max_pixels)
            except Image.DecompressionBombError:  # the limit that counts is the caller's
                with _without_limit():
                    return _read(source, max_pixels)
    except FileNotFoundError:
        raise FileNotFoundError(f"{name} does not exist; expected a picture") from None
    except MemoryError as error:
        raise ValueError(f"{name} cannot be read as a picture: there is not enough memory for it") from error
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{name} cannot be read as a picture: it is of no known kind, or damaged at its beginning"
        ) from error
    except Exception as error:  # Pillow's plugins raise whatever a damaged file leads them to
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"{name} cannot be read as a picture: {reason}") from error


def pixels_of(picture: Picture) -> NDArray[np.uint8]:
    """A picture as RGB ``(H, W, 3)``, of at least one pixel.

    Args:
        picture: a file, an image of Pillow's, or uint8 ``(H, W, 3)`` in RGB, or ``(H, W)`` in grey.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read as a picture, is an array of another kind, or has no pixel.
    """
    pixels = _rgb(picture)
    if not pixels.size:
        raise ValueError(f"a picture has at least one pixel, got {pixels.shape[1]} x {pixels.shape[0]}")
    return pixels


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """An image of Pillow's, of any mode, as RGB ``(H, W, 3)``, turned as its EXIF orientation says."""
    image.load()
    image = _upright(image)
    if image.mode in _WIDE_MODES:
        image = Image.fromarray(_to_bytes(np.asarray(image)))
    elif image.mode == "La":  # which becomes nothing but LA
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def save_picture(picture: Image.Image, path: Path, **options: Any) -> None:
    """Write a picture in the format of the suffix, whole or not at all.

    Args:
        picture: to write.
        path: of the file; its folder is made.
        options: of Pillow's for this format.

    Raises:
        OSError: if it cannot be written.
    """
    partial = path.with_name(path.name + ".part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            picture.save(partial, format=Image.registered_extensions()[path.suffix], **options)
            partial.replace(path)
        except OSError as error:
            if error.errno is None:  # of Pillow's encoders
                raise OSError(f"{path} cannot be written: {error}") from error
            raise
        finally:
            partial.unlink(missing_ok=True)


def _rgb(picture: Picture) -> NDArray[np.uint8]:
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
            raise ValueError(
                f"expected uint8 (H, W, 3) in RGB or (H, W) in grey, got {picture.dtype} {picture.shape}; a file or an "
                "image of Pillow's may be of any kind"
            )
        return picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, 2)
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    return read_picture(Path(picture))


def _upright(image: Image.Image) -> Image.Image:
    """An image as its EXIF orientation says; Pillow's own function also rewrites all of EXIF, and fails where that is
    damaged."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged beyond reading: the pixels count
        return image
    return image if turn is None else image.transpose(turn)


def _to_bytes(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey values of more than 8 bits as 8 bits: whole numbers as of the 8, 10, 12, 14 or 16 bits that the largest
    needs, as cameras have them; fractions as of 0 to 1, or to 255."""
    if np.issubdtype(values.dtype, np.integer):
        whole = np.clip(values.astype(np.int64), 0, 65535)
        bits = next(bits for bits in (8, 10, 12, 14, 16) if whole.max(initial=0) < 2**bits)
        return (whole >> (bits - 8)).astype(np.uint8)
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=255.0, neginf=0.0)
    highest = finite.max(initial=0.0)
    scale = 255.0 if highest <= 1 else 1.0 if highest <= 255 else 255.0 / highest
    return np.clip(np.rint(finite * scale), 0, 255).astype(np.uint8)


def _read(source: Path | IO[bytes], max_pixels: int) -> NDArray[np.uint8]:
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]  # old versions lack the last one
    with Image.open(source, formats=formats) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise ValueError(
                f"{width} x {height} are {width * height / 1e6:.1f} million pixels, more than the limit of "
                f"{max_pixels / 1e6:.1f} million; make it smaller"
            )
        return to_rgb(image)


@contextmanager
def _without_limit() -> Iterator[None]:
    """Without Pillow's limit of pixels."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
