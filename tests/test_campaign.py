"""The campaign, with real commands on scikit-learn's digits: what is done, resumed, kept, reported."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from ean_core.record import read_record, training_log, write_record
from zoo.index import PACKAGED
from zoo.names import ModelName

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks/campaign.py"


@pytest.fixture(scope="module")
def campaign_module():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import campaign
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return campaign


def start(folder, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "EAN_CAMPAIGN": str(folder)}
    return subprocess.Popen(
        [sys.executable, SCRIPT, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, code=0):
    said, _ = process.communicate(timeout=600)
    assert process.returncode == code, said
    return said


SUPERNET = "supernet_resnet20_se.digits/seed_0"
SEARCH = "search_resnet20_se.digits/seed_0"


def processes_on(folder):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # gone meanwhile
            continue
        if f"--work-dir {folder}/" in command:
            found.append(command)
    return found


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A small campaign that was killed in its first step, went on, and stopped after its search."""
    folder = tmp_path_factory.mktemp("campaign")
    first = start(folder, "run", "--small", "--until", SUPERNET)
    run = folder / "runs" / SUPERNET
    deadline = time.monotonic() + 300
    while not (run / "output.txt").is_file():  # its first command has begun
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    if sys.platform == "linux":  # what it had started stops with it, and does not finish
        time.sleep(2)
        assert not processes_on(folder / "runs")
        assert not (run / "record.json").exists()
    with FileLock(folder / "runs/campaign.lock"):
        assert "another process runs the campaign" in finish(start(folder, "run", "--small"), code=1)
    said = finish(start(folder, "run", "--small", "--until", SEARCH))
    assert SEARCH in said
    return folder


def test_a_killed_campaign_goes_on_and_knows_what_is_done(begun):
    results = begun / "results"
    assert read_record(results / SUPERNET / "record.json")["epochs"] == 1
    assert read_record(results / SEARCH / "search.json")["evaluations"] == 512
    assert (results / SEARCH / "front.png").is_file()
    lines = [json.loads(line) for line in (results / "log.jsonl").read_text().splitlines()]
    assert {(line["step"], line["code"]) for line in lines} == {(SUPERNET, 0), (SEARCH, 0)}
    table = finish(start(begun, "--small"))
    states = dict(re.findall(r"│ (\S+)\s+│ (done|to do|after \S+|\d+ %) ", table))
    assert states[SUPERNET] == states[SEARCH] == "done"
    assert states["resnet20.digits/seed_0"] == states["ean_resnet20_se.digits/seed_0"] == "to do"
    assert "2 of 6" in table


def test_its_log_of_losses_is_kept_and_its_state_is_not(begun):
    losses = (begun / "results" / SUPERNET / "log.jsonl").read_text().splitlines()
    assert all("loss" in json.loads(line) for line in losses)
    assert not list((begun / "results").rglob("*.pth"))  # the search that needed the supernet is done


def test_commands_are_plain_ones(begun):
    said = finish(start(begun, "show", "ean_resnet20_se.digits/seed_0", "--small")).splitlines()
    assert [line.split()[:3] for line in said[:-1]] == [
        ["ean", "train", "resnet20_se_digits"],
        ["ean", "test", "resnet20_se_digits"],
        ["ean", "zoo", "publish"],
    ]
    assert said[-1].startswith("# a checkpoint epoch_N.pth is the one")
    (ran,) = finish(start(begun, "show", SUPERNET, "--small")).splitlines()
    assert ran == read_record(begun / "results" / SUPERNET / "record.json")["command"]
    assert re.search(r"model\.backbone\.scheme=[01]{3}-", said[0])
    wrong = finish(start(begun, "show", "ean_resnet20", "--small"), code=2)
    assert "there is no step 'ean_resnet20'" in wrong


