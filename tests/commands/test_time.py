import csv
import json

import pytest
import torch
from mmengine.registry import MODELS

from ean_core.commands import time as command
from ean_core.common.config import load_config
from ean_core.common.record import write_record
from ean_core.inference import comparison
from tasks.cli import main

CONFIG = "resnet20_se_digits"


def ean(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


@pytest.fixture
def runs(tmp_path):
    """Folders of three runs after training; the first has no test record."""
    for name, scheme, accuracy in (("ean", "010-100-001", 97.0), ("full", "full", 98.0), ("vanilla", "none", None)):
        config = load_config(CONFIG, [f"model.backbone.scheme={scheme}"])
        model = MODELS.build(config.model)
        (tmp_path / name).mkdir()
        content = {"state_dict": model.state_dict(), "meta": {"cfg": config.pretty_text, "epoch": 1}}
        torch.save(content, tmp_path / name / "epoch_1.pth")
        if accuracy is not None:
            write_record(tmp_path / name / "test.json", kind="test", metrics={"accuracy/top1": accuracy})
    return tmp_path


# ---------------------------------------------------------------- the command


def test_trained_networks_are_timed_with_their_accuracies(runs, capsys):
    out = runs / "timing.json"
    assert (
        ean("time", runs / "vanilla", runs / "full", runs / "ean", "--rounds", "2", "--batch", "2", "--out", out) == 0
    )
    measured = json.loads(out.read_text())["networks"]
    assert [measured[f"{name}, eager"]["accuracy"] for name in ("vanilla", "Share-full", "EAN")] == [None, 98.0, 97.0]
    assert measured["EAN, deployed"]["scheme"] == "010-100-001"
    assert "Org-full, eager" not in measured
    assert {"98.00", "97.00"} <= set(capsys.readouterr().out.replace("│", " ").split())


def test_a_run_alone_gets_a_vanilla_network_to_compare_with(runs):
    out = runs / "timing.json"
    assert ean("time", runs / "ean", "--rounds", "2", "--batch", "2", "--form", "deployed", "--out", out) == 0
    assert list(json.loads(out.read_text())["networks"]) == ["vanilla", "EAN"]


@pytest.mark.parametrize(("load", "warned"), [(99.0, True), (0.0, False)])
def test_the_rounds_are_shown_and_a_busy_machine_is_warned_of(tmp_path, capsys, monkeypatch, load, warned):
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    out = tmp_path / "timing.json"
    assert ean("time", CONFIG, "--rounds", "3", "--batch", "2", "--form", "eager", "--out", out) == 0
    record, said = json.loads(out.read_text()), capsys.readouterr()
    assert (record["rounds"], record["clock"]["before"]["load_average_1min"]) == (3, load)
    assert "3 rounds" in " ".join(said.out.split())
    assert ("other programs were running (load 99.0 before the start" in said.err) == warned


def test_a_finished_run_takes_no_overrides(runs):
    answer = ean("time", runs / "ean", "--cfg-options", "model.backbone.scheme=full", "--out", runs / "t.json")
    assert "--cfg-options apply to configs, not to a run like" in answer


def test_accuracies_of_all_make_figure_1(runs, monkeypatch):
    write_record(runs / "vanilla" / "test.json", kind="test", metrics={"accuracy/top1": 96.0})
    drawn = []
    monkeypatch.setattr(command, "trade_figure", lambda rows, *_: drawn.extend(row.accuracy for row in rows))
    words = ["time", runs / "vanilla", runs / "ean", "--rounds", "2", "--batch", "2", "--form", "eager"]
    assert ean(*words, "--out", runs / "timing.json") == 0
    assert drawn == [96.0, 97.0]


def test_a_folder_without_a_run_is_refused(tmp_path):
    assert "has no checkpoint of a training run" in ean("time", tmp_path)


def test_the_settings_are_in_the_record(tmp_path):
    out = tmp_path / "timing.json"
    words = ["time", CONFIG, "--form", "eager", "--form", "deployed", "--dtype", "bf16", "--size", "16", "--batch", "3"]
    assert ean(*words, "--rounds", "2", "--threads", "1", "--device", "cpu", "--out", out) == 0
    record = json.loads(out.read_text())
    found = {name: record[name] for name in ("batch", "size", "dtype", "device", "rounds")}
    assert found == {"batch": 3, "size": 16, "dtype": "bfloat16", "device": "cpu", "rounds": 2}
    assert set(record["clock"]) == {"before", "after"}
    assert record["environment"]["threads"] == 1


def test_the_papers_protocol_is_a_thousand_forward_passes(tmp_path, monkeypatch):
    asked = []

    def time_networks(networks, inputs, *, baseline, rounds):
        asked.append((len(inputs), rounds))
        raise ValueError("enough")

    monkeypatch.setattr(comparison, "time_networks", time_networks)
    for words in (["--protocol", "paper"], ["--protocol", "paper", "--rounds", "7"], []):
        assert ean("time", CONFIG, *words, "--form", "eager", "--out", tmp_path / "t.json") == "ean time: enough"
    assert asked == [(50, 1000), (50, 7), (50, 50)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "tpu"], "--device tpu is not available; choose from cpu"),
        (["--form", "captured"], "captured uses CUDA graphs"),
        (["--per-block", "--form", "folded"], "--per-block times eager or deployed networks, got --form folded"),
        (["resnet20_dia_digits", "--per-block"], "--per-block takes one config, got resnet20_se_digits resnet20_dia"),
        (["--baseline", "EAN"], "the baseline 'EAN' is not among the networks"),
        (["--baseline", "EAN", "--per-block"], "--per-block compares each connection with none; remove --baseline"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_what_cannot_be_timed_is_refused_in_words(tmp_path, words, message):
    assert message in ean("time", CONFIG, *words, "--rounds", "2", "--out", tmp_path / "t.json")
    assert list(tmp_path.iterdir()) == []


def test_another_format_of_the_record_is_refused_before_anything_is_timed(tmp_path):
    assert "--out must be a JSON file, got t.csv; for example t.json" in ean(
        "time", CONFIG, "--out", tmp_path / "t.csv"
    )
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "file" in ean("time", CONFIG, "--out", blocked / "t.json")


def test_records_have_places_of_their_own(runs, monkeypatch):
    monkeypatch.chdir(runs)
    for name in (CONFIG, "ean"):
        assert ean("time", name, "--form", "eager", "--rounds", "2", "--batch", "2") == 0
    assert (runs / "work_dirs" / f"timing_{CONFIG}.json").exists()
    assert (runs / "ean" / "timing.json").exists()


def test_a_run_that_was_not_tested_says_how_to(runs, capsys):
    words = ["time", runs / "vanilla", "--rounds", "2", "--batch", "2", "--form", "eager", "--out", runs / "t.json"]
    assert ean(*words) == 0
    assert f"{runs / 'vanilla'} has no test.json: run `ean test` to add the accuracy" in capsys.readouterr().out


def test_blocks_are_timed_in_both_forms(tmp_path, capsys):
    out = tmp_path / "t.json"
    options = ["--cfg-options", "model.backbone.scheme=010-100-001", "--rounds", "3", "--batch", "2", "--out", out]
    options += ["--dtype", "bf16"]
    assert ean("time", CONFIG, "--per-block", *options) == 0
    printed = capsys.readouterr().out
    for form in ("eager", "deployed"):
        record = json.loads((tmp_path / f"t_blocks_{form}.json").read_text())
        assert (record["kind"], record["form"], record["scheme"]) == ("block times", form, "111-111-111")
        assert record["dtype"] == "bfloat16"
        assert f"{form}: all connections add" in printed
    assert printed.count("those of 010-100-001") == 2
    assert "3.3" in printed


def test_the_table_is_written_as_plain_numbers(tmp_path):
    out = tmp_path / "t.json"
    assert ean("time", CONFIG, "--rounds", "6", "--batch", "2", "--form", "eager", "--out", out) == 0
    lines = list(csv.DictReader(out.with_suffix(".csv").read_text().splitlines()))
    assert [line["network"] for line in lines] == ["vanilla", "Org-full", "Share-full"]
    assert float(lines[2]["increment_interval_low"]) <= float(lines[2]["increment"])
    assert int(lines[0]["parameters"]) == 272186
