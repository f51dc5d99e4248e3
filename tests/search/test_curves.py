from statistics import fmean

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CONFIG = "search_resnet20_se_digits"
SMALL = ("search.finalists.count=2", "search.finalists.images=100")
NAMES = {"best_reward", "reward", "accuracy", "connections", "cost", "distinct_schemes"}


def read(folder):
    """Points that TensorBoard reads from a folder, by name."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(each.step, each.value) for each in events.Scalars(name)] for name in events.Tags()["scalars"]}


def expected(lines):
    """Points computed from a ledger, by name."""
    steps = [[line for line in lines if line["step"] == step] for step in range(lines[-1]["step"] + 1)]
    points = {name: [] for name in ("best_reward", "reward", "accuracy", "connections", "distinct_schemes")}
    so_far = []
    for step in steps:
        so_far += step
        points["best_reward"].append((len(so_far), max(line["reward"] for line in so_far)))
        points["reward"].append((len(so_far), fmean(line["reward"] for line in step)))
        points["accuracy"].append((len(so_far), fmean(line["accuracy"] for line in step)))
        points["connections"].append((len(so_far), fmean(line["scheme"].count("1") for line in step)))
        points["distinct_schemes"].append((len(so_far), len({line["scheme"] for line in so_far})))
    found = {f"search/{name}": curve for name, curve in points.items()}
    found["strategy/mean_probability"] = [
        (step, group[0]["info"]["mean_probability"])
        for (step, _), group in zip(found["search/reward"], steps, strict=True)
    ]
    return found


def same(found, wanted):
    assert [step for step, _ in found] == [step for step, _ in wanted]
    assert [value for _, value in found] == pytest.approx([value for _, value in wanted], rel=1e-5)


def test_a_search_that_goes_on_has_each_point_once(digits_supernet, tmp_path, ean, ledger_lines):
    folder = tmp_path / "run"
    command = ["search", CONFIG, "--supernet", digits_supernet, "--work-dir", folder, "--tensorboard", "--cfg-options"]
    command += [*SMALL, f"search.scores={tmp_path}", "search.strategy.evaluations=12"]
    assert ean(*command)[0] == 0
    whole = read(folder)

    ledger = folder / "ledger.jsonl"
    content = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(content[:8]) + content[8][:20])  # torn in the third step
    assert ean(*command, "--resume")[0] == 0
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2
    resumed = read(folder)
    assert resumed == whole

    lines = [line for line in ledger_lines(ledger)[1:] if isinstance(line["step"], int)]
    for name, points in expected(lines).items():
        same(resumed[name], points)
    assert resumed["search/cost"] == resumed["search/connections"]  # no latency is weighed
    assert resumed.keys() == {f"search/{name}" for name in NAMES} | {"strategy/mean_probability"}


def test_the_searches_of_a_comparison_have_their_own_and_darts_that_of_a_training(digits_supernet, tmp_path, ean):
    command = ["search", "compare", CONFIG, "--supernet", digits_supernet, "--work-dir", tmp_path / "run"]
    command += ["--strategies", "random,darts", "--evaluations", 4, "--seeds", 1, "--tensorboard"]
    assert ean(*command, "--cfg-options", *SMALL, f"search.scores={tmp_path}")[0] == 0
    folders = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("events.out.tfevents.*")}
    assert folders == {"run/random/seed_0", "run/darts/seed_0", "run/darts/seed_0/training"}
    training = read(tmp_path / "run/darts/seed_0/training")
    assert {"loss", "validation_loss"} <= training.keys()
    assert [step for step, _ in read(tmp_path / "run/random/seed_0")["search/best_reward"]][-1] == 4
    assert [step for step, _ in read(tmp_path / "run/darts/seed_0")["search/accuracy"]] == [1]


def test_without_the_option_a_search_leaves_no_events(digits_supernet, tmp_path, ean):
    options = [*SMALL, f"search.scores={tmp_path}", "search.strategy.evaluations=6"]
    command = [
        "search",
        CONFIG,
        "--supernet",
        digits_supernet,
        "--work-dir",
        tmp_path / "run",
        "--cfg-options",
        *options,
    ]
    assert ean(*command)[0] == 0
    assert not list(tmp_path.rglob("events.out.tfevents.*"))
    assert not (tmp_path / "run" / "vis_data").exists()
