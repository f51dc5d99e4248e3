"""Benchmarks run end to end in small form; their measurements are not checked."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ean_core.common.record import read_record
from tasks.crowd_counting.annotations import find_shanghaitech
from tasks.crowd_counting.prepare import Kernel, prepare

from .crowd_counting.drawn import save_crowd, write_part

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script as from the command line; its exit status and what it printed."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)

    def run(script, *options):
        monkeypatch.setattr(sys, "argv", [script, *map(str, options)])
        try:
            runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
        except SystemExit as ended:
            return ended.code, "".join(capsys.readouterr())
        return 0, "".join(capsys.readouterr())

    return run


@pytest.mark.slow
def test_the_gpu_table_runs_in_small_and_goes_on_where_it_was(run, tmp_path):
    out = tmp_path / "gpu.json"
    code, said = run(
        "gpu_inference.py", "--small", "--part", "resnet50-float32", "--part", "resnet164-float32", "--out", out
    )
    assert code == 0, said[-2000:]
    record = json.loads(out.read_text())
    assert record["small"] is True
    assert list(record["results"]) == ["resnet50-float32", "resnet164-float32"]
    names = record["results"]["resnet50-float32"]["networks"]
    assert {"SE Org-full, deployed", "DIA EAN, deployed", "SGE Share-full, eager", "vanilla, eager"} <= set(names)
    assert "DIA Org-full, eager" not in names
    assert all(row["bytes"] > 1e6 for row in names.values())
    assert "goal 2 %" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_the_gpu_table_needs_a_gpu(run, tmp_path):
    code, said = run("gpu_inference.py", "--out", tmp_path / "gpu.json")
    assert code == 2
    assert "no GPU found; --small checks the script on a CPU" in said


@pytest.mark.slow
def test_the_cpu_table_runs_in_small(run, tmp_path):
    pytest.importorskip("timm")
    out = tmp_path / "cpu.json"
    small = ["--size", 32, "--batch", 1, "--passes", 3, "--rounds", 2, "--threads", 1]
    code, said = run("inference_speed.py", *small, "--out", out)
    assert code == 0, said[-2000:]
    results = json.loads(out.read_text())["results"]
    assert results["connections"]["SE EAN"]["deployed"]["passes"] == 3
    assert results["networks"]["timm seresnet50"]["baseline"] == "timm resnet50"


def test_gpu_training_runs_in_small_and_goes_on_where_it_was(run, tmp_path):
    out = tmp_path / "training.json"
    code, said = run("gpu_training.py", "--small", "--out", out)
    assert code == 0, said[-2000:]
    record = json.loads(out.read_text())
    assert list(record["results"]) == ["resnet20 Share-full SE", "resnet20 SE supernet"]
    assert record["results"]["resnet20 SE supernet"]["plain"]["over_plain"] == 1
    del record["results"]["resnet20 SE supernet"]
    record["results"]["resnet20 Share-full SE"]["plain"]["seconds"] = 7.0  # not measured again
    out.write_text(json.dumps(record))
    assert run("gpu_training.py", "--small", "--out", out)[0] == 0
    again = json.loads(out.read_text())["results"]
    assert again["resnet20 Share-full SE"]["plain"]["seconds"] == 7.0
    assert "resnet20 SE supernet" in again


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_gpu_training_needs_a_gpu(run, tmp_path):
    code, said = run("gpu_training.py", "--out", tmp_path / "training.json")
    assert code == 2
    assert "no GPU found; --small checks the script on a CPU" in said


def test_the_page_of_faults_is_that_of_its_record_and_of_the_trust_boundaries():
    script = runpy.run_path(str(BENCHMARKS / "faults.py"))
    written = (BENCHMARKS / "results/faults.md").read_text()
    assert written == script["page"](read_record(BENCHMARKS / "results/faults.json"))


def test_every_attack_on_a_trust_boundary_has_its_test():
    rows = yaml.safe_load((BENCHMARKS / "boundaries.yml").read_text())
    for row in rows:
        assert row.keys() == {"attack", "before", "after", "test"}
        assert not any("\n" in text or "|" in text for text in row.values())
        file, _, name = row["test"].partition("::")
        assert f"def {name}(" in (BENCHMARKS.parent / file).read_text(), row["test"]


@pytest.mark.slow
def test_strange_images_are_counted_in_small(run, tmp_path, monkeypatch):
    write_part(tmp_path / "ShanghaiTech", "B", (30, 4))
    write_part(tmp_path / "ShanghaiTech", "A", (10, 2))
    out = tmp_path / "crowd/shanghaitech"
    prepare(find_shanghaitech(tmp_path / "ShanghaiTech"), tmp_path / "ShanghaiTech", out, Kernel(sigma=4.0))
    photos = tmp_path / "VOCdevkit/VOC2012/JPEGImages"
    photos.mkdir(parents=True)
    names = (BENCHMARKS / "crowd_strangeness_voc.txt").read_text().split()
    assert len(set(names)) == 120
    for name in names[:2]:
        save_crowd(photos / f"{name}.jpg", 3)
    monkeypatch.setenv("EAN_DATA", str(tmp_path))
    record = tmp_path / "strange.json"
    code, said = run("crowd_strangeness.py", "resnet20.shanghaitech_b", "--limit", 2, "--out", record)
    assert code == 0, said[-2000:]
    rows = {row["images"]: row for row in read_record(record)["rows"]}
    assert {row["statistics"] for row in rows.values()} == {"measured here"}
    assert rows["photos without a person"]["number"] == 2
    assert rows["noise"]["marked"] == rows["noise"]["number"] == 8


@pytest.mark.slow
def test_losses_are_compared_in_small_and_what_is_there_is_not_trained_again(run, tmp_path, monkeypatch):
    write_part(tmp_path / "ShanghaiTech", "B", (20, 2))
    out = tmp_path / "crowd/shanghaitech"
    prepare(find_shanghaitech(tmp_path / "ShanghaiTech"), tmp_path / "ShanghaiTech", out, Kernel(sigma=4.0))
    monkeypatch.setenv("EAN_DATA", str(tmp_path))
    small = ["--epochs", 1, "--config", "resnet20_se_shanghaitech_b", "--cfg-options"]
    small += ["train_dataloader.dataset.crop=[32,48]", "train_dataloader.batch_size=2"]
    small += [f"{part}_dataloader.num_workers=0" for part in ("train", "val")]
    small += [f"{part}_dataloader.persistent_workers=False" for part in ("train", "val")]
    places = ["--runs", tmp_path / "runs", "--out", tmp_path / "losses.json"]
    code, said = run("crowd_losses.py", *places, *small)
    assert code == 0, said[-2000:]
    rows = read_record(tmp_path / "losses.json")["rows"]
    assert {(row["loss"], row["learning_rate"]) for row in rows} == {
        (loss, rate) for loss in ("DensityL2", "BayesianLoss", "DMCountLoss") for rate in (5e-5, 2e-4)
    }
    assert all(row["MAE"]["low"] <= row["MAE"]["mean"] <= row["MAE"]["high"] for row in rows)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.pth")}
    code, said = run("crowd_losses.py", *places, *small)
    assert code == 0, said[-2000:]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.pth")} == before


def test_one_crowd_is_counted_in_all_ways_in_small(run, tmp_path, monkeypatch):
    write_part(tmp_path / "ShanghaiTech", "B", (10, 1), size=(48, 64))
    out = tmp_path / "crowd/shanghaitech"
    prepare(find_shanghaitech(tmp_path / "ShanghaiTech"), tmp_path / "ShanghaiTech", out, Kernel(sigma=4.0))
    monkeypatch.setenv("EAN_DATA", str(tmp_path))
    record = tmp_path / "consistency.json"
    options = ("--split", "train", "--images", 2, "--tile", 24, 32, "--out", record)
    counter = "resnet20.shanghaitech_b"
    code, said = run("crowd_consistency.py", counter, *options)
    assert code == 0, said[-2000:]
    content = read_record(record)
    assert (content["images"], content["tile"]) == (2, [24, 32])
    found = content["results"][counter]
    whole = np.array(found["counts"]["whole"])
    errors = whole - content["people"]
    assert found["whole"]["mae"] == pytest.approx(np.abs(errors).mean())
    assert found["whole"]["bias"] == pytest.approx(errors.mean())
    assert found["whole"]["interval"][0] <= found["whole"]["mae"] <= found["whole"]["interval"][1]
    changes = (np.array(found["counts"]["gray"]) - whole) / np.maximum(whole, 1)
    assert found["gray"]["signed"] == pytest.approx(changes.mean())
    assert found["empty"].keys() == {"black", "white", "noise"}
    assert f"{counter} | {found['whole']['mae']:.1f} ({found['whole']['bias']:+.1f}) [" in said


def test_the_ways_to_show_a_crowd_keep_its_pixels():
    script = runpy.run_path(str(BENCHMARKS / "crowd_consistency.py"))
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    framed = script["with_border"](pixels, np.array([1, 2, 3], np.uint8))
    assert framed.shape == (100, 140, 3)
    assert np.array_equal(framed[25:75, 35:105], pixels)
    framed[25:75, 35:105] = (1, 2, 3)
    assert (framed == (1, 2, 3)).all()
    parts = script["tiles"](pixels, 24, 32)
    assert [part.shape[:2] for part in parts[:3]] == [(24, 32), (24, 32), (24, 6)]
    assert sum(int(part.sum(dtype=int)) for part in parts) == pixels.sum(dtype=int)
    assert np.ptp(script["gray"](pixels), 2).max() == 0
    assert script["scaled"](pixels, 1.5).shape == (75, 105, 3)


def test_people_in_a_border_are_told_from_a_change_far_inside_the_image():
    script = runpy.run_path(str(BENCHMARKS / "crowd_consistency.py"))
    alone, framed = np.zeros((200, 300), np.float32), np.zeros((400, 600), np.float32)
    framed[0, 0] = framed[399, 300] = 1.5  # in the border
    framed[101, 300] = 4  # in the image, beside it
    framed[200, 300] = 2
    assert script["places_of_change"](alone, framed) == (3, 2)


@pytest.mark.slow
def test_engines_are_compared_in_small_and_go_on_where_they_were(run, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "engines.json"
    assert run("engines.py", "--quick", "--part", "counters", "--prepare", "--threads", 1)[0] == 0
    assert not out.exists()
    code, said = run("engines.py", "--quick", "--part", "counters", "--threads", 1, "--out", out)
    assert code == 0, said[-2000:]
    measured = read_record(out)["results"]["counters"]
    engines = {name.rpartition(", ")[2] for name in measured["networks"]}
    assert {"eager", "deployed", "ONNX Runtime"} <= engines
    assert measured["networks"]["SE EAN, ONNX Runtime"]["baseline"] == "vanilla, ONNX Runtime"
    assert measured["networks"]["vanilla, eager"]["over_eager"] == 1
    assert min(measured["peak_memory"].values()) > 1e6
    assert run("engines.py", "--quick", "--part", "operators", "--threads", 1, "--out", out)[0] == 0
    results = read_record(out)["results"]
    assert list(results) == ["counters", "operators"]
    assert results["operators"]["networks"]["SE EAN"]["Mul"] > 0
    assert "rounds" not in run("engines.py", "--quick", "--part", "counters", "--threads", 1, "--out", out)[1]
