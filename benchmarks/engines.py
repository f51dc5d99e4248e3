"""Networks in the engines that people deploy them with, side by side on a CPU.

    python benchmarks/engines.py --prepare                # only export, quantize and compile, which takes minutes
    python benchmarks/engines.py --minutes 10             # all parts that are not in the record yet
    python benchmarks/engines.py --part batch-1 --again   # one part, also if it is in the record

batch-1, batch-8: ResNet50 at 224 pixels, without attention, Share-full and EAN for SE, DIA and SGE, and timm's resnet50
and seresnet50, in PyTorch (eager, deployed, deployed and compiled), ONNX Runtime in fp32 and int8, and OpenVINO.
counters, segmentors: ResNet50 at 768 x 1024 and PSPNet at 512 x 512, and the peak memory of each engine, in a process
of its own. operators: milliseconds by type of operator in ONNX Runtime at batch 1, for the vanilla ResNet50 and those
with SE. cifar100: accuracy of the published ResNet20s in ONNX Runtime, in fp32 and int8.

Every round runs each network in each engine once, in random order; the number of rounds follows from the time that is
left. Increments are relative to the vanilla network of the same engine, ratios to the same network in eager PyTorch;
both from pairs of one round, with 95 % intervals. int8 is static quantization per channel, calibrated on training
images (for accuracy) or noise (for speed; the weights are random as well). timm and OpenVINO are measured if they are
installed; `pip install --target FOLDER timm openvino` and PYTHONPATH=FOLDER are enough. The record is written after
each part, and prepared files stay in work_dirs/engines. Writes benchmarks/results/engines.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

import zoo
from ean_core.common.config import load_config
from ean_core.common.record import command, environment, write_record
from ean_core.common.writing import replacing
from ean_core.data import CIFAR100
from ean_core.inference import deploy
from ean_core.inference.comparison import variant
from ean_core.inference.cost import clock_notes
from ean_core.inference.export import exporter_of, write_onnx
from ean_core.inference.timing import Timing, median_interval, time_networks
from ean_core.show.table import in_percent

RESULT = Path(__file__).parent / "results" / "engines.json"
PREPARED = Path("work_dirs/engines")
ROOT = Path(__file__).resolve().parents[1]

Run = Callable[[Tensor], Any]
ATTENTIONS = ("SE", "DIA", "SGE")
#: Compilation takes a minute per network and batch size.
COMPILED = ("vanilla", "SE EAN")
TIMM = {"timm resnet50": "resnet50", "timm seresnet50": "seresnet50"}
#: Fewer rounds give no 95 % interval.
FEWEST, MOST = 6, 60


@dataclass(frozen=True)
class Part:
    """Networks that are timed together.

    Args:
        config: name of their config, with the attention's name inserted.
        batch: images per pass.
        size: height and width in pixels.
        names: networks of the table, see :func:`build`.
        engines: names in :data:`ENGINES`.
        memory: also measure peak memory.
    """

    config: str
    batch: int
    size: tuple[int, int]
    names: tuple[str, ...]
    engines: tuple[str, ...]
    memory: bool = False


OURS = ("vanilla", *(f"{attention} {connection}" for attention in ATTENTIONS for connection in ("Share-full", "EAN")))
ALL = ("eager", "deployed", "compiled", "ONNX Runtime", "ONNX Runtime int8", "OpenVINO")
WHOLE = ("eager", "deployed", "ONNX Runtime", "OpenVINO")
PARTS = {
    "batch-8": Part("resnet50_{}_imagenet", 8, (224, 224), (*OURS, *TIMM), ALL),
    "batch-1": Part("resnet50_{}_imagenet", 1, (224, 224), (*OURS, *TIMM), ALL),
    "counters": Part("resnet50_{}_shanghaitech_b", 1, (768, 1024), ("vanilla", "SE Share-full", "SE EAN"), WHOLE, True),
    "segmentors": Part("resnet50_{}_voc2012", 1, (512, 512), ("vanilla", "SE Share-full", "SE EAN"), WHOLE, True),
}
QUICK = {
    "batch-8": Part("resnet20_{}_cifar100", 2, (32, 32), ("vanilla", "SE EAN"), ALL),
    "counters": Part("resnet20_{}_shanghaitech_b", 1, (64, 64), ("vanilla", "SE EAN"), WHOLE, True),
}


def build(part: Part, name: str) -> nn.Module:
    """Build a network with random weights."""
    torch.manual_seed(0)
    if name in TIMM:
        import timm

        return timm.create_model(TIMM[name]).eval().to(memory_format=torch.channels_last)
    attention, _, connection = name.rpartition(" ")
    return variant(load_config(part.config.format((attention or "SE").lower())), connection).network


def skipped(part: Part, name: str, engine: str) -> str:
    """Why a network is not measured in an engine; empty if it is."""
    if name in TIMM:
        if importlib.util.find_spec("timm") is None:
            return "timm is not installed"
        if engine in ("deployed", "compiled"):
            return "not a network of this package"
    if engine == "compiled":
        if shutil.which(os.environ.get("CXX", "g++")) is None:
            return "no C++ compiler"
        if name not in COMPILED:
            return "compilation takes long"
    if engine == "OpenVINO" and importlib.util.find_spec("openvino") is None:
        return "OpenVINO is not installed"
    return ""


# ---------------------------------------------------------------- engines


def runner(part: Part, name: str, engine: str) -> Run:
    """Return a network in an engine, as a function of float images ``(N, 3, H, W)`` from 0 to 255."""
    if engine in ("eager", "deployed", "compiled"):
        network = build(part, name)
        if name in TIMM:
            return network
        wrap = exporter_of(network)
        if engine != "eager":
            network = deploy(network, compile=engine == "compiled")
        return wrap(network).eval()
    path = prepared(part, name, quantized=engine.endswith("int8"))
    return openvino_runner(path) if engine == "OpenVINO" else onnxruntime_runner(path)


def onnxruntime_runner(path: Path) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.force_spinning_stop", "1")  # threads that wait would slow other engines
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    return lambda images: session.run(None, {taken.name: images.numpy()})[0]


def openvino_runner(path: Path) -> Run:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    return lambda images: request.infer([images.numpy()])[0]


def prepared(part: Part, name: str, *, quantized: bool = False) -> Path:
    """Return the ONNX file of a network; it is written if there is none, or if it is older than the sources."""
    height, width = part.size
    stem = re.sub(r"\W+", "_", f"{part.config.format('')} {name} {height} {width}".lower())
    path = PREPARED / f"{stem}.onnx"
    if not _is_recent(path):
        print(f"exporting {name}, {height} x {width}", flush=True)
        network = build(part, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in TIMM:
            images = torch.rand(2, 3, *part.size) * 255
            program = torch.onnx.export(
                network,
                (images,),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            )
            assert program is not None
            with replacing(path, suffix=True) as partial:
                program.save(str(partial), external_data=False)
        else:
            write_onnx(network, path, part.size, wrap=exporter_of(network))
    if not quantized:
        return path
    small = path.with_suffix(".int8.onnx")
    if not _is_recent(small):
        print(f"quantizing {name}", flush=True)
        noise = np.random.default_rng(0).random((2, part.batch, 3, *part.size), np.float32) * 255
        quantize(path, small, noise)
    return small


def _is_recent(path: Path) -> bool:
    sources = (source for folder in ("ean_core", "tasks") for source in (ROOT / folder).rglob("*.py"))
    return path.is_file() and path.stat().st_mtime > max(source.stat().st_mtime for source in sources)


class _Batches(CalibrationDataReader):
    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches: Iterator[Any] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def quantize(path: Path, out: Path, batches: Sequence[Any]) -> None:
    """Static quantization of weights per channel and of maps per tensor, calibrated on batches of images."""
    shaped = out.with_suffix(".shaped.onnx")
    quant_pre_process(str(path), str(shaped), skip_symbolic_shape=True)
    with replacing(out, suffix=True) as partial:
        quantize_static(
            shaped,
            partial,
            _Batches(batches),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    shaped.unlink()


# ---------------------------------------------------------------- parts


def measure(part: Part, label: str, seconds: float, *, quick: bool, only_prepare: bool = False) -> dict[str, Any]:
    """Time the networks of a part in all engines, in about so many seconds."""
    end = time.monotonic() + seconds
    images = torch.rand(part.batch, 3, *part.size, generator=torch.Generator().manual_seed(0)) * 255
    runs: dict[str, Run] = {}
    missing: dict[str, str] = {}
    single = 0.0
    with torch.inference_mode():
        for name in part.names:
            for engine in part.engines:
                if reason := skipped(part, name, engine):
                    missing[f"{name}, {engine}"] = reason
                    continue
                run = runner(part, name, engine)
                run(images)  # compiles
                start = time.perf_counter()
                run(images)
                single += time.perf_counter() - start
                if not only_prepare:
                    runs[f"{name}, {engine}"] = run
    if only_prepare:
        return {}
    memory = peak_memories(label, part, quick) if part.memory else {}
    rounds = FEWEST if quick else max(FEWEST, min(MOST, int((end - time.monotonic()) / single) - 2))
    print(f"{label}: {len(runs)} networks, {rounds} rounds of {single:.1f} s", flush=True)
    before = clock_notes(images.device)
    timings = time_networks(
        runs, images, baseline={name: _baseline(name) for name in runs}, rounds=rounds, warmup=1 if quick else 2
    )
    rows = {name: _row(name, timing, timings, part.batch) for name, timing in timings.items()}
    for name, row in rows.items():
        increment = in_percent(row["increment"], row["increment_interval"], 1)
        print(f"{name:32s} {row['images_per_s']:8.1f} images/s, {row['over_eager']:.2f} times eager, {increment} %")
    return {
        "command": command(),
        "batch": part.batch,
        "size": list(part.size),
        "rounds": rounds,
        "clock": {"before": before, "after": clock_notes(images.device)},
        "networks": rows,
        "not_measured": missing,
        "peak_memory": memory,
    }


def _baseline(name: str) -> str:
    network, _, engine = name.rpartition(", ")
    return f"{'timm resnet50' if network in TIMM else 'vanilla'}, {engine}"


def _row(name: str, timing: Timing, timings: Mapping[str, Timing], batch: int) -> dict[str, Any]:
    network, _, _ = name.rpartition(", ")
    eager = timings[f"{network}, eager"].seconds
    ratios = [theirs / own for theirs, own in zip(eager, timing.seconds, strict=True)]
    return {
        **timing.to_dict(),
        "images_per_s": batch / timing.median,
        "over_eager": float(np.median(ratios)),
        "over_eager_interval": median_interval(ratios),
    }


def peak_memories(label: str, part: Part, quick: bool) -> dict[str, int]:
    """Peak memory in bytes that the last network takes in each engine, with its weights, without libraries."""
    name, found = part.names[-1], {}
    for engine in part.engines:
        if not skipped(part, name, engine):
            child = [
                sys.executable,
                __file__,
                "--memory",
                label,
                name,
                engine,
                "--threads",
                str(torch.get_num_threads()),
            ]
            child += ["--quick"] if quick else []
            found[engine] = int(subprocess.run(child, check=True, capture_output=True, text=True).stdout.split()[-1])
            print(f"{label}, {name}, {engine}: {found[engine] / 2**20:.0f} MB", flush=True)
    return found


@torch.inference_mode()
def peak_memory(part: Part, name: str, engine: str) -> int:
    """Growth of this process until the peak of three passes, in bytes."""
    images = torch.rand(part.batch, 3, *part.size) * 255
    if engine == "OpenVINO":
        import openvino  # noqa: F401 -- its libraries are not part of the network's memory
    before = _status("VmRSS")
    run = runner(part, name, engine)
    for _ in range(3):
        run(images)
    return _status("VmHWM") - before


def _status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def operators(part: Part, passes: int = 12) -> dict[str, Any]:
    """Milliseconds by type of operator in ONNX Runtime: for each node the fastest of several passes, summed."""
    images = np.random.default_rng(0).random((1, 3, *part.size), np.float32) * 255
    rows = {}
    for name in [name for name in part.names if name == "vanilla" or name.startswith("SE ")]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.enable_profiling = True
        options.profile_file_prefix = str(PREPARED / "profile")
        session = onnxruntime.InferenceSession(str(prepared(part, name)), options, providers=["CPUExecutionProvider"])
        for _ in range(passes):
            session.run(None, {"images": images})
        written = Path(session.end_profiling())
        fastest: dict[tuple[str, str], float] = {}
        for event in json.loads(written.read_text()):
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                key = (event["args"]["op_name"], event["name"])
                fastest[key] = min(fastest.get(key, math.inf), event["dur"] / 1e3)
        written.unlink()
        found: dict[str, float] = defaultdict(float)
        for (kind, _), milliseconds in fastest.items():
            found[kind] += milliseconds
        rows[name] = {"ms": sum(found.values()), **dict(sorted(found.items(), key=lambda item: -item[1]))}
        text = ", ".join(
            f"{kind} {milliseconds:.2f}" for kind, milliseconds in rows[name].items() if milliseconds > 0.05
        )
        print(f"{name}: {text}", flush=True)
    return {"command": command(), "passes": passes, "networks": rows}


def accuracies(quick: bool) -> dict[str, Any]:
    """Accuracy of the published ResNet20s on CIFAR-100's test images, in percent, in ONNX Runtime."""
    training, test = CIFAR100("train"), CIFAR100("test")
    calibration = [
        torch.stack([training[index]["inputs"] for index in range(start, start + 100)]).float().numpy()
        for start in range(0, 1000, 100)
    ]
    number = 200 if quick else len(test)
    rows = {}
    for name in zoo.list_models("*resnet20*.cifar100", pretrained=True):
        network = zoo.get_model(name, pretrained=True).eval()
        path = PREPARED / f"{name}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_onnx(network, path, 32)
        small = path.with_suffix(".int8.onnx")
        quantize(path, small, calibration[: 1 if quick else None])
        row = {}
        for kind, run in (("fp32", onnxruntime_runner(path)), ("int8", onnxruntime_runner(small))):
            right = 0
            for start in range(0, number, 100):
                items = [test[index] for index in range(start, min(start + 100, number))]
                scores = run(torch.stack([item["inputs"] for item in items]).float())
                right += int((scores.argmax(1) == np.array([int(item["labels"]) for item in items])).sum())
            row[kind] = 100 * right / number
        rows[name] = {**row, "difference": row["int8"] - row["fp32"]}
        print(f"{name}: {row['fp32']:.2f} % in fp32, {row['int8']:.2f} % in int8", flush=True)
    return {"command": command(), "images": number, "calibration_images": 100 if quick else 1000, "networks": rows}


