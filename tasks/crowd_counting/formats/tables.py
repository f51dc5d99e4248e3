"""Points as a table: CSV with commas, semicolons or tabs, one line per head."""

from __future__ import annotations

import csv
import re
from collections import defaultdict

from ean_core.common.errors import unknown_name
from ean_core.common.text import from_csv_cell

from ..density import as_points
from .base import Entry, Listing, Pictures, Source, image_name, number

#: Header names by meaning, in order of preference.
COLUMNS = {
    "image": ("image", "filename", "file_name", "image_name", "image_path", "file", "img", "path", "name"),
    "x": ("x", "cx", "x_center", "center_x", "point_x"),
    "y": ("y", "cy", "y_center", "center_y", "point_y"),
    "split": ("split", "set", "subset"),
}
DELIMITERS = (",", ";", "\t")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


def recognizes_csv(source: Source) -> bool:
    return _columns(source.text) is not None


def read_csv(source: Source, pictures: Pictures) -> Listing:
    """Read columns for image, x and y, and optionally split; see :data:`COLUMNS`. A line with empty x and y marks an
    image without heads."""
    path = source.path
    found = _columns(source.text)
    if found is None:
        first = source.text.splitlines()[0] if source.text else ""
        raise ValueError(
            f"{path}: expected the columns image,x,y and optionally split, got {first[:100]!r}; the image may also be "
            "called filename, and the columns separated by commas, semicolons or tabs"
        )
    delimiter, header, columns = found
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    splits: dict[str, str] = {}
    try:
        lines = csv.reader(source.text.splitlines(), delimiter=delimiter, skipinitialspace=True)
        next(lines)
        for line in lines:
            if not line:
                continue
            where = f"{path}, line {lines.line_num}"
            if len(line) != len(header):
                raise ValueError(f"{where}: expected {len(header)} values")
            values = {kind: from_csv_cell(line[column]).strip() for kind, column in columns.items()}
            name = image_name(values["image"], where)
            split = stated_split(values.get("split", ""), where)
            if split is not None and splits.setdefault(name, split) != split:
                raise ValueError(f"{where}: {name} is in two splits")
            heads = points[name]  # stays empty for an image without heads
            if values["x"] or values["y"]:
                heads.append(_point(values["x"], values["y"], delimiter, where))
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from error
    unused = [name for column, name in enumerate(header) if column not in columns.values()]
    notes = [f"has columns that are not used: {', '.join(unused)[:100]}"] if unused else []
    return Listing([Entry(name, as_points(heads), splits.get(name)) for name, heads in points.items()], notes)


def _columns(text: str) -> tuple[str, list[str], dict[str, int]] | None:
    """Return the delimiter, the header, and the column of each meaning; None if image, x or y is missing."""
    first = text.split("\n", 1)[0].rstrip("\r")
    for delimiter in DELIMITERS:
        try:
            header = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=delimiter), [])]
        except csv.Error:
            continue
        columns = {
            kind: next(header.index(name) for name in names if name in header)
            for kind, names in COLUMNS.items()
            if set(names) & set(header)
        }
        if {"image", "x", "y"} <= columns.keys():
            return delimiter, header, columns
    return None


def stated_split(text: object, where: str) -> str | None:
    """Return the split that an untrusted file states for an image; None if it states none, as empty text.

    Raises:
        ValueError: if it is not a split.
    """
    if text not in ("", "train", "val", "test"):
        raise ValueError(f"{where}: {unknown_name('split', text, ('train', 'val', 'test'))}")
    return str(text) or None


def _point(x: str, y: str, delimiter: str, where: str) -> tuple[float, float]:
    if delimiter != ",":  # spreadsheets that separate by semicolons write 1,5
        x, y = (text.replace(",", ".") if _DECIMAL_COMMA.fullmatch(text) else text for text in (x, y))
    try:
        return number(x, where), number(y, where)
    except ValueError as error:
        if "finite" in str(error):
            raise ValueError(f"{where}: x and y must be finite, got {x} and {y}") from None
        raise ValueError(f"{where}: x and y must be numbers of pixels, got {x!r} and {y!r}") from None
