"""A part of an image to count in: a rectangle or a polygon, in pixels of the image as it is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ean_core.common.record import read_json
from tasks.showing import shown_size

#: Maximum number of corners of a polygon.
MOST_CORNERS = 1000
#: Ends the message about a region that cannot be read.
EXPECTED = (
    "expected x0,y0,x1,y1, the left, upper, right and lower edge in pixels, or a JSON file with the corners of a "
    "polygon, [[x, y], [x, y], [x, y], ...]"
)


@dataclass(frozen=True)
class Region:
    """A polygon.

    Args:
        corners: x and y of each corner, in pixels from the upper left corner of the image.
        name: as the user gave it.

    Raises:
        ValueError: if it has fewer than three corners, no area, a corner at a negative or non-finite position, or
            edges that cross.
    """

    corners: tuple[tuple[float, float], ...]
    name: str

    def __post_init__(self) -> None:
        if len(self.corners) < 3:
            raise ValueError(f"the region {self.name} has {len(self.corners)} corners; a polygon needs at least 3")
        if len(self.corners) > MOST_CORNERS:
            raise ValueError(f"the region {self.name} has {len(self.corners):,} corners, more than {MOST_CORNERS:,}")
        wrong = [corner for corner in self.corners if not all(math.isfinite(each) and each >= 0 for each in corner)]
        if wrong:
            x, y = wrong[0]
            raise ValueError(f"the region {self.name} has a corner at {x:g},{y:g}, outside of every image")
        if _edges_cross(self.corners):
            raise ValueError(f"the edges of the region {self.name} cross; list the corners in order around it")
        if _area(self.corners) == 0:
            raise ValueError(f"the region {self.name} has no area")

    @classmethod
    def read(cls, text: str) -> Region:
        """Read a region from the command line.

        Args:
            text: ``x0,y0,x1,y1``, or a JSON file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is neither, or no region.
        """
        parts = text.split(",")
        if len(parts) == 4 and not Path(text).is_file():
            try:
                left, top, right, bottom = map(float, parts)
            except ValueError:
                raise ValueError(f"--region {text} has edges that are not numbers; {EXPECTED}") from None
            if not (left < right and top < bottom):
                raise ValueError(
                    f"--region {text} has no area: x0 must be less than x1 and y0 less than y1; {EXPECTED}"
                )
            return cls(((left, top), (right, top), (right, bottom), (left, bottom)), text)
        path = Path(text)
        if path.suffix.lower() != ".json":
            raise ValueError(f"--region {text} is not a region; {EXPECTED}")
        content = read_json(path, "is not a region")
        corners = content.get("polygon") if isinstance(content, dict) else content
        if not isinstance(corners, list) or not all(_is_corner(each) for each in corners):
            raise ValueError(f"{path} is not a region; {EXPECTED}, or {{'polygon': [[x, y], ...]}}".replace("'", '"'))
        return cls(tuple((float(x), float(y)) for x, y in corners), path.name)

    def problem_with(self, shape: tuple[int, int]) -> str:
        """Describe why it cannot be counted in for an image of this height and width; empty if it can."""
        height, width = shape
        right, bottom = (max(values) for values in zip(*self.corners, strict=True))
        if right <= width and bottom <= height:
            return "" if self.inside(shape).any() else f"the region {self.name} holds not a single pixel"
        return (
            f"the region {self.name} reaches to {right:g},{bottom:g}, outside of the image of {width} x {height} pixels"
        )

    def inside(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Which pixels have their center inside, ``(H, W)``.

        Examples:
            >>> Region(((1, 0), (3, 0), (3, 2), (1, 2)), "").inside((3, 4)).astype(int).tolist()
            [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
        """
        height, width = shape
        turns = np.zeros((height, width + 1), np.bool_)  # each crossed edge turns all pixels to its right
        for (x0, y0), (x1, y1) in zip(self.corners, (*self.corners[1:], self.corners[0]), strict=True):
            first, last = (math.ceil(min(max(y, -1), height + 1) - 0.5) for y in sorted((y0, y1)))
            rows = np.arange(max(first, 0), min(last, height))
            if len(rows):
                across = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                columns = np.clip(np.ceil(across - 0.5), 0, width).astype(int)
                turns[rows, columns] ^= True
        return np.logical_xor.accumulate(turns, 1)[:, :-1]

    def count(self, density: NDArray[np.float32]) -> float:
        """Number of people that a density ``(H, W)`` has inside."""
        return float(self.within(density).sum(dtype=np.float64))

    def within(self, density: NDArray[np.float32]) -> NDArray[np.float32]:
        """A density ``(H, W)`` without that outside."""
        return np.where(self.inside((density.shape[0], density.shape[1])), density, np.float32(0))

    def draw(self, overlay: Image.Image, shape: tuple[int, int]) -> Image.Image:
        """Draw its outline on a copy of an overlay.

        Args:
            overlay: as returned by :func:`~tasks.crowd_counting.overlay.draw_overlay`.
            shape: height and width of the image.
        """
        (height, width), (across, down) = shape, shown_size(shape)
        left = (overlay.width - across) // 2
        points = [(left + x * across / width, y * down / height) for x, y in (*self.corners, self.corners[0])]
        drawn = overlay.copy()
        draw = ImageDraw.Draw(drawn)
        thick = max(2, drawn.width // 320)
        for colour, line in (("black", 3 * thick), ("white", thick)):  # visible on any background
            draw.line(points, fill=colour, width=line, joint="curve")
        return drawn


def _is_corner(value: Any) -> bool:
    number = (int, float)
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(each, number) and not isinstance(each, bool) and abs(each) < 1e9 for each in value)
    )


def _area(corners: Sequence[tuple[float, float]]) -> float:
    pairs = zip(corners, (*corners[1:], corners[0]), strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)) / 2


def _edges_cross(corners: Sequence[tuple[float, float]]) -> bool:
    """Whether two edges that share no corner cross."""
    points = np.asarray(corners, np.float64)
    ends = np.roll(points, -1, 0)

    def side(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sign(
            (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
        )

    one, two = (points[:, None], ends[:, None]), (points[None], ends[None])
    apart = side(*one, two[0]) * side(*one, two[1]) < 0
    return bool((apart & (side(*two, one[0]) * side(*two, one[1]) < 0)).any())
