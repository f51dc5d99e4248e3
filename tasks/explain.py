"""The command ``ean explain``: Grad-CAM of trained networks side by side (Figure 6 of the paper)."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
from matplotlib.figure import Figure
from numpy.typing import NDArray

import zoo
from ean_core.classifier import ImageClassifier
from ean_core.common.errors import unknown_name
from ean_core.common.record import csv_text, write_record, write_text
from ean_core.common.tasks import CLASSIFICATION, known_tasks, task_of_network
from ean_core.common.text import visible
from ean_core.data.images import read_image
from ean_core.show.colours import COLOURS
from ean_core.show.figures import draw_schemes, save
from ean_core.show.table import Cells, print_table
from ean_core.weights.files import read_meta

from .explainers import ClassifierExplainer, Explainer
from .showing import HEAT
from .sources import EXPLAINED, find_sources
from .trained import checkpoint_of, load_network

#: Models compared by default: one data set, one recipe, three connections.
MODELS = ("resnet20.cifar100", "full_resnet20_se.cifar100", "ean_resnet20_se.cifar100")


def load_explainer(model: str) -> Explainer:
    """Load the explainer of a trained network, given as a zoo name, a checkpoint, or the folder of a run.

    Raises:
        ValueError: if there is no explainer for its task, or it cannot be built.
        OSError: if its file cannot be read or downloaded.
    """
    network = load_network(model)
    if isinstance(network, ImageClassifier):
        return ClassifierExplainer(model, network, _classes(model))
    kind = type(network).__name__
    task = task_of_network(kind)
    if task is None or not task.explainer:
        can = [CLASSIFICATION.noun, *(each.noun for each in known_tasks() if each.explainer)]
        raise ValueError(f"{model} is a {kind}; only {', '.join(f'{noun}s' for noun in can)} can be explained")
    explainer: type[Explainer] = pkgutil.resolve_name(task.explainer)
    return explainer(model, network, _classes(model))


def _classes(model: str) -> list[str]:
    """Names of the classes, if known."""
    path = checkpoint_of(model)
    if path is None:
        return list(zoo.get_weights(model).meta.get("categories", []))
    described: Any = read_meta(path).get("dataset_meta") if path.suffix == ".pth" else None
    return list(described.get("classes") or []) if isinstance(described, Mapping) else []


# ---------------------------------------------------------------- an image


@dataclass(frozen=True)
class Explanation:
    """Score of one network for one image.

    Args:
        file: name of the image.
        model: network as given by the user.
        connection: ``vanilla``, ``Share-full SE`` …
        scheme: its connections.
        target: explained class; ``people`` for a counter.
        score: softmax of that class, number of people, or share of the image.
    """

    file: str
    model: str
    connection: str
    scheme: str
    target: str
    score: float


def explain_picture(
    explainers: Sequence[Explainer], pixels: NDArray[np.uint8], name: str, target: str | None, path: Path
) -> list[Explanation]:
    """Write a figure with the heat maps of all networks for one image, and return their scores.

    Args:
        explainers: networks of one task with the same classes.
        pixels: RGB ``(H, W, 3)``.
        name: name of the image.
        target: class by name or number; by default the one with the highest mean score over the networks.
        path: output file; its suffix selects the format.

    Raises:
        ValueError: if there is no such class; the message suggests the nearest names.
    """
    prepared = [each.prepare(pixels) for each in explainers]
    scores = [each.scores(inputs) for each, (inputs, _) in zip(explainers, prepared, strict=True)]
    classes = explainers[0].classes
    index = _chosen(explainers[0], scores, target)
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


def _chosen(explainer: Explainer, scores: Sequence[Sequence[float]], target: str | None) -> int:
    """Index of the class to explain."""
    classes = explainer.classes
    if not classes:
        if target is not None:
            raise ValueError(
                f"--target names a class, got {target!r}; counters have no classes, they explain the density"
            )
        return 0
    if target is None:
        mean = np.mean(scores, axis=0)
        if len(classes) > 1 and classes[mean.argmax()] == explainer.background:
            mean[mean.argmax()] = -1
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
    """Draw the image, and beside it one heat map per network with its score and scheme."""
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


def _cells(one: Explanation) -> Cells:
    return {
        "image": one.file,
        "model": one.model,
        "connection": one.connection,
        "scheme": one.scheme,
        "target": one.target,
        "score": f"{one.score:.3f}",
    }


def _short(name: str, length: int = 28) -> str:
    name = visible(name)
    return name if len(name) <= length else f"…{name[1 - length :]}"


# ---------------------------------------------------------------- command


def explain(
    sources: list[str],
    model: list[str] | None,
    target: str | None,
    out: Path,
) -> None:
    """Do the work of the command; :mod:`tasks.options` declares its arguments and options."""
    explainers = [load_explainer(each) for each in model or MODELS]
    kinds = {type(each): each.name for each in explainers}
    if len(kinds) > 1:
        raise ValueError(
            f"only models of one task can be compared, these are from several: {', '.join(kinds.values())}"
        )
    if len({tuple(each.classes) for each in explainers}) > 1:
        raise ValueError("only models with the same classes can be compared, these have different classes")
    if target is not None:
        _chosen(explainers[0], [], target)
    listed = list(find_sources(sources))
    found: list[Explanation] = []
    good = 0
    for kind, source, name in listed:
        try:
            if kind != "picture":
                raise ValueError("there is no such file or folder" if kind == "missing" else "a video is not an image")
            own = explain_picture(explainers, read_image(Path(source)), name, target, out / f"{name}{EXPLAINED}.png")
        except (OSError, ValueError) as error:
            typer.echo(visible(f"{source}: {str(error).removeprefix(f'{source} ')}; skipped"), err=True)
            continue
        found += own
        good += 1
    if not found:
        typer.echo(f"0 of {len(listed)} images explained", err=True)
        raise typer.Exit(1)
    rows = [asdict(one) for one in found]
    write_text(out / "explained.csv", csv_text(rows[0], (row.values() for row in rows)))
    write_record(
        out / "explained.json", kind="explanation", score=explainers[0].unit, method="Grad-CAM", explanations=rows
    )
    print_table([_cells(one) for one in found], title=f"Scores ({explainers[0].unit})")
    typer.echo(f"{good} of {len(listed)} images explained: {out}")
    if good < len(listed):
        raise typer.Exit(1)
