"""The command ``ean explain``: what decisions of trained networks come from, side by side (Figure 6 of the paper).

Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks", ICCV 2017) of the last feature map that
a network's head sees: the sum of its channels, each weighed by the mean gradient of a score, where that is positive.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from ean_core.backbone import find_backbone
from ean_core.classifier import ImageClassifier
from ean_core.common.errors import unknown_name
from ean_core.common.record import csv_text, write_record, write_text
from ean_core.inference.comparison import connection
from ean_core.runs.folder import trained_config
from ean_core.scheme import ConnectionScheme
from ean_core.show.figures import COLOURS, draw_schemes, save
from ean_core.show.table import print_table
from ean_core.weights.files import read_meta
from zoo.preprocessing import Preprocessing

from .pictures import read_picture
from .showing import HEAT
from .sources import EXPLAINED, find_sources
from .trained import checkpoint_of, load_network

#: What is compared where no model is named: one data set, one recipe, three connections.
MODELS = ("resnet20.cifar100", "full_resnet20_se.cifar100", "ean_resnet20_se.cifar100")
#: Pixels above which a picture is made smaller before a counter or segmentor looks at it; gradients need memory.
MOST_PIXELS = 1_500_000
#: What a segmentor calls the class that is everywhere, and so explains nothing.
BACKGROUND = "background"


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


class Explainer(ABC):
    """One trained network whose decisions are looked at.

    Args:
        name: of the network, as it was given.
        network: in evaluation mode.
        classes: names of its classes; none for a counter.
    """

    #: What its scores are.
    unit: ClassVar[str]

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

    def __init__(self, name: str, network: ImageClassifier, classes: Sequence[str], sizes: Mapping[str, Any]) -> None:
        super().__init__(name, network, classes)
        normalise: Any = network.data_preprocessor
        mean, std = (tuple(value.flatten().tolist()) for value in (normalise.mean, normalise.std))
        self.preprocessing = Preprocessing(mean, std, **sizes)

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


class CounterExplainer(Explainer):
    """Explains the sum of a density, which is its score too."""

    unit = "people"

    def prepare(self, pixels: NDArray[np.uint8]) -> tuple[Tensor, NDArray[np.uint8]]:
        seen = _within(pixels)
        image = torch.from_numpy(seen).permute(2, 0, 1)[None]
        inputs = self.network.data_preprocessor({"inputs": image})["inputs"]
        height, width = seen.shape[:2]
        stride = self.network.stride  # padded here as the network would, so that heat has the place of what it sees
        return F.pad(inputs, (0, -width % stride, 0, -height % stride)), seen

    def scores(self, inputs: Tensor) -> list[float]:
        with torch.inference_mode():
            return [self.target(inputs, 0).item()]

    def target(self, inputs: Tensor, index: int) -> Tensor:
        density: Tensor = self.network(inputs, mode="tensor")
        return density.sum((1, 2, 3))

    def text(self, score: float, target: str) -> str:
        return f"{score:.1f} people"


class SegmentorExplainer(Explainer):
    """Explains the mean logit of a class where that class is seen; its scores are shares of the picture."""

    unit = "share of the picture"

    def prepare(self, pixels: NDArray[np.uint8]) -> tuple[Tensor, NDArray[np.uint8]]:
        from tasks.segmentation.library import SegDataSample
        from tasks.segmentation.network import tested_size

        seen = _within(pixels)
        height, width = tested_size(seen.shape[:2], self.network.test_cfg.get("shorter_side"))
        if (height, width) != seen.shape[:2]:
            seen = np.array(Image.fromarray(seen).resize((width, height), Image.Resampling.BILINEAR))
        image = torch.from_numpy(np.ascontiguousarray(seen[:, :, ::-1])).permute(2, 0, 1)  # blue first
        sample = SegDataSample(metainfo={"ori_shape": seen.shape[:2], "img_shape": seen.shape[:2]})
        data = self.network.data_preprocessor({"inputs": [image], "data_samples": [sample]}, False)
        return data["inputs"], seen

    def scores(self, inputs: Tensor) -> list[float]:
        with torch.inference_mode():
            labels = self.network(inputs, mode="tensor")[0].argmax(0)  # (h, w)
        counts = torch.bincount(labels.flatten(), minlength=len(self.classes))
        shares: list[float] = (counts / labels.numel()).tolist()
        return shares

    def target(self, inputs: Tensor, index: int) -> Tensor:
        logits: Tensor = self.network(inputs, mode="tensor")  # (1, classes, h, w)
        seen = (logits.argmax(1) == index).float()
        if not seen.any():
            seen = torch.ones_like(seen)
        return (logits[:, index] * seen).sum((1, 2)) / seen.sum((1, 2))

    def text(self, score: float, target: str) -> str:
        return f"{target}: {100 * score:.1f} %"


def _within(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture of no more pixels than gradients have memory for."""
    height, width = pixels.shape[:2]
    factor = (MOST_PIXELS / (height * width)) ** 0.5
    if factor >= 1:
        return np.require(pixels, requirements=["C", "W"])
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def load_explainer(model: str) -> Explainer:
    """A trained network by what one would type: a name of the zoo, a checkpoint, the folder of a run.

    Raises:
        ValueError: if it is no classifier, counter or segmentor, or cannot be built.
        OSError: if its file cannot be had.
    """
    network: Any = load_network(model)
    path = checkpoint_of(model)
    kind = type(network).__name__
    classes = _classes(model, path)
    if isinstance(network, ImageClassifier):
        count = network.fc.out_features
        names = classes if len(classes) == count else [str(label) for label in range(count)]
        return ClassifierExplainer(model, network, names, _sizes(model, path, network))
    if kind == "CrowdCounter":
        return CounterExplainer(model, network, [])
    if kind == "Segmentor":
        from tasks.segmentation.voc import CLASSES

        known = [classes, list(CLASSES), [str(label) for label in range(network.num_classes)]]
        return SegmentorExplainer(model, network, next(names for names in known if len(names) == network.num_classes))
    raise ValueError(f"{model} is a {kind}; classifiers, counters and segmentors can be explained")


