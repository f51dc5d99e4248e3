"""Density maps from windowed kernels, compared with one whole-image filter per head as in public code.

    python benchmarks/density_speed.py [--heads 500] [--rounds 5]

768 x 1024 pixels, sigma 15. The filters are timed on every tenth head and extrapolated, as all of them take half a
minute per round; for these heads, the two maps are compared pixel by pixel. Writes
benchmarks/results/density_speed.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from ean_core.common.record import write_record
from tasks.crowd_counting.density import density_map

RESULT = Path(__file__).parent / "results" / "density_speed.json"
SHAPE, SIGMA, EVERY = (768, 1024), 15.0, 10


def filtered(points: np.ndarray) -> np.ndarray:
    """Density map from one filter of the whole image per head."""
    density = np.zeros(SHAPE)
    for x, y in points:
        one = np.zeros(SHAPE)
        one[int(y), int(x)] = 1
        density += gaussian_filter(one, SIGMA, mode="constant")
    return density


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--heads", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    height, width = SHAPE
    heads = np.random.default_rng(0).uniform((0, 0), (width, height), (options.heads, 2))
    some = heads[::EVERY]
    windowed, whole, ratios = [], [], []
    for _ in range(options.rounds + 1):
        start = time.perf_counter()
        density_map(heads, SHAPE, SIGMA)
        windowed.append(time.perf_counter() - start)
        start = time.perf_counter()
        expected = filtered(some)
        whole.append((time.perf_counter() - start) / len(some) * len(heads))
        ratios.append(whole[-1] / windowed[-1])
    windowed, whole, ratios = windowed[1:], whole[1:], ratios[1:]  # the first round warms up
    found = density_map(some, SHAPE, SIGMA, normalise=False)
    difference = float(np.abs(found - expected).max() / expected.max())
    total = density_map(heads, SHAPE, SIGMA).sum()
    ratio = statistics.median(ratios)
    print(
        f"windowed {1e3 * statistics.median(windowed):.1f} ms, "
        f"one whole-image filter per head {statistics.median(whole):.1f} s"
    )
    print(
        f"{ratio:.0f} times as fast ({min(ratios):.0f} to {max(ratios):.0f}); "
        f"largest difference {difference:.1e} of the peak"
    )
    write_record(
        options.out,
        kind="benchmark",
        heads=len(heads),
        shape=SHAPE,
        sigma=SIGMA,
        windowed_s=windowed,
        whole_image_s=whole,
        whole_image_heads_timed=len(some),
        ratio=ratio,
        ratios=ratios,
        largest_difference_of_peak=difference,
        sum_minus_heads=float(total - len(heads)),
    )
    print(f"record: {options.out}")


if __name__ == "__main__":
    main()
