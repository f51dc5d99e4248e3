"""Training on a GPU in milliseconds per iteration: plain, captured (CUDA graphs), and captured with compiled blocks.

    python benchmarks/gpu_training.py [--rounds 8] [--steps 40] [--small]

ResNet-164 and ResNet-20 on CIFAR-100's shapes, batch 128, bf16, channels-last: without attention, Share-full SE, and
supernets with a new scheme in each iteration. The variants of a network are interleaved round by round in one process,
and ratios are computed within rounds. Images are random and stay on the device; the overhead of loading and of
mmengine's hooks can be seen in a run of `ean train`. The output includes the projected time of a whole training; the
goal is six minutes for 164 epochs of ResNet-164. Writes benchmarks/results/gpu_training.json after each network: an
interrupted run continues. `--small` is a functional check on a CPU, with plain iterations of ResNet-20 on small images.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, OPTIM_WRAPPERS

from ean_core.common.config import load_config
from ean_core.common.record import environment, write_record
from ean_core.runs.capture import CapturedStep
from ean_core.scheme import ConnectionScheme

RESULT = Path(__file__).parent / "results" / "gpu_training.json"
#: Config and options of each network.
NETWORKS = {
    "resnet164 vanilla": ("resnet164_se_cifar100", "model.backbone.scheme=none"),
    "resnet164 Share-full SE": ("resnet164_se_cifar100", "model.backbone.scheme=full"),
    "resnet164 SE supernet": ("supernet_resnet164_se_cifar100",),
    "resnet164 DIA supernet": ("supernet_resnet164_dia_cifar100",),
    "resnet20 Share-full SE": ("resnet20_se_cifar100", "model.backbone.scheme=full"),
    "resnet20 SE supernet": ("supernet_resnet20_se_cifar100",),
}
#: Number of training images of a final network (False) and of a supernet (True).
IMAGES = {False: 50_000, True: 40_000}
BATCH = 128
#: Rounds, and iterations per round and variant.
ROUNDS, STEPS = 8, 40


def step_of(config: Config, captured: bool, data: dict[str, torch.Tensor]) -> Callable[[int], None]:
    """A function that runs the training iteration of a given number on a new network."""
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(config.model)).to(data["labels"].device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    wrapper = OPTIM_WRAPPERS.build({"type": "Bf16OptimWrapper", "optimizer": optimizer})
    supernet = "scheme" in config.default_hooks
    if supernet and captured:
        model.backbone.scheme_as_data()
    train = CapturedStep(model) if captured else model.train_step
    stages = model.backbone.stage_blocks

    def step(number: int) -> None:
        if supernet:
            draw = torch.Generator().manual_seed(number)
            model.backbone.set_scheme(ConnectionScheme.random(stages, generator=draw))
        train(data, wrapper)

    return step


def measure(name: str, rounds: int, steps: int, small: bool) -> dict[str, Any]:
    """Time the variants of one network and project the time of a whole training."""
    file, *options = NETWORKS[name]
    config = load_config(file, options)
    compiled = load_config(file, [*options, "model.compile_blocks=True"])
    device = "cpu" if small else "cuda"
    batch, size = (8, 8) if small else (BATCH, 32)
    images = torch.randint(256, (batch, size, size, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    data = {"inputs": images, "labels": torch.randint(100, (batch,), device=device)}
    ways = {"plain": (config, False)}
    if not small:
        ways |= {"captured": (config, True), "captured, compiled blocks": (compiled, True)}
    made = {way: step_of(settings, captured, data) for way, (settings, captured) in ways.items()}
    times: dict[str, list[float]] = {way: [] for way in made}
    for turn in range(-1, rounds):  # the first round warms up, records and compiles
        for way, step in made.items():
            start = _now(device)
            for number in range(steps):
                step(steps * turn + number + steps)
            if turn >= 0:
                times[way].append((_now(device) - start) / steps)
    iterations = -(-IMAGES["scheme" in config.default_hooks] // BATCH) * config.train_cfg.max_epochs
    rows = {}
    for way, seconds in times.items():
        median = statistics.median(seconds)
        ratio = statistics.median(a / b for a, b in zip(seconds, times["plain"], strict=True))
        rows[way] = {"seconds": median, "over_plain": ratio}
        text = f"{name:26s} {way:26s} {1e3 * median:8.2f} ms, {ratio:5.2f} of plain"
        if not small:
            rows[way]["training_minutes"] = minutes = iterations * median / 60
            text += f", {minutes:6.1f} min for {config.train_cfg.max_epochs} epochs"
        print(text, flush=True)
    return rows


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--steps", type=int, default=STEPS, help="iterations per round and variant")
    parser.add_argument("--small", action="store_true", help="functional check on a CPU")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if not arguments.small and not torch.cuda.is_available():
        parser.error("no GPU found; --small checks the script on a CPU")
    torch.backends.cudnn.benchmark = True  # as in `ean train`
    rounds, steps = (2, 2) if arguments.small else (arguments.rounds, arguments.steps)
    results: dict[str, Any] = {}
    settings = {"small": arguments.small, "rounds": rounds, "steps": steps, "batch": BATCH}
    if arguments.out.exists():
        before = json.loads(arguments.out.read_text())
        if before["environment"] == environment() and all(before[key] == value for key, value in settings.items()):
            results = before["results"]
    for name in [name for name in NETWORKS if name not in results and not (arguments.small and "164" in name)]:
        results[name] = measure(name, rounds, steps, arguments.small)
        write_record(arguments.out, kind="training on a GPU", **settings, results=results)
    print(f"record: {arguments.out}")


if __name__ == "__main__":
    main()
