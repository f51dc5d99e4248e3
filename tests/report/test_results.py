"""Networks gathered from records, over seeds, beside the paper's."""

import json
from pathlib import Path

import pytest

from ean_core.classifier import ImageClassifier
from ean_core.report.paper import PAPER
from ean_core.report.records import read_records
from ean_core.report.results import find_results, read_results
from ean_core.report.rows import result_cells, table_rows

from .drawn import save_run, save_timing

ROOT = Path(__file__).resolve().parents[2]


def test_seeds_are_gathered_and_other_settings_are_not(tmp_path):
    for seed, accuracy in ((1, 66.0), (0, 65.0)):
        save_run(tmp_path / f"a{seed}", seed=seed, accuracy=accuracy)
    save_run(tmp_path / "longer", epochs=100, accuracy=70.0)
    save_run(tmp_path / "org", scheme="111-111-111", shared=False)
    save_run(tmp_path / "full", scheme="111-111-111")
    save_run(tmp_path / "plain", scheme="000-000-000", shared=False)
    found = read_results([tmp_path])
    assert [(each.connection, each.values("accuracy/top1")) for each in found] == [
        ("vanilla", [65.0]),
        ("Org-full", [65.0]),
        ("Share-full", [65.0]),
        ("EAN", [65.0, 66.0]),
        ("EAN", [70.0]),
    ]
    cells = result_cells(table_rows(found, 1)[3], 1)
    assert cells["accuracy (%)"] == "65.50 ± 0.71"
    assert cells["seeds"] == "2"
    assert cells["connections"] == "2 `010-100-000`"
    assert (cells["source"], cells["epochs"], cells["measured on"]) == ("here", "24", "10,000 test images")
    assert [result_cells(row, 1)["epochs"] for row in table_rows(found, 1)[3:5]] == ["24", "100"]


def test_a_network_with_constant_gates_stands_after_the_others(tmp_path):
    for scheme in ("0c0-100-000", "010-100-000", "000-000-000"):
        save_run(tmp_path / scheme, scheme=scheme)
    assert [each.connection for each in read_results([tmp_path])] == ["vanilla", "EAN", "Folded"]


def test_a_published_folded_network_is_tested_with_its_own_checkpoint(tmp_path):
    save_run(tmp_path / "fold", scheme="0c0-100-000", checkpoint={"name": "folded.pth"})
    with pytest.raises(ValueError, match=r"is for resnet20_se_cifar100 and epoch_24.pth, test.json for .*folded"):
        read_results([tmp_path])
    path = tmp_path / "fold/record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fold": {"checkpoint": {"name": "folded.pth"}}}))
    (found,) = read_results([tmp_path])
    assert (found.connection, str(found.scheme)) == ("Folded", "0c0-100-000")


def test_times_are_those_of_the_same_network(tmp_path):
    save_run(tmp_path / "ean")
    rows = [
        ("010-100-000", "SE", "eager", 0.1),
        ("010-100-000", "DIA", "deployed", 0.2),
        ("100-000-000", "SE", "deployed", 0),
    ]
    save_timing(tmp_path / "time", rows)
    (found,) = read_results([tmp_path])
    assert found.increment("eager") == "+10.0 (+9.0 to +11.0)"
    assert found.increment("deployed") == ""


def test_networks_measured_on_images_treated_differently_are_not_seeds_of_one(tmp_path):
    for seed, split in enumerate(("test", "val")):
        save_run(tmp_path / split, seed=seed, data={"type": "CIFAR100", "split": split})
    assert [len(each.runs) for each in read_results([tmp_path])] == [1, 1]


def test_times_are_found_under_any_name_and_with_few_rounds(tmp_path):
    save_run(tmp_path / "ean")
    save_timing(tmp_path / "timing_mine.json", [("010-100-000", "SE", "eager", 0.1)], rounds=4)
    (found,) = read_results([tmp_path])
    assert found.increment("eager") == "+10.0"


@pytest.mark.parametrize("other", [{"config": "resnet20_dia_cifar100"}, {"checkpoint": {"name": "epoch_23.pth"}}])
def test_a_folder_whose_records_disagree_is_refused_or_left_out(tmp_path, other):
    save_run(tmp_path / "a")
    save_run(tmp_path / "b", seed=1)
    test = json.loads((tmp_path / "a/test.json").read_text())
    (tmp_path / "a/test.json").write_text(json.dumps({**test, **other}))
    with pytest.raises(ValueError, match=r"record.json is for resnet20_se_cifar100 and epoch_24.pth, test"):
        read_results([tmp_path])
    left = []
    (found,) = find_results(read_records([tmp_path]), lambda path, reason: left.append(path))
    assert [run.folder for run in found.runs] == [tmp_path / "b"]
    assert left == [tmp_path / "a"]


def test_a_seed_that_is_there_twice_is_refused_or_counted_once(tmp_path):
    save_run(tmp_path / "a", scheme="000-000-000")
    save_run(tmp_path / "b", scheme="000-000-000", config="resnet20_dia_cifar100", backbone={"attention": "DIA"})
    with pytest.raises(ValueError, match=r"b: .*a is the same training with the same seed"):
        read_results([tmp_path])
    left = []
    (found,) = find_results(read_records([tmp_path]), lambda path, reason: left.append(path))
    assert len(found.runs) == 1
    assert left == [tmp_path / "b"]


