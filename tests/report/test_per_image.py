"""Counters compared image by image, from the tables that their tests leave."""

import shutil
from pathlib import Path

import pytest

from ean_core.report.gathered import Records
from ean_core.report.network_sections import pairs_section
from tasks.crowd_counting.metrics import counts_csv
from tasks.crowd_counting.task import TASK

from .drawn import save_run, write_record

ROOT = Path(__file__).resolve().parents[2]
PLAIN, EAN = "000-000-000", "010-100-000"
DATA = {"type": "CrowdDataset", "root": "crowd/shanghaitech", "part": "B", "split": "val"}


def save_counter(folder, scheme, errors, *, table=None, names=None, **more):
    """Write a counter's run, and its table of counts into its folder or another one."""
    mae = sum(errors) / len(errors)
    config = "resnet20_se_shanghaitech_b"
    test = {"images": len(errors), "data": DATA}
    checkpoint = {"sha256": f"hash of {folder.name}"}
    metrics = {"count/MAE": mae}
    save_run(folder, scheme=scheme, config=config, metrics=metrics, test=test, checkpoint=checkpoint, **more)
    table = table or folder
    table.mkdir(exist_ok=True)
    names = names or [f"IMG_{k}" for k in range(len(errors))]
    lines = [(name, 10 + error, 10) for name, error in zip(names, errors, strict=True)]
    (table / "counts.csv").write_text(counts_csv(lines))


def rows(folder, left=None):
    records = Records.read([folder], (lambda *found: left.append(found)) if left is not None else raising)
    section = pairs_section(records, TASK)
    return [*section.rows] if section else []


def raising(path, reason):
    raise ValueError(f"{path}: {reason}")


def test_counters_are_compared_on_the_images_that_both_saw(tmp_path):
    save_counter(tmp_path / "ean", EAN, [1, 2, 3, 4] * 5)
    save_counter(tmp_path / "plain", PLAIN, [3, 4, 5, 6] * 5)
    (row,) = rows(tmp_path)
    assert (row["compared"], row["network"], row["data"]) == ("EAN against vanilla", "ResNet-20 SE", "ShanghaiTech B")
    assert (row["MAE of the first"], row["of the second"]) == ("2.50", "4.50")
    assert row["difference (people)"] == "-2.00 (-2.00 to -2.00)"  # the same on each image, whatever their spread
    assert (row["verdict"], row["measured on"]) == ("told apart", "20 validation images")


def test_images_are_found_by_name_and_in_the_table_of_the_same_checkpoint(tmp_path):
    names = [f"IMG_{k}" for k in range(12)]
    save_counter(tmp_path / "runs/ean", EAN, range(12), table=tmp_path / "tables", names=names)
    save_counter(tmp_path / "runs/plain", PLAIN, range(11, -1, -1), names=names[::-1])
    assert rows(tmp_path) == []
    row = {"kind": "table 3", "metrics": {"count/MAE": 5.5}}
    write_record(tmp_path / "tables/table3.json", **row, test={"sha256": "hash of another"})
    assert rows(tmp_path) == []
    write_record(tmp_path / "tables/table3.json", **row, test={"sha256": "hash of ean"})
    (found,) = rows(tmp_path)
    assert found["difference (people)"] == "+0.00 (+0.00 to +0.00)"


@pytest.mark.parametrize(
    "change",
    [
        {"errors": [1.5] * 12},  # another test's
        {"errors": [1] * 11},
        {"names": [f"B_{k}" for k in range(12)]},
    ],
)
def test_tables_of_other_tests_or_images_are_not_compared(tmp_path, change):
    save_counter(tmp_path / "ean", EAN, [1] * 12)
    save_counter(tmp_path / "plain", PLAIN, [2] * 12)
    assert len(rows(tmp_path)) == 1
    save_counter(tmp_path / "other", EAN, **{"errors": [1] * 12, **change})
    shutil.copy(tmp_path / "other/counts.csv", tmp_path / "ean/counts.csv")
    shutil.rmtree(tmp_path / "other")
    assert rows(tmp_path) == []


def test_seeds_are_averaged_on_each_image(tmp_path):
    for seed, errors in enumerate(([1] * 10 + [3] * 10, [3] * 10 + [1] * 10)):
        save_counter(tmp_path / f"ean{seed}", EAN, errors, seed=seed)
    save_counter(tmp_path / "plain", PLAIN, [1] * 20)
    (row,) = rows(tmp_path)
    assert (row["difference (people)"], row["trainings"]) == ("+1.00 (+1.00 to +1.00)", "2 and 1")


def test_a_damaged_table_is_left_out(tmp_path):
    save_counter(tmp_path / "ean", EAN, [1] * 12)
    save_counter(tmp_path / "plain", PLAIN, [2] * 12)
    (tmp_path / "ean/counts.csv").write_text("image,people,counted,error\nIMG_0,12,many,\n")
    left = []
    assert rows(tmp_path, left) == []
    ((path, reason),) = left
    assert (path, reason[:42]) == (tmp_path / "ean", "the values of its images cannot be read: c")


def test_the_committed_counters_are_compared_on_40_images():
    records = Records.read([ROOT / "benchmarks/results", ROOT / "zoo/records"])
    found = {(row["network"], row["compared"]): row for row in pairs_section(records, TASK).rows}
    pairs = ("EAN against Share-full", "EAN against vanilla", "Share-full against vanilla")
    assert found.keys() == {*(("ResNet-18 SE", pair) for pair in pairs), ("ResNet-20 SE", pairs[0])}
    assert {row["measured on"] for row in found.values()} == {"40 validation images"}
    first = found["ResNet-18 SE", "EAN against vanilla"]["difference (people)"]
    assert first.startswith("-0.82 (")  # 12.86 - 13.68
