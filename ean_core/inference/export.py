"""Trained networks as files: a backbone's weights, and deployed networks that run without this package (ONNX, pt2)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from torch import Tensor, nn

from ean_core.backbone import EANResNet, find_backbone
from ean_core.classifier import ImageClassifier, ImagePreprocessor
from ean_core.common.config import config_name
from ean_core.runs.folder import check_same_network
from ean_core.weights.addresses import BACKBONE
from ean_core.weights.files import WeightsFile, save_weights
from ean_core.weights.loading import load_weights

from .deploy import deploy

#: How far outputs of a written file may be from the network's, relative to the largest.
TOLERANCE = 1e-4


class Format(str, Enum):
    """Of an exported network."""

    safetensors = "safetensors"
    onnx = "onnx"
    pt2 = "pt2"


class FromPixels(nn.Module):
    """A classifier that normalises its images itself.

    Maps images ``(N, C, H, W)``, floats from 0 to 255, to logits ``(N, num_classes)``.

    Raises:
        ValueError: if the classifier's preprocessor is of another kind, which would be left out.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        preprocessor = model.data_preprocessor
        if type(preprocessor) not in (ImagePreprocessor, BaseDataPreprocessor):
            raise ValueError(
                f"data_preprocessor is {type(preprocessor).__name__}, which cannot be exported; take "
                "ImagePreprocessor, or leave it out and export a network of normalised images"
            )
        self.preprocessor = preprocessor if isinstance(preprocessor, ImagePreprocessor) else None

    def forward(self, images: Tensor) -> Tensor:
        if self.preprocessor is not None:
            images = (images - self.preprocessor.mean) / self.preprocessor.std
        return self.model(images)


def export_program(model: nn.Module, size: int) -> torch.export.ExportedProgram:
    """A classifier, deployed and traced, for batches of any size and images of more than one position on the last map.

    Args:
        model: an image classifier; a copy of it is deployed on the CPU.
        size: of the images that it is traced with, pixels.

    Returns:
        The program of :class:`FromPixels`, with one input ``images`` and one output.
    """
    network = FromPixels(deploy(model).cpu()).eval()
    images = torch.rand(2, find_backbone(model).in_channels, size, 2 * size) * 255
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    return torch.export.export(network, (images,), dynamic_shapes={"images": free})


def write_pt2(model: nn.Module, path: Path, size: int) -> None:
    """Write a classifier for :func:`torch.export.load`; see :func:`export_program`.

    Raises:
        RuntimeError: if what was written computes something else.
    """
    program = export_program(model, size)
    partial = _partial(path)
    torch.export.save(program, partial)
    written = torch.export.load(partial).module()
    _check(model, lambda images: written(images), size, partial)
    partial.replace(path)


def write_onnx(model: nn.Module, path: Path, size: int, metadata: Mapping[str, str] | None = None) -> None:
    """Write a classifier as ONNX with its weights inside; input ``images``, output ``logits``.

    Args:
        model, size: see :func:`export_program`.
        path: of the file; it is checked with onnxruntime before it gets this name.
        metadata: plain words about the network, kept in the file.

    Raises:
        ImportError: if the packages for ONNX are not installed.
        RuntimeError: if what was written computes something else.
    """
    try:
        import onnx
        import onnx_ir
        import onnxruntime
        import onnxscript  # noqa: F401 -- the exporter's, which would say less if it were missing
    except ImportError as error:
        raise ImportError(
            f"ONNX needs {error.name}: pip install 'ean-zoo[export]', or '.[export]' in a checkout"
        ) from error
    partial = _partial(path)
    program = torch.onnx.export(
        export_program(model, size), (), input_names=["images"], output_names=["logits"], dynamo=True, verbose=False
    )
    assert program is not None
    program.model.metadata_props.update(metadata or {})
    images, logits = program.model.graph.inputs[0], program.model.graph.outputs[0]
    images.shape = onnx_ir.Shape(["batch", find_backbone(model).in_channels, "height", "width"])
    logits.shape = onnx_ir.Shape(["batch", *list(logits.shape or ())[1:]])
    program.save(str(partial), external_data=False)
    onnx.checker.check_model(str(partial), full_check=True)
    session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
    _check(model, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), size, partial)
    partial.replace(path)


def export_backbone(config: Config, checkpoint: Path, out: Path) -> None:
    """Write the backbone of a checkpoint, checked against the config's network, as safetensors with plain metadata.

    Raises:
        ValueError: if the checkpoint is not of the config's network.
    """
    file = WeightsFile(checkpoint)
    check_same_network(file, config)
    backbone = MODELS.build(config.model.backbone)
    load_weights(backbone, file, prefix=BACKBONE, strict=True)
    save_weights(backbone.state_dict(), out, describe(backbone))


def export_network(config: Config, checkpoint: Path, out: Path) -> None:
    """Write the deployed classifier of a checkpoint as ``.onnx`` or ``.pt2``, after comparing their outputs.

    Raises:
        ValueError: if the checkpoint is not of the config's network, or that is no classifier.
    """
    file = WeightsFile(checkpoint)
    check_same_network(file, config)
    network = MODELS.build(config.model).eval()
    if not isinstance(network, ImageClassifier):
        raise ValueError(
            f"{out.suffix} files are written of classifiers, this is a {type(network).__name__}; --format safetensors "
            "writes its backbone"
        )
    load_weights(network, file, strict=True)
    size = config.get("image_size") or network.backbone.usual_size
    if out.suffix == ".pt2":
        write_pt2(network, out, size)
    else:
        write_onnx(network, out, size, {**describe(network.backbone), "config": config_name(config) or ""})


def describe(backbone: EANResNet) -> dict[str, str]:
    """What the files of a network say of it: its class, depth, attention and connections."""
    return {
        "type": type(backbone).__name__,
        "depth": str(backbone.depth),
        "attention": str(backbone.attention_cfg["type"]),
        "scheme": str(backbone.scheme),
        "shared": str(backbone.shared),
    }


@torch.no_grad()
def _check(model: nn.Module, run: Any, size: int, path: Path) -> None:
    """Compare a written file with the network it came from, on other batches and sizes than it was traced with."""
    network = FromPixels(copy.deepcopy(model)).cpu().eval()
    channels = find_backbone(model).in_channels
    for shape in ((1, channels, size, size), (3, channels, 2 * size, size)):
        images = torch.rand(shape) * 255
        expected = network(images)
        error = float((run(images) - expected).abs().max() / expected.abs().max())
        if not error <= TOLERANCE:
            path.unlink()
            raise RuntimeError(f"the exported network's outputs differ by {error:.1e} of the largest at images {shape}")


def _partial(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f"{path.stem}.part{path.suffix}")
