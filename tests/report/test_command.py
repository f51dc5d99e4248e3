"""Reports out of records: the committed one, and those of folders of one's own."""

import csv
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from ean_core.record import read_record
from ean_core.report.command import write_report
from ean_core.report.paper import METHODS, PAPER, SCHEMES

from .drawn import save_run, save_timing

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TEXTS = (".md", ".csv", ".html")


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    write_report([BENCHMARKS / "results"], out)
    return out


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_committed_report_is_what_the_committed_records_say(rebuilt):
    committed = {path.name: path for path in (BENCHMARKS / "report").iterdir()}
    assert {path.name for path in rebuilt.iterdir()} == committed.keys()
    for name, path in committed.items():
        if path.suffix in TEXTS:
            assert (rebuilt / name).read_bytes() == path.read_bytes(), f"{name}: `python benchmarks/campaign.py report`"
        else:
            assert (rebuilt / name).stat().st_size > 5000


def test_each_table_and_figure_of_the_paper_is_there(rebuilt):
    for number in (1, 3, 5):
        rows = [line for line in lines_of(rebuilt / f"table{number}.csv") if line["whose"].startswith("paper")]
        assert len(rows) == sum(row.table == number for row in PAPER)
    for number, theirs in ((2, SCHEMES), (4, METHODS)):
        rows = lines_of(rebuilt / f"table{number}.csv")
        assert sum(line["whose"] == f"paper, Table {number}" for line in rows) == len(theirs)
        assert any(line["whose"] == "here" for line in rows)
    for number in (1, 4, 5):
        assert lines_of(rebuilt / f"figure{number}.csv")


def test_figures_are_those_of_the_records(rebuilt):
    folder = BENCHMARKS / "results/campaign/ean_resnet20_se.cifar100"
    tests = [read_record(path) for path in folder.glob("seed_*/test.json")]
    times = read_record(BENCHMARKS / "results/campaign/time_resnet20_se.cifar100/timing.json")["networks"]
    ours = [
        line for line in lines_of(rebuilt / "figure1.csv") if line["whose"] == "here" and line["data"] == "CIFAR-100"
    ]
    for form in ("eager", "deployed"):
        (line,) = [
            line for line in ours if (line["connection"], line["attention"], line["form"]) == ("EAN", "SE", form)
        ]
        assert line["scheme"] == tests[0]["scheme"]
        assert float(line["increment"]) == pytest.approx(100 * times[f"EAN, {form}"]["increment"], rel=1e-5)
        accuracy = statistics.fmean(test["metrics"]["accuracy/top1"] for test in tests)
        assert float(line["accuracy"]) == pytest.approx(accuracy, rel=1e-5)
    ledger = BENCHMARKS / "results/campaign/search_resnet20_se.cifar100/seed_0/ledger.jsonl"
    schemes = lines_of(rebuilt / "schemes_search_resnet20_se_cifar100.csv")
    assert len(schemes) == 512
    assert all(f'"{line["scheme"]}"' in ledger.read_text() for line in schemes[::50])


def test_a_report_of_ones_own_runs(tmp_path):
    save_run(tmp_path / "a/ean")
    save_run(tmp_path / "b/full", scheme="111-111-111", accuracy=64.0)
    save_timing(tmp_path / "a/time", [("010-100-000", "SE", "eager", 0.1), ("010-100-000", "SE", "deployed", 0.02)])
    found = write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert [section.name for section in found] == ["figure1", "table1", "times", "records"]
    ours = [line for line in lines_of(tmp_path / "out/table1.csv") if line["whose"].startswith("here")]
    assert [(line["connection"], line["accuracy (%)"], line["increment (%)"]) for line in ours] == [
        ("Share-full", "64.00", ""),
        ("EAN", "65.00", "+10.0 (+9.0 to +11.0)"),
    ]
    assert {line["record"] for line in lines_of(tmp_path / "out/records.csv")} == {"a/ean", "b/full", "a/time"}
    page = (tmp_path / "out/README.md").read_text()
    assert "CIFAR-100: ResNet-20 here, ResNet-164 in the paper." in page
    assert "Not measured here: ImageNet-1k." in page


def test_equal_records_make_equal_reports(tmp_path):
    save_run(tmp_path / "runs/ean")
    shutil.copytree(tmp_path / "runs", tmp_path / "elsewhere/runs")
    write_report([tmp_path / "runs"], tmp_path / "one")
    write_report([tmp_path / "elsewhere/runs"], tmp_path / "other")
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()
    }


def test_what_cannot_be_reported_is_said_and_leaves_the_old_report(tmp_path):
    save_run(tmp_path / "runs/ean")
    write_report([tmp_path / "runs"], tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        write_report([tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"nothing to report below .*empty: expected .*`ean test`"):
        write_report([tmp_path / "empty"], tmp_path / "out")
    (tmp_path / "runs/ean/test.json").write_text('{"kind": "te')
    with pytest.raises(ValueError, match=r"ean.test\.json is not a run record"):
        write_report([tmp_path / "runs"], tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_command(tmp_path):
    save_run(tmp_path / "runs/ean")
    command = [sys.executable, "-m", "tasks.cli", "report", tmp_path / "runs", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"table1, records: {tmp_path / 'out/index.html'}, {tmp_path / 'out/README.md'}\n"
