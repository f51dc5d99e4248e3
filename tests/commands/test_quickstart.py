import json
import subprocess
import sys

import pytest
from PIL import Image

from ean_core.scheme import ConnectionScheme
from ean_core.search.ledger import read_lines

SHORT = {
    "digits": ["--cfg-options", "train_cfg.max_epochs=2", "search.strategy.evaluations=9"],
    "cifar100": ["--amp", "--cfg-options", "train_cfg.max_epochs=1", "search.strategy.evaluations=6"],
}
COLUMNS = ("network", "parameters", "accuracy (%)", "latency (ms)", "increment (%)", "scheme")


def quickstart(dataset, *arguments, cwd):
    command = [sys.executable, "-m", "tasks.cli", "quickstart", "--dataset", dataset, *arguments, *SHORT[dataset]]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=1500, check=False)


@pytest.mark.parametrize("dataset", ["digits", pytest.param("cifar100", marks=pytest.mark.slow)])
def test_quickstart_ends_with_a_table_a_figure_and_records(dataset, tmp_path, request):
    if dataset == "cifar100":
        request.getfixturevalue("cifar_root")
    done = quickstart(dataset, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr

    folder = tmp_path / "quickstart" / dataset
    table = (folder / "table.md").read_text()
    for word in ("vanilla", "Share-full", "EAN", *COLUMNS):
        assert word in table
        assert word in done.stdout
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

    refused = quickstart(dataset, cwd=tmp_path)
    assert refused.returncode != 0
    assert "--resume" in refused.stderr

    searched = (folder / "search" / "search.json").read_bytes()
    other = quickstart(dataset, "--resume", "--cfg-options", "search.strategy.seed=3", cwd=tmp_path)
    assert other.returncode != 0
    assert "belongs to another search" in other.stderr

    weights = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pth")}
    resumed = quickstart(dataset, "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.pth")} == weights, "trained again"
    assert (folder / "search" / "search.json").read_bytes() == searched
