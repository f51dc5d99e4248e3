"""Annotations of custom images that may not mean pixels of the upright image; nothing here is changed, only said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ean_core.data.images import stored_frame
from tasks.prepared import relative

from .annotations import AnnotatedPicture
from .density import is_inside

#: Heads all within the first 100 pixels of both sides are doubted if there are a few, and if that would be less likely
#: than this for heads anywhere in the image.
FEW, UNLIKELY = 3, 0.002
#: Number of images that a warning names.
NAMED = 3


class _Image(NamedTuple):
    name: str
    path: Path
    points: NDArray[np.float64]
    width: int
    height: int
    stated: tuple[int, int] | None
    turned: bool


def doubts(pictures: Sequence[AnnotatedPicture], entries: Sequence[Mapping[str, Any]], root: Path) -> Iterator[str]:
    """Yield warnings, each with the names of its images, in a fixed order.

    Args:
        pictures: annotated images; ShanghaiTech's are not looked at.
        entries: manifest entries of those that could be prepared, with the height and width of the upright image.
        root: folder that image names are relative to.
    """
    sizes = {entry["image"]: (entry["width"], entry["height"]) for entry in entries}
    images = [
        _Image(name, each.image, each.points, *sizes[name], each.size, each.turned)
        for each in pictures
        if each.points is not None and (name := relative(each.image, root)) in sizes
    ]
    images.sort(key=lambda image: image.name)
    for applies, text in _DOUBTS:
        named = [(image, detail) for image in images if (detail := applies(image)) is not None]
        if named:
            names = ", ".join(f"{image.name} ({detail})" if detail else image.name for image, detail in named[:NAMED])
            more = f" and {len(named) - NAMED} more images" if len(named) > NAMED else ""
            yield f"{names}{more}: {text}"


def _fractions(image: _Image) -> str | None:
    sure = len(image.points) and min(image.width, image.height) > 2
    return "" if sure and image.points.min() >= 0 and image.points.max() <= 1 else None


def _percentages(image: _Image) -> str | None:
    share = min(1, 100 / image.width) * min(1, 100 / image.height)
    if len(image.points) < FEW or share ** len(image.points) > UNLIKELY:
        return None
    if image.points.min() < 0 or not 1 < image.points.max() <= 100:
        return None
    return f"{image.width} x {image.height}"


def _duplicates(image: _Image) -> str | None:
    number = len(image.points) - len(np.unique(image.points, axis=0))
    return str(number) if number else None


def _converted(image: _Image) -> str | None:
    return "" if image.turned else None


def _resized(image: _Image) -> str | None:
    if image.stated is None or image.turned or image.stated == (image.width, image.height):
        return None
    return f"annotated at {image.stated[0]} x {image.stated[1]}, is {image.width} x {image.height}"


def _unturned(image: _Image) -> str | None:
    inside = is_inside(image.points, (image.height, image.width))
    if image.turned or inside.all() or not is_inside(image.points, (image.width, image.height)).all():
        return None
    frame = stored_frame(image.path)
    return None if frame.upright == (frame.width, frame.height) else f"{(~inside).sum()} points outside"


#: Whether a doubt applies to an image (None if not; otherwise details, which may be empty), and what to say.
_DOUBTS: tuple[tuple[Callable[[_Image], str | None], str], ...] = (
    (
        _fractions,
        "all coordinates are between 0 and 1, but points are in pixels; multiply x by the width of the image and y by "
        "its height",
    ),
    (
        _percentages,
        "no coordinate is past 100; if these are percentages, multiply x by width / 100 and y by height / 100",
    ),
    (_duplicates, "points at the same place as another one; each is counted, so remove those that are not heads"),
    (
        _converted,
        "the annotation states the size of the image before EXIF turns it; its points were turned with the image",
    ),
    (
        _unturned,
        "EXIF turns the image, and the points fit it only before that; remove the orientation from the file "
        "(`exiftool -Orientation= FILE`), or use a format that states the size (COCO, LabelMe, CVAT)",
    ),
    (_resized, "scale the points, or give the images that were annotated"),
)
