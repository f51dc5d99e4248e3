"""How many images a counter marks as unlike its training images, by kind of image.

    python benchmarks/crowd_strangeness.py resnet20.shanghaitech_b CHECKPOINT ...

A counter that does not know its training images, as those published before, is measured on the training images first.
Needs in EAN_DATA: ShanghaiTech prepared in ``crowd/shanghaitech``, and ``VOCdevkit/VOC2012``. Goal: at least 80 % of
each strange kind marked, and at most 10 % of the validation images of part B.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from ean_core.common.places import data_root
from ean_core.common.record import read_record, write_record
from ean_core.data.images import read_image
from ean_core.show.table import print_table
from tasks.crowd_counting.counter import Counter
from tasks.crowd_counting.dataset import CrowdDataset
from tasks.crowd_counting.drawing import draw_crowd
from tasks.crowd_counting.familiar import MOST_IMAGES, measure

HERE = Path(__file__).resolve().parent
#: Images of VOC 2012's segmentation sets in which no pixel is a person, one name per line.
VOC_IDS = HERE / "crowd_strangeness_voc.txt"
#: Height and width of the images made here: those of part B.
SIZE = (768, 1024)

Pixels = NDArray[np.uint8]


def flat() -> Iterator[Pixels]:
    """Black, gray, white, one color, and a gradient."""
    height, width = SIZE
    for colour in ((0, 0, 0), (128, 128, 128), (255, 255, 255), (200, 30, 30)):
        yield np.full((height, width, 3), colour, np.uint8)
    yield np.repeat(np.linspace(0, 255, width).astype(np.uint8)[None, :, None].repeat(height, 0), 3, 2)


def noise() -> Iterator[Pixels]:
    """Normal noise around gray, and uniform noise, from weak to full."""
    draws = np.random.default_rng(0)
    for strength in (5, 20, 60, 255):
        yield np.clip(128 + draws.normal(0, strength, (*SIZE, 3)), 0, 255).astype(np.uint8)
        yield draws.integers(0, strength + 1, (*SIZE, 3)).astype(np.uint8)


def diagrams() -> Iterator[Pixels]:
    """Boxes, ellipses, lines and labels on white."""
    draws = np.random.default_rng(0)
    height, width = SIZE
    for number in range(10):
        image = Image.new("RGB", (width, height), "white")
        draw = ImageDraw.Draw(image)
        for part in range(12):
            x, y = int(draws.integers(0, width - 200)), int(draws.integers(0, height - 150))
            box = (x, y, x + int(draws.integers(40, 200)), y + int(draws.integers(30, 150)))
            fill = tuple(int(value) for value in draws.integers(0, 255, 3)) if number % 2 else None
            (draw.rectangle if part % 2 else draw.ellipse)(box, outline="black", fill=fill, width=3)
            draw.line((x, y, int(draws.integers(0, width)), int(draws.integers(0, height))), fill="black", width=2)
            draw.text((x, y), f"box {part}", "black")
        yield np.asarray(image)


def drawn_crowds() -> Iterator[Pixels]:
    """The drawn crowds of the web page."""
    for people in (8, 45, 160):
        yield np.asarray(draw_crowd(people, seed=people)[0])


def blurred() -> Iterator[Pixels]:
    """Images of part B, blurred."""
    for image in _of_part_b():
        for radius in (8, 20):
            yield np.asarray(image.filter(ImageFilter.GaussianBlur(radius)))


def close_ups() -> Iterator[Pixels]:
    """Gray details of images of part B, 64 x 48 pixels enlarged to full size."""
    draws = np.random.default_rng(0)
    for image in _of_part_b():
        x, y = int(draws.integers(0, image.width - 64)), int(draws.integers(0, image.height - 48))
        detail = image.convert("L").crop((x, y, x + 64, y + 48)).resize(SIZE[::-1], Image.Resampling.BICUBIC)
        yield np.asarray(detail.convert("RGB"))


def _of_part_b() -> Iterator[Image.Image]:
    images = CrowdDataset("val", part="B")
    for number in range(0, len(images), max(1, len(images) // 6)):
        yield Image.fromarray(_pixels(images[number]))


def things(limit: int | None) -> Iterator[Pixels]:
    """Photos of VOC 2012 without a person."""
    names = VOC_IDS.read_text(encoding="utf-8").split()
    for name in names[:limit]:
        yield read_image(data_root() / "VOCdevkit/VOC2012/JPEGImages" / f"{name}.jpg")


def part(letter: str, split: Any, limit: int | None) -> Iterator[Pixels]:
    """Images of ShanghaiTech, evenly spaced."""
    images = CrowdDataset(split, part=letter)
    for number in np.linspace(0, len(images) - 1, min(len(images), limit or len(images))).round().astype(int):
        yield _pixels(images[int(number)])


def _pixels(item: Any) -> Pixels:
    return np.ascontiguousarray(item["inputs"].permute(1, 2, 0).numpy())


def kinds(limit: int | None) -> dict[str, Callable[[], Iterator[Pixels]]]:
    """Kinds of images by name; the first is familiar to counters of part B."""
    return {
        "part B, validation": lambda: part("B", "val", limit),
        "part A": lambda: part("A", "trainval", limit),
        "photos without a person": lambda: things(limit),
        "diagrams": diagrams,
        "drawn crowds": drawn_crowds,
        "blurred": blurred,
        "noise": noise,
        "flat": flat,
        "gray close-ups": close_ups,
    }


def others(record: Path, measured: Container[str]) -> list[dict[str, Any]]:
    """Rows of counters that were measured before and not now, with the run that measured them."""
    before = read_record(record) if record.is_file() else {"rows": []}
    run = {key: before[key] for key in ("command", "finished", "environment") if key in before}
    return [{**run, **row} for row in before["rows"] if row["counter"] not in measured]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="counters: zoo models, checkpoints, run folders")
    parser.add_argument("--out", type=Path, default=HERE / "results/crowd_strangeness.json", help="record to write")
    parser.add_argument("--limit", type=int, help="images per kind, of those that are not made here")
    parser.add_argument("--train-limit", type=int, default=MOST_IMAGES, help="training images to measure, if necessary")
    options = parser.parse_args()
    rows, cells = [], []
    for model in options.models:
        counter = Counter.load(model)
        stored = counter.network.familiar.knows_images
        if not stored:
            images = CrowdDataset("train", part="B")
            chosen = np.unique(
                np.linspace(0, len(images) - 1, min(len(images), options.train_limit)).round().astype(int)
            )
            counter.network.familiar.learn(measure(counter.network, (images[int(n)] for n in chosen), ()))
        for kind, make in kinds(options.limit).items():
            found = [counter(pixels) for pixels in make()]
            values = [one.strangeness or 0.0 for one in found]
            marked = sum(one.familiar is False for one in found)
            counts = [one.count for one in found]
            row = {
                "counter": counter.name,
                "statistics": "in the file" if stored else "measured here",
                "images": kind,
                "number": len(found),
                "marked": marked,
                "strangeness_median": float(np.median(values)),
                "strangeness_range": [min(values), max(values)],
                "count_median": float(np.median(counts)),
            }
            rows.append(row)
            cells.append(
                {
                    "counter": counter.name,
                    "images": kind,
                    "marked": f"{marked} of {len(found)} ({marked / len(found):.0%})",
                    "strangeness": f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})",
                    "counted (median)": f"{np.median(counts):.0f}",
                }
            )
            print(f"{counter.name}, {kind}: {cells[-1]['marked']}", file=sys.stderr, flush=True)
    write_record(options.out, kind="strangeness", rows=[*others(options.out, {row["counter"] for row in rows}), *rows])
    print_table(cells, title="Images marked as unlike the training images")


if __name__ == "__main__":
    main()
