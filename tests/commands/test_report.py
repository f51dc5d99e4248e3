"""Reports of run records: the committed one, and those of custom folders."""

import csv
import re
import shutil
import statistics
from pathlib import Path

import pytest

from ean_core.commands.report import write_report
from ean_core.common.record import read_record, write_record
from ean_core.report.paper import METHODS, PAPER, SCHEMES
from ean_core.show.table import spread_text
from tasks.cli import main

from ..report.drawn import save_run, save_timing

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MODELS = BENCHMARKS.parent / "zoo/records"


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_committed_report_is_what_the_committed_records_say(committed_report):
    committed = {path.name: path for path in (BENCHMARKS / "report").iterdir() if path.name != "index.html"}
    assert {path.name for path in committed_report.iterdir()} == {*committed, "index.html"}
    for name, path in committed.items():
        if path.suffix == ".svg":  # other versions of Matplotlib draw the same data differently
            assert (committed_report / name).stat().st_size > 5000
        else:
            assert (committed_report / name).read_bytes() == path.read_bytes(), (
                f"{name}: `ean report benchmarks/results zoo/records --out benchmarks/report`"
            )


def test_each_table_and_figure_of_the_paper_is_there(committed_report):
    for number in (1, 3, 5):
        rows = [
            line for line in lines_of(committed_report / f"table{number}.csv") if line["source"].startswith("paper")
        ]
        assert len(rows) == sum(row.table == number for row in PAPER)
    for number, theirs in ((2, SCHEMES), (4, METHODS)):
        rows = lines_of(committed_report / f"table{number}.csv")
        assert sum(line["source"] == f"paper, Table {number}" for line in rows) == len(theirs)
        assert any(line["source"] == "here" for line in rows)
    for number in (1, 4, 5):
        assert lines_of(committed_report / f"figure{number}.csv")


