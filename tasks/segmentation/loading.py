"""Images of mmsegmentation's pipelines, read as everywhere else in this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2

from ean_core.data.images import read_image

from .library import TRANSFORMS, BaseTransform


@TRANSFORMS.register_module()
class LoadAnyImage(BaseTransform):
    """Read the image at ``img_path`` by :func:`~ean_core.data.images.read_image`, as BGR ``(H, W, 3)`` uint8.

    mmcv's ``LoadImageFromFile`` gives the same pixels for 8-bit gray and RGB files, but drops transparency and keeps
    the upper 8 of 16 bits, whatever the depth of the camera. :func:`with_reader` puts this transform in its place.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img``, ``img_shape`` and ``ori_shape``.

        Raises:
            FileNotFoundError, UnreadableImageError: if the file is missing or cannot be read; they name it.
        """
        image = cv2.cvtColor(read_image(results["img_path"]), cv2.COLOR_RGB2BGR)
        return {**results, "img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}


def with_reader(pipeline: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return a pipeline in which :class:`LoadAnyImage` replaces each ``LoadImageFromFile`` without options.

    Examples:
        >>> with_reader([{'type': 'LoadImageFromFile'}, {'type': 'LoadImageFromFile', 'to_float32': True}])
        [{'type': 'LoadAnyImage'}, {'type': 'LoadImageFromFile', 'to_float32': True}]
    """
    plain = {"type": "LoadImageFromFile"}
    return [{"type": LoadAnyImage.__name__} if dict(step) == plain else step for step in pipeline]
