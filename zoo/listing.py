"""Models by name: list them, and describe their weights, without importing what builds them."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ean_core.common.tasks import known_datasets

from .index import Entry, find_entry, published
from .names import trained_by
from .preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

#: Metafile fields that describe a training, with OpenMMLab's names where it has them.
TRAINING = (
    "Training Data",
    "Training Images",
    "Epochs",
    "Selected Epoch",
    "Batch Size",
    "Seed",
    "Training Techniques",
    "Training Resources",
    "Training Time (s)",
    "Training Command",
    "Finished",
    "Versions",
)


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """List model names, sorted by task, data set, depth, variant and attention.

    Args:
        pattern: name pattern with shell wildcards, e.g. ``'ean_resnet*_se*'``.
        pretrained: only list models with published weights.

    Examples:
        >>> list_models('*resnet50_dia.imagenet')
        ['ean_resnet50_dia.imagenet', 'full_resnet50_dia.imagenet']
    """
    names = set(published()) if pretrained else {*published(), *trained_by()}
    order = list(known_datasets())  # a task's stand together
    found = sorted(names, key=lambda name: (order.index(name.dataset), name))
    return [str(name) for name in found if fnmatchcase(str(name), pattern)]


def get_weights(name: str) -> Weights:
    """Return the published weights of a model.

    Raises:
        ValueError: as for :func:`~zoo.models.get_model`.
    """
    return Weights(find_entry(name))


@dataclass(frozen=True)
class Weights:
    """The published weights of a model, with their metadata and preprocessing.

    Args:
        entry: index entry of the model.
    """

    entry: Entry

    def __repr__(self) -> str:
        return f"Weights({self.name!r}, {self.entry.file!r})"

    @property
    def name(self) -> str:
        """Model name."""
        return str(self.entry.name)

    @property
    def meta(self) -> dict[str, Any]:
        """Metadata as plain values: metrics and the images they are of, connections, parameters, training, timing.

        For classifiers also ``categories``, the class names in order.
        """
        entry = self.entry
        collected: dict[str, Any] = {
            "name": self.name,
            "task": entry.name.task,
            "config": entry.config,
            "scheme": str(entry.scheme),
            "metrics": dict(entry.metrics),
            "measured_on": f"{entry.split} images",
            "parameters": entry.metadata["Parameters"],
            "macs": entry.metadata["FLOPs"],
            "size": entry.size,
            "sha256": entry.sha256,
            "training": {key: entry.metadata[key] for key in TRAINING if key in entry.metadata},
            "timing": entry.metadata.get("Timing", []),
        }
        categories = entry.collection.get("Metadata", {}).get("Categories")
        return {**collected, "categories": list(categories)} if categories else collected

    @cached_property
    def path(self) -> Path:
        """The verified safetensors file of the whole network, downloaded if necessary."""
        from .files import locate

        return locate(self.entry)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state dict of the whole network, on the CPU."""
        from safetensors.torch import load_file

        return load_file(self.path)

    def transforms(self) -> Preprocessing:
        """Return the preprocessing from an image to the network's input."""
        return Preprocessing.of(self.entry)
