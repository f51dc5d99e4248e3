"""Speedup from shared prefixes: all schemes of a supernet scored together, and each scheme alone.

    python benchmarks/search_speed.py [--part resnet20] [--part resnet50] [--part counter] [--batch 8] [--every 4]

ResNet20-SE, 32 pixels, 512 schemes on two batches: every scheme is scored both ways, alternating by subtree, and the
two accuracies are compared. ResNet50-SE, 64 pixels, 65,536 schemes on one batch: in subtrees of 256, and 64 random
schemes alone, each between two subtrees; the time of all schemes is *extrapolated* from their median. With `--every 4`,
the time of the subtrees is also extrapolated, from every fourth of them. The counter on ResNet18-SE, 64 schemes on two
images of 768 x 1024, is scored both ways like ResNet20. The ratios are printed next to those predicted from the times
of single blocks, measured in the same run. Weights and images are random, which does not affect speed. Writes
benchmarks/results/search_speed.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS

from ean_core import ConnectionScheme, EANResNet, EANResNetCIFAR, ImageClassifier
from ean_core.common.config import load_config
from ean_core.common.progress import Progress
from ean_core.common.record import environment, write_record
from ean_core.inference import BlockTimes
from ean_core.search import SupernetEvaluator, build_strategy
from ean_core.search.prefixes import count_bodies, walk_seconds

RESULT = Path(__file__).parent / "results" / "search_speed.json"
PARTS = ("resnet20", "resnet50", "counter")
ALONE = 64


def evaluator(backbone: EANResNet, pixels: int, batches: int, batch: int) -> SupernetEvaluator:
    preprocessor = {"type": "ImagePreprocessor", "mean": [128.0] * 3, "std": [64.0] * 3}
    supernet = ImageClassifier(backbone, 100, preprocessor)
    images = [
        {
            "inputs": torch.randint(256, (batch, 3, pixels, pixels), dtype=torch.uint8),
            "labels": torch.randint(100, (batch,)),
        }
        for _ in range(batches)
    ]
    return SupernetEvaluator(supernet, images, "random")


def counter_evaluator(images: int) -> SupernetEvaluator:
    config = load_config("search_resnet18_se_shanghaitech_b", ["model.backbone.init_cfg=None"])
    batches = [
        {
            "inputs": torch.randint(256, (1, 3, *config.image_size), dtype=torch.uint8),
            "points": [torch.rand(100, 2) * 768],
            "name": [str(number)],
        }
        for number in range(images)
    ]
    return SupernetEvaluator(MODELS.build(config.model), batches, "random")


@torch.inference_mode()
def alone(scorer: SupernetEvaluator, scheme: ConnectionScheme) -> float:
    """Score from the network's own forward pass, as for a single network."""
    scorer.backbone.set_scheme(scheme)
    rows = [scorer.scorer.rows(scorer.scorer.prepare(batch)) for batch in scorer.batches]
    return scorer.scorer.score(torch.cat(rows).numpy())


