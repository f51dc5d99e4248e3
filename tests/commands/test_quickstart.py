import json
import sys

import pytest
from PIL import Image

from ean_core.commands import quickstart as command
from ean_core.scheme import ConnectionScheme
from ean_core.search.ledger import read_lines

SHORT = {
    "digits": [
        *("--cfg-options", "train_cfg.max_epochs=1", "search.strategy.evaluations=6"),
        *("search.finalists.count=2", "search.finalists.images=100"),
    ],
    "cifar100": ["--amp", "--cfg-options", "train_cfg.max_epochs=1", "search.strategy.evaluations=6"],
}
COLUMNS = ("network", "parameters", "accuracy (%)", "latency (ms)", "increment (%)", "scheme")


@pytest.fixture
def quickstart(ean, monkeypatch, tmp_path):
    """Runs the command in an empty folder; returns its exit status or message, and its output."""
    time = command.record_timing
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "record_timing", lambda *given, rounds, **options: time(*given, rounds=6, **options))

    def run(dataset, *more):
        words = ["quickstart", "--dataset", dataset, *more, *SHORT[dataset]]
        monkeypatch.setattr(sys, "argv", ["ean", *words])  # which records quote
        return ean(*words)

    return run


@pytest.mark.parametrize("dataset", ["digits", pytest.param("cifar100", marks=pytest.mark.slow)])
def test_quickstart_ends_with_a_table_a_figure_and_records(dataset, quickstart, tmp_path, request):
    if dataset == "cifar100":
        request.getfixturevalue("cifar_root")
    code, out = quickstart(dataset)
    assert code == 0, out

    folder = tmp_path / "quickstart" / dataset
    table = (folder / "table.md").read_text()
    for word in ("vanilla", "Share-full", "EAN", *COLUMNS):
        assert word in table
        assert word in out
    assert "[1/4] supernet: " in out
    assert "\ndata: " not in out  # a header of each step
    assert "Epoch(train)" in next((folder / "supernet").glob("*/*.log")).read_text()
    found = ConnectionScheme.parse(json.loads((folder / "search" / "search.json").read_text())["scheme"]["scheme"])
    assert str(found) in table
    (key, *lines), torn = read_lines(folder / "search" / "ledger.jsonl")
    assert key["strategy"]["type"] == "ean"
    assert str(found) in [line["scheme"] for line in lines if line["step"] == "finalists"]
    assert len([line for line in lines if line["step"] != "finalists"]) == key["strategy"]["evaluations"]
    assert torn == b""
    for place in ("supernet", "vanilla", "share-full", "ean"):
        record = json.loads((folder / place / "record.json").read_text())
        assert record["environment"]["packages"]["torch"]
        assert record["command"].startswith("ean quickstart")
    assert Image.open(folder / "figure.png").size[0] > 500
    assert (folder / "search" / "scheme.svg").is_file()

    message, _ = quickstart(dataset)
    assert "--resume" in message

    searched = (folder / "search" / "search.json").read_bytes()
    message, _ = quickstart(dataset, "--resume", "--cfg-options", "search.strategy.seed=3")
    assert "belongs to another search" in message

    weights = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pth")}
    code, out = quickstart(dataset, "--resume", "--quiet")
    assert code == 0, out
    assert out.lstrip().startswith("ResNet20-SE on ")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.pth")} == weights, "trained again"
    assert (folder / "search" / "search.json").read_bytes() == searched
