"""Cost of attention in a deployed ResNet50 on a CPU: per connection, and for whole networks side by side.

    python benchmarks/inference_speed.py [--part connections] [--part networks] [--threads 2]

connections: each connected block alternately with and without its attention, on the same input, in each of 500 forward
passes; the sum over a scheme's connections relative to the folded vanilla network's time, with a 95 % interval.
networks: whole forward passes side by side in 60 rounds, including the same network twice to show noise, the unfolded
vanilla network in NCHW and channels-last order, and timm's seresnet50 next to its resnet50. Needs timm. Weights and
images are random, which does not affect speed. Writes benchmarks/results/inference_cpu.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from ean_core import EANResNet
from ean_core.common.record import command, environment, write_record
from ean_core.inference import deploy, fold, profile_blocks, time_networks
from ean_core.inference.cost import clock_notes
from ean_core.show.table import in_percent

RESULT = Path(__file__).parent / "results" / "inference_cpu.json"
#: Networks, and the target maximum increment of their connections over the folded vanilla network.
GOALS = {
    "SE Share-full": 0.03,
    "SE EAN": 0.015,
    "DIA Share-full": None,
    "DIA EAN": 0.015,
    "SGE Share-full": None,
    "SGE EAN": 0.04,
}


def network(attention: str, scheme: str) -> EANResNet:
    return EANResNet(50, attention, scheme, out_indices=(3,)).eval()


def connections(inputs: torch.Tensor, names: list[str], passes: int, eager_passes: int) -> dict[str, Any]:
    """The cost of each network's connections, deployed and eager."""
    found = {}
    for name in names:
        goal = GOALS[name]
        attention, connection = name.split()
        backbone = network(attention, "full" if connection == "Share-full" else "ean")
        deployed = profile_blocks(backbone, inputs, deployed=True, rounds=passes)
        eager = profile_blocks(
            backbone.to(memory_format=torch.channels_last), inputs, deployed=False, rounds=eager_passes
        )
        found[name] = {"command": command(), "goal": goal, "deployed": deployed.to_dict(), "eager": eager.to_dict()}
        print(
            f"{name:15s} {backbone.scheme}: deployed "
            f"{in_percent(deployed.increment, deployed.increment_interval, 2)} %, eager {100 * eager.increment:+.2f} %",
            flush=True,
        )
    return found


def networks(inputs: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Whole networks, each compared with the corresponding vanilla network."""
    vanilla = network("SE", "none")
    compared: dict[str, tuple[nn.Module, str]] = {
        "vanilla, eager NCHW": (vanilla, "vanilla, eager NCHW"),
        "vanilla, eager channels-last": (_channels_last(vanilla), "vanilla, eager NCHW"),
        "vanilla, deployed": (deploy(vanilla), "vanilla, deployed"),
        "vanilla, deployed, again": (deploy(vanilla), "vanilla, deployed"),
        "timm resnet50": (_channels_last(timm.create_model("resnet50")), "timm resnet50"),
        "timm seresnet50": (_channels_last(timm.create_model("seresnet50")), "timm resnet50"),
    }
    for name in GOALS:
        attention, connection = name.split()
        own = network(attention, "full" if connection == "Share-full" else "ean")
        compared[f"{name}, eager"] = (_channels_last(own), "vanilla, eager channels-last")
        compared[f"{name}, folded"] = (fold(own), "vanilla, deployed")
        compared[f"{name}, deployed"] = (deploy(own), "vanilla, deployed")
    compared["SE EAN, deployed, over eager NCHW"] = (compared["SE EAN, deployed"][0], "vanilla, eager NCHW")
    contiguous = inputs.contiguous()

    def run(module: nn.Module, nchw: bool) -> Any:
        return (lambda _: module(contiguous)) if nchw else module

    timings = time_networks(
        {name: run(module, "NCHW" in name and "over" not in name) for name, (module, _) in compared.items()},
        inputs,
        baseline={name: baseline for name, (_, baseline) in compared.items()},
        rounds=rounds,
    )
    for name, timing in timings.items():
        increment = in_percent(timing.increment, timing.increment_interval, 2)
        print(f"{name:35s} {1e3 * timing.median:8.1f} ms {increment} % over {timing.baseline}")
    return {name: timing.to_dict() for name, timing in timings.items()}


def compare(results: dict[str, Any]) -> None:
    """Print the sums over connections next to the intervals of whole networks."""
    for name, goal in GOALS.items():
        try:
            connected, whole = results["connections"][name]["deployed"], results["networks"][f"{name}, deployed"]
        except KeyError:  # not measured yet
            continue
        low, high = whole["increment_interval"] or (-math.inf, math.inf)
        inside = "inside" if low <= connected["increment"] <= high else "outside"
        print(
            f"{name:15s} connections {100 * connected['increment']:+.2f} %"
            + (f" (goal {100 * goal:.1f} %)" if goal else "")
            + f", {inside} the whole network's {100 * low:+.2f} to {100 * high:+.2f} %"
        )


def _channels_last(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).eval().to(memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=("connections", "networks"), help="default: both")
    parser.add_argument("--network", action="append", choices=GOALS, help="for connections; default: all")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--passes", type=int, default=500, help="forward passes per network, for connections")
    parser.add_argument("--rounds", type=int, default=60, help="rounds, for whole networks")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    inputs = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    settings = {"batch": arguments.batch, "size": arguments.size, "timm": version("timm")}
    results: dict[str, Any] = {}
    if arguments.out.exists():  # parts may be measured separately on the same machine
        before = json.loads(arguments.out.read_text())
        if before["environment"] == environment() and all(before[name] == value for name, value in settings.items()):
            results = before["results"]
    for part in arguments.part or ("networks", "connections"):
        before_it = clock_notes(inputs.device)
        if part == "connections":
            names = arguments.network or list(GOALS)
            found = connections(inputs, names, arguments.passes, max(4, arguments.passes // 10))
            found = {**results.get(part, {}), **found}
        else:
            found = networks(inputs, arguments.rounds)
        found = {name: value for name, value in found.items() if name not in ("clock", "command")}
        results[part] = {
            "command": command(),
            "clock": {"before": before_it, "after": clock_notes(inputs.device)},
            **found,
        }
        write_record(arguments.out, kind="inference speed", **settings, results=results)
    compare(results)
    print(f"record: {arguments.out}")


if __name__ == "__main__":
    main()
