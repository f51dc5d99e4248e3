"""Export trained networks: a backbone's weights, or deployed networks that run without this package (ONNX, pt2)."""

from __future__ import annotations

import copy
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from torch import Tensor, nn

from ean_core.backbone import EANResNet, describe, find_backbone
from ean_core.classifier import ImagePreprocessor
from ean_core.common.config import config_name
from ean_core.common.tasks import known_tasks, task_of_network
from ean_core.common.writing import replacing
from ean_core.runs.folder import check_same_network
from ean_core.weights.addresses import BACKBONE
from ean_core.weights.files import WeightsFile, save_weights
from ean_core.weights.loading import load_weights

from .deploy import DeployedBackbone, deploy, is_deployed

#: Largest allowed difference between a file's outputs and the network's, relative to the largest output.
TOLERANCE = 1e-4


class FromPixels(nn.Module):
    """A network that includes image normalization: a classifier here, those of other tasks in subclasses.

    Maps images ``(N, C, H, W)``, floats from 0 to 255, to logits ``(N, num_classes)``.

    Raises:
        ValueError: if the network has another kind of preprocessor, which cannot be included.
    """

    #: Name of the output in files, and names of its axes that depend on the images.
    output: ClassVar[str] = "logits"
    #: Names of further outputs, with the same axes.
    others: ClassVar[tuple[str, ...]] = ()
    axes: ClassVar[Mapping[int, str]] = {0: "batch"}
    #: Whether images may have any size, larger than that of the last feature map, or only that of the traced ones.
    any_size: ClassVar[bool] = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.preprocessor = self.preprocessor_of(model)

    @staticmethod
    def preprocessor_of(model: Any) -> Any:
        """Return the module that normalizes the images, None if there is nothing to do."""
        preprocessor = model.data_preprocessor
        if type(preprocessor) not in (ImagePreprocessor, BaseDataPreprocessor):
            raise ValueError(
                f"data_preprocessor is {type(preprocessor).__name__}, which cannot be exported; use "
                "ImagePreprocessor, or remove it and export a network that takes normalized images"
            )
        return preprocessor if isinstance(preprocessor, ImagePreprocessor) else None

    @classmethod
    def suited(cls, model: nn.Module) -> type[FromPixels]:
        """Return the class for this network: a subclass if it cannot take images of any size, for example."""
        return cls

    @classmethod
    def size_of(cls, model: nn.Module, image_size: int | Sequence[int] | None) -> tuple[int, int]:
        """Height and width of the images used for tracing, given those in the config, if any."""
        size = image_size or find_backbone(model).usual_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def forward(self, images: Tensor) -> Any:
        return self.outputs(self.normalized(images))

    def normalized(self, images: Tensor) -> Tensor:
        """Images as the network takes them."""
        return images if self.preprocessor is None else (images - self.preprocessor.mean) / self.preprocessor.std

    def outputs(self, images: Tensor) -> Any:
        """Outputs for normalized images, in operations that files can express; a tuple if there are ``others``."""
        return self.model(images)

    def expected(self, images: Tensor) -> Any:
        """Outputs of the network itself, which those of files are compared with."""
        return self.model(self.normalized(images))

    def meaning(self) -> str:
        """Describe the output for users."""
        return f"logits (N, {self.model.num_classes})"


def export_program(
    model: nn.Module, size: int | tuple[int, int], wrap: type[FromPixels] = FromPixels
) -> torch.export.ExportedProgram:
    """Deploy and trace a network for any batch size, and images with a last feature map larger than 1x1.

    Args:
        model: a network, deployed or not; a copy of it is deployed on the CPU.
        size: size of the images used for tracing, in pixels: height and width, or both.
        wrap: the kind of network that is traced.

    Returns:
        The program of ``wrap``, with one input ``images``.
    """
    network = wrap((copy.deepcopy(model) if is_deployed(model) else deploy(model)).cpu()).eval()
    height, width = (size, size) if isinstance(size, int) else size
    images = torch.rand(2, _channels(network), height, 2 * width if wrap.any_size else width) * 255
    free = dict.fromkeys((0, 2, 3) if wrap.any_size else (0,), torch.export.Dim.DYNAMIC)
    return torch.export.export(network, (images,), dynamic_shapes={"images": free})


def write_pt2(model: nn.Module, path: Path, size: int | tuple[int, int], wrap: type[FromPixels] = FromPixels) -> None:
    """Write a network for :func:`torch.export.load`; see :func:`export_program`.

    Raises:
        RuntimeError: if the outputs of the written file differ from the network's.
    """
    program = export_program(model, size, wrap)
    with replacing(path, suffix=True) as partial:
        torch.export.save(program, partial)
        written = torch.export.load(partial).module()
        _check(wrap(copy.deepcopy(model)), lambda images: written(images), size)


