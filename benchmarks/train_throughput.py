"""Training throughput of ResNet20-SE on CIFAR-100 in images per second: fp32 and bf16, from the data set and from one
fixed batch that stays on the device. Their ratio is the cost of loading and augmentation.

    python benchmarks/train_throughput.py [--rounds 6] [--steps 20]

The variants are interleaved round by round in one process. Writes benchmarks/results/train_throughput.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.registry import MODELS, OPTIM_WRAPPERS
from mmengine.runner import Runner

from ean_core.common.config import load_config
from ean_core.common.record import write_record

CONFIG = "resnet20_se_cifar100"
RESULT = Path(__file__).parent / "results" / "train_throughput.json"


def endless(loader: Any) -> Any:
    epoch = 0
    while True:
        loader.sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=20, help="training steps per round and variant")
    arguments = parser.parse_args()

    config = load_config(CONFIG)
    batch_size = config.train_dataloader.batch_size
    config.train_dataloader.drop_last = True  # every step has the same number of images
    loader = Runner.build_dataloader(config.train_dataloader, seed=0)
    fixed = next(iter(loader))
    ways: dict[str, Callable[[], None]] = {}
    for precision, wrapper in (("fp32", "OptimWrapper"), ("bf16", "Bf16OptimWrapper")):
        torch.manual_seed(0)
        model = MODELS.build(config.model).to(get_device()).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        optim = OPTIM_WRAPPERS.build({"type": wrapper, "optimizer": optimizer})
        batches = endless(loader)
        ways[f"{precision}, fixed batch"] = lambda m=model, o=optim: m.train_step(fixed, o)
        ways[f"{precision}, data set"] = lambda m=model, o=optim, b=batches: m.train_step(next(b), o)

    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1, arguments.rounds):
        for name, step in ways.items():
            start = time.perf_counter()
            for _ in range(arguments.steps):
                step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)

    images = batch_size * arguments.steps
    rates = {name: images / statistics.median(times) for name, times in seconds.items()}
    for name, rate in rates.items():
        print(f"{name:<18} {rate:6.0f} images/s")
    ratios = {}
    for precision in ("fp32", "bf16"):
        pairs = zip(seconds[f"{precision}, fixed batch"], seconds[f"{precision}, data set"], strict=True)
        ratios[precision] = statistics.median(fixed_s / loaded_s for fixed_s, loaded_s in pairs)
        print(f"{precision}: data set at {ratios[precision]:.3f} of the fixed batch's speed")
    write_record(
        RESULT,
        kind="benchmark",
        config=CONFIG,
        batch_size=batch_size,
        rounds=arguments.rounds,
        steps=arguments.steps,
        images_per_second=rates,
        data_set_over_fixed_batch=ratios,
    )
    print(f"record: {RESULT}")


if __name__ == "__main__":
    main()
