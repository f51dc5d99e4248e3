"""One way of reading images, for training, evaluation and prediction: upright RGB, within limits, errors by name."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from .jpeg2000 import check_jpeg2000

#: An image in any form: a file, a PIL image, or an array as returned by :func:`read_image`.
AnyImage = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
#: Maximum number of pixels of an image; reading takes about a dozen bytes per pixel.
MAX_PIXELS = 500_000_000
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"),
        *(".avif", ".heic", ".heif"),
    }
)
#: Pillow's format names. Pillow knows others that no camera writes; for some, such as PostScript, it runs a program.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "HEIF")
#: Formats for strangers' files. The decoder of JPEG 2000 is bounded only by :mod:`.jpeg2000`, which parses what it will
#: read; that of HEIF is not Pillow's.
BOUNDED_FORMATS = tuple(name for name in FORMATS if name not in ("JPEG2000", "HEIF"))
#: Formats that an installation may lack: the brands at the beginning of their files, and how to get them read.
_OPTIONAL = {
    "AVIF": ((b"avif", b"avis"), "`pip install -U pillow` installs a build that reads it"),
    "HEIF": ((b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"), "`pip install pillow-heif` makes it readable"),
}
#: Maximum number of scans of a JPEG file, each of which may cover all pixels with a few bytes; encoders write ten.
MAX_SCANS = 200
#: A marker in a JPEG file; in compressed data, 0 follows each 255, or the number of a restart.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_WIDE_MODES = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}
#: The transpose that makes an image upright, by EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Warning filters and Pillow's pixel limit are global to the process: one image at a time.
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Frame:
    """The pixels of a file as stored, before they are turned upright.

    Args:
        width, height: size in pixels.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
    """

    width: int
    height: int
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the upright image."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)

    def turned(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transform points ``(N, 2)``, x and y in pixels as stored, to those of the upright image.

        A point inside of a pixel stays inside of that pixel.

        Examples:
            >>> Frame(4, 3, 6).turned(np.array([[0.0, 0.0], [3.5, 0.5]])).astype(int).tolist()
            [[2, 0], [2, 3]]
        """
        x, y = points[:, 0], points[:, 1]
        # A pixel covers [c, c + 1): mirrored, its first edge belongs to the pixel, too.
        left, up = np.nextafter(self.width - x, -np.inf), np.nextafter(self.height - y, -np.inf)
        places = {2: (left, y), 3: (left, up), 4: (x, up), 5: (y, x), 6: (up, x), 7: (up, left), 8: (y, left)}
        return np.stack(places.get(self.orientation, (x, y)), 1)


class UnreadableImageError(ValueError):
    """An image is damaged, truncated, too large, or not an image at all; the message begins with its name."""


def open_image(
    source: str | os.PathLike[str] | IO[bytes], max_pixels: int = MAX_PIXELS, formats: Sequence[str] = FORMATS
) -> Image.Image:
    """Read an image as a PIL image of mode RGB, rotated according to its EXIF orientation.

    Gray and palette images become RGB, CMYK is converted, and transparent areas are composited onto white. Wide gray
    values become 8 bits: integers are taken as 8, 10, 12, 14 or 16 bits wide, whichever holds the largest value of the
    image, floats as ranging from 0 to 1 or from 0 to 255. Only the first frame of several is read.

    Args:
        source: path of a file, or an open file.
        max_pixels: larger images are refused before any memory is allocated for them.
        formats: Pillow's names of the formats to read.

    Raises:
        FileNotFoundError: if there is no such file.
        UnreadableImageError: if it is not an image, damaged, or too large.
    """
    if isinstance(source, (str, os.PathLike)):
        source = Path(source)
        name = str(source)
    else:
        name = str(getattr(source, "name", "the image"))
    with _LOCK, _naming(name):
        try:
            return _read(source, max_pixels, formats)
        except Image.DecompressionBombError:  # the caller's limit applies instead
            with _without_limit():
                return _read(source, max_pixels, formats)


def read_image(
    source: str | os.PathLike[str] | IO[bytes], max_pixels: int = MAX_PIXELS, formats: Sequence[str] = FORMATS
) -> NDArray[np.uint8]:
    """Read an image as RGB ``(H, W, 3)``; see :func:`open_image`."""
    return np.array(open_image(source, max_pixels, formats))