def write_onnx(
    model: nn.Module,
    path: Path,
    size: int | tuple[int, int],
    metadata: Mapping[str, str] | None = None,
    wrap: type[FromPixels] = FromPixels,
) -> None:
    """Write a network as ONNX with its weights inside; input ``images``, output as ``wrap`` names it.

    Args:
        model, size, wrap: see :func:`export_program`.
        path: path of the file; it gets this name after a check with onnxruntime.
        metadata: text fields about the network, stored in the file.

    Raises:
        ImportError: if the packages for ONNX are not installed.
        RuntimeError: if the outputs of the written file differ from the network's.
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
    traced = export_program(model, size, wrap)
    names: Any = {"input_names": ["images"], "output_names": [wrap.output, *wrap.others]}
    program = torch.onnx.export(traced, (), dynamo=True, verbose=False, **names)
    assert program is not None
    program.model.metadata_props.update(metadata or {})
    _pool_globally(program.model.graph)
    (images,), outputs = program.model.graph.inputs, program.model.graph.outputs
    free = {0: "batch", 2: "height", 3: "width"} if wrap.any_size else {0: "batch"}
    for value, axes in ((images, free), *((output, wrap.axes) for output in outputs)):
        value.shape = onnx_ir.Shape([axes.get(axis, length) for axis, length in enumerate(value.shape or ())])
    with replacing(path, suffix=True) as partial:
        program.save(str(partial), external_data=False)
        onnx.checker.check_model(str(partial), full_check=True)
        session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
        run = lambda images: [*map(torch.from_numpy, session.run(None, {"images": images.numpy()}))]  # noqa: E731
        _check(wrap(copy.deepcopy(model)), run, size)


def _pool_globally(graph: Any) -> None:
    """Write means over all positions as ``GlobalAveragePool``.

    ONNX Runtime computes them in the blocked layout of its convolutions; before a ``ReduceMean``, it copies the whole
    map into the usual layout.
    """
    import onnx_ir

    for node in [node for node in graph if node.op_type == "ReduceMean" and len(node.inputs) == 2]:
        taken, axes = node.inputs
        constant = onnx_ir.convenience.get_const_tensor(axes)
        if constant is None or sorted(constant.numpy().tolist()) not in ([2, 3], [-2, -1]) or len(taken.shape) != 4:
            continue
        made = [onnx_ir.node("GlobalAveragePool", [taken])]
        if not node.attributes.get_int("keepdims", 1):
            made.append(onnx_ir.node("Flatten", made[0].outputs, attributes={"axis": 1}))
        onnx_ir.convenience.replace_nodes_and_values(graph, node, [node], made, node.outputs, made[-1].outputs)
        if not axes.uses():
            graph.initializers.pop(axes.name, None)


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


def export_network(config: Config, checkpoint: Path, out: Path) -> str:
    """Write the deployed network of a checkpoint as ``.onnx`` or ``.pt2``, after comparing their outputs.

    Returns:
        A description of inputs and outputs.

    Raises:
        ValueError: if the checkpoint does not belong to the config's network, or the task of that has no exporter.
    """
    file = WeightsFile(checkpoint)
    check_same_network(file, config)
    network = MODELS.build(config.model).eval()
    wrap = exporter_of(network)
    load_weights(network, file, strict=True)
    size = wrap.size_of(network, config.get("image_size"))
    if out.suffix == ".pt2":
        write_pt2(network, out, size, wrap)
    else:
        metadata = {**describe(find_backbone(network)), "config": config_name(config) or ""}
        write_onnx(network, out, size, metadata, wrap)
    channels = find_backbone(network).in_channels
    shape = "H, W" if wrap.any_size else f"{size[0]}, {size[1]}"
    order = "RGB" if channels == 3 else "channels as in training"
    return f"input: float32 images (N, {channels}, {shape}), {order}, 0 to 255; output: {wrap(network).meaning()}"


def exporter_of(network: nn.Module) -> type[FromPixels]:
    """Return the class that the network's task registers for export.

    Raises:
        ValueError: if there is none.
    """
    task = task_of_network(type(network).__name__)
    if task is None or not task.exporter:
        nouns = ", ".join(f"{each.noun}s" for each in known_tasks() if each.exporter)
        raise ValueError(
            f"only {nouns} can be exported as a whole, got a {type(network).__name__}; --format safetensors writes its "
            "backbone"
        )
    return pkgutil.resolve_name(task.exporter).suited(network)


@torch.no_grad()
def _check(network: FromPixels, run: Callable[[Tensor], Any], size: int | tuple[int, int]) -> None:
    """Compare a written file with its network, on batch and image sizes other than those used for tracing."""
    network = network.cpu().eval()
    channels = _channels(network)
    height, width = (size, size) if isinstance(size, int) else size
    higher, wider = (2 * height + 1, width + 3) if network.any_size else (height, width)
    for shape in ((1, channels, height, width), (3, channels, higher, wider)):
        images = torch.rand(shape) * 255
        for expected, got in zip(_listed(network.expected(images)), _listed(run(images)), strict=True):
            if got.shape != expected.shape:
                raise RuntimeError(
                    f"the exported network's outputs have shape {tuple(got.shape)}, expected {tuple(expected.shape)}, "
                    f"for images {shape}"
                )
            scale = max(float(expected.abs().max()), torch.finfo(torch.float32).tiny)
            error = float((got - expected).abs().max()) / scale
            if not error <= TOLERANCE:
                raise RuntimeError(
                    f"the exported network's outputs differ by {error:.1e} of the largest one, for images {shape}"
                )


def _channels(model: nn.Module) -> int:
    """Channels of the images that a model takes, deployed or not."""
    kinds = (EANResNet, DeployedBackbone)
    return next(module.in_channels for module in model.modules() if isinstance(module, kinds))


def _listed(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else [*outputs]