def test_folders_that_overlap_count_once(tmp_path):
    save_run(tmp_path / "runs/a")
    (found,) = read_results([tmp_path / "runs", tmp_path / "runs/a", tmp_path / "runs/../runs"])
    assert len(found.runs) == 1


def test_other_recipes_are_not_seeds_of_one(tmp_path):
    save_run(tmp_path / "a", accuracy=65.0)
    save_run(tmp_path / "b", accuracy=60.0, seed=1, lr=0.3)
    assert [each.values("accuracy/top1") for each in read_results([tmp_path])] == [[65.0], [60.0]]


def test_how_iterations_are_launched_makes_no_other_recipe(tmp_path):
    """A GPU training with captured iterations and compiled blocks counts as another seed of a CPU training."""
    for seed in (0, 1):
        save_run(tmp_path / f"seed_{seed}", seed=seed, accuracy=65.0 + seed)
    path = tmp_path / "seed_1/record.json"
    record = json.loads(path.read_text())
    record["settings"]["custom_hooks"] = [{"type": "CaptureHook"}]
    record["settings"]["model"]["compile_blocks"] = True
    path.write_text(json.dumps(record))
    (found,) = read_results([tmp_path])
    assert found.values("accuracy/top1") == [65.0, 66.0]
    record["settings"]["custom_hooks"].append({"type": "EMAHook"})
    path.write_text(json.dumps(record))
    assert len(read_results([tmp_path])) == 2


def test_what_was_not_measured_is_left_out(tmp_path):
    save_run(tmp_path / "a")
    (tmp_path / "a/test.json").unlink()
    assert read_results([tmp_path]) == []


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"type": "CIFAR100", "split": "test"}, "CIFAR-100"),
        ({"type": "ImageTree", "root": "pictures/flowers"}, "flowers"),
        ({"type": "CrowdDataset", "root": "crowd/shanghaitech", "part": "B"}, "ShanghaiTech B"),
        ({"type": "CrowdDataset", "root": "crowd/own", "part": "own"}, "own"),
        ({"type": "KeyedDataset", "dataset": {"type": "Kitti", "data_root": "data/kitti"}}, "kitti"),
    ],
)
def test_runs_of_configs_of_ones_own_are_called_by_their_data(tmp_path, data, name):
    save_run(tmp_path / "mine", config="mine", data=data, backbone={"depth": 38})
    (found,) = read_results([tmp_path])
    assert (found.data, found.network, found.title) == (name, "ResNet-38", "EAN SE")


def test_networks_of_others_are_named_and_left_out(tmp_path):
    save_run(tmp_path / "other", config="mine", backbone={"type": "mmdet.ResNeXt"})
    with pytest.raises(ValueError, match=r"other: backbone is mmdet.ResNeXt, expected EANResNet or EANResN"):
        read_results([tmp_path])


def test_a_published_run_is_a_seed_of_those_beside_it():
    """The zoo's records lack machine-dependent settings; those of seed 1 have them."""
    found = read_results([ROOT / "benchmarks/results", ROOT / "zoo/records"])
    folders = {
        each.title: [run.folder.relative_to(ROOT).parts[0] for run in each.runs]
        for each in found
        if (each.data, each.network) == ("CIFAR-100", "ResNet-20")
    }
    assert folders["vanilla"] == folders["Share-full SE"] == ["zoo", "benchmarks"]


@pytest.mark.parametrize("row", [row for row in PAPER if row.parameters and row.network == "ResNet-164"], ids=repr)
def test_the_papers_counts_on_cifar_are_those_of_our_networks(row):
    full, shared = row.connection != "vanilla", row.connection != "Org-full"
    backbone = {
        "type": "EANResNetCIFAR",
        "depth": 164,
        "attention": row.attention or "SE",
        "scheme": "full" if full else "none",
        "shared": shared,
    }
    network = ImageClassifier(backbone, num_classes=100)
    counted = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert counted == pytest.approx(row.parameters, abs=6e-4)


def test_other_numbers_of_processes_are_not_seeds_of_one(tmp_path):
    for name in ("one", "eight"):
        save_run(tmp_path / name)
    path = tmp_path / "eight/record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "world_size": 8}))
    assert [len(each.runs) for each in read_results([tmp_path])] == [1, 1]


@pytest.mark.parametrize(
    "change", [{"settings": []}, {"settings": {"model": []}}, {"environment": {}}, {"best": 3}, {"kind": ["a"]}]
)
def test_records_of_another_form_are_left_out(tmp_path, change):
    save_run(tmp_path / "good", seed=1)
    save_run(tmp_path / "odd")
    path = tmp_path / "odd/record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    left = []
    records = read_records([tmp_path], lambda where, reason: left.append(reason))
    (found,) = find_results(records, lambda where, reason: left.append(reason))
    assert [run.folder.name for run in found.runs] == ["good"]
    assert len(left) == (0 if "kind" in change else 1)


def test_a_run_that_was_resumed_is_a_seed_like_others(tmp_path):
    for seed in (0, 1):
        save_run(tmp_path / f"run{seed}", seed=seed)
    path = tmp_path / "run1/record.json"
    record = json.loads(path.read_text())
    record["settings"] |= {"resume": True, "load_from": "work_dirs/run1/epoch_11.pth"}
    path.write_text(json.dumps(record))
    (found,) = read_results([tmp_path])
    assert len(found.runs) == 2
