"""Preprocessing from an image to a network's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .index import Entry

if TYPE_CHECKING:
    from torch import Tensor

    from ean_core.data.images import AnyImage


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop and normalize an image as a network's test images were.

    Args:
        mean, std: one value per channel, on the scale 0 to 255.
        size: height and width of the crop, in pixels; None keeps the image size.
        resize: length of the shorter side before cropping, in pixels; None for ``size``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None = None
    resize: int | None = None

    @classmethod
    def of(cls, entry: Entry) -> Preprocessing:
        """Return the preprocessing of a published model."""
        normalise = entry.network["data_preprocessor"]
        return cls(
            mean=tuple(normalise["mean"]),
            std=tuple(normalise["std"]),
            size=entry.fields.get("Image Size"),
            resize=entry.fields.get("Resize"),
        )

    def __call__(self, picture: AnyImage | Tensor) -> Tensor:
        """Return normalized float32 ``(C, H, W)``, or a batch ``(N, C, H, W)``.

        Args:
            picture: a file, a PIL image of any mode, or a uint8 array ``(H, W, 3)`` or ``(H, W)``, all read as
                training reads them (:func:`~ean_core.data.images.as_rgb`); or a uint8 tensor ``(C, H, W)`` or
                ``(N, C, H, W)`` with the network's channels, which is taken as it is.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if an image cannot be read, or an array or tensor has another type or number of channels.
        """
        import torch
        from torchvision.transforms.v2 import functional as F  # slow to import

        from ean_core.data.images import as_rgb

        channels = len(self.mean)
        if not isinstance(picture, torch.Tensor):
            image = as_rgb(picture)
            pixels = F.pil_to_tensor(self._sized(image if channels == 3 else image.convert("L")))
        else:
            if picture.dtype != torch.uint8 or picture.ndim not in (3, 4) or picture.shape[-3] != channels:
                raise ValueError(
                    f"expected a PIL image or uint8 (C, H, W) or (N, C, H, W) with C={channels}, got {picture.dtype} "
                    f"{tuple(picture.shape)}"
                )
            pixels = self._sized(picture)
        return F.normalize(pixels.float(), list(self.mean), list(self.std))

    def _sized(self, picture: Any) -> Any:
        """Resize and crop an image or tensor."""
        if self.size is None:
            return picture
        from torchvision.transforms.v2 import functional as F

        shorter = self.resize or self.size
        height, width = F.get_size(picture)
        if min(height, width) != shorter:
            picture = F.resize(picture, [shorter])
        return picture if F.get_size(picture) == [self.size, self.size] else F.center_crop(picture, [self.size])
