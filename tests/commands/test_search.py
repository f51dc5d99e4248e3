import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout, suppress
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS

from ean_core import ConnectionScheme
from ean_core.commands.search import choose_strategy, find_supernet
from ean_core.common.config import load_config
from ean_core.data import Digits
from ean_core.inference.latency import BlockTimes
from ean_core.runs.training import run_training
from ean_core.search.ledger import read_lines
from ean_core.weights.files import read_state_dict, save_weights
from ean_core.weights.loading import load_weights
from tasks.cli import main

CONFIG = "search_resnet20_se_digits"
FEW = ("search.strategy.type=random", "search.strategy.evaluations=12", "search.strategy.schemes_per_step=3")
FINALISTS = ("search.finalists.count=2", "search.finalists.images=100")
#: A search that takes longer than a test.
ENDLESS = ("search.strategy.type=random", "search.strategy.evaluations=90000", "search.strategy.schemes_per_step=1")


def words(supernet, work_dir, *options, scores=None, more=()):
    """The command of a search in ``work_dir`` with separate scores."""
    given = [*FINALISTS, *options, f"search.scores={scores or work_dir / 'scores'}"]
    return ["search", CONFIG, "--supernet", supernet, "--work-dir", work_dir, *more, "--cfg-options", *given]


def read(path):
    return json.loads(path.read_text())


def wait_for(condition, process, timeout=120):
    end = time.monotonic() + timeout
    while not condition():
        assert process.is_alive(), "ended too early"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def has_lines(path, count):
    return path.exists() and path.read_bytes().count(b"\n") >= count


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The checkpoint of a network that was trained with one scheme, the full one."""
    config = load_config("resnet20_se_digits", ["train_cfg.max_epochs=1", "model.backbone.scheme=full"])
    return run_training(config, tmp_path_factory.mktemp("network"))


def searched(command):
    """Runs a search to its end; returns what it printed."""
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended, redirect_stdout(out):
        main([str(word) for word in command])
    assert ended.value.code == 0
    return re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())


@pytest.fixture(scope="module")
def said(digits_supernet, tmp_path_factory):
    """The folder of a search that is over, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, searched(words(digits_supernet, folder, *FEW))


@pytest.fixture(scope="module")
def finished(said):
    """The folder of that search."""
    return said[0]


@pytest.fixture(scope="module")
def exhausted(digits_supernet, tmp_path_factory):
    """The folder of a search that scored all schemes, and what it printed."""
    folder = tmp_path_factory.mktemp("exhausted")
    return folder, searched(words(digits_supernet, folder, more=("--strategy", "exhaustive")))


@pytest.fixture
def search_again(digits_supernet, finished, tmp_path):
    """A copy of the finished search, and the command that continues it."""
    shutil.copytree(finished, tmp_path / "again")
    return tmp_path / "again" / "ledger.jsonl", [*words(digits_supernet, tmp_path / "again", *FEW), "--resume"]


@pytest.fixture(scope="module")
def validation():
    """Images and labels on which schemes are scored."""
    images = Digits("val")
    return torch.stack([images[i]["inputs"] for i in range(len(images))]), images.labels


def test_a_search_has_a_header_and_quiet_leaves_the_result(said, search_again, digits_supernet):
    lines = said[1].splitlines()
    assert re.fullmatch(rf"search {CONFIG}: ResNet-20 SE, a supernet of 9 blocks, [\d,]+ parameters", lines[0])
    assert lines[1].startswith("data: scikit-learn digits val, 400 images")
    assert lines[2].startswith("device: ")
    assert lines[3:6] == [f"weights: {digits_supernet}", "strategy: random", f"output: {said[0]}"]
    quiet = searched([*search_again[1], "--quiet"]).splitlines()
    result = lines.index(next(line for line in lines if "chosen by rule" in line))
    assert quiet[:-1] == lines[result:-2]
    assert quiet[-1].startswith("record: ")
    assert lines[-1].startswith("train it: ")


def accuracy_alone(supernet, scheme, validation):
    """Return the validation accuracy of a network set to this scheme, from a plain forward pass."""
    model = MODELS.build({**load_config(CONFIG).model, "backbone": {**load_config(CONFIG).model.backbone}}).eval()
    load_weights(model, supernet, strict=True)
    model.backbone.set_scheme(scheme)
    inputs, labels = validation
    with torch.no_grad():
        data = model.data_preprocessor({"inputs": inputs, "labels": labels})
        return 100 * float((model(data["inputs"]).argmax(1) == labels).sum()) / len(labels)


