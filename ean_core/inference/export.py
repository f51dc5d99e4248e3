"""Export trained networks: a backbone's weights, or deployed networks that run without this package (ONNX, pt2)."""

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

from ean_core.backbone import describe, find_backbone
from ean_core.classifier import ImageClassifier, ImagePreprocessor
from ean_core.common.config import config_name
from ean_core.common.writing import replacing
from ean_core.runs.folder import check_same_network
from ean_core.weights.addresses import BACKBONE
from ean_core.weights.files import WeightsFile, save_weights
from ean_core.weights.loading import load_weights

from .deploy import deploy

#: Largest allowed difference between a file's outputs and the network's, relative to the largest output.
TOLERANCE = 1e-4


class Format(str, Enum):
    """File format of an exported network."""

    safetensors = "safetensors"
    onnx = "onnx"
    pt2 = "pt2"


class FromPixels(nn.Module):
    """A classifier that includes image normalization.

    Maps images ``(N, C, H, W)``, floats from 0 to 255, to logits ``(N, num_classes)``.

    Raises:
        ValueError: if the classifier has another kind of preprocessor, which cannot be included.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        preprocessor = model.data_preprocessor
        if type(preprocessor) not in (ImagePreprocessor, BaseDataPreprocessor):
            raise ValueError(
                f"data_preprocessor is {type(preprocessor).__name__}, which cannot be exported; use "
                "ImagePreprocessor, or remove it and export a network that takes normalized images"
            )
        self.preprocessor = preprocessor if isinstance(preprocessor, ImagePreprocessor) else None

    def forward(self, images: Tensor) -> Tensor:
        if self.preprocessor is not None:
            images = (images - self.preprocessor.mean) / self.preprocessor.std
        return self.model(images)


def export_program(model: nn.Module, size: int) -> torch.export.ExportedProgram:
    """Deploy and trace a classifier for any batch size, and images with a last feature map larger than 1x1.

    Args:
        model: an image classifier; a copy of it is deployed on the CPU.
        size: size of the images used for tracing, in pixels.

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
        RuntimeError: if the outputs of the written file differ from the classifier's.
    """
    program = export_program(model, size)
    with replacing(path, suffix=True) as partial:
        torch.export.save(program, partial)
        written = torch.export.load(partial).module()
        _check(model, lambda images: written(images), size)


def write_onnx(model: nn.Module, path: Path, size: int, metadata: Mapping[str, str] | None = None) -> None:
    """Write a classifier as ONNX with its weights inside; input ``images``, output ``logits``.

    Args:
        model, size: see :func:`export_program`.
        path: path of the file; it gets this name after a check with onnxruntime.
        metadata: text fields about the network, stored in the file.

    Raises:
        ImportError: if the packages for ONNX are not installed.
        RuntimeError: if the outputs of the written file differ from the classifier's.
    """
    try:
        import onnx
        import onnx_ir
        import onnxruntime
        import onnxscript  # noqa: F401 -- needed by the exporter, with a less helpful error if missing
    except ImportError as error:
        raise ImportError(
            f"ONNX needs {error.name}: pip install 'ean-zoo[export]', or '.[export]' in a checkout"
        ) from error
    program = torch.onnx.export(
        export_program(model, size), (), input_names=["images"], output_names=["logits"], dynamo=True, verbose=False
    )
    assert program is not None
    program.model.metadata_props.update(metadata or {})
    images, logits = program.model.graph.inputs[0], program.model.graph.outputs[0]
    images.shape = onnx_ir.Shape(["batch", find_backbone(model).in_channels, "height", "width"])
    logits.shape = onnx_ir.Shape(["batch", *list(logits.shape or ())[1:]])
    with replacing(path, suffix=True) as partial:
        program.save(str(partial), external_data=False)
        onnx.checker.check_model(str(partial), full_check=True)
        session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
        _check(model, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), size)


def export_backbone(config: Config, checkpoint: Path, out: Path) -> None:
    """Write the backbone of a checkpoint, checked against the config's network, as safetensors with plain metadata.

    Raises:
        ValueError: if the checkpoint does not belong to the config's network.
    """
    file = WeightsFile(checkpoint)
    check_same_network(file, config)
    backbone = MODELS.build(config.model.backbone)
    load_weights(backbone, file, prefix=BACKBONE, strict=True)
    save_weights(backbone.state_dict(), out, describe(backbone))


def export_network(config: Config, checkpoint: Path, out: Path) -> None:
    """Write the deployed classifier of a checkpoint as ``.onnx`` or ``.pt2``, after comparing their outputs.

    Raises:
        ValueError: if the checkpoint does not belong to the config's network, or that is not a classifier.
    """
    file = WeightsFile(checkpoint)
    check_same_network(file, config)
    network = MODELS.build(config.model).eval()
    if not isinstance(network, ImageClassifier):
        raise ValueError(
            f"only classifiers can be exported as {out.suffix}, got a {type(network).__name__}; --format safetensors "
            "writes its backbone"
        )
    load_weights(network, file, strict=True)
    size = config.get("image_size") or network.backbone.usual_size
    if out.suffix == ".pt2":
        write_pt2(network, out, size)
    else:
        write_onnx(network, out, size, {**describe(network.backbone), "config": config_name(config) or ""})


@torch.no_grad()
def _check(model: nn.Module, run: Any, size: int) -> None:
    """Compare a written file with its network, on batch and image sizes other than those used for tracing."""
    network = FromPixels(copy.deepcopy(model)).cpu().eval()
    channels = find_backbone(model).in_channels
    for shape in ((1, channels, size, size), (3, channels, 2 * size, size)):
        images = torch.rand(shape) * 255
        expected = network(images)
        error = float((run(images) - expected).abs().max() / expected.abs().max())
        if not error <= TOLERANCE:
            raise RuntimeError(
                f"the exported network's outputs differ by {error:.1e} of the largest one, for images {shape}"
            )
