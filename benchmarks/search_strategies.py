"""Search strategies on synthetic landscapes with equal numbers of evaluations: best rewards found, and block bodies
computed by an evaluator that shares the prefixes of schemes scored together.

    python benchmarks/search_strategies.py [--evaluations 900 3000] [--seeds 5] [--strategies local ean ga]

54 blocks as in ResNet164. The accuracy is the sum of the effects of blocks (standard deviation 1) and of pairs of
blocks (1 for all pairs with a given block together). The reward adds the sparsity with weight 27, so a connection costs
0.5, half the standard deviation of its effect; with the usual weight of 2 it would cost only 0.04. A seed determines
the landscape, which is the same for all strategies, and the strategies' draws.

All strategies use their default options. Those of `local` were tuned on landscapes of other seeds (1000 and above).
Writes benchmarks/results/search_strategies.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from ean_core.common.record import write_record
from ean_core.scheme import ConnectionScheme
from ean_core.search import STRATEGIES, Reward, SyntheticEvaluator, build_strategy
from ean_core.search.prefixes import count_bodies

STAGES = (18, 18, 18)
SPARSITY = 27.0
RESULT = Path(__file__).parent / "results" / "search_strategies.json"


class Run(NamedTuple):
    """One search: highest reward, number of distinct schemes, and block bodies computed for new schemes."""

    best: float
    schemes: int
    bodies: int


def run(name: str, evaluations: int, seed: int) -> Run:
    evaluator, reward = SyntheticEvaluator(STAGES, seed), Reward(sparsity=SPARSITY)
    strategy = build_strategy({"type": name, "evaluations": evaluations}, STAGES, seed)
    rewards: dict[ConnectionScheme, float] = {}
    bodies = 0
    while asked := strategy.ask():
        bodies += count_bodies(scheme for scheme in asked if scheme not in rewards)
        told = [
            reward.evaluation(scheme, accuracy)
            for scheme, accuracy in zip(asked, evaluator.evaluate(asked), strict=True)
        ]
        rewards.update((evaluation.scheme, evaluation.reward) for evaluation in told)
        strategy.tell(told)
    return Run(max(rewards.values()), len(rewards), bodies)


def main() -> None:
    STRATEGIES.get("local")  # imports all strategies
    budgeted = [name for name, strategy in STRATEGIES.module_dict.items() if strategy.budgeted and name != "optuna"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[900, 3000])
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, starting at 0")
    parser.add_argument("--strategies", nargs="+", choices=sorted(budgeted), default=sorted(budgeted))
    arguments = parser.parse_args()

    seeds = range(arguments.seeds)
    names = ["local", *(name for name in arguments.strategies if name != "local")]
    results: dict[int, dict[str, list[Run]]] = {}
    for evaluations in arguments.evaluations:
        results[evaluations] = {}
        for name in names:
            results[evaluations][name] = [run(name, evaluations, seed) for seed in seeds]
            print(f"{evaluations} evaluations: {name} done", flush=True)

    # For each landscape, the highest reward found by any strategy with any number of evaluations.
    highest = [max(runs[seed].best for found in results.values() for runs in found.values()) for seed in seeds]
    for evaluations, found in results.items():
        print(f"\n{evaluations} evaluations, {len(seeds)} seeds")
        print("strategy       best reward  to highest  schemes   bodies  beaten by local")
        for name, runs in sorted(found.items(), key=lambda item: -fmean(r.best for r in item[1])):
            spread = stdev(r.best for r in runs) if len(runs) > 1 else 0.0
            behind = fmean(r.best - most for r, most in zip(runs, highest, strict=True))
            lost = sum(r.best < local.best for r, local in zip(runs, found["local"], strict=True))
            print(
                f"{name:<10} {fmean(r.best for r in runs):>8.2f} ± {spread:4.2f}  {behind:10.2f} "
                f"{fmean(r.schemes for r in runs):8.0f} {fmean(r.bodies for r in runs):8.0f} {lost:>12} of {len(runs)}"
            )
    write_record(
        RESULT,
        kind="benchmark",
        stages=STAGES,
        sparsity=SPARSITY,
        seeds=list(seeds),
        highest=highest,
        results={
            str(evaluations): {name: [r._asdict() for r in runs] for name, runs in found.items()}
            for evaluations, found in results.items()
        },
    )
    print(f"\nrecord: {RESULT}")


if __name__ == "__main__":
    main()