# ---------------------------------------------------------------- what a search leaves behind


def test_a_search_leaves_a_ledger_a_record_and_a_picture_and_says_how_to_train(
    digits_supernet, said, ledger_lines, validation
):
    folder, out = said
    key, *lines = ledger_lines(folder / "ledger.jsonl")
    assert key["strategy"] == {"type": "random", "evaluations": 12, "schemes_per_step": 3}
    assert (key["seed"], key["stages"], key["finalists"]["count"]) == (0, [3, 3, 3], 2)
    assert key["finalists"]["calibration"].startswith("100 of ")
    asked = [line for line in lines if isinstance(line["step"], int)]
    assert [line["step"] for line in asked] == [step for step in range(4) for _ in range(3)]
    for line in asked[:2]:
        assert line["accuracy"] == accuracy_alone(digits_supernet, line["scheme"], validation)
        assert line["standard_error"] == pytest.approx(
            100 * (line["accuracy"] / 100 * (1 - line["accuracy"] / 100) / 400) ** 0.5
        )
        scheme = ConnectionScheme.parse(line["scheme"])
        assert line["reward"] == pytest.approx(line["accuracy"] + 2 * scheme.sparsity)

    final = {line["scheme"]: line for line in lines if line["step"] == "finalists"}
    best = sorted({line["scheme"]: line["reward"] for line in asked}.items(), key=lambda item: (-item[1], item[0]))
    assert list(final) == list(dict.fromkeys([best[0][0], best[1][0], "000-000-000", "111-111-111"]))
    record = read(folder / "search.json")
    assert (record["kind"], record["rule"], record["config"]) == ("search", "front", CONFIG)
    assert record["scheme"] == max(
        ({name: line[name] for name in record["scheme"]} for line in final.values()), key=lambda line: line["reward"]
    )
    assert record["scheme"]["accuracy"] != final[record["scheme"]["scheme"]]["supernet_accuracy"]
    assert record["best_seen"]["scheme"] == best[0][0]
    assert (record["evaluations"], record["distinct"]) == (12, len({line["scheme"] for line in asked}))
    assert {line["scheme"] for line in record["front"]} <= set(final)
    assert record["supernet"] == str(digits_supernet)
    assert record["training_seconds"] is None
    assert ">SE<" in (folder / "scheme.svg").read_text()

    found = record["scheme"]
    assert f"{found['scheme']}, chosen by rule front: accuracy {found['accuracy']:.2f} ± " in out
    assert "best of 12 evaluations" in out
    assert f"train it: ean train resnet20_se_digits --cfg-options model.backbone.scheme={found['scheme']}" in out


def test_all_schemes_are_answered_with_the_best_for_every_weight(exhausted, ledger_lines):
    folder, out = exhausted
    assert "best of 512 evaluations (512 different)" in out
    listed = [line.split() for line in out.split("for each sparsity weight")[1].splitlines()[1:] if "%" in line]
    accuracies = {line["scheme"]: line["accuracy"] for line in ledger_lines(folder / "ledger.jsonl")[1:513]}
    assert float(listed[0][0]) == 0
    for parts in listed:
        scheme = next(part for part in parts if part in accuracies)
        low = float(parts[0])
        highest = max(a + low * ConnectionScheme.parse(s).sparsity for s, a in accuracies.items())
        # low is rounded to two digits
        assert accuracies[scheme] + low * ConnectionScheme.parse(scheme).sparsity == pytest.approx(highest, abs=0.02)


def test_what_a_search_of_the_same_supernet_scored_is_not_computed_again(
    digits_supernet, finished, tmp_path, ean, ledger_lines
):
    assert ean(*words(digits_supernet, tmp_path, *FEW, scores=finished / "scores"))[0] == 0
    assert ledger_lines(tmp_path / "ledger.jsonl") == ledger_lines(finished / "ledger.jsonl")
    for path in (finished / "scores").glob("scores_*.jsonl"):
        schemes = [line.get("scheme") for line in read_lines(path)[0][1:]]
        assert len(schemes) == len(set(schemes))
    assert len(list((finished / "scores").glob("scores_*.jsonl"))) == 2  # one each for supernet and finalists
    assert not list(digits_supernet.parent.glob("scores_*"))


