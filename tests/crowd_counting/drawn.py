"""ShanghaiTech's folders and files, with drawn pictures in them; and sums over cells in plain NumPy."""

import numpy as np
from scipy.io import savemat

from tasks.crowd_counting.drawing import draw_crowd


def write_truth(path, points, number=None):
    """A .mat file of ShanghaiTech's form."""
    count = np.array([[len(points) if number is None else number]])
    fields = np.empty((1, 1), dtype=[("location", "O"), ("number", "O")])
    fields[0, 0] = (np.asarray(points, float).reshape(-1, 2), count)
    info = np.empty((1, 1), dtype=object)
    info[0, 0] = fields
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"image_info": info})


def write_part(root, part="B", images=(10, 4), size=(96, 128), layout="official"):
    """One part: so many training and test images, in the official layout or in that of the copy passed around."""
    folder, truth = ("part_" + part, "ground-truth") if layout == "official" else (f"part_{part}_final", "ground_truth")
    for split, number in zip(("train", "test"), images, strict=True):
        for n in range(1, number + 1):
            picture, heads = draw_crowd(3 * n, size, seed=n + 100 * (split == "test"))
            place = root / folder / f"{split}_data"
            (place / "images").mkdir(parents=True, exist_ok=True)
            if n == 2:
                picture = picture.convert("L")  # as some of part A are
            picture.save(place / "images" / f"IMG_{n}.jpg")
            write_truth(place / truth / f"GT_IMG_{n}.mat", heads)
    return root / folder


def write_pictures(folder, numbers=(3, 0, 5)):
    """Pictures of one's own, and the heads in each by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = {}
    for n, number in enumerate(numbers):
        picture, heads = draw_crowd(number, (64, 96), seed=n)
        picture.save(folder / f"{n}.png")
        listed[f"{n}.png"] = heads
    return listed


def block_sum(density, stride):
    """Sum each cell of ``stride x stride`` pixels, pixel by pixel."""
    height, width = density.shape
    cells = np.zeros((-(-height // stride), -(-width // stride)))
    rows, columns = np.indices(density.shape) // stride
    np.add.at(cells, (rows, columns), density)
    return cells


def save_crowd(path, people=20, shape=(240, 320), mode="RGB", **options):
    """A drawn crowd as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_crowd(people, shape, seed=people)[0].convert(mode).save(path, **options)
    return path