def timed(run: Any, *arguments: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run(*arguments)
    return time.perf_counter() - start, result


def medians(measured: list[BlockTimes]) -> BlockTimes:
    """Median time of each part over the measurements of the run."""

    def parts(name: str) -> tuple[float, ...]:
        return tuple(map(statistics.median, zip(*(getattr(times, name) for times in measured), strict=True)))

    return BlockTimes(
        stages=measured[0].stages,
        stem=statistics.median(times.stem for times in measured),
        bodies=parts("bodies"),
        connections=parts("connections"),
        joins=parts("joins"),
        head=statistics.median(times.head for times in measured),
    )


def compare(scorer: SupernetEvaluator, every: bool, stride: int = 1) -> dict[str, Any]:
    """Score schemes by subtrees (every ``stride``-th one), and alone: all of them (``every``), or a random sample
    between subtrees."""
    batch, stages = len(scorer.batches[0]["inputs"]), scorer.stages
    strategy = build_strategy({"type": "exhaustive"}, stages, 0)
    draws = torch.Generator().manual_seed(1)
    sample = [ConnectionScheme.random(stages, 0.5, draws) for _ in range(ALONE)]
    subtrees: list[float] = []
    single, times, walks, different = [], [], [], 0
    scorer.evaluate([sample[0]])  # warm up
    scorer.bodies = 0
    measure_every = -(-strategy.evaluations // stride // 256 // 16) if not every else 1
    with Progress("subtrees", strategy.evaluations // stride) as progress:
        for number in itertools.count():
            schemes = strategy.ask()
            if not schemes:
                break
            if number % stride:
                continue
            if len(subtrees) % measure_every == 0:
                times.append(scorer.block_times(batch, rounds=5))
            seconds, accuracies = timed(scorer.evaluate, schemes)
            subtrees.append(seconds)
            walks.append(schemes)
            turn, rest = divmod(len(subtrees) - 1, max(1, strategy.evaluations // stride // len(schemes) // ALONE))
            chosen = schemes if every else [] if rest else sample[turn : turn + 1]
            for scheme in chosen:
                seconds, accuracy = timed(alone, scorer, scheme)
                single.append(seconds)
                if every:
                    different += accuracy != accuracies[schemes.index(scheme)]
            progress.advance(steps=len(schemes))
    parts = medians(times)
    batches = len(scorer.batches)
    predicted_together = stride * batches * sum(walk_seconds(schemes, parts) for schemes in walks)
    predicted_alone = stride * batches * sum(parts.whole(scheme) for schemes in walks for scheme in schemes)
    together = stride * sum(subtrees)
    taken_alone = sum(single) if every else strategy.evaluations * statistics.median(single)
    return {
        "stages": list(stages),
        "schemes": strategy.evaluations,
        "images": scorer.images,
        "together_s": together,
        "together_is": "measured" if stride == 1 else f"extrapolated from {len(subtrees)} subtrees",
        "alone_s": taken_alone,
        "alone_is": "measured" if every else f"extrapolated from the median of {len(single)} random schemes",
        "schemes_that_differ": different if every else None,
        "bodies_counted": stride * scorer.bodies // batches,
        "bodies_expected": stride * sum(map(count_bodies, walks)),
        "bodies_alone": strategy.evaluations * sum(stages),
        "ratio": taken_alone / together,
        "predicted_ratio": predicted_alone / predicted_together,
        "block_times": {name: list(getattr(parts, name)) for name in ("bodies", "connections", "joins")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--batch", type=int, default=8, help="batch size of ResNet50")
    parser.add_argument("--every", type=int, default=1, help="for ResNet50, score only every N-th subtree")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    results: dict[str, Any] = {}
    if RESULT.exists():  # parts may be measured separately
        before = json.loads(RESULT.read_text())
        results = before["results"]
        if before["environment"] != environment():
            for found in results.values():
                found.setdefault("environment", before["environment"])
    for part in arguments.part or PARTS:
        if part == "resnet20":
            found = compare(evaluator(EANResNetCIFAR(20, "SE", "full"), 32, batches=2, batch=250), every=True)
        elif part == "counter":
            found = compare(counter_evaluator(2), every=True)
        else:
            found = compare(
                evaluator(EANResNet(50, "SE", "full"), 64, batches=1, batch=arguments.batch), False, arguments.every
            )
        results[part] = found
        print(
            f"{part}: {found['schemes']:,} schemes in {found['together_s']:.1f} s together ({found['together_is']}), "
            f"{found['alone_s']:.1f} s alone ({found['alone_is']}): {found['ratio']:.2f} times, predicted "
            f"{found['predicted_ratio']:.2f}; {found['bodies_counted']:,} bodies of {found['bodies_alone']:,}"
        )
        write_record(RESULT, kind="search speed", results=results)
    print(f"record: {RESULT}")


if __name__ == "__main__":
    main()