@pytest.mark.slow
def test_all_of_it_runs_and_is_reported(begun, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(begun, folder)
    said = finish(start(folder, "run", "--small"))
    assert said.rstrip().endswith("all steps are done")
    names = {path.stem for path in (folder / "zoo/cards").glob("*.md")}
    assert names == {"resnet20.digits", "full_resnet20_se.digits", "ean_resnet20_se.digits"}
    page = (folder / "results/README.md").read_text()
    assert "All schemes of the SE supernet" in page
    test = read_record(folder / "results/ean_resnet20_se.digits/seed_0/test.json")
    assert f"| ResNet-20 SE | EAN | {test['metrics']['accuracy/top1']:.2f} | 1 |" in page
    assert "**in short**, by one training each" in page
    assert (folder / "results/front_se.png").stat().st_size > 20_000
    assert "6 of 6" in finish(start(folder, "--small"))


def test_a_failing_command_ends_the_campaign_and_is_said(tmp_path, campaign_module):
    steps = campaign_module.plan("digits")
    campaign = campaign_module.Campaign(steps, tmp_path / "results", tmp_path / "runs", tmp_path, "digits", epochs=-1)
    with pytest.raises(RuntimeError, match=r"max_epochs=-1\nended with \d+: .*\S.*\nsee .*output.txt; run again"):
        campaign.run(steps[0])
    assert (tmp_path / "runs" / SUPERNET / "output.txt").stat().st_size
    assert not campaign.done(steps[0])


def test_a_kept_state_goes_on_in_another_checkout(begun, tmp_path, campaign_module):
    steps = campaign_module.plan("digits")
    here = campaign_module.Campaign(steps, tmp_path / "results", begun / "runs", source="digits", epochs=2)
    kept = here.keep(steps[0])
    assert [path.name for path in kept if path.suffix == ".pth"] == ["epoch_1.pth"]
    there = campaign_module.Campaign(steps, tmp_path / "results", tmp_path / "runs", source="digits", epochs=2)
    assert there.progress(steps[0]) == 0.5
    there.restore(SUPERNET)
    own = begun / "runs" / SUPERNET
    assert (tmp_path / "runs" / SUPERNET / "epoch_1.pth").read_bytes() == (own / "epoch_1.pth").read_bytes()
    assert training_log(tmp_path / "runs" / SUPERNET) == training_log(own) != ""  # of the epochs before


@pytest.mark.parametrize(("here", "kept", "after"), [(3, 20, {3, 20}), (20, 3, {20}), (0, 2, {2})])
def test_what_is_further_counts(tmp_path, campaign_module, here, kept, after):
    campaign = campaign_module.Campaign(campaign_module.plan("digits"), tmp_path / "results", tmp_path / "runs")
    for folder, epochs in ((tmp_path / "runs" / SUPERNET, here), (tmp_path / "results" / SUPERNET / "state", kept)):
        folder.mkdir(parents=True)
        if epochs:
            (folder / f"epoch_{epochs}.pth").write_bytes(b"checkpoint")
    campaign.restore(SUPERNET)
    found = {int(path.stem.split("_")[1]) for path in (tmp_path / "runs" / SUPERNET).glob("epoch_*.pth")}
    assert found == after


def test_a_state_too_large_is_not_kept_and_nothing_is_lost_where_there_is_none(tmp_path, campaign_module, capsys):
    steps = campaign_module.plan("digits")
    campaign = campaign_module.Campaign(steps, tmp_path / "results", tmp_path / "runs")
    old = tmp_path / "results" / SUPERNET / "state/epoch_1.pth"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"kept before")
    assert campaign.keep(steps[0]) == []  # nothing ran here
    assert old.read_bytes() == b"kept before"
    (tmp_path / "runs" / SUPERNET).mkdir(parents=True)
    (tmp_path / "runs" / SUPERNET / "epoch_1.pth").write_bytes(bytes(9_000_000))
    assert campaign.keep(steps[0]) == []
    assert "has 9.0 MB and is not kept; the limit is 8" in capsys.readouterr().out


def write_search(folder, finalists):
    """A ledger of a finished search, with these finalists as (scheme, accuracy)."""
    lines = [{"stages": [3, 3, 3]}]
    for scheme, accuracy in finalists:
        ones = scheme.count("1")
        reward = accuracy + 2 * (1 - ones / 9)
        lines.append({"step": "finalists", "scheme": scheme, "accuracy": accuracy, "cost": ones, "reward": reward})
    folder.mkdir(parents=True)
    (folder / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("finalists", "ean", "best"),
    [
        (
            [("000-000-000", 60), ("100-000-000", 59.5), ("110-000-000", 59.9), ("111-111-111", 61)],
            "110-000-000",
            "full",
        ),
        ([("000-000-000", 62), ("100-000-000", 59), ("111-111-111", 58)], "100-000-000", "100-000-000"),
    ],
)
def test_what_is_chosen_of_a_search(tmp_path, campaign_module, finalists, ean, best):
    campaign = campaign_module.Campaign(campaign_module.plan(), tmp_path / "results", tmp_path / "runs")
    model = ModelName(20, "cifar100", "ean", "se")
    assert campaign.scheme(model) == "?"
    write_search(tmp_path / "results/search_resnet20_se.cifar100/seed_0", finalists)
    assert campaign.scheme(model) == ean
    assert campaign.scheme(ModelName(20, "shanghaitech_b", "ean", "se")) == ean
    assert campaign.scheme(ModelName(20, "cifar100", "best", "se")) == best.replace("full", "111-111-111")
    assert not [step for step in campaign.planned if step.name.startswith("best")]  # it is another one of the steps