def _classes(model: str, path: Path | None) -> list[str]:
    """Names of the classes, where they are known."""
    if path is None:
        return list(zoo.get_weights(model).meta.get("categories", []))
    described: Any = read_meta(path).get("dataset_meta") if path.suffix == ".pth" else None
    return list(described.get("classes") or []) if isinstance(described, Mapping) else []


def _sizes(model: str, path: Path | None, network: ImageClassifier) -> dict[str, Any]:
    """To which size pictures are brought for a classifier."""
    if path is None:
        preprocessing = zoo.get_weights(model).transforms()
        return {"size": preprocessing.size, "resize": preprocessing.resize}
    config = trained_config(path)
    return {"size": (config or {}).get("image_size") or network.backbone.usual_size}


# ---------------------------------------------------------------- a picture


@dataclass(frozen=True)
class Explanation:
    """What one network says of one picture.

    Args:
        file: the picture.
        model: the network, as it was given.
        connection: ``vanilla``, ``Share-full SE`` …
        scheme: its connections.
        target: the class that is explained; ``people`` for a counter.
        score: of that class: softmax, number of people, or share of the picture.
    """

    titles: ClassVar[tuple[str, ...]] = ("picture", "model", "connection", "scheme", "target", "score")
    words: ClassVar[tuple[str, ...]] = ("picture", "model", "connection", "scheme", "target")

    file: str
    model: str
    connection: str
    scheme: str
    target: str
    score: float

    def cells(self) -> dict[str, str]:
        """Column titles and texts."""
        return {
            "picture": self.file,
            "model": self.model,
            "connection": self.connection,
            "scheme": self.scheme,
            "target": self.target,
            "score": f"{self.score:.3f}",
        }


def explain_picture(
    explainers: Sequence[Explainer], pixels: NDArray[np.uint8], name: str, target: str | None, path: Path
) -> list[Explanation]:
    """Write one picture of where the networks' scores come from, and give the scores.

    Args:
        explainers: networks of one task with the same classes.
        pixels: RGB ``(H, W, 3)``.
        name: of the picture.
        target: a class by name or number; the one that the networks together score highest if None.
        path: of what is written; the format is that of the suffix.

    Raises:
        ValueError: if there is no such class; the nearest names are given.
    """
    prepared = [each.prepare(pixels) for each in explainers]
    scores = [each.scores(inputs) for each, (inputs, _) in zip(explainers, prepared, strict=True)]
    classes = explainers[0].classes
    index = _chosen(classes, scores, target)
    label = classes[index] if classes else explainers[0].unit
    heats = [
        each.heat(inputs, index)[: shown.shape[0], : shown.shape[1]]
        for each, (inputs, shown) in zip(explainers, prepared, strict=True)
    ]
    found = [
        Explanation(name, each.name, each.title, str(each.scheme), label, own[index])
        for each, own in zip(explainers, scores, strict=True)
    ]
    _draw(explainers, [shown for _, shown in prepared], heats, found, path)
    return found


