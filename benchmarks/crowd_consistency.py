"""Do counters give one count to one crowd? Counts of the same people shown in other ways.

    python benchmarks/crowd_consistency.py COUNTER... [--split val] [--tile 384 512] [--images N] [--out FILE]

A counter is a zoo model, a checkpoint or the folder of a run. Per counter, on images of ShanghaiTech B:

- ``whole``: mean absolute error (MAE) and bias of whole images, with a 95 % bootstrap interval over images;
- ``tiles``: of the sum over tiles of the training crop's size, each counted alone;
- ``border``: mean relative change of the count in a mean-color border of half the height and width on each side, and,
  as shares of the count, the people counted in the border itself and the change more than 64 pixels inside the image;
- ``gray``: mean relative change of the count, and its mean sign, in a gray copy;
- ``x 0.75``, ``x 1.5``: MAE and bias of images scaled by that factor;
- counts in black, white and noise images of 768 x 1024, which show nobody.

Writes benchmarks/results/crowd_consistency.json, which keeps counters that were measured before on the same images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ean_core.common.intervals import mean_interval
from ean_core.common.progress import Progress
from ean_core.common.record import read_record, write_record
from tasks.crowd_counting.counter import Counter
from tasks.crowd_counting.dataset import CrowdDataset

RESULT = Path(__file__).parent / "results" / "crowd_consistency.json"
SIZE = (768, 1024)
#: Pixels of the image beside the border where counts may change with it.
MARGIN = 64
Pixels = NDArray[np.uint8]


def mean_color(counter: Counter) -> Pixels:
    """The color that a counter's normalization maps to zero, uint8 ``(3,)``."""
    return counter.network.data_preprocessor.mean.flatten().round().byte().cpu().numpy()  # type: ignore[union-attr, operator]