def test_steps_wait_for_what_they_need(tmp_path, campaign_module):
    campaign = campaign_module.Campaign(campaign_module.plan(), tmp_path / "results", tmp_path / "runs", tmp_path)
    steps = {step.name: step for step in campaign.steps}
    assert campaign.next().name == "supernet_resnet20_se.cifar100/seed_0"
    waits = {
        "search_resnet20_dia.cifar100/seed_0": "supernet_resnet20_dia.cifar100/seed_0",
        "ean_resnet20_sge.cifar100/seed_2": "search_resnet20_sge.cifar100/seed_0",
        "full_resnet20_se.shanghaitech_b/seed_0": "full_resnet20_se.cifar100/seed_0",
        "resnet20.cifar100/seed_1": None,
    }
    assert {name: campaign.waits_for(steps[name]) for name in waits} == waits
    write_record(tmp_path / "results/supernet_resnet20_se.cifar100/seed_0/record.json", seconds=60, validation=None)
    search = campaign.next()
    assert search.name == "supernet_resnet20_dia.cifar100/seed_0" or search.name == "resnet20.cifar100/seed_0"
    assert campaign.waits_for(steps["search_resnet20_se.cifar100/seed_0"]).startswith("the checkpoint of supernet_")
    state = tmp_path / "results/supernet_resnet20_se.cifar100/seed_0/state"
    state.mkdir()
    (state / "epoch_15.pth").touch()
    assert campaign.next().name == "search_resnet20_se.cifar100/seed_0"


@pytest.mark.parametrize(("images", "waits"), [(299, True), (300, False)])
def test_counters_of_part_a_wait_for_its_whole_training_set(tmp_path, monkeypatch, campaign_module, images, waits):
    monkeypatch.setenv("EAN_DATA", str(tmp_path / "data"))
    folder = tmp_path / "data/crowd/shanghaitech"
    folder.mkdir(parents=True)
    splits = ("train",) * (images - 30) + ("val",) * 30 + ("test",) * 182
    entries = [{"part": "A", "split": split, "file": "1.h5", "image": "1.jpg"} for split in splits]
    (folder / "manifest.json").write_text(json.dumps({"version": 1, "root": ".", "images": entries}))
    campaign = campaign_module.Campaign(campaign_module.plan(), ROOT / campaign_module.RESULTS, tmp_path / "runs")
    step = campaign_module.Network(ModelName(20, "shanghaitech_a", "ean", "se"))
    assert step in campaign.steps
    assert campaign.waits_for(step) == ("all of ShanghaiTech A's training images" if waits else None)


def test_a_network_is_done_when_it_is_listed(tmp_path, campaign_module):
    index = tmp_path / "zoo"
    campaign = campaign_module.Campaign(
        campaign_module.plan(), ROOT / campaign_module.RESULTS, tmp_path / "runs", index
    )
    step = campaign_module.Network(ModelName(20, "cifar100"))
    assert not campaign.done(step)
    shutil.copytree(PACKAGED, index, ignore=shutil.ignore_patterns("*.py", "weights"))
    assert campaign.done(step)
    (index / "cards/resnet20.cifar100.md").unlink()  # publishing was stopped before its end
    assert not campaign.done(step)
    shutil.copytree(PACKAGED / "cards", index / "cards", dirs_exist_ok=True)
    metafile = index / "metafiles/resnet20_cifar100.yml"
    finished = read_record(ROOT / campaign_module.RESULTS / step.name / "record.json")["finished"]
    metafile.write_text(metafile.read_text().replace(finished, "2020-01-01T00:00:00+00:00"))  # of another training
    assert not campaign.done(step)


def test_a_timing_counts_for_the_networks_in_it(tmp_path, campaign_module):
    campaign = campaign_module.Campaign(campaign_module.plan(), tmp_path / "results", tmp_path / "runs")
    path = write_record(tmp_path / "results/time_resnet20_se.cifar100/timing.json", networks={"Share-full, eager": {}})
    networks = {name: campaign_module.Network(ModelName(20, "cifar100", name, "se")) for name in ("full", "org")}
    assert campaign.timing(networks["full"]) == path
    assert campaign.timing(networks["org"]) is None