def _chosen(classes: Sequence[str], scores: Sequence[Sequence[float]], target: str | None) -> int:
    """The number of the class that is explained."""
    if not classes:
        if target is not None:
            raise ValueError(f"--target is a class, got {target!r}; a counter has none, its target is the density")
        return 0
    if target is None:
        mean = np.mean(scores, axis=0)
        if BACKGROUND in classes and mean.argmax() == classes.index(BACKGROUND) and len(classes) > 1:
            mean[classes.index(BACKGROUND)] = -1
        return int(mean.argmax())
    if target in classes:
        return classes.index(target)
    if target.isdecimal() and int(target) < len(classes):
        return int(target)
    raise unknown_name("class", target, classes)


def _draw(
    explainers: Sequence[Explainer],
    shown: Sequence[NDArray[np.uint8]],
    heats: Sequence[NDArray[np.float32]],
    found: Sequence[Explanation],
    path: Path,
) -> None:
    """The picture, and beside it one with heat for each network, with its score and its scheme."""
    height, width = shown[0].shape[:2]
    columns = len(explainers) + 1
    side = 2.6
    tall = min(1.8, max(0.5, height / width)) * side
    figure = Figure(figsize=(side * columns, tall + 0.8), layout="constrained", dpi=150)
    grid = figure.subplots(2, columns, height_ratios=(tall, 0.16), squeeze=False)
    smooth = "nearest" if max(height, width) < 100 else "antialiased"
    for axes, pixels in zip(grid[0], [shown[0], *shown], strict=True):
        axes.imshow(pixels, interpolation=smooth)
        axes.axis("off")
    grid[0][0].set_title(_short(found[0].file), fontsize=10)
    grid[1][0].axis("off")
    for k, (explainer, heat, one) in enumerate(zip(explainers, heats, found, strict=True), 1):
        colours = HEAT(heat)
        colours[:, :, 3] = 0.75 * heat
        grid[0][k].imshow(colours, interpolation="bilinear")
        grid[0][k].set_title(f"{one.connection}\n{explainer.text(one.score, one.target)}", fontsize=10)
        draw_schemes({"": explainer.scheme}, grid[1][k], COLOURS[:1])
        grid[1][k].set_anchor("N")
    save(figure, path)


def _short(name: str, length: int = 28) -> str:
    return name if len(name) <= length else f"…{name[1 - length :]}"


# ---------------------------------------------------------------- command


def explain(
    sources: Annotated[list[str], typer.Argument(help="Pictures, and folders of them.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model of the zoo, a checkpoint, or a run's folder; several for a comparison."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The class to explain, by name or number; what the models see by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of pictures and scores.")] = Path("work_dirs/explained"),
) -> None:
    """Show where the decisions of classifiers, counters or segmentors come from, side by side."""
    explainers = [load_explainer(each) for each in model or MODELS]
    kinds = {type(each): each.name for each in explainers}
    if len(kinds) > 1:
        raise ValueError(f"models of one task can be compared, these are of several: {', '.join(kinds.values())}")
    if len({tuple(each.classes) for each in explainers}) > 1:
        raise ValueError("models with the same classes can be compared, these have different ones")
    if target is not None:
        _chosen(explainers[0].classes, [], target)
    listed = list(find_sources(sources))
    found: list[Explanation] = []
    good = 0
    for kind, source, name in listed:
        try:
            if kind != "picture":
                raise ValueError("there is no such file or folder" if kind == "missing" else "a video is no picture")
            own = explain_picture(explainers, read_picture(Path(source)), name, target, out / f"{name}{EXPLAINED}.png")
        except (OSError, ValueError) as error:
            typer.echo(f"{source}: {str(error).removeprefix(f'{source} ')}; skipped", err=True)
            continue
        found += own
        good += 1
    if not found:
        typer.echo(f"0 of {len(listed)} pictures explained", err=True)
        raise typer.Exit(1)
    rows = [asdict(one) for one in found]
    write_text(out / "explained.csv", csv_text(rows[0], (row.values() for row in rows)))
    write_record(
        out / "explained.json", kind="explanation", score=explainers[0].unit, method="Grad-CAM", explanations=rows
    )
    print_table(found, title=f"Scores ({explainers[0].unit})")
    typer.echo(f"{good} of {len(listed)} pictures explained: {out}")
