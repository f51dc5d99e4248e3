import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

from ean_core.commands.fold import run_fold
from ean_core.common.bits import unpack_bits
from ean_core.common.config import load_config
from ean_core.common.hashes import file_hash
from ean_core.common.record import read_record
from ean_core.networks import build_network
from ean_core.runs.training import run_test
from ean_core.weights.loading import load_weights
from zoo.index import Index
from zoo.names import ModelName
from zoo.page import card
from zoo.publish import publish, renew_timing

from .conftest import SCHEMES


def config(name="ean", *more):
    return load_config("resnet20_se_digits", [f"model.backbone.scheme={SCHEMES[name]}", *more])


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run with attention, free to modify."""
    return Path(shutil.copytree(trained / "ean", tmp_path / "run"))


def only(root):
    (entry,) = Index(root).entries.values()
    return entry


def test_a_published_file_holds_plain_tensors_and_is_named_by_its_hash(run, tmp_path):
    entry = publish(run / "epoch_1.pth", config(), tmp_path / "zoo")
    path = entry.packaged_file
    assert path.name == f"ean_resnet20_se.digits-{file_hash(path)[:8]}.safetensors"
    assert (entry.size, entry.sha256) == (path.stat().st_size, file_hash(path))
    state = torch.load(run / "epoch_1.pth", weights_only=False)["state_dict"]
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == state.keys()
        assert all(torch.equal(file.get_tensor(name), value) for name, value in state.items())
        meta = file.metadata()
    assert meta["scheme"] == "100-010-001"
    assert json.loads(meta["network"]) == entry.network
    assert entry == only(tmp_path / "zoo")


def test_the_same_checkpoint_gives_the_same_bytes(run, tmp_path):
    first = publish(run / "epoch_1.pth", config(), tmp_path / "a")
    second = publish(run / "epoch_1.pth", config(), tmp_path / "b")
    assert first.packaged_file.read_bytes() == second.packaged_file.read_bytes()


def test_weights_are_stored_in_half_the_space(run, tmp_path):
    whole = publish(run / "epoch_1.pth", config(), tmp_path / "whole")
    entry = publish(run / "epoch_1.pth", config(), tmp_path / "half", half=True)
    assert entry.size < 0.6 * whole.size
    assert "MB, weights in fp16; metrics measured before rounding |" in card(entry)
    assert "fp16" not in card(whole)
    network = build_network(entry.network)
    load_weights(network, entry.packaged_file, strict=True)
    state = torch.load(run / "epoch_1.pth", weights_only=False)["state_dict"]
    for name, value in network.state_dict().items():
        rounded = value.ndim >= 2
        assert value.dtype == state[name].dtype
        assert torch.equal(value, state[name].half().to(value.dtype) if rounded else state[name])


def test_weights_beyond_half_precision_are_not_stored_in_it(run, tmp_path):
    saved = torch.load(run / "epoch_1.pth", weights_only=False)
    saved["state_dict"]["fc.weight"][0, 0] = 1e5
    torch.save(saved, run / "epoch_1.pth")
    run_test(config(), run / "epoch_1.pth", run)
    with pytest.raises(ValueError, match=r"fc.weight exceeds the range of fp16; publish without --half"):
        publish(run / "epoch_1.pth", config(), tmp_path / "zoo", half=True)
    assert not Index(tmp_path / "zoo").entries


def test_the_checkpoint_is_read_once(run, tmp_path, monkeypatch):
    read, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda path, **options: read.append(path) or load(path, **options))
    publish(run / "epoch_1.pth", config(), tmp_path / "zoo")
    assert read == [run / "epoch_1.pth"]


def test_figures_are_those_of_the_records(run, tmp_path):
    entry = publish(run / "epoch_1.pth", config(), tmp_path / "zoo")
    test, training = read_record(run / "test.json"), read_record(run / "record.json")
    assert entry.metrics == {"Top 1 Accuracy": round(test["metrics"]["accuracy/top1"], 6)}
    assert entry.metadata["Parameters"] == test["parameters"]
    assert entry.metadata["Training Command"] == training["command"]
    assert (entry.metadata["Epochs"], entry.metadata["Seed"]) == (training["epochs"], training["seed"])
    assert entry.metadata["Training Images"] == training["images"] == 1397
    assert entry.metadata["FLOPs"] == pytest.approx(2.54e6, rel=0.01)
    assert entry.record("test") == test
    right = unpack_bits(test["correct"]["bits"], test["images"])
    assert test["metrics"]["accuracy/top1"] == pytest.approx(100 * sum(right) / len(right))


def test_the_metafile_is_openmmlabs(run, tmp_path):
    publish(run / "epoch_1.pth", config(), tmp_path / "zoo")
    head = yaml.safe_load((tmp_path / "zoo" / "model-index.yml").read_text())
    assert head == {"Format Version": 1, "Import": ["metafiles/resnet20_digits.yml"]}
    content = yaml.safe_load((tmp_path / "zoo" / head["Import"][0]).read_text())
    (collection,), (model,) = content["Collections"], content["Models"]
    assert model["In Collection"] == collection["Name"] == "resnet20.digits"
    assert model["Config"] == "configs/classification/resnet20_se_digits.py"
    assert model["Results"][0] == {
        "Task": "Image Classification",
        "Dataset": "scikit-learn digits",
        "Metrics": model["Results"][0]["Metrics"],
    }
    assert {"Architecture", "Training Data", "Parameters", "FLOPs", "Epochs", "Batch Size"} <= model["Metadata"].keys()


def test_records_and_log_go_along_without_the_machines_paths(run, tmp_path):
    entry = publish(run / "epoch_1.pth", config(), tmp_path / "zoo")
    lines = [json.loads(line) for line in (entry.records / "log.jsonl").read_text().splitlines()]
    assert lines
    assert all({"epoch", "step", "lr", "loss"} == line.keys() for line in lines)
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
    settings = entry.record("record")["settings"]
    assert not {"work_dir", "load_from", "experiment_name"} & settings.keys()


def test_publishing_again_replaces_the_entry_and_its_file(trained, run, tmp_path):
    root = tmp_path / "zoo"
    first = publish(run / "epoch_1.pth", config(), root)
    content = torch.load(run / "epoch_1.pth", weights_only=False)
    content["state_dict"]["fc.bias"] += 1
    torch.save(content, run / "epoch_1.pth")
    record = json.loads((run / "test.json").read_text())
    record["checkpoint"]["sha256"] = file_hash(run / "epoch_1.pth")
    (run / "test.json").write_text(json.dumps(record))
    with pytest.raises(
        FileExistsError, match=r"has another ean_resnet20_se.digits \(Top 1 .*\); add --replace to replace it"
    ):
        publish(run / "epoch_1.pth", config(), root)
    assert [path.name for path in (root / "weights").iterdir()] == [first.file]
    second = publish(run / "epoch_1.pth", config(), root, replace=True)
    assert second.file != first.file
    assert [path.name for path in (root / "weights").iterdir()] == [second.file]
    publish(trained / "vanilla" / "epoch_1.pth", config("vanilla"), root)
    assert list(map(str, Index(root).entries)) == ["resnet20.digits", "ean_resnet20_se.digits"]


def test_best_is_said_by_hand(run, tmp_path):
    entry = publish(run / "epoch_1.pth", config(), tmp_path / "zoo", best=True)
    assert str(entry.name) == "best_resnet20_se.digits"


def test_a_config_of_ones_own_goes_by_its_name(run, tmp_path):
    entry = publish(run / "epoch_1.pth", load_config(str(run / "resnet20_se_digits.py")), tmp_path / "zoo")
    assert entry.fields["Config"] == "resnet20_se_digits.py"


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none.pth"):
        publish(tmp_path / "none.pth", config(), tmp_path / "zoo")


@pytest.mark.parametrize(("name", "command"), [("test.json", "ean test"), ("record.json", "ean train")])
def test_a_missing_record_is_asked_for_by_its_command(run, tmp_path, name, command):
    (run / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"no {name} beside .*: .* from records only; `{command} "):
        publish(run / "epoch_1.pth", config(), tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_the_command_that_is_missing_has_the_options_of_the_run(run, tmp_path):
    (run / "test.json").unlink()
    with pytest.raises(FileNotFoundError) as refused:
        publish(run / "epoch_1.pth", config(), tmp_path / "zoo")
    command = str(refused.value).split("`")[1]
    words = shlex.split(command)
    assert words[:4] == ["ean", "test", "resnet20_se_digits", str(run / "epoch_1.pth")]
    settings = read_record(run / "record.json")["settings"]
    given = load_config("resnet20_se_digits", words[words.index("--cfg-options") + 1 :])
    for name in ("model", "train_cfg", "test_dataloader", "optim_wrapper"):
        assert json.loads(json.dumps(given[name])) == settings[name]


def test_a_test_of_another_checkpoint_is_refused(run, tmp_path):
    record = json.loads((run / "test.json").read_text())
    record["checkpoint"]["sha256"] = "0" * 64
    (run / "test.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"test.json is for epoch_1.pth with SHA-256 00000000…, epoch_1.pth has "):
        publish(run / "epoch_1.pth", config(), tmp_path / "zoo")


def test_the_training_record_must_be_of_this_checkpoint(run, tmp_path):
    record = json.loads((run / "record.json").read_text())
    for change, what in (({"epochs": 24}, "epochs: 1, expected 24"), ({"seed": 3}, "seed: 0, expected 3")):
        (run / "record.json").write_text(json.dumps({**record, **change}))
        with pytest.raises(
            ValueError, match=rf"and its records differ in {what}; publish the last or the selected checkpoint"
        ):
            publish(run / "epoch_1.pth", config(), tmp_path / "zoo")


def test_the_test_must_be_of_the_configs_test_images(run, tmp_path):
    record = json.loads((run / "test.json").read_text())
    record["data"]["split"] = "trainval"
    (run / "test.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"differ in test data: .*'trainval'"):
        publish(run / "epoch_1.pth", config(), tmp_path / "zoo")


def test_what_a_stopped_attempt_left_does_not_stop_the_next(run, tmp_path):
    (tmp_path / "zoo" / "weights").mkdir(parents=True)
    left = ("publish.lock", ".model-index.yml.01234567.part", "weights/.a.safetensors.01234567.part")
    for name in left:
        (tmp_path / "zoo" / name).touch()
    assert publish(run / "epoch_1.pth", config(), tmp_path / "zoo").packaged_file.is_file()
    assert list((tmp_path / "zoo").rglob("*.part")) == []


def test_a_folder_with_other_things_is_left_alone(run, tmp_path):
    (tmp_path / "paper" / "figures").mkdir(parents=True)
    (tmp_path / "paper" / "README.md").write_text("mine")
    with pytest.raises(
        FileExistsError, match=r"paper contains other files than an index of models; give a new or empty folder"
    ):
        publish(run / "epoch_1.pth", config(), tmp_path / "paper")
    assert (tmp_path / "paper" / "README.md").read_text() == "mine"


def test_another_network_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"model.backbone.scheme is '100-010-001' there, 'none' here"):
        publish(run / "epoch_1.pth", config("vanilla"), tmp_path / "zoo")


def test_a_config_that_names_no_data_set_is_refused(run, tmp_path):
    mine = tmp_path / "mine.py"
    config().dump(mine)
    with pytest.raises(ValueError, match=r"config 'mine' does not end in the name of a data set .*digits"):
        publish(run / "epoch_1.pth", load_config(str(mine)), tmp_path / "zoo")


def test_times_can_be_renewed_without_the_checkpoint(run, tmp_path):
    before = publish(run / "epoch_1.pth", config(), tmp_path / "zoo")
    shutil.rmtree(run)
    assert "Timing" not in before.metadata
    machine = {"cpu": "A processor", "threads": 2, "gpus": []}
    record = {"kind": "timing", "device": "cpu", "batch": 8, "size": 8, "dtype": "float32", "command": "ean time"}
    networks = {"a": timing(before.metadata["Parameters"])}
    path = tmp_path / "timing.json"
    path.write_text(json.dumps({**record, "environment": machine, "networks": networks}))
    entry = renew_timing(before.name, path, tmp_path / "zoo")
    assert only(tmp_path / "zoo") == entry
    assert {**entry.metadata, "Timing": None} == {**before.metadata, "Timing": None}
    assert "| eager | 5.00 | +10.0 (+8.0 to +12.0) |" in (tmp_path / f"zoo/cards/{before.name}.md").read_text()
    networks["a"]["scheme"] = "111-111-111"
    path.write_text(json.dumps({**record, "environment": machine, "networks": networks}))
    with pytest.raises(ValueError, match=r"timing.json has no network with scheme 100-010-001"):
        renew_timing(before.name, path, tmp_path / "zoo")
    with pytest.raises(ValueError, match=r"unknown model of this index 'resnet20.digits'"):
        renew_timing(ModelName.parse("resnet20.digits"), path, tmp_path / "zoo")
    assert only(tmp_path / "zoo") == entry


def timing(network, **different):
    row = {"form": "eager", "median_s": 0.005, "increment": 0.1, "increment_interval": [0.08, 0.12], "attention": "SE"}
    return {"scheme": "100-010-001", "parameters": network, **row, **different}


def test_a_timing_record_gives_one_row_a_form(run, tmp_path):
    parameters = read_record(run / "test.json")["parameters"]
    networks = {
        "a": timing(parameters),
        "b": timing(parameters, form="deployed", increment_interval=None),
        "c": timing(parameters, scheme="111-111-111"),
    }
    machine = {"cpu": "A processor", "threads": 2, "gpus": []}
    record = {
        "kind": "timing",
        "device": "cpu",
        "batch": 8,
        "size": 8,
        "dtype": "float32",
        "command": "ean time",
        "environment": machine,
    }
    (tmp_path / "timing.json").write_text(json.dumps({**record, "networks": networks}))
    entry = publish(run / "epoch_1.pth", config(), tmp_path / "zoo", timing=tmp_path / "timing.json")
    eager, deployed = entry.metadata["Timing"]
    assert (eager["Increment (%)"], eager["Interval (%)"]) == (10.0, [8.0, 12.0])
    assert eager["Device"] == "A processor, 2 threads"
    assert (deployed["Form"], deployed["Interval (%)"]) == ("deployed", [])
    (tmp_path / "timing.json").write_text(json.dumps({**record, "networks": {"c": networks["c"]}}))
    again = publish(run / "epoch_1.pth", config(), tmp_path / "zoo")
    assert again.metadata["Timing"] == entry.metadata["Timing"]
    with pytest.raises(ValueError, match=r"record.json is not a record of `ean time`"):
        publish(run / "epoch_1.pth", config(), tmp_path / "zoo", timing=run / "record.json")
    with pytest.raises(ValueError, match=r"timing.json has no network with scheme 100-010-001 and"):
        publish(run / "epoch_1.pth", config(), tmp_path / "zoo", timing=tmp_path / "timing.json")


def test_a_folded_network_is_published_with_the_record_of_its_training(run, tmp_path):
    folder = tmp_path / "folded"
    run_fold(config(), run / "epoch_1.pth", folder, margin=100, images=50)
    given = load_config("resnet20_se_digits", ["model.backbone.scheme=c00-0c0-00c"])
    with pytest.raises(FileNotFoundError, match=r"there is no test\.json beside .*folded\.pth"):
        publish(folder / "folded.pth", given, tmp_path / "zoo")
    run_test(given, folder / "folded.pth", folder)
    with pytest.raises(ValueError, match=r"other settings: model\.backbone\.scheme"):
        publish(folder / "folded.pth", config(), tmp_path / "zoo")
    entry = publish(folder / "folded.pth", given, tmp_path / "zoo")
    assert (str(entry.name), str(entry.scheme)) == ("fold_resnet20_se.digits", "c00-0c0-00c")
    assert (entry.metadata["Connections"], entry.metadata["Constant Gates"]) == (0, 3)
    training = entry.record("record")
    assert training["fold"]["source"]["scheme"] == SCHEMES["ean"]
    assert {name: training[name] for name in ("epochs", "seed", "command")} == {
        name: read_record(run / "record.json")[name] for name in ("epochs", "seed", "command")
    }
    text = card(entry)
    assert "0 of 9 blocks, 3 more with a constant gate" in text
    assert "(test images of even index) chose the constant gates: errors on other images may be larger" in text
    assert "test images of odd index: accuracy" in text
    network = build_network(entry.network)
    load_weights(network, entry.packaged_file, strict=True)
    assert str(network.backbone.scheme) == "c00-0c0-00c"