def test_the_committed_report_is_what_the_committed_records_say(tmp_path, campaign_module):
    committed = ROOT / campaign_module.RESULTS
    shutil.copytree(committed, tmp_path / "results", ignore=shutil.ignore_patterns("*.pth", "*.png"))
    campaign = campaign_module.Campaign(campaign_module.plan(), tmp_path / "results", tmp_path / "runs")
    page = campaign_module.write_page(campaign)
    assert page.read_text() == (committed / "README.md").read_text()
    assert {path.name for path in (tmp_path / "results").glob("*.png")} == {p.name for p in committed.glob("*.png")}


# ---------------------------------------------------------------- what takes a GPU


@pytest.fixture(scope="module")
def groups(campaign_module):
    return campaign_module.scheme_groups((3, 3, 3), ROOT / campaign_module.COMPARISON)


def test_schemes_to_train_alone_are_random_heuristic_and_found(groups):
    assert {name: len(schemes) for name, schemes in groups.items()} == {
        "random": 30,
        "HSP": 4,
        "exhaustive": 1,
        "local": 1,
        "ean": 10,
        "enas": 2,
        "ga": 3,
        "tpe": 3,
        "darts": 1,
    }
    assert [str(scheme) for scheme in groups["HSP"]] == ["100-010-001", "010-001-000", "001-000-100", "000-100-010"]
    assert len(set(groups["random"])) == 30