# ---------------------------------------------------------------- command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = (*PARTS, "operators", "cifar100")
    parser.add_argument("--part", action="append", choices=parts, help="default: all")
    parser.add_argument("--again", action="store_true", help="measure parts again that are in the record")
    parser.add_argument("--prepare", action="store_true", help="only write and compile what the parts need")
    parser.add_argument("--minutes", type=float, default=10, help="duration, shared by the parts to measure")
    parser.add_argument("--quick", action="store_true", help="functional check with small networks")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--memory", nargs=3, metavar=("PART", "NETWORK", "ENGINE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((PREPARED / "compiled").absolute()))
    known = QUICK if arguments.quick else PARTS
    if arguments.memory:
        label, name, engine = arguments.memory
        print(peak_memory(known[label], name, engine))
        return
    names = ("onnxruntime", "timm", "openvino")
    engines = {name: version(name) if importlib.util.find_spec(name) else None for name in names}
    results: dict[str, Any] = {}
    if arguments.out.exists():
        before = json.loads(arguments.out.read_text())
        if (before["environment"], before["engines"], before["quick"]) == (environment(), engines, arguments.quick):
            results = before["results"]
    wanted = arguments.part or [label for label in parts if label in known or label not in PARTS]
    left = [label for label in wanted if arguments.again or arguments.prepare or label not in results]
    left.sort(key=lambda label: label in PARTS)  # the others take what they take, and these share the rest
    for place, label in enumerate(left):
        if label not in PARTS:
            if not arguments.prepare:
                measured = operators(known["batch-8"]) if label == "operators" else accuracies(arguments.quick)
                results[label] = measured
        else:
            seconds = (end - time.monotonic()) / (len(left) - place)
            measured = measure(known[label], label, seconds, quick=arguments.quick, only_prepare=arguments.prepare)
            results |= {} if arguments.prepare else {label: measured}
        if not arguments.prepare:
            write_record(arguments.out, kind="engines", quick=arguments.quick, engines=engines, results=results)
    print(f"files: {PREPARED}" if arguments.prepare else f"record: {arguments.out}")


if __name__ == "__main__":
    main()
