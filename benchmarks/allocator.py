"""What it costs that glibc's malloc gives large tensors back to the system: training steps with and without.

    python benchmarks/allocator.py [--rounds 6] [--steps 40]

Each way is a process of its own, in turns; the ratio is that of neighbours. Writes benchmarks/results/allocator.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from campaign import ALLOCATOR
from mmengine.registry import MODELS, OPTIM_WRAPPERS
from mmengine.runner import Runner

from ean_core.config import load_config
from ean_core.record import write_record

CONFIG = "resnet20_se_cifar100"
RESULT = Path(__file__).parent / "results" / "allocator.json"


def steps_per_second(steps: int) -> float:
    """Training steps a second in this process, from one fixed batch in bf16."""
    config = load_config(CONFIG)
    batch = next(iter(Runner.build_dataloader(config.train_dataloader, seed=0)))
    model = MODELS.build(config.model).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    wrapper = OPTIM_WRAPPERS.build({"type": "Bf16OptimWrapper", "optimizer": optimizer})
    for step in range(10 + steps):
        if step == 10:
            start = time.perf_counter()
        model.train_step(batch, wrapper)
    return steps / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(steps_per_second(arguments.steps))
        return

    rates: dict[str, list[float]] = {"as usual": [], "memory kept": []}
    for _ in range(arguments.rounds):
        for name, settings in (("as usual", {}), ("memory kept", ALLOCATOR)):
            done = subprocess.run(
                [sys.executable, __file__, "--alone", "--steps", str(arguments.steps)],
                env={**os.environ, **settings},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            rates[name].append(float(done.stdout.split()[-1]))
    ratios = [kept / usual for usual, kept in zip(rates["as usual"], rates["memory kept"], strict=True)]
    print(f"{statistics.median(ratios):.3f} times as fast ({min(ratios):.3f} to {max(ratios):.3f})")
    images = load_config(CONFIG).train_dataloader.batch_size
    write_record(
        RESULT,
        kind="benchmark",
        config=CONFIG,
        settings=ALLOCATOR,
        steps=arguments.steps,
        images_per_second={name: [images * rate for rate in found] for name, found in rates.items()},
        ratios=ratios,
    )
    print(f"record: {RESULT}")


if __name__ == "__main__":
    main()