def test_other_seeds_are_searched_as_the_comparison_searched(campaign_module, groups):
    """The first three seeds of the paper's strategy took part in the comparison; from its scores come the same."""
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import campaign_groups
    finally:
        sys.path.remove(str(SCRIPT.parent))
    comparison = campaign_groups.read_comparison(ROOT / campaign_module.COMPARISON)
    ran = [str(run.returned.scheme) for run in comparison.by_strategy()["ean"]]
    assert [str(campaign_groups._searched(comparison, seed)) for seed in range(3)] == ran


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_without_a_gpu_its_steps_wait(campaign_module, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(campaign_module, "GPU_RESULTS", tmp_path / "results/gpu")
    monkeypatch.setattr(campaign_module, "GPU_RUNS", tmp_path / "runs")
    monkeypatch.setattr(campaign_module, "REPORT", tmp_path / "report")
    campaign = campaign_module.open_campaign(small=False, gpu=True)
    assert campaign.next() is None
    assert {campaign.waits_for(step) for step in campaign.planned} == {"a GPU"}
    names = [step.name for step in campaign.planned]
    assert names.index("alone_resnet20_se.cifar100/100-011-000/seed_0") < names.index(
        "ean_resnet164_se.cifar100/seed_0"
    )
    # trained by the campaign of the zoo: full, none, and what its search chose
    zoo = campaign_module.open_campaign(small=False)
    for scheme in ("111-111-111", "000-000-000", zoo.scheme(ModelName(20, "cifar100", "ean", "se"))):
        assert f"alone_resnet20_se.cifar100/{scheme}/seed_0" not in names
    campaign_module._run_all(campaign, None, commit=False, jobs=3, minutes=None)
    assert "the other steps wait" in capsys.readouterr().out


def test_on_a_gpu_classifiers_are_captured_and_deep_ones_compiled(tmp_path, monkeypatch, campaign_module):
    monkeypatch.setattr(campaign_module, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    campaign = campaign_module.open_campaign(small=False, gpu=True)
    steps = {step.name: step for step in campaign.planned}
    supernet, *_ = steps["supernet_resnet164_se.cifar100/seed_0"].commands(campaign)
    assert "--capture" in supernet.arguments
    assert "model.compile_blocks=True" in supernet.arguments
    (search,) = steps["search_resnet164_se.cifar100/seed_0"].commands(campaign)
    assert {"local", "search.strategy.evaluations=3000"} <= set(search.arguments)
    ean = steps["ean_resnet164_se.cifar100/seed_0"]
    assert campaign.waits_for(ean) == "search_resnet164_se.cifar100/seed_0"
    counter = steps["ean_resnet50_se.shanghaitech_b/seed_0"]
    train, *_ = counter.commands(campaign)
    assert "--capture" not in train.arguments
    assert "model.backbone.scheme=ean" in train.arguments
    assert campaign.waits_for(counter) == "torchvision's weights of ResNet-50 in the cache of torch.hub"
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    (tmp_path / "hub/checkpoints/resnet50-0676ba61.pth").touch()
    assert campaign.waits_for(counter) is None
    small = campaign_module.open_campaign(small=True)
    assert "--capture" in next(small.steps[0].commands(small)).arguments


@pytest.mark.parametrize("gpu", [False, True])
def test_its_commands_have_their_options(monkeypatch, campaign_module, gpu):
    """Also those that only a machine with a GPU gives."""
    monkeypatch.setattr(campaign_module, "has_gpu", lambda: True)
    campaign = campaign_module.open_campaign(small=False, gpu=gpu)
    kinds = {campaign_module.kind(step): step for step in campaign.steps}
    commands = [command for step in kinds.values() for command in step.commands(campaign)]
    assert any("--capture" in command.arguments for command in commands)
    help_texts = {}
    for command in commands:
        words = command.arguments
        flags = {word for word in words if word.startswith("--")}
        names = words[: next(i for i, word in enumerate(words) if "resnet" in word)]
        if names not in help_texts:
            said = finish(
                subprocess.Popen(
                    [sys.executable, "-m", "tasks.cli", *names, "--help"],
                    env={**os.environ, "COLUMNS": "200"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            help_texts[names] = set(re.findall(r"--[a-z-]+", said))
        assert flags <= help_texts[names], command


def test_times_are_measured_alone(tmp_path, campaign_module):
    model = ModelName(20, "digits")
    timing, network = campaign_module.Timing("se", "digits"), campaign_module.Network(model)
    campaign = campaign_module.Campaign([timing, network], tmp_path / "results", tmp_path / "runs", source="digits")
    write_search(tmp_path / "results/search_resnet20_se.digits/seed_0", [("100-000-000", 60)])
    (tmp_path / "results/search_resnet20_se.digits/seed_0/search.json").write_text("{}")
    assert campaign.next() == timing
    assert campaign.next(running=[timing]) is None
    assert campaign.next(running=[network]) is None
    assert campaign.next(failed=[timing]) == network


def test_a_failed_step_is_said_and_the_others_go_on(tmp_path, campaign_module, monkeypatch):
    models = [ModelName(20, "digits"), ModelName(20, "digits", "full", "se")]
    steps = [campaign_module.Network(model) for model in models]
    campaign = campaign_module.Campaign(steps, tmp_path / "results", tmp_path / "runs", tmp_path, "digits", page=False)
    ran = []

    def run(step):
        ran.append(step)
        if step == steps[0]:
            raise OSError("no space left")
        monkeypatch.setattr(campaign, "done", lambda other: other == steps[1])

    monkeypatch.setattr(campaign, "run", run)
    with pytest.raises(RuntimeError, match=r"^resnet20\.digits/seed_0: no space left$"):
        campaign_module._run_all(campaign, None, commit=False, jobs=1, minutes=None)
    assert ran == steps


def test_a_piece_of_a_campaign_ends_in_time_and_the_next_goes_on(tmp_path):
    said = finish(start(tmp_path, "run", "--gpu", "--small", "--jobs", "2", "--minutes", "0.05"))
    assert said.rstrip().endswith("0.05 minutes are over; the same command goes on from here")
    assert not processes_on(tmp_path / "gpu_runs")
    schemes = read_record(tmp_path / "gpu/alone_resnet20_se.digits/schemes.json")
    assert schemes["kind"] == "schemes trained alone"
    assert {name: len(each) for name, each in schemes["groups"].items()} == {"random": 3, "HSP": 4}
    first, second = (f"alone_resnet20_se.digits/{scheme}/seed_0" for scheme in schemes["groups"]["random"][:2])
    said = finish(start(tmp_path, "run", "--gpu", "--small", "--jobs", "2", "--until", first))
    assert (tmp_path / "gpu" / first / "test.json").is_file()
    assert (tmp_path / "gpu" / second / "record.json").is_file()  # beside it
    assert read_record(tmp_path / "gpu/alone_resnet20_se.digits/schemes.json") == schemes


@pytest.mark.slow
def test_all_that_takes_a_gpu_runs_in_small(tmp_path):
    said = finish(start(tmp_path, "run", "--gpu", "--small", "--jobs", "2"))
    assert said.rstrip().endswith("all steps are done")
    report = subprocess.run(
        [Path(sys.executable).with_name("ean"), "report", tmp_path / "gpu", "--out", tmp_path / "report"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "left out" not in report.stdout + report.stderr
    page = (tmp_path / "report/README.md").read_text()
    assert "## Figure 4, trained alone" in page
    assert (tmp_path / "gpu/compare_resnet20_se.digits/seed_0/ean/seed_1/ledger.jsonl").is_file()
    assert (tmp_path / "gpu/correlate_resnet20_se.digits/seed_0/correlation.json").is_file()


def test_records_say_nothing_of_the_machines_folders(campaign_module):
    for path in (ROOT / campaign_module.RESULTS).rglob("*"):
        if path.suffix in (".json", ".jsonl", ".md", ".csv"):
            assert not re.search(r"/(home|root|work|tmp|Users)/", path.read_text()), path
