"""A VOCdevkit of drawn pictures: rectangles whose colour tells their class, in front of grey."""

import numpy as np
from PIL import Image
from scipy.io import savemat

from tasks.segmentation.voc import as_image, colours

#: Classes that are drawn.
DRAWN = (5, 12, 15)


def draw(n, size=(60, 80), border=True):
    """A picture with one rectangle, and its labels."""
    draw = np.random.default_rng(n)
    label = DRAWN[n % len(DRAWN)]
    labels = np.zeros(size, np.uint8)
    top, left = draw.integers(2, size[0] // 3), draw.integers(2, size[1] // 3)
    height, width = draw.integers(size[0] // 3, size[0] // 2), draw.integers(size[1] // 3, size[1] // 2)
    if border:
        labels[top - 1 : top + height + 1, left - 1 : left + width + 1] = 255
    labels[top : top + height, left : left + width] = label
    pixels = np.full((*size, 3), 120, np.uint8) + draw.integers(0, 20, (*size, 3), dtype=np.uint8)
    pixels[labels == label] = 2 * (colours()[label] // 4) + 60
    return Image.fromarray(pixels), labels


def write_pair(devkit, name, n, folder="SegmentationClass", size=(60, 80)):
    """An image and its mask."""
    picture, labels = draw(n, size)
    for part in ("JPEGImages", folder):
        (devkit / part).mkdir(parents=True, exist_ok=True)
    picture.save(devkit / "JPEGImages" / f"{name}.jpg", quality=95)
    as_image(labels).save(devkit / folder / f"{name}.png")
    return labels


def write_list(devkit, name, names):
    path = devkit / "ImageSets" / "Segmentation" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{each}\n" for each in names))


def write_voc(root, images=(20, 6), folder="SegmentationClass", size=(60, 80)):
    """So many training and validation images; returns the VOC2012 folder."""
    devkit = root / "VOCdevkit" / "VOC2012"
    n = 0
    for split, number in zip(("train", "val"), images, strict=True):
        names = [f"2007_{n + k:06d}" for k in range(number)]
        for name in names:
            write_pair(devkit, name, n, folder, size)
            n += 1
        write_list(devkit, split, names)
    return devkit


def write_sbd(root, devkit, names, size=(60, 80)):
    """Masks of SBD's form, and the images that they are of."""
    folder = root / "benchmark_RELEASE" / "dataset" / "cls"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        picture, labels = draw(int(name.rpartition("_")[2]), size, border=False)
        picture.save(devkit / "JPEGImages" / f"{name}.jpg")
        fields = np.empty((1, 1), dtype=[("Boundaries", "O"), ("Segmentation", "O"), ("CategoriesPresent", "O")])
        fields[0, 0] = (np.zeros((1, 1)), labels, np.unique(labels[labels > 0]))
        savemat(folder / f"{name}.mat", {"GTcls": fields})
    return folder
