"""Run all fault-injection tests (tests/faults, including slow ones) and tabulate the results.

    python benchmarks/faults.py [--processes 2] [--only EXPRESSION]
    python benchmarks/faults.py --page     # only rewrites the page, from the record and boundaries.yml

Writes ``results/faults.md`` and ``results/faults.json``. Takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ean_core.common.record import read_record, write_record, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks/results/faults.json"
#: Attacks on trust boundaries: a list of ``attack``, ``before``, ``after`` and ``test``.
BOUNDARIES = ROOT / "benchmarks/boundaries.yml"
#: The required behavior for each fault.
HOLDS = {
    "kill -9 at a random moment": "supernet training, search, preparation of crowds and masks, download, "
    "publishing: the next start continues and ends with the weights, ledger or files of an undisturbed run; no "
    "incomplete file has a final name",
    "disk full or read-only": "training, search, preparation, publishing, download, export, counting: an error with "
    "the file, the reason and the free space; existing files are unchanged; with free space again, it continues",
    "damaged files": "schemes, settings, configs, .mat, HDF5, images, CSV and JSON, the model index, ledgers, "
    "records, safetensors and .pth: read, or a typed error that names the file, within 10 s and 1 GiB; small files "
    "that expand to large ones are refused",
    "inputs that a coverage-guided fuzzer makes": "schemes, settings, points, ledgers, .mat, model names, "
    "scrubbing: a result or a ValueError",
    "hostile checkpoints, indexes and servers": "pickles, configs and settings that execute code, paths that leave the "
    "folder of an index or manifest, links in the cache and in HDF5, redirects to other URL schemes: refused, "
    "nothing executed or written outside",
    "two processes on the same files": "work directory, ledger, scores, prepared folder, index, cache: one runs, the "
    "other waits or is refused with an error that names it",
    "a dead rank of torchrun": "the job ends with an error within a minute, leaves no process behind, and resumes",
    "NaN, exploding rewards, one class, no connection": "reported; training ends at the last good checkpoint, a search "
    "keeps its scores; the network without connections works",
    "the page under load": "200 uploads at once, 50 slow clients, files of 100 MB, invalid requests: memory stays "
    "bounded, limits are answered with 4xx, the page stays up",
    "the same seed twice": "equal tensors, and equal ledgers except for times",
}


def table(tried: Iterable[Mapping[str, Any]]) -> str:
    """Counts for each fault as a Markdown table.

    Args:
        tried: ``fault``, ``tried`` and ``survived`` of each test.
    """
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for line in tried:
        for k, number in enumerate((1, line["tried"], line["survived"])):
            counts[line["fault"]][k] += number
    lines = ["| fault | required behavior | tests | tried | survived |", "|---|---|---|---|---|"]
    lines += [
        f"| {fault} | {holds} | {counts[fault][0]} | {counts[fault][1]:,} | {counts[fault][2]:,} |"
        for fault, holds in HOLDS.items()
    ]
    total = [sum(each) for each in zip(*counts.values(), strict=True)] or [0, 0, 0]
    return "\n".join([*lines, f"| all | | {total[0]} | {total[1]:,} | {total[2]:,} |"])


def boundaries() -> str:
    """Attacks on trust boundaries as a Markdown table; each test is linked to its file."""
    lines = ["| attack | before | after | test |", "|---|---|---|---|"]
    for row in yaml.safe_load(BOUNDARIES.read_text(encoding="utf-8")):
        file, _, name = row["test"].partition("::")
        lines.append(f"| {row['attack']} | {row['before']} | {row['after']} | [`{name}`](../../{file}) |")
    return "\n".join(lines)


def page(record: Mapping[str, Any]) -> str:
    """The Markdown page of a record."""
    where = record["environment"]
    machine = f"{where['cpu']}, {where['cores']} cores, PyTorch {where['packages']['torch']}"
    again = f"; last part repeated with `{record['command']}`" if "--only" in record["command"] else ""
    skipped = "".join(f"\n- {reason}" for reason in record["skipped"])
    return (
        "# Fault injection\n\n"
        "Real faults injected into real processes, files, disks and servers: [tests/faults](../../tests/faults). Every "
        "test run covers part of them. All of them: "
        f"`python benchmarks/faults.py`, {record['finished'][:10]}, {machine}{again}.\n\n"
        f"{table(record['tests'])}\n\n"
        f"{record['failed']} tests failed, {len(record['skipped'])} were skipped{':' if skipped else '.'}{skipped}\n\n"
        "## Trust boundaries\n\n"
        "Attacks on what [SECURITY.md](../../SECURITY.md) promises, each tried by a test.\n\n"
        f"{boundaries()}\n"
    )


def main() -> int:
    """Run the tests and write record and page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", help="pytest's -k: repeat these tests and keep the record of the others")
    parser.add_argument("--page", action="store_true", help="only rewrite the page")
    arguments = parser.parse_args()
    if arguments.page:
        write_text(RESULT.with_suffix(".md"), page(read_record(RESULT)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        tally = Path(scratch, "tally.jsonl")
        tally.touch()
        environment = {**os.environ, "EAN_FAULTS_TALLY": str(tally), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pytest", "-n", str(arguments.processes), "--dist", "load", "-q", "-rsfE"]
        command += ["-m", "slow or not slow", "tests/faults", *(["-k", arguments.only] if arguments.only else [])]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        tests = [json.loads(line) for line in tally.read_text().splitlines()]
    print(done.stdout[-6000:])
    skipped = [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    failed = sum(line.startswith(("FAILED", "ERROR")) for line in done.stdout.splitlines())
    if arguments.only:
        before, again = read_record(RESULT), {test["test"] for test in tests}
        kept = [test for test in before["tests"] if test["test"] not in again]
        failed += sum(test["survived"] < test["tried"] for test in kept if test["fault"] in HOLDS)
        tests, skipped = tests + kept, sorted({*skipped, *before["skipped"]})
    tests = sorted((test for test in tests if test["fault"] in HOLDS), key=lambda test: test["test"])
    write_record(RESULT, kind="faults", tests=tests, skipped=skipped, failed=failed)
    write_text(RESULT.with_suffix(".md"), page(read_record(RESULT)))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
