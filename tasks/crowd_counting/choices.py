"""Choices and defaults of options, without the code that uses them."""

from __future__ import annotations

from typing import Literal

#: Names of the annotation formats, in the order in which they are tried; :data:`.formats.FORMATS` reads them.
FORMAT_NAMES = ("csv", "coco", "labelme", "nwpu", "json", "cvat", "jhu", "qnrf", "mat")
#: Treatment of heads outside of their image. ``clamp``: moved to the nearest pixel of the image, and counted.
#: ``drop``: removed, and not counted. ``keep``: left in place, contributing only the part of its kernel that lies in
#: the image, less than one.
Outside = Literal["clamp", "drop", "keep"]
OUTSIDE: tuple[Outside, ...] = ("clamp", "drop", "keep")
#: Opacity of the heat map where it is brightest.
OPACITY = 0.8
#: Limits for visitors' uploads in MiB and millions of pixels.
UPLOAD_MB, MEGAPIXELS = 20.0, 50.0
#: Gradio's usual port.
PORT = 7860
