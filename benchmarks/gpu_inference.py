"""The complete inference table on a GPU: cost of attention in ResNet50 and ResNet164, eager, deployed and captured.

    python benchmarks/gpu_inference.py [--part resnet50-float16 ...] [--small]

Batch 50, as in the paper; ResNet50 at 224 pixels in fp16, bf16 and fp32, ResNet164 at 32 pixels in fp16 and fp32; each
part times vanilla, Org-full, Share-full and EAN networks of SE, SGE and DIA side by side in 60 rounds, in three forms:
eager, deployed (Triton kernels) and captured (deployed, in a CUDA graph). The part `compiled` adds torch.compile for
some of them, without compilation time. Increments are relative to the vanilla network of the same form, with 95 %
intervals; next to them are the bytes that operators read and write, and the resulting bandwidth.

Each part is written as soon as it is done and is not measured again on the same machine, so an interrupted run
continues. A part has at most 27 networks in 60 rounds of a few milliseconds each, so building and tuning them should
take most of the time; all parts together are meant to take less than eight minutes, which no run has confirmed yet.
`--small` runs everything on a CPU with small images and few rounds, as a functional check. Weights and images are
random. Writes benchmarks/results/inference_gpu.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from ean_core.common.config import load_config
from ean_core.common.record import environment, write_record
from ean_core.inference.comparison import Form, Variant, candidates, record_timing, variants
from ean_core.show.table import in_percent

RESULT = Path(__file__).parent / "results" / "inference_gpu.json"
ATTENTIONS = ("se", "sge", "dia")
#: Config of a network (with the attention's name inserted), image size in pixels, dtype of weights and maps.
PARTS = {
    "resnet50-float16": ("resnet50_{}_imagenet", 224, torch.float16),
    "resnet164-float16": ("resnet164_{}_cifar100", 32, torch.float16),
    "resnet50-float32": ("resnet50_{}_imagenet", 224, torch.float32),
    "resnet164-float32": ("resnet164_{}_cifar100", 32, torch.float32),
    "resnet50-bfloat16": ("resnet50_{}_imagenet", 224, torch.bfloat16),
    "compiled": ("resnet50_{}_imagenet", 224, torch.float16),
}
#: Target maximum increment over the vanilla network of the same form, for deployed ResNet50 and ResNet164.
GOALS = {"SE EAN": 0.02, "DIA EAN": 0.03, "SGE EAN": 0.05, "SE Share-full": 0.05}


def networks(pattern: str, some: bool) -> list[Variant]:
    """All variants of all attention modules with one vanilla network, or only some SE variants."""
    found = [v for name in ATTENTIONS[: 1 if some else 3] for v in variants(load_config(pattern.format(name)))]
    chosen = [v for v in found if v.connection != "vanilla" or v is found[0]]
    return [v for v in chosen if v.connection != "Org-full"] if some else chosen


def measure(part: str, folder: Path, small: bool) -> dict[str, Any]:
    """Measure one part and return its record."""
    pattern, size, dtype = PARTS[part]
    some = part == "compiled"
    forms = [Form.deployed, Form.compiled] if some else [Form.eager, Form.deployed, Form.captured]
    if small:
        forms, size = [form for form in forms if form in (Form.eager, Form.deployed)], min(size, 32)
    compared = candidates(networks(pattern, some), forms, dtype=dtype)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        record = record_timing(
            folder / f"{part}.json",
            compared,
            batch=2 if small else 50,
            shape=(3, size),
            rounds=2 if small else 60,
            dtype=dtype,
        )
    show(part, record)
    return {name: record[name] for name in ("batch", "size", "dtype", "rounds", "clock", "networks")}


def show(part: str, record: Any) -> None:
    print(f"\n{part}: batch {record['batch']} at {record['size']} pixels, {record['device']}")
    for name, row in record["networks"].items():
        goal = next((f", goal {100 * goal:.0f} %" for key, goal in GOALS.items() if name.startswith(key)), "")
        moved, seconds = record["batch"] * row["bytes"], row["median_s"]
        teraflops = 2e-12 * record["batch"] * row["macs"] / seconds
        print(
            f"  {name:30s} {1e3 * seconds:8.3f} ms {in_percent(row['increment'], row['increment_interval'], 2):30s}"
            f"{goal if 'deployed' in name or 'captured' in name else ''}, {moved / 1e9:.2f} GB, "
            f"{moved / seconds / 1e9:.0f} GB/s, {teraflops:.1f} TFLOP/s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all parts that are not done")
    parser.add_argument("--small", action="store_true", help="functional check on a CPU")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if not arguments.small and not torch.cuda.is_available():
        parser.error("no GPU found; --small checks the script on a CPU")
    torch.manual_seed(0)
    results: dict[str, Any] = {}
    if arguments.out.exists():
        before = json.loads(arguments.out.read_text())
        if before["environment"] == environment() and before["small"] == arguments.small:
            results = before["results"]
    for part in arguments.part or [part for part in PARTS if part not in results]:
        results[part] = measure(part, arguments.out.parent / f"{arguments.out.stem}_parts", arguments.small)
        write_record(arguments.out, kind="inference on a GPU", small=arguments.small, results=results)
    print(f"record: {arguments.out}")


if __name__ == "__main__":
    main()
