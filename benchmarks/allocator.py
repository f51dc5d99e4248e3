"""Cost of glibc's malloc returning freed memory to the system: training and inference with and without it.

    python benchmarks/allocator.py [--rounds 6] [--steps 40]

The variants run alternately, each in its own process; ratios compare consecutive processes. Two identical vanilla
networks show the effect of allocation order alone. Writes benchmarks/results/allocator.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS, OPTIM_WRAPPERS
from mmengine.runner import Runner

from ean_core import EANResNetCIFAR
from ean_core.common.config import load_config
from ean_core.common.memory import keep_freed_memory
from ean_core.common.record import write_record

CONFIG = "resnet20_se_cifar100"
RESULT = Path(__file__).parent / "results" / "allocator.json"
SCHEMES = {"vanilla": "none", "vanilla again": "none", "Share-full": "full"}


def train(steps: int) -> dict[str, Any]:
    """Training speed in images per second (bf16, one fixed batch), and a hash of the final weights."""
    config = load_config(CONFIG)
    torch.manual_seed(0)
    batch = next(iter(Runner.build_dataloader(config.train_dataloader, seed=0)))
    model = MODELS.build(config.model).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    wrapper = OPTIM_WRAPPERS.build({"type": "Bf16OptimWrapper", "optimizer": optimizer})
    for step in range(10 + steps):
        if step == 10:
            start = time.perf_counter()
        model.train_step(batch, wrapper)
    rate = steps * len(batch["labels"]) / (time.perf_counter() - start)
    weights = hashlib.sha256()
    for tensor in model.state_dict().values():
        weights.update(tensor.numpy().tobytes())
    return {"images_per_second": rate, "weights": weights.hexdigest()}


@torch.inference_mode()
def infer(passes: int) -> dict[str, float]:
    """Milliseconds per forward pass of 50 images for each network, run alternately."""
    torch.manual_seed(0)
    images = torch.randn(50, 3, 32, 32)
    networks = {name: EANResNetCIFAR(20, "SE", scheme=scheme).eval() for name, scheme in SCHEMES.items()}
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(10 + passes):
        for name, network in networks.items():
            start = time.perf_counter()
            network(images)
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(times[10:]) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=40, help="training steps, and forward passes per network")
    parser.add_argument("--alone", choices=("returned", "kept"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        if arguments.alone == "kept" and not keep_freed_memory():
            raise SystemExit("the C library is not glibc; there is nothing to compare")
        inference = infer(arguments.steps)  # first, since earlier frees change malloc's behavior
        print(json.dumps({"inference": inference, "training": train(arguments.steps)}))
        return

    found: dict[str, list[dict[str, Any]]] = {"returned": [], "kept": []}
    for _ in range(arguments.rounds):
        for way, runs in found.items():
            command = [sys.executable, __file__, "--alone", way, "--steps", str(arguments.steps)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    speed = [
        kept["training"]["images_per_second"] / returned["training"]["images_per_second"]
        for returned, kept in zip(found["returned"], found["kept"], strict=True)
    ]
    same = len({run["training"]["weights"] for runs in found.values() for run in runs}) == 1
    print(f"training, memory kept: {statistics.median(speed):.3f} times as fast ({min(speed):.3f} to {max(speed):.3f})")
    print("equal weights" if same else "different weights")
    increments = {}
    for way, runs in found.items():
        plain = [run["inference"]["vanilla"] for run in runs]
        print(f"memory {way}: vanilla {statistics.median(plain):.1f} ms ({min(plain):.1f} to {max(plain):.1f})")
        increments[way] = {
            name: [100 * (run["inference"][name] / run["inference"]["vanilla"] - 1) for run in runs]
            for name in SCHEMES
            if name != "vanilla"
        }
        for name, values in increments[way].items():
            print(f"  {name}: {statistics.median(values):+.1f} % ({min(values):+.1f} to {max(values):+.1f})")
    write_record(
        RESULT,
        kind="benchmark",
        config=CONFIG,
        steps=arguments.steps,
        runs=found,
        training_ratios=speed,
        equal_weights=same,
        increments=increments,
    )
    print(f"record: {RESULT}")


if __name__ == "__main__":
    main()
