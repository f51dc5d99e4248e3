"""A trained counter in Python: ``Counter.from_zoo('ean_resnet20_se.shanghaitech_b')(picture)``."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ean_core.data.images import AnyImage, pixels_of
from tasks.trained import Trained

from .density import spread
from .network import CrowdCounter
from .task import TASK

#: The default counter.
MODEL = "ean_resnet20_se.shanghaitech_b"


class Prediction(NamedTuple):
    """Number of people in an image, and where they are.

    Args:
        count: number of people in the image, the sum of the density.
        density: people per pixel, float32 ``(H, W)``; the sum over a region is the count in it.
    """

    count: float  # type: ignore[assignment]  # hides tuple.count, which is of no use here
    density: NDArray[np.float32]


class Counter(Trained[CrowdCounter]):
    """Counts people in images, with the deployed form of a network.

    Args:
        network: the network, in any mode; it is copied.
        name: name of the network, for reports.
        device: device to run on; by default a GPU if there is one.

    Raises:
        ValueError: if PyTorch cannot use the device.

    Examples:
        >>> counter = Counter(CrowdCounter(dict(type='EANResNetCIFAR', depth=20, scheme='none', stem_stride=2)))
        >>> count, density = counter(np.zeros((60, 100, 3), np.uint8))
        >>> density.shape, bool(np.isclose(density.sum(), count))
        ((60, 100), True)
    """

    task = TASK

    @property
    def stride(self) -> int:
        """Side of a cell of the network's map, in pixels."""
        return self.network.stride

    @torch.inference_mode()
    def __call__(self, picture: AnyImage) -> Prediction:
        """Count the people in an image of any size.

        Args:
            picture: a file, a PIL image, or a uint8 array, RGB ``(H, W, 3)`` or gray ``(H, W)``.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read as an image.
            MemoryError: if the machine or the GPU runs out of memory.
        """
        pixels = pixels_of(picture)
        height, width = pixels.shape[:2]
        device = next(self.network.parameters()).device

        def prepared(part: Tensor) -> Tensor:
            return self.network.data_preprocessor({"inputs": part.to(device).float()})["inputs"]

        image = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)[None]
        try:
            cells = self.network.count_map(image, prepare=prepared)[0, 0].double().cpu().numpy()
        except RuntimeError as error:  # PyTorch's out-of-memory errors
            if "memory" not in str(error).lower():
                raise
            raise MemoryError(f"not enough memory to count in {width} x {height} pixels") from error
        return Prediction(float(cells.sum()), spread(cells, self.stride, (height, width)))