def test_scores_lie_beside_the_supernet_where_nothing_else_is_said(digits_supernet, tmp_path, ean):
    checkpoint = tmp_path / "supernet" / digits_supernet.name
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(digits_supernet.read_bytes())
    command = words(checkpoint, tmp_path / "run", *FEW)
    assert ean(*[word for word in command if "search.scores" not in str(word)])[0] == 0
    assert len(list(checkpoint.parent.glob("scores_*.jsonl"))) == 2


@pytest.mark.parametrize("rule", ["mode", "best-seen"])
def test_the_config_says_how_the_scheme_is_chosen(digits_supernet, finished, tmp_path, ean, rule):
    options = ["search.strategy.type=ean", "search.strategy.evaluations=9", f"search.rule={rule}"]
    assert ean(*words(digits_supernet, tmp_path, *options, scores=finished / "scores"))[0] == 0
    record = read(tmp_path / "search.json")
    assert record["rule"] == rule
    if rule == "best-seen":
        assert record["scheme"]["scheme"] == record["best_seen"]["scheme"]


def test_a_rule_that_does_not_go_with_the_strategy_is_refused(digits_supernet, tmp_path, ean):
    code, _ = ean(*words(digits_supernet, tmp_path, *FEW, "search.rule=mode"))
    assert code == "ean search: RandomSearch has no mode to return; choose rule='best-seen' or 'front'"


def test_bf16_scores_are_kept_apart(digits_supernet, finished, tmp_path, ean, ledger_lines):
    shutil.copytree(finished / "scores", tmp_path / "scores")
    assert ean(*words(digits_supernet, tmp_path, *FEW, "search.precision=bf16"))[0] == 0
    assert ledger_lines(tmp_path / "ledger.jsonl")[0]["precision"] == "bf16"
    assert len(list((tmp_path / "scores").glob("scores_*.jsonl"))) == 3  # finalists are scored in fp32


# ---------------------------------------------------------------- which strategy, which supernet


def test_a_strategy_named_on_the_command_line_replaces_the_configs():
    config = load_config(CONFIG)
    choose_strategy(config, "ean", ["search.strategy.curiosity=2"])
    assert config.search.strategy == {"type": "ean", "evaluations": 450}
    choose_strategy(config, "local", ["search.reward.sparsity=3"])
    assert config.search.strategy == {"type": "local"}
    choose_strategy(load_config(CONFIG), "ean", [])


def test_settings_given_beside_a_strategys_name_are_its_own(digits_supernet, finished, tmp_path, ean, ledger_lines):
    options, scores = ("search.strategy.evaluations=12", "search.strategy.schemes_per_step=3"), finished / "scores"
    assert ean(*words(digits_supernet, tmp_path, *options, scores=scores, more=("--strategy", "random")))[0] == 0
    key = ledger_lines(tmp_path / "ledger.jsonl")[0]
    assert key["strategy"] == {"type": "random", "evaluations": 12, "schemes_per_step": 3}


def test_an_unknown_strategy_is_answered_with_the_nearest(digits_supernet, tmp_path, ean):
    code, _ = ean(*words(digits_supernet, tmp_path, more=("--strategy", "randm")))
    assert code.startswith("ean search: unknown search strategy 'randm'; did you mean 'random'")
    assert not (tmp_path / "ledger.jsonl").exists()


def test_the_supernet_is_the_latest_of_its_config_unless_said_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(CONFIG)
    with pytest.raises(FileNotFoundError, match="train it with `ean train supernet_resnet20_se_digits`"):
        find_supernet(config, None)
    folder = tmp_path / "work_dirs" / "supernet_resnet20_se_digits"
    folder.mkdir(parents=True)
    for epoch in (9, 10):
        (folder / f"epoch_{epoch}.pth").touch()
    with pytest.raises(FileNotFoundError, match=r"epoch_10.pth has not ended; continue it with .* --resume`, or give"):
        find_supernet(config, None)
    (folder / "record.json").touch()
    assert find_supernet(config, None).name == "epoch_10.pth"
    for name in ("there.pth", "x.pth"):
        Path(name).touch()
    assert find_supernet(load_config(CONFIG, ["search.supernet=there.pth"]), None).name == "there.pth"
    assert find_supernet(load_config(CONFIG, ["search.supernet=there.pth"]), tmp_path / "x.pth").name == "x.pth"


