"""A trained counter in Python: ``Counter.from_zoo('ean_resnet20_se.shanghaitech_b')(picture)``."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.pictures import Picture, pixels_of
from tasks.trained import Trained

from .density import spread
from .network import CrowdCounter
from .task import TASK

#: The counter that is used where none is named.
MODEL = "ean_resnet20_se.shanghaitech_b"


class Prediction(NamedTuple):
    """How many people a counter sees, and where.

    Args:
        count: of people in the picture, the sum of the density.
        density: people a pixel, float32 ``(H, W)``; that of a region is the sum over it.
    """

    count: float  # type: ignore[assignment]  # a tuple's method of that name is of no use here
    density: NDArray[np.float32]


class Counter(Trained[CrowdCounter]):
    """Counts people in pictures, with the deployed form of a network.

    Args:
        network: in any mode; it is copied.
        name: of it, for reports.
        device: where to; a GPU if there is one by default.

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
        """Pixels of a cell of the network's map."""
        return self.network.stride

    @torch.inference_mode()
    def __call__(self, picture: Picture) -> Prediction:
        """Count the people in a picture of any size.

        Args:
            picture: a file, an image of Pillow's, or uint8 ``(H, W, 3)`` in RGB, or ``(H, W)`` in grey.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read as a picture.
            MemoryError: if there is too little, of the machine's or the GPU's.
        """
        pixels = pixels_of(picture)
        height, width = pixels.shape[:2]
        device = next(self.network.parameters()).device

        def prepared(part: Tensor) -> Tensor:
            return self.network.data_preprocessor({"inputs": part.to(device)})["inputs"]

        image = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)[None]
        try:
            cells = self.network.count_map(image, prepare=prepared)[0, 0].double().cpu().numpy()
        except RuntimeError as error:  # as which PyTorch says it
            if "memory" not in str(error).lower():
                raise
            raise MemoryError(f"there is not enough memory to count in {width} x {height} pixels") from error
        return Prediction(float(cells.sum()), spread(cells, self.stride, (height, width)))
