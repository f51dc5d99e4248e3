import json
import shutil
import time

import pytest

from ean_core.report.search import read_comparison
from ean_core.search.prefixes import count_bodies
from ean_core.search.strategy import STRATEGIES
from tasks.cli import main

CONFIG = "search_resnet20_se_digits"
SMALL = ("search.finalists.count=2", "search.finalists.images=100")
EVALUATIONS, SEEDS = 6, 2
FAST = "random,hsp,local,ean"
#: Strategies that use random numbers; DARTS does because it trains.
ALL = "ean,random,hsp,local,darts"


def words(supernet, work_dir, strategies, *more, options=()):
    given = [*SMALL, f"search.scores={work_dir.parent / (work_dir.name + ' scores')}", *options]
    command = ["search", "compare", CONFIG, "--supernet", supernet, "--work-dir", work_dir]
    command += ["--strategies", strategies, "--evaluations", EVALUATIONS, "--seeds", SEEDS]
    return [str(word) for word in (*command, *more, "--cfg-options", *given)]


def run(supernet, folder, strategies, **options):
    with pytest.raises(SystemExit) as ended:
        main(words(supernet, folder, strategies, **options))
    assert ended.value.code == 0
    return folder


@pytest.fixture(scope="module")
def compared(digits_supernet, tmp_path_factory):
    """The folder of a comparison of fast strategies."""
    return run(digits_supernet, tmp_path_factory.mktemp("compared") / "run", FAST)


@pytest.fixture
def again(compared, tmp_path):
    shutil.copytree(compared.parent, tmp_path / "copy")
    return tmp_path / "copy" / "run"


def ledgers(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jsonl"))


def read(path):
    return json.loads(path.read_text())


def test_each_search_has_a_ledger_and_a_record_of_its_own(compared, ledger_lines):
    seeded = [f"{name}/seed_{seed}/ledger.jsonl" for name in ("ean", "local", "random") for seed in range(SEEDS)]
    assert ledgers(compared) == sorted(["finalists.jsonl", "hsp/seed_0/ledger.jsonl", *seeded])
    for name in ledgers(compared):
        key, *lines = ledger_lines(compared / name)
        if name == "finalists.jsonl":
            continue
        strategy, seed, _ = name.split("/")
        assert key["strategy"] == {"type": strategy, "evaluations": EVALUATIONS}
        assert key["seed"] == int(seed.removeprefix("seed_"))
        assert len([line for line in lines if isinstance(line["step"], int)]) == EVALUATIONS
        assert "finalists" not in key
        record = read(compared / name.replace("ledger.jsonl", "search.json"))
        assert (record["strategy"], record["seed"]) == (key["strategy"], key["seed"])
        assert record["evaluations"] == EVALUATIONS
    first, second = (ledger_lines(compared / f"random/seed_{seed}/ledger.jsonl")[1:] for seed in (0, 1))
    assert [line["scheme"] for line in first] != [line["scheme"] for line in second]


def test_the_best_of_all_are_scored_again_in_the_end(compared, ledger_lines):
    key, *final = ledger_lines(compared / "finalists.jsonl")
    assert key["comparison"] == FAST.split(",")
    rewards = {
        line["scheme"]: line["reward"]
        for name in ledgers(compared)
        if name != "finalists.jsonl"
        for line in ledger_lines(compared / name)[1:]
        if isinstance(line["step"], int)
    }
    best = sorted(rewards, key=lambda scheme: (-rewards[scheme], scheme))[:2]
    expected = list(dict.fromkeys([*best, "000-000-000", "111-111-111"]))
    assert [line["scheme"] for line in final] == expected
    assert all(line["accuracy"] != line["supernet_accuracy"] for line in final)


def test_the_report_is_there_and_its_counts_are_those_of_the_ledgers(compared):
    assert (compared / "comparison.md").is_file()
    comparison = read_comparison(compared)
    assert list(comparison.by_strategy()) == FAST.split(",")
    record = read(compared / "compare.json")
    assert (record["images"], record["batches"], record["seeds"]) == (400, 1, [0, 1])
    for found in comparison.runs:
        assert found.bodies == sum(count_bodies(walk) for walk in found.history.walks())


def test_a_finished_comparison_is_read_again_without_scoring(again, digits_supernet, ean, ledger_lines):
    final = ledger_lines(again / "finalists.jsonl")
    before = {name: (again / name).read_bytes() for name in ledgers(again) if name != "finalists.jsonl"}
    scores = {path: path.read_bytes() for path in again.parent.rglob("scores_*.jsonl")}
    records = {path: path.read_bytes() for path in again.rglob("search.json")}
    code, out = ean(*words(digits_supernet, again, FAST, "--resume"))
    assert code == 0
    assert {name: (again / name).read_bytes() for name in before} == before
    assert {path: path.read_bytes() for path in scores} == scores
    assert ledger_lines(again / "finalists.jsonl") == final  # rewritten from stored scores
    assert {path: path.read_bytes() for path in again.rglob("search.json")} == records
    for name in FAST.split(","):
        assert f"│ {name} " in out


def test_torn_ledgers_are_completed(again, digits_supernet, ean, ledger_lines):
    torn = [again / "local/seed_1/ledger.jsonl", again / "finalists.jsonl"]
    before = [ledger_lines(path) for path in torn]
    for path in torn:
        content = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(content[:-1]) + content[-1][:9])
    code, out = ean(*words(digits_supernet, again, FAST, "--resume"))
    assert code == 0
    assert f"{torn[0]}: dropped a torn last line of 9 bytes" in out
    assert [ledger_lines(path) for path in torn] == before