# ---------------------------------------------------------------- what is refused


def test_a_network_trained_with_one_scheme_is_no_supernet(network, tmp_path, ean):
    code, _ = ean(*words(network, tmp_path, *FEW))
    assert code == (
        f"ean search: {network} was trained with one scheme, 'full'; a search needs a supernet: train one with "
        "`ean train supernet_resnet20_se_digits`"
    )
    assert not (tmp_path / "ledger.jsonl").exists()


def test_plain_weights_of_the_supernet_will_do(digits_supernet, finished, tmp_path, ean, ledger_lines):
    weights = tmp_path / "weights.safetensors"
    save_weights(read_state_dict(digits_supernet), weights, {})
    assert ean(*words(weights, tmp_path / "run", *FEW))[0] == 0
    assert ledger_lines(tmp_path / "run" / "ledger.jsonl") == ledger_lines(finished / "ledger.jsonl")


def test_an_empty_validation_set_is_refused(digits_supernet, tmp_path, ean):
    code, _ = ean(*words(digits_supernet, tmp_path, *FEW, "val_dataloader.dataset.val_per_class=0"))
    assert isinstance(code, str)
    assert code.startswith("ean search: ")
    assert "no images" in code or "at least" in code
    assert not has_lines(tmp_path / "ledger.jsonl", 1)


# ---------------------------------------------------------------- going on


def test_a_killed_search_resumes_to_the_same_ledger(digits_supernet, exhausted, tmp_path, ean, start_ean, ledger_lines):
    command = words(digits_supernet, tmp_path, more=("--strategy", "exhaustive"))
    ledger = tmp_path / "ledger.jsonl"
    process = start_ean(*command)
    wait_for(lambda: has_lines(ledger, 65), process)  # one of eight steps of 64
    process.kill()
    process.join()
    assert ledger.read_bytes().count(b"\n") < 513, "killed too late to test anything"

    code, _ = ean(*command)
    assert code.endswith("ledger.jsonl exists; add --resume to continue it, or --work-dir to start elsewhere")
    assert ean(*command, "--resume")[0] == 0
    whole, _ = exhausted
    assert ledger_lines(ledger) == ledger_lines(whole / "ledger.jsonl")
    assert read(tmp_path / "search.json")["scheme"] == read(whole / "search.json")["scheme"]

    written = (tmp_path / "search.json").read_bytes(), ledger.read_bytes()
    assert ean(*command, "--resume")[0] == 0  # a repetition changes nothing
    assert ((tmp_path / "search.json").read_bytes(), ledger.read_bytes()) == written


@pytest.mark.parametrize("finalist", [False, True])
def test_a_torn_last_line_is_dropped_aloud_and_evaluated_again(search_again, ean, ledger_lines, finalist):
    ledger, command = search_again
    before, content = ledger_lines(ledger), ledger.read_bytes().splitlines(keepends=True)
    kept = len(content) - 1 if finalist else 6
    ledger.write_bytes(b"".join(content[:kept]) + content[kept][:20])
    code, out = ean(*command)
    assert code == 0
    assert f"{ledger}: dropped a torn last line of 20 bytes; it is evaluated again" in out
    assert ledger_lines(ledger) == before


def test_a_damaged_ledger_is_refused_by_the_number_of_its_line(search_again, ean):
    ledger, command = search_again
    content = ledger.read_bytes().splitlines(keepends=True)
    content[3] = b"{]\n"
    ledger.write_bytes(b"".join(content))
    assert f"{ledger}, line 4, is damaged" in ean(*command)[0]
    assert ledger.read_bytes() == b"".join(content)


def test_another_searchs_ledger_is_refused_by_what_differs(search_again, ean):
    ledger, command = search_again
    before = ledger.read_bytes()
    code, _ = ean(*command, "--cfg-options", "search.reward.sparsity=3")  # the last one counts
    assert "belongs to another search: reward.sparsity is 2.0 there, 3 here" in code
    assert ledger.read_bytes() == before