def test_figures_are_those_of_the_records(committed_report):
    tests = [read_record(MODELS / "ean_resnet20_se.cifar100/test.json")]
    times = read_record(BENCHMARKS / "results/campaign/time_resnet20_se.cifar100/timing.json")["networks"]
    ours = [
        line
        for line in lines_of(committed_report / "figure1.csv")
        if (line["source"], line["network"], line["data"]) == ("here", "ResNet-20", "CIFAR-100")
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
    schemes = lines_of(committed_report / "schemes_search_resnet20_se_cifar100.csv")
    assert len(schemes) == 512
    assert all(f'"{line["scheme"]}"' in ledger.read_text() for line in schemes[::50])


def test_a_report_of_ones_own_runs(tmp_path):
    save_run(tmp_path / "a/ean")
    save_run(tmp_path / "b/full", scheme="111-111-111", accuracy=64.0)
    save_timing(tmp_path / "a/time", [("010-100-000", "SE", "eager", 0.1), ("010-100-000", "SE", "deployed", 0.02)])
    found = write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert [section.name for section in found] == ["figure1", "table1", "claim", "times", "records"]
    ours = [line for line in lines_of(tmp_path / "out/table1.csv") if line["source"].startswith("here")]
    assert [(line["connection"], line["accuracy (%)"], line["increment (%)"]) for line in ours] == [
        ("Share-full", "64.00", ""),
        ("EAN", "65.00", "+10.0 (+9.0 to +11.0)"),
    ]
    assert {line["record"] for line in lines_of(tmp_path / "out/records.csv")} == {"a/ean", "b/full", "a/time"}
    page = (tmp_path / "out/README.md").read_text()
    assert "CIFAR-100: ResNet-20 here, ResNet-164 in the paper." in page
    assert "Not measured here: ImageNet-1k." in page


def test_strangers_names_are_no_markup_in_a_report(tmp_path):
    hostile = "<img src=x>[a](b)\u202e[red]"
    save_run(tmp_path / "runs" / hostile.replace("/", "") / "ean")
    write_report([tmp_path / "runs"], tmp_path / "out")
    for name in ("README.md", "index.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "\u202e" not in text
        assert "src=x" in text
        assert "<img src=x" not in re.sub(r"`[^`\n]*`", "", text)
    assert "[a](b)" not in re.sub(r"`[^`\n]*`", "", (tmp_path / "out" / "README.md").read_text())


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
    with pytest.raises(ValueError, match=r"ean.test\.json: is not a run record"):
        write_report([tmp_path / "runs"], tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_two_searches_of_one_config_stand_side_by_side(tmp_path):
    source = BENCHMARKS / "results/campaign/search_resnet20_se.cifar100/seed_0"
    for name in ("one search", "other"):
        shutil.copytree(source, tmp_path / "runs" / name)
    found = write_report([tmp_path / "runs"], tmp_path / "out")
    names = [section.name for section in found]
    assert names == [
        "table2",
        "schemes_search_resnet20_se_cifar100",
        "schemes_search_resnet20_se_cifar100_2",
        "records",
    ]
    for name, label in zip(names[1:3], ("one search", "other"), strict=True):
        assert (tmp_path / f"out/{name}.svg").stat().st_size > 5000
        assert f"Source: `{label}`." in (tmp_path / "out/README.md").read_text()


def test_a_trained_scheme_that_no_search_returned_is_listed_once(tmp_path):
    source = BENCHMARKS / "results/campaign/search_resnet20_se.cifar100/seed_0"
    for name in ("a", "b"):
        shutil.copytree(source, tmp_path / "runs" / name)
    save_run(tmp_path / "runs/ean", scheme="010-100-001")
    write_report([tmp_path / "runs"], tmp_path / "out")
    rows = lines_of(tmp_path / "out/table2.csv")
    assert [row["method"] for row in rows if row["source"] == "here"] == ["exhaustive", "EAN as trained", "exhaustive"]


def test_networks_trained_alone_count_once_a_search(tmp_path):
    comparison = tmp_path / "runs/comparison"
    shutil.copytree(BENCHMARKS / "results/search_resnet20_se_cifar100/comparison", comparison)
    returned = [read_record(path)["scheme"]["scheme"] for path in sorted(comparison.glob("random/seed_*/search.json"))]
    for seed, accuracy in enumerate((60.0, 62.0)):  # two trainings of the first search's scheme
        save_run(tmp_path / f"runs/first{seed}", scheme=returned[0], seed=seed, accuracy=accuracy)
    for k, scheme in enumerate(sorted(set(returned[1:]) - {returned[0]})):
        save_run(tmp_path / f"runs/other{k}", scheme=scheme, accuracy=67.0)
    write_report([tmp_path / "runs"], tmp_path / "out")
    (row,) = [row for row in lines_of(tmp_path / "out/table4.csv") if row["method"] == "random"]
    values = [61.0 if scheme == returned[0] else 67.0 for scheme in returned]
    assert row["trained alone (%)"] == spread_text(values, 2)


def test_a_record_that_cannot_be_used_is_said_and_the_rest_reported(tmp_path, capsys):
    save_run(tmp_path / "runs/ean")
    save_run(tmp_path / "runs/again")
    (tmp_path / "runs/timing.json").write_text('{"kind": "ti')
    write_record(tmp_path / "runs/x/gates.json", kind="gates", config="mine")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert out == f"table1, records: {tmp_path / 'out/index.html'}, {tmp_path / 'out/README.md'}\n"
    runs = tmp_path / "runs"
    for text in (
        f"skipped {runs}/timing.json: is not a run record: Unterminated string",
        f"skipped {runs}/x/gates.json: a record of kind 'gates' needs 'attention', 'scheme', 'images', 'blocks', m",
        f"skipped {runs}/ean: {runs}/again is the same training with the same seed",
    ):
        assert text in err
    assert len(err.splitlines()) == 3


def test_folders_of_one_name_are_told_apart(tmp_path):
    save_run(tmp_path / "here/runs/ean")
    save_run(tmp_path / "there/runs/ean", seed=1)
    write_report([tmp_path / "here/runs", tmp_path / "there/runs"], tmp_path / "out")
    labels = {line["record"] for line in lines_of(tmp_path / "out/records.csv")}
    assert labels == {"here/runs/ean", "there/runs/ean"}


def test_times_of_any_name_and_of_few_rounds_are_reported(tmp_path):
    save_run(tmp_path / "runs/ean")
    save_timing(tmp_path / "runs/timing_resnet20.json", [("010-100-000", "SE", "eager", 0.1)], rounds=4)
    found = write_report([tmp_path / "runs"], tmp_path / "out")
    assert [section.name for section in found] == ["figure1", "table1", "times", "records"]
    assert lines_of(tmp_path / "out/times.csv")[0]["record"] == "timing_resnet20"
    assert lines_of(tmp_path / "out/figure1.csv")[0]["low"] == ""