def stored_frame(path: Path, max_pixels: int = MAX_PIXELS) -> Frame:
    """Read the size and orientation of an image file, without decoding it.

    Raises:
        FileNotFoundError, UnreadableImageError: as in :func:`open_image`.
    """
    with _LOCK, _naming(str(path)), _without_limit(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _opening(path, FORMATS) as image:
            _check_pixels(image.size, max_pixels)
            turn = _orientation(image)
            return Frame(*image.size, turn if turn in _TURNS else 1)


def as_rgb(image: AnyImage) -> Image.Image:
    """Return an image in any form as a PIL image of mode RGB, upright, with at least one pixel.

    Args:
        image: a file, a PIL image of any mode, or a uint8 array, RGB ``(H, W, 3)`` or gray ``(H, W)``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is something else, an array of another type or shape, or has no pixels.
        UnreadableImageError: if it cannot be read as an image.
    """
    return Image.fromarray(_checked(image)) if isinstance(image, np.ndarray) else _with_pixels(_opened(image))


def pixels_of(image: AnyImage) -> NDArray[np.uint8]:
    """Return an image in any form as RGB ``(H, W, 3)``; see :func:`as_rgb`. An RGB array is returned as it is."""
    return _checked(image) if isinstance(image, np.ndarray) else np.array(_with_pixels(_opened(image)))


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a PIL image of any mode to RGB, rotated according to its EXIF orientation; the given one is unchanged."""
    image.load()
    image = _upright(image)
    if image.mode in _WIDE_MODES:
        values, transparent = np.asarray(image), image.info.get("transparency")
        gray = _to_bytes(values)
        image = Image.fromarray(
            np.where(values == transparent, np.uint8(255), gray) if isinstance(transparent, int) else gray
        )
    elif image.mode == "La":  # Pillow converts this mode to LA only
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _opened(image: str | os.PathLike[str] | Image.Image) -> Image.Image:
    if isinstance(image, (str, os.PathLike)):
        return open_image(image)
    if not isinstance(image, Image.Image):
        raise ValueError(f"expected a file, a PIL image or a uint8 array, got {type(image).__name__}")
    with _naming(str(getattr(image, "filename", "") or "the image")):  # opened by the caller, but not loaded yet
        return to_rgb(image)


def _with_pixels(image: Image.Image) -> Image.Image:
    if not image.width or not image.height:
        raise _empty(image.width, image.height)
    return image


def _checked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an array as RGB."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(
            f"expected uint8, RGB (H, W, 3) or gray (H, W), got {pixels.dtype} {pixels.shape}; files and PIL images "
            "may be of any kind"
        )
    if not pixels.size:
        raise _empty(pixels.shape[1], pixels.shape[0])
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, 2)


def _empty(width: int, height: int) -> ValueError:
    return ValueError(f"an image needs at least one pixel, got {width} x {height}")


def _upright(image: Image.Image) -> Image.Image:
    """Rotate an image according to its EXIF orientation.

    Pillow's own function also rewrites all EXIF data, and fails if they are damaged.
    """
    turn = _TURNS.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    # Without the orientation, so that it is not applied twice.
    turned.info = {key: value for key, value in turned.info.items() if key == "transparency"}
    return turned


def _orientation(image: Image.Image) -> Any:
    """EXIF orientation as it is stated, 1 if there is none."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # unreadable EXIF: take the pixels as they are
        return 1


def _to_bytes(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Reduce gray values to 8 bits.

    Integers are taken as 8, 10, 12, 14 or 16 bits wide, the usual camera depths, whichever holds the largest value;
    floats as ranging from 0 to 1 or from 0 to 255.
    """
    if np.issubdtype(values.dtype, np.integer):
        whole = np.clip(values.astype(np.int64), 0, 65535)
        bits = next(bits for bits in (8, 10, 12, 14, 16) if whole.max(initial=0) < 2**bits)
        return (whole >> (bits - 8)).astype(np.uint8)
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=255.0, neginf=0.0)
    highest = finite.max(initial=0.0)
    scale = 255.0 if highest <= 1 else 1.0 if highest <= 255 else 255.0 / highest
    return np.clip(np.rint(finite * scale), 0, 255).astype(np.uint8)


def _read(source: Path | IO[bytes], max_pixels: int, formats: Sequence[str]) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged or unknown metadata
        with _opening(source, formats) as image:
            _check_pixels(image.size, max_pixels)
            if image.format in ("JPEG", "MPO"):
                _check_scans(image)
            elif image.format == "JPEG2000":
                check_jpeg2000(_content(image), image.size)
            return to_rgb(image)


def _known(formats: Sequence[str]) -> list[str]:
    """Those of the formats that this installation reads: Pillow's, and HEIF where pillow-heif is installed."""
    Image.init()
    if "HEIF" in formats and "HEIF" not in Image.OPEN:
        try:
            import pillow_heif
        except ImportError:
            pass
        else:
            pillow_heif.register_heif_opener()
    return [name for name in formats if name in Image.OPEN]


def _opening(source: Path | IO[bytes], formats: Sequence[str]) -> Image.Image:
    """Open an image, and say of one in an optional format how to get it read.

    Raises:
        ValueError: if it has such a format, which this installation lacks or the caller excludes.
        UnidentifiedImageError: if it has another format.
    """
    known = _known(formats)
    try:
        return Image.open(source, formats=known)
    except UnidentifiedImageError:
        if isinstance(source, Path):
            with source.open("rb") as file:
                start = file.read(12)
        else:
            source.seek(0)
            start = source.read(12)
        for name, (brands, hint) in _OPTIONAL.items():
            if name not in known and start[4:8] == b"ftyp" and start[8:12] in brands:
                how = f"{hint}, or save it as JPEG" if name in formats else "save it as JPEG"
                raise ValueError(f"it is in the format {name}; {how}") from None
        raise


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ValueError(
            f"{width} x {height} are {width * height / 1e6:.1f} million pixels, more than the limit of "
            f"{max_pixels / 1e6:.1f} million; scale it down"
        )


def _check_scans(image: Image.Image) -> None:
    """Refuse a JPEG file with so many scans that decoding it would take minutes or hours."""
    data = _content(image)
    position, scans = 2, 0
    while (found := _MARKER.search(data, position)) and found[0] != _END:
        scans += found[0] == _SCAN
        if scans > MAX_SCANS:
            raise ValueError(f"it has more than {MAX_SCANS} scans; save it again")
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")


def _content(image: Image.Image) -> bytes:
    """The whole file of an image that is open."""
    file: Any = image.fp  # type: ignore[attr-defined]
    before = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(before)
    return data


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turn any failure to read an image into one error that begins with its name."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{name} does not exist; expected an image") from None
    except MemoryError as error:
        raise UnreadableImageError(f"{name} cannot be read as an image: there is not enough memory for it") from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"{name} cannot be read as an image: its format is unknown, or it is damaged at the beginning"
        ) from error
    except Exception as error:  # Pillow's plugins raise all kinds of errors on damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableImageError(f"{name} cannot be read as an image: {reason}") from error


@contextmanager
def _without_limit() -> Iterator[None]:
    """Disable Pillow's pixel limit."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