def test_a_second_search_in_the_same_folder_is_refused(digits_supernet, tmp_path, ean, start_ean):
    command = words(digits_supernet, tmp_path, *ENDLESS)
    process = start_ean(*command)
    ledger = tmp_path / "ledger.jsonl"
    wait_for(lambda: has_lines(ledger, 3), process)
    code, _ = ean(*command, "--resume")
    assert code == f"ean search: another search is writing {ledger}; wait for it, or choose another --work-dir"
    lines = ledger.read_bytes().count(b"\n")
    wait_for(lambda: has_lines(ledger, lines + 1), process)  # the first one continues


@pytest.mark.slow
@pytest.mark.parametrize("remembered", [False, True])
def test_two_processes_search_as_one_does(digits_supernet, finished, tmp_path, ledger_lines, remembered):
    """Each scores its part of the images; stored scores need only the first."""
    if remembered:
        shutil.copytree(finished / "scores", tmp_path / "scores")
    command = words(digits_supernet, tmp_path, *FEW, more=("--launcher", "pytorch"))
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tasks.cli"]
        + [str(word) for word in command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=240)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output[-3000:]
    assert output.count("chosen by rule") == 1
    assert ledger_lines(tmp_path / "ledger.jsonl") == ledger_lines(finished / "ledger.jsonl")
    assert read(tmp_path / "search.json")["scheme"] == read(finished / "search.json")["scheme"]


# ---------------------------------------------------------------- latency


def test_latency_measures_a_network_and_a_search_weighs_it(digits_supernet, tmp_path, ean, ledger_lines):
    table = tmp_path / "times_blocks_eager.json"
    options = ("--per-block", "--form", "eager", "--rounds", "3", "--out", tmp_path / "times.json")
    code, out = ean("time", "resnet20_se_digits", *options)
    assert code == 0
    assert "all connections add " in out
    assert f"search.reward.table={table}" in out
    times, record = BlockTimes.load(table), read(table)
    assert times.stages == (3, 3, 3)
    assert record["batch"] == 50

    options = ("search.reward.sparsity=0", "search.reward.latency=2", f"search.reward.table={table}")
    command = words(digits_supernet, tmp_path / "run", *FEW, *options)
    assert ean(*command)[0] == 0
    key, *lines = ledger_lines(tmp_path / "run" / "ledger.jsonl")
    assert key["reward"]["table"]["connections"] == list(times.connections)
    for line in lines:
        scheme = ConnectionScheme.parse(line["scheme"])
        assert line["cost"] == pytest.approx(1e3 * times.connected(scheme))
        assert line["reward"] == pytest.approx(line["accuracy"] + 2 * times.saved(scheme))
    assert ean(*command, "--resume")[0] == 0


def test_times_that_are_not_given_are_measured_once(digits_supernet, tmp_path, ean, ledger_lines):
    command = words(digits_supernet, tmp_path, *FEW, "search.reward.sparsity=0", "search.reward.latency=2")
    assert ean(*command)[0] == 0
    written = (tmp_path / "block_times.json").read_bytes()
    before = ledger_lines(tmp_path / "ledger.jsonl")
    content = (tmp_path / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "ledger.jsonl").write_bytes(b"".join(content[:7]))
    assert ean(*command, "--resume")[0] == 0
    assert (tmp_path / "block_times.json").read_bytes() == written
    assert ledger_lines(tmp_path / "ledger.jsonl") == before


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("other.json", r"these times are for stages (5, 5, 5); "),
        ("record.json", "has no block times (kind 'training'); `ean time --per-block` writes them"),
        ("missing.json", "missing.json; `ean time --per-block` writes them"),
        ("dia.json", "dia.json has block times of DIA, but this supernet has SE; measure them for it"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(digits_supernet, tmp_path, ean, table, message):
    BlockTimes((5, 5, 5), 0.0, (1.0,) * 15, (1.0,) * 15, (1.0,) * 15).save(tmp_path / "other.json")
    BlockTimes((3, 3, 3), 0.0, (1.0,) * 9, (1.0,) * 9, (1.0,) * 9).save(tmp_path / "dia.json", attention="DIA")
    (tmp_path / "record.json").write_bytes((digits_supernet.parent / "record.json").read_bytes())
    options = ("search.reward.latency=2", f"search.reward.table={tmp_path / table}")
    code, _ = ean(*words(digits_supernet, tmp_path / "run", *FEW, *options))
    assert isinstance(code, str)
    assert message in code
    ledger = tmp_path / "run" / "ledger.jsonl"
    assert not ledger.exists() or len(read_lines(ledger)[0]) <= 1
