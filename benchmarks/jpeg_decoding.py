"""Images per second that one worker decodes, crops and flips (training items of ImageTree), without a network.

    python benchmarks/jpeg_decoding.py [FOLDER]

FOLDER is an ImageNet-style tree. Without it, two trees are generated and measured: 300 JPEGs of ImageNet's typical
500 x 375 pixels and 300 of 64 x 64, of noise smoothed like a photograph. Writes benchmarks/results/jpeg_decoding.json.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from ean_core.common.record import write_record
from ean_core.data import ImageTree
from ean_core.data.sampler import SampleKey
from tasks.pictures import save_picture

RESULT = Path(__file__).parent / "results" / "jpeg_decoding.json"


def write_tree(root: Path, width: int, height: int, images: int = 300) -> None:
    random = np.random.default_rng(0)
    folders = [root / "train" / name for name in ("even", "odd")]  # a tree needs two classes
    for folder in folders:
        folder.mkdir(parents=True)
    for place in range(images):
        noise = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        picture = noise.filter(ImageFilter.GaussianBlur(2))
        save_picture(picture, folders[place % 2] / f"{place}.jpg", quality=90)


def measure(root: Path, size: int, rounds: int = 5) -> float:
    images = ImageTree("trainval", root=root.resolve(), size=size, augment=True)
    items = range(min(300, len(images)))
    seconds = []
    for epoch in range(-1, rounds):
        start = time.perf_counter()
        for item in items:
            images[SampleKey(0, epoch + 1, item)]
        if epoch >= 0:
            seconds.append(time.perf_counter() - start)
    return len(items) / statistics.median(seconds)


def main() -> None:
    torch.set_num_threads(1)  # as in a DataLoader worker
    rates = {}
    if len(sys.argv) > 1:
        rates["given tree, cropped to 224"] = measure(Path(sys.argv[1]), 224)
    else:
        for width, height, size in ((500, 375, 224), (64, 64, 64)):
            with tempfile.TemporaryDirectory() as folder:
                write_tree(Path(folder), width, height)
                rates[f"{width} x {height}, cropped to {size}"] = measure(Path(folder), size)
    for name, rate in rates.items():
        print(f"{name}: {rate:.0f} images/s per worker")
    write_record(RESULT, kind="benchmark", images_per_second_per_worker=rates)
    print(f"record: {RESULT}")


if __name__ == "__main__":
    main()
