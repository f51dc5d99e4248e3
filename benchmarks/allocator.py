"""What it costs that glibc's malloc gives freed memory back to the system: training and inference with and without.

    python benchmarks/allocator.py [--rounds 6] [--steps 40]

Each way is a process of its own, in turns; ratios are those of neighbours. Two plain networks of equal work show what
the order of allocations alone does to times. Writes benchmarks/results/allocator.json.
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
    """Images a second of training in bf16 from one fixed batch, and a hash of the weights it ends in."""
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
    """Milliseconds of a forward pass of 50 images, for each network, in turns."""
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
    parser.add_argument("--steps", type=int, default=40, help="training steps, and forward passes of each network")
    parser.add_argument("--alone", choices=("returned", "kept"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        if arguments.alone == "kept" and not keep_freed_memory():
            raise SystemExit("the C library here is not glibc; there is nothing to compare")
        inference = infer(arguments.steps)  # first: what was freed before changes what malloc does
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
