"""Grad-CAM of trained networks, and the explainer of classifiers; other tasks name theirs in the registry.

Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks", ICCV 2017) of the last feature map that
a network's head sees: the sum of its channels, each weighed by the mean gradient of a score, where that is positive.
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

#: Pixels above which an image is made smaller before a counter or segmentor looks at it; gradients need memory.
MOST_PIXELS = 1_500_000


class Explainer(ABC):
    """One trained network whose decisions are looked at.

    Args:
        name: of the network, as it was given: a name of the zoo, a checkpoint, the folder of a run.
        network: in evaluation mode.
        classes: names of its classes, as far as its checkpoint says them; none for scores without classes.
    """

    #: The quantity and unit of its scores.
    unit: ClassVar[str]
    #: The class that is everywhere, and so explains nothing; empty if there is none.
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
        kind = find_backbone(self.network).attention_cfg["type"] if self.scheme.connections else ""
        return f"{connection(self.network)} {kind}".strip()

    @abstractmethod
    def prepare(self, pixels: NDArray[np.uint8]) -> tuple[Tensor, NDArray[np.uint8]]:
        """The network's input ``(1, C, H, W)`` from RGB, and what it shows as RGB ``(h, w, 3)``; the input may reach
        beyond that, to the right and below."""

    @abstractmethod
    def scores(self, inputs: Tensor) -> list[float]:
        """Scores of the classes, or the one score of a counter."""

    @abstractmethod
    def target(self, inputs: Tensor, index: int) -> Tensor:
        """What is explained of a class, ``(1,)``, with its gradient."""

    def heat(self, inputs: Tensor, index: int) -> NDArray[np.float32]:
        """Where the score of a class comes from, see :func:`grad_cam`."""
        return grad_cam(self.network, inputs, lambda images: self.target(images, index))

    def text(self, score: float, target: str) -> str:
        """A score for a reader."""
        return f"P({target}) = {score:.3f}"


class ClassifierExplainer(Explainer):
    """Explains the logit of a class; its scores are those of the softmax."""

    unit = "softmax"

    def __init__(self, name: str, network: ImageClassifier, classes: Sequence[str]) -> None:
        count = network.fc.out_features
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
    """Where a score of one image comes from, between 0 and 1, ``(H, W)`` as large as the image.

    Args:
        network: with an EAN backbone inside that is not deployed, in evaluation mode.
        inputs: ``(1, C, H, W)``, normalised.
        score: from the inputs to ``(1,)``, through the network.

    Raises:
        ImportError: if Captum is not installed.
    """
    try:
        from captum.attr import LayerAttribution, LayerGradCam
    except ImportError as error:
        raise ImportError('explaining needs Captum: pip install "ean-zoo[explain]"') from error
    tap = nn.Identity()  # a backbone returns several maps, a layer of Captum's has one
    hook = find_backbone(network).register_forward_hook(lambda _, __, maps: (*maps[:-1], tap(maps[-1])))
    try:
        found = LayerGradCam(score, tap).attribute(inputs, relu_attributions=True)  # (1, 1, h, w)
    finally:
        hook.remove()
    heat = LayerAttribution.interpolate(found, inputs.shape[2:], "bilinear")[0, 0]
    return (heat / heat.max().clamp(min=1e-12)).detach().cpu().numpy()


def within_memory(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image of at most :data:`MOST_PIXELS`, which gradients have memory for."""
    height, width = pixels.shape[:2]
    factor = (MOST_PIXELS / (height * width)) ** 0.5
    if factor >= 1:
        return np.require(pixels, requirements=["C", "W"])
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _sizes(name: str, network: ImageClassifier) -> dict[str, Any]:
    """The size that images are brought to for a classifier."""
    path = checkpoint_of(name)
    if path is None:
        preprocessing = zoo.get_weights(name).transforms()
        return {"size": preprocessing.size, "resize": preprocessing.resize}
    config = trained_config(path)
    return {"size": (config or {}).get("image_size") or network.backbone.usual_size}
