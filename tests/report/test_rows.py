"""Rows of networks, ours and the paper's, and texts about their times."""

import json
from pathlib import Path

from ean_core.common.record import read_record
from ean_core.report.results import read_results
from ean_core.report.rows import machine_text, result_cells, table_rows, timing_text
from ean_core.show.table import markdown_table

from .drawn import save_run, save_timing

ROOT = Path(__file__).resolve().parents[2]


def test_a_time_of_another_folder_is_marked_with_its_source(tmp_path):
    save_run(tmp_path / "a/ean", epochs=2)
    save_run(tmp_path / "b/ean")
    save_run(tmp_path / "b/plain", scheme="000-000-000")
    save_timing(tmp_path / "b/ean", [("010-100-000", "SE", "eager", 0.1)])
    plain, short, long = read_results([tmp_path])

    def timed(result):
        cells = result_cells(result, 1, label=lambda path: path.parent.relative_to(tmp_path).as_posix())
        return cells["epochs"], cells["increment (%)"], cells["timed in"]

    assert timed(plain) == ("24", "", "not timed")
    assert sorted(map(timed, (short, long))) == [
        ("2", "+10.0 (+9.0 to +11.0)", "† b/ean"),
        ("24", "+10.0 (+9.0 to +11.0)", "own folder"),
    ]
    assert "†: not timed in a folder of its runs" in timing_text([short, long])
    assert "†" not in timing_text([each for each in (short, long) if each.epochs == "24"])


def test_a_borrowed_time_is_of_the_nearest_record_and_forms_may_differ(tmp_path):
    save_run(tmp_path / "b/ean")
    for folder, increment in (("a/time", 0.1), ("b/time", 0.2), ("c/time", 0.3)):
        save_timing(tmp_path / folder, [("010-100-000", "SE", form, increment) for form in ("eager", "deployed")])
    (found,) = read_results([tmp_path])
    assert found.increment("eager").startswith("+20.0 ")
    save_timing(tmp_path / "b/ean", [("010-100-000", "SE", "deployed", 0.0)])
    (found,) = read_results([tmp_path])
    cells = result_cells(found, 1, label=lambda path: path.parent.name)
    assert (cells["increment (%)"][:5], cells["deployed (%)"][:4]) == ("+20.0", "+0.0")
    assert cells["timed in"] == "eager: † time, deployed: own folder"


def test_conditions_of_times_name_the_machine_that_did_the_work(tmp_path):
    save_run(tmp_path / "ean")
    save_timing(tmp_path / "time", [("010-100-000", "SE", "eager", 0.1)])
    path = tmp_path / "time/timing.json"
    record = json.loads(path.read_text())
    record["environment"] |= {"cpu": "a processor", "threads": 2, "gpus": ["a GPU"]}
    path.write_text(json.dumps(record))
    assert "float32, a processor, 2 threads, 20 rounds" in timing_text(read_results([tmp_path]))
    path.write_text(json.dumps({**record, "device": "cuda:0"}))
    assert "float32, a GPU, 20 rounds" in timing_text(read_results([tmp_path]))
    assert machine_text(read_record(path)) == "a GPU"


def test_the_committed_records_stand_beside_the_papers_rows():
    found = read_results([ROOT / "benchmarks/results", ROOT / "zoo/records"])

    def table(number):
        return markdown_table([result_cells(row, number) for row in table_rows(found, number)])

    assert "| here | ResNet-20 SE | EAN | CIFAR-100 |" in table(1)
    assert "| paper, Table 1 | ResNet-164 SE | EAN | CIFAR-100 | 76.93 |  |  | +23.52 |  |  | 1.739 M |" in table(1)
    assert "ImageNet" not in table(1)  # nothing was measured on it
    assert "| ResNet-50 DIA | EAN | ShanghaiTech B | 8.2 | 13.9 |" in table(3)
    assert "| ResNet-50 SE | Share-full | Pascal VOC 2012 | 73.03 | 82.13 | 93.74 |" in table(5)