def test_a_folder_with_something_in_it_is_not_written_to_unasked(again, digits_supernet, ean):
    code, _ = ean(*words(digits_supernet, again, FAST))
    assert code == (
        f"ean search compare: {again} is not empty; add --resume to continue it, or --work-dir to start elsewhere"
    )


@pytest.mark.parametrize("strategies", ["random,genetics", "rnadom"])
def test_an_unknown_strategy_is_refused_before_anything_is_scored(digits_supernet, tmp_path, ean, strategies):
    code, _ = ean(*words(digits_supernet, tmp_path / "run", strategies))
    assert code.startswith("ean search compare: unknown search strategy ")
    assert "'random'" in code
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("strategies", "given"), [("", "none"), (",", "none"), ("hsp, hsp", "hsp, hsp")])
def test_a_comparison_of_nothing_or_of_the_same_is_refused(digits_supernet, tmp_path, ean, strategies, given):
    code, _ = ean(*words(digits_supernet, tmp_path / "run", strategies))
    assert code == f"ean search compare: a comparison needs at least one strategy, each only once; got {given}"
    assert not (tmp_path / "run").exists()


def test_a_comparison_may_be_extended(again, digits_supernet, ean, ledger_lines):
    before = {name: (again / name).read_bytes() for name in ledgers(again) if name != "finalists.jsonl"}
    assert ean(*words(digits_supernet, again, f"{FAST},enas", "--resume"))[0] == 0
    for name, content in before.items():
        assert (again / name).read_bytes() == content
    assert ledger_lines(again / "finalists.jsonl")[0]["comparison"] == [*FAST.split(","), "enas"]
    assert list(read_comparison(again).by_strategy()) == [*FAST.split(","), "enas"]


def test_the_times_of_blocks_are_those_of_the_batches_that_are_scored(digits_supernet, tmp_path):
    """Also with a latency reward, which uses 50 images as in the paper."""
    options = ("search.reward.sparsity=0", "search.reward.latency=2")
    folder = run(digits_supernet, tmp_path / "run", "random", options=options)
    images = {tuple(found["bodies"]): found["images"] for found in map(read, folder.glob("*times*.json"))}
    assert sorted(images.values()) == [50, 400]
    assert images[tuple(read(folder / "compare.json")["block_times"]["bodies"])] == 400


def kill_in_the_middle(process, is_reached, timeout=200):
    end = time.monotonic() + timeout
    while not is_reached():
        assert process.is_alive(), "ended too early"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)
    process.kill()
    process.join()


def assert_same(first, second, ledger_lines):
    assert ledgers(first) == ledgers(second)
    for name in ledgers(first):
        assert ledger_lines(first / name) == ledger_lines(second / name)


def test_a_killed_comparison_resumes_to_the_same_ledgers(
    compared, digits_supernet, tmp_path, ean, start_ean, ledger_lines
):
    folder = tmp_path / "run"
    command = words(digits_supernet, folder, FAST)
    process = start_ean(*command)
    kill_in_the_middle(process, lambda: (folder / "hsp" / "seed_0" / "ledger.jsonl").exists())
    assert not (folder / "compare.json").exists(), "killed too late to test anything"
    assert ean(*command, "--resume")[0] == 0
    assert_same(folder, compared, ledger_lines)


@pytest.mark.slow
def test_a_comparison_killed_in_a_training_resumes_to_the_same_ledgers(
    digits_supernet, tmp_path, ean, start_ean, ledger_lines
):
    names = ",".join(name for name in ALL.split(",") if name == "darts" or name in STRATEGIES.module_dict)
    assert names == ALL
    whole = run(digits_supernet, tmp_path / "whole", names)
    folder = tmp_path / "killed"
    command = words(digits_supernet, folder, names)
    process = start_ean(*command)
    kill_in_the_middle(process, lambda: (folder / "darts" / "seed_1" / "training").exists())
    assert not (folder / "compare.json").exists(), "killed too late to test anything"
    assert ean(*command, "--resume")[0] == 0
    assert_same(folder, whole, ledger_lines)
    for record in whole.glob("*/*/search.json"):
        other = read(folder / record.relative_to(whole))
        assert other["scheme"] == read(record)["scheme"]
        assert (other["training_seconds"] is None) == ("darts" not in record.parts)
