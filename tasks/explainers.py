"""Grad-CAM of trained networks, and the explainer of classifiers; other tasks register their own.

Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks", ICCV 2017) on the last feature map
before the head: the sum of its channels weighted by the mean gradient of a score, clipped to positive values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import zoo
from ean_core.backbone import find_backbone
from ean_core.classifier import ImageClassifier
from ean_core.inference.comparison import connection
from ean_core.runs.folder import trained_config
from ean_core.scheme import ConnectionScheme
from zoo.preprocessing import Preprocessing

from .trained import checkpoint_of

#: Larger images are downscaled before a counter or segmentor sees them, because gradients need memory.
MOST_PIXELS = 1_500_000


class Explainer(ABC):
    """Explains the decisions of one trained network.

    Args:
        name: network as given by the user: a zoo name, a checkpoint, or the folder of a run.
        network: network in evaluation mode.
        classes: names of its classes, as far as its checkpoint lists them; empty for scores without classes.
    """

    #: Quantity or unit of its scores.
    unit: ClassVar[str]
    #: Class to skip by default because it is everywhere; empty if there is none.
    background: ClassVar[str] = ""

    def __init__(self, name: str, network: Any, classes: Sequence[str]) -> None:
        self.name, self.network, self.classes = name, network, list(classes)

    @property
    def scheme(self) -> ConnectionScheme:
        """Its connections."""
        return find_backbone(self.network).scheme

    @property
    def title(self) -> str:
        """Connection and attention, e.g. ``EAN SE``."""
        kind = find_backbone(self.network).attention_cfg["type"] if self.scheme.gates else ""
        return f"{connection(self.network)} {kind}".strip()

    @abstractmethod
    def prepare(self, pixels: NDArray[np.uint8]) -> tuple[Tensor, NDArray[np.uint8]]:
        """Return the network's input ``(1, C, H, W)`` from RGB, and what it shows as RGB ``(h, w, 3)``; the input may
        be padded on the right and at the bottom."""

    @abstractmethod
    def scores(self, inputs: Tensor) -> list[float]:
        """Return the scores of the classes, or the single score of a counter."""

    @abstractmethod
    def target(self, inputs: Tensor, index: int) -> Tensor:
        """Return the differentiable quantity to explain for a class, ``(1,)``."""

    def heat(self, inputs: Tensor, index: int) -> NDArray[np.float32]:
        """Return the heat map of a class's score, see :func:`grad_cam`."""
        return grad_cam(self.network, inputs, lambda images: self.target(images, index))

    def text(self, score: float, target: str) -> str:
        """Format a score."""
        return f"P({target}) = {score:.3f}"


class ClassifierExplainer(Explainer):
    """Explains the logit of a class; scores are softmax probabilities."""

    unit = "softmax"

    def __init__(self, name: str, network: ImageClassifier, classes: Sequence[str]) -> None:
        count = network.num_classes
        super().__init__(name, network, classes if len(classes) == count else [str(label) for label in range(count)])
        normalise: Any = network.data_preprocessor
        mean, std = (tuple(value.flatten().tolist()) for value in (normalise.mean, normalise.std))
        self.preprocessing = Preprocessing(mean, std, **_sizes(name, network))

    def prepare(self, pixels: NDArray[np.uint8]) -> tuple[Tensor, NDArray[np.uint8]]:
        inputs = self.preprocessing(Image.fromarray(pixels))  # (C, H, W)
        mean, std = (
            torch.tensor(values)[:, None, None] for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        shown = (inputs * std + mean).round().clamp(0, 255).byte().expand(3, -1, -1)
        return inputs[None], shown.permute(1, 2, 0).numpy()

    def scores(self, inputs: Tensor) -> list[float]:
        with torch.inference_mode():
            found: list[float] = self.network(inputs)[0].double().softmax(0).tolist()
        return found

    def target(self, inputs: Tensor, index: int) -> Tensor:
        logits: Tensor = self.network(inputs)
        return logits[:, index]


def grad_cam(network: nn.Module, inputs: Tensor, score: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
    """Return the Grad-CAM heat map of a score for one image, values from 0 to 1, ``(H, W)`` like the image.

    Args:
        network: network with an EAN backbone, not deployed, in evaluation mode.
        inputs: ``(1, C, H, W)``, normalized.
        score: maps the inputs through the network to ``(1,)``.

    Raises:
        ImportError: if Captum is not installed.
    """
    try:
        from captum.attr import LayerAttribution, LayerGradCam
    except ImportError as error:
        raise ImportError('explaining needs Captum: pip install "ean-zoo[explain]"') from error
    backbone = find_backbone(network)
    last = backbone.stage(backbone.out_indices[-1])
    found = LayerGradCam(score, last).attribute(inputs, relu_attributions=True)  # (1, 1, h, w)
    heat = LayerAttribution.interpolate(found, inputs.shape[2:], "bilinear")[0, 0]
    return (heat / heat.max().clamp(min=1e-12)).detach().cpu().numpy()


def within_memory(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Downscale an image to at most :data:`MOST_PIXELS`, so that gradients fit in memory."""
    height, width = pixels.shape[:2]
    factor = (MOST_PIXELS / (height * width)) ** 0.5
    if factor >= 1:
        return np.require(pixels, requirements=["C", "W"])
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _sizes(name: str, network: ImageClassifier) -> dict[str, Any]:
    """Input size of a classifier, as settings of :class:`Preprocessing`."""
    path = checkpoint_of(name)
    if path is None:
        preprocessing = zoo.get_weights(name).transforms()
        return {"size": preprocessing.size, "resize": preprocessing.resize}
    config = trained_config(path)
    return {"size": (config or {}).get("image_size") or network.backbone.usual_size}
