"""The campaign: its table holds together, and a small one on scikit-learn's digits is killed, resumed and finished."""

import importlib.util
import json
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from ean_core.common.config import load_config, packaged_configs
from ean_core.common.record import read_record

from .documents import ROOT, _parse

spec = importlib.util.spec_from_file_location("campaign", ROOT / "benchmarks/campaign.py")
campaign = sys.modules["campaign"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(campaign)


def test_the_table_is_sound(monkeypatch):
    monkeypatch.chdir(ROOT)
    before = set()
    for step in campaign.table():
        assert step.name not in before
        assert before.issuperset(step.needs), f"{step.name} comes before a step that it needs"
        before.add(step.name)
        assert step.config in packaged_configs()
        if step.verb == "publish":
            assert step.made == Path(f"zoo/cards/{step.run.partition('/')[0]}.md")
        else:
            assert step.made.is_relative_to("work_dirs/campaign")
            assert step.kept.is_relative_to("benchmarks/results") or step.kept.is_relative_to("zoo/records")
        _parse(["ean", *step.words])  # fails where an option is unknown or missing
        assert "{" not in shlex.join(step.words)
    for depth, (epochs, _) in campaign.SEARCHES.items():
        assert load_config(f"supernet_resnet{depth}_se_cifar100").train_cfg.max_epochs == epochs


def test_the_committed_records_are_those_of_done_steps(monkeypatch):
    monkeypatch.chdir(ROOT)
    steps = {step.name: step for step in campaign.table()}
    for path in campaign.RESULTS.glob("*/**/record.json"):
        assert any(step.kept == path for step in steps.values()), f"no step makes {path}"
    assert campaign.is_done(steps["ean_resnet20_se.cifar100/seed_0/train"], steps)
    assert "model.backbone.scheme=010-100-000" in steps["ean_resnet20_se.voc2012/seed_0/train"].words


def test_the_ean_scheme_is_read_from_the_ledger(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    assert campaign.ean_scheme(ledger) == "SCHEME"
    lines = [{"stages": [3, 3, 3]}, {"step": 0, "scheme": "100-000-000", "reward": 99}]
    finalists = {"000-000-000": 70, "111-111-111": 71, "010-000-000": 62, "011-000-000": 63, "001-000-000": 61}
    lines += [{"step": "finalists", "scheme": scheme, "reward": reward} for scheme, reward in finalists.items()]
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert campaign.ean_scheme(ledger) == "011-000-000"


def kill_after_an_epoch(words, **settings):
    """As subprocess.call, of a training."""
    run = Path(words[words.index("--work-dir") + 1])
    process = subprocess.Popen(words, **settings)
    while process.poll() is None and not (run / "epoch_1.pth").exists():
        time.sleep(0.02)
    process.kill()
    return process.wait()


def test_a_killed_step_is_resumed_and_then_there_is_nothing_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    few = "--strategy random --cfg-options search.strategy.evaluations=12 search.finalists.count=3 "
    few += "search.finalists.images=64"
    monkeypatch.setattr(campaign, "SEARCHES", {20: (3, few)})
    supernet, search = campaign.searched(20, "se", "digits")
    steps = [replace(supernet, options="--cfg-options train_cfg.max_epochs=3"), search]

    with monkeypatch.context() as patched:
        patched.setattr(campaign.subprocess, "call", kill_after_an_epoch)
        assert campaign.main(steps, ["run", "-o", "said.txt"]) != 0
    assert "run it again to resume" in Path("said.txt").read_text()
    assert not supernet.made.exists()

    assert campaign.main(steps, ["run", "-n", "2"]) == 0
    output = supernet.made.with_name("output.txt")
    assert "resumed: after epoch 1" in output.read_text()
    assert read_record(supernet.kept)["epochs"] == 3
    assert read_record(search.kept)["evaluations"] == 12
    assert campaign.ean_scheme(search.results / "ledger.jsonl").count("-") == 2
    assert not list(campaign.RESULTS.rglob("*.pth"))

    before = output.read_bytes()
    assert campaign.main(steps, ["run", "-o", "said.txt"]) == 0
    assert Path("said.txt").read_text().splitlines() == [f"-- {step.name}" for step in steps]
    assert output.read_bytes() == before
    capsys.readouterr()
    campaign.main(steps, [])
    first, _ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"U {supernet.name} ")
    assert "ean train supernet_resnet20_se_digits --" in first