def with_border(pixels: Pixels, color: Pixels) -> Pixels:
    """Add a border of half the height and width on each side."""
    height, width = pixels.shape[:2]
    framed = np.broadcast_to(color, (2 * height, 2 * width, 3)).copy()
    framed[height // 2 : height // 2 + height, width // 2 : width // 2 + width] = pixels
    return framed


def places_of_change(density: NDArray[np.float32], framed: NDArray[np.float32]) -> tuple[float, float]:
    """People counted in the border, and how many more far inside the image than without it.

    Args:
        density: people per pixel of the image, ``(H, W)``.
        framed: the same with the border.
    """
    height, width = density.shape
    image = framed[height // 2 : height // 2 + height, width // 2 : width // 2 + width]
    far = (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    return float(framed.sum() - image.sum()), float(image[far].sum() - density[far].sum())


def gray(pixels: Pixels) -> Pixels:
    return np.array(Image.fromarray(pixels).convert("L").convert("RGB"))


def scaled(pixels: Pixels, factor: float) -> Pixels:
    height, width = pixels.shape[:2]
    return np.array(
        Image.fromarray(pixels).resize((round(factor * width), round(factor * height)), Image.Resampling.BILINEAR)
    )


def tiles(pixels: Pixels, height: int, width: int) -> list[Pixels]:
    """Cut into tiles of at most this size, without overlap."""
    rows, columns = range(0, pixels.shape[0], height), range(0, pixels.shape[1], width)
    return [pixels[row : row + height, column : column + width] for row in rows for column in columns]


def empty_images() -> dict[str, Pixels]:
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return {"black": np.zeros_like(noise), "white": np.full_like(noise, 255), "noise": noise}


def measure(name: str, images: Sequence[tuple[Pixels, int]], tile: Sequence[int]) -> dict[str, Any]:
    """Count all images in all ways with one counter."""
    counter = Counter.load(name)
    color = mean_color(counter)
    truths = np.array([people for _, people in images], dtype=float)
    maps: list[NDArray[np.float32]] = []
    places: list[tuple[float, float]] = []

    def alone(pixels: Pixels) -> float:
        found = counter(pixels)
        maps.append(found.density)
        return found.count

    def framed(pixels: Pixels) -> float:
        found = counter(with_border(pixels, color))
        places.append(places_of_change(maps.pop(), found.density))
        return found.count

    ways: dict[str, Callable[[Pixels], float]] = {
        "whole": alone,
        "tiles": lambda pixels: sum(counter(part).count for part in tiles(pixels, *tile)),
        "border": framed,
        "gray": lambda pixels: counter(gray(pixels)).count,
        "x 0.75": lambda pixels: counter(scaled(pixels, 0.75)).count,
        "x 1.5": lambda pixels: counter(scaled(pixels, 1.5)).count,
    }
    counts: dict[str, list[float]] = {way: [] for way in ways}
    with Progress(name, len(images)) as progress:
        for pixels, _ in images:
            for way, count in ways.items():
                counts[way].append(count(pixels))
            progress.advance()
    whole = np.array(counts["whole"])
    result: dict[str, Any] = {}
    for way in ("whole", "tiles", "x 0.75", "x 1.5"):
        errors = np.array(counts[way]) - truths
        result[way] = {"mae": float(np.abs(errors).mean()), "bias": float(errors.mean())}
    error = mean_interval(np.abs(whole - truths).tolist())
    result["whole"]["interval"] = [error.low, error.high]
    for way in ("border", "gray"):
        changes = (np.array(counts[way]) - whole) / np.maximum(whole, 1)
        result[way] = {"change": float(np.abs(changes).mean()), "signed": float(changes.mean())}
    in_border, far_inside = np.abs(np.array(places)).T / np.maximum(whole, 1)
    result["border"] |= {"in_border": float(in_border.mean()), "far_inside": float(far_inside.mean())}
    result["empty"] = {kind: counter(pixels).count for kind, pixels in empty_images().items()}
    result["counts"] = counts
    return result


def row(name: str, found: dict[str, Any]) -> str:
    def error(way: str) -> str:
        return f"{found[way]['mae']:.1f} ({found[way]['bias']:+.1f})"

    def change(way: str) -> str:
        return f"{100 * found[way]['change']:.1f} % ({100 * found[way]['signed']:+.1f})"

    low, high = found["whole"]["interval"]
    shares = [f"{100 * found['border'][where]:.1f} % {where}" for where in ("in_border", "far_inside")]
    border = ", ".join([change("border"), *shares]).replace("_", " ")
    empty = " / ".join(f"{found['empty'][kind]:.1f}" for kind in ("black", "white", "noise"))
    cells = [f"{error('whole')} [{low:.1f}, {high:.1f}]", error("tiles"), border, change("gray")]
    return " | ".join([name, *cells, error("x 0.75"), error("x 1.5"), empty])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counters", nargs="+", metavar="COUNTER")
    parser.add_argument("--split", default="val", choices=("train", "val", "test"))
    parser.add_argument("--root", default="crowd/shanghaitech", help="the prepared data set")
    parser.add_argument("--part", default="B")
    parser.add_argument("--images", type=int, help="use only the first N")
    parser.add_argument("--tile", type=int, nargs=2, default=(384, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    dataset = CrowdDataset(arguments.split, arguments.root, arguments.part)
    number = min(len(dataset), arguments.images or len(dataset))
    items = [dataset[n] for n in range(number)]
    images = [(item["inputs"].permute(1, 2, 0).numpy(), len(item["points"])) for item in items]
    results = {name: measure(name, images, arguments.tile) for name in arguments.counters}
    shown = {
        "kind": "crowd consistency",
        "split": arguments.split,
        "part": arguments.part,
        "images": number,
        "people": [people for _, people in images],
        "tile": list(arguments.tile),
    }
    kept = {}
    before = read_record(arguments.out) if arguments.out.is_file() else {}
    if shown.items() <= before.items():  # other counters on the same images
        run = {key: before[key] for key in ("command", "finished", "environment")}
        kept = {name: {**run, **found} for name, found in before["results"].items()}
    write_record(arguments.out, **shown, results={**kept, **results})
    titles = ("counter", "whole: MAE (bias) [95 %]", "tiles", "border", "gray", "x 0.75", "x 1.5", "black/white/noise")
    print(" | ".join(titles))
    for name, found in results.items():
        print(row(name, found))


if __name__ == "__main__":
    main()
