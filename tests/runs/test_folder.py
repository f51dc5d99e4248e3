import os
from pathlib import Path

import pytest
import torch

from ean_core.common.config import load_config
from ean_core.common.record import write_record
from ean_core.runs.folder import RECORD, TEST, TIMING, Run, check_same_network, chosen_checkpoint

ZOO = Path(__file__).resolve().parents[2] / "zoo/weights"


def save_checkpoint(path, **settings):
    """A checkpoint in mmengine's format with these settings."""
    text = "".join(f"{name} = {value!r}\n" for name, value in settings.items())
    torch.save({"state_dict": {}, "meta": {"cfg": text}}, path)


def dump_config(folder, start, **settings):
    """Write the config dump of mmengine at the start of a run."""
    path = folder / start / "vis_data" / "config.py"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_folder_holds_nothing(tmp_path, exists):
    run = Run(tmp_path if exists else tmp_path / "none")
    assert (run.latest, run.best, run.record, run.test, run.timing, run.config) == (None,) * 6
    assert not run.finished
    assert run.settings == {}
    assert run.log() == ""
    with pytest.raises(FileNotFoundError, match="there is no checkpoint in the folder"):
        _ = run.chosen


def test_a_run_that_goes_on_has_checkpoints_settings_and_a_log(tmp_path):
    for epoch in (9, 10, 2):
        (tmp_path / f"epoch_{epoch}.pth").touch()
    dump_config(tmp_path, "20260101_000000", seed=1)
    dump_config(tmp_path, "20260102_000000", seed=2)
    (tmp_path / "mine.py").touch()
    log = tmp_path / "20260102_000000" / "vis_data" / "scalars.json"
    log.write_text('{"step": 1, "loss": 0.5, "epoch": 1}\n')
    run = Run(tmp_path)
    assert run.latest == run.chosen == tmp_path / "epoch_10.pth"  # compared as a number, not as text
    assert run.best is None
    assert run.settings == {"seed": 2}  # of the last start
    assert run.config == "mine"
    assert run.log() == '{"epoch": 1, "step": 1, "loss": 0.5}\n'
    assert not run.finished


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"epochs": 4, "best": {"checkpoint": "best_loss_epoch_2.pth", "epoch": 2}}, 1.0),
        ({"epochs": 4}, 2.0),
        ({"epochs": 5}, None),  # the last epoch was not validated
        ({"epochs": None, "iterations": 4}, 3.0),
        ({"epochs": None, "iterations": 4, "best": {"checkpoint": "best_loss_iter_2.pth", "iteration": 2}}, 4.0),
    ],
)
def test_the_validation_of_the_chosen_checkpoint_is_of_the_selected_one_or_the_last(tmp_path, record, expected):
    unit = "iteration" if "iterations" in record else "epoch"
    losses = {2: 4.0, 4: 3.0} if unit == "iteration" else {2: 1.0, 4: 2.0}
    assert Run(tmp_path).chosen_validation is None
    validations = [{unit: number, "loss": loss} for number, loss in losses.items()]
    write_record(tmp_path / RECORD, kind="training", validations=validations, **record)
    found = Run(tmp_path).chosen_validation
    assert (found and found["loss"]) == expected


def test_a_finished_run_has_records(tmp_path):
    for name, kind in ((RECORD, "training"), (TEST, "test"), (TIMING, "timing")):
        write_record(tmp_path / name, kind=kind, config="mine", settings={"seed": 3})
    (tmp_path / "another.py").touch()
    run = Run(tmp_path)
    assert run.finished
    assert [record["kind"] for record in (run.record, run.test, run.timing)] == ["training", "test", "timing"]
    assert run.config == "mine"
    assert run.settings == {"seed": 3}


def test_the_best_checkpoint_is_the_last_that_was_found_and_stands_for_the_run(tmp_path):
    for name, time in (("best_top1_epoch_3.pth", 1), ("best_top1_epoch_20.pth", 3), ("best_top1_epoch_4.pth", 2)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time, time))
    (tmp_path / "epoch_30.pth").touch()
    run = Run(tmp_path)
    assert run.best == run.chosen == tmp_path / "best_top1_epoch_20.pth"
    assert run.latest == tmp_path / "epoch_30.pth"
    assert chosen_checkpoint(tmp_path) == run.best
    assert chosen_checkpoint(tmp_path / "epoch_30.pth") == run.latest  # a file is returned unchanged


def test_settings_are_of_the_last_start_else_of_the_record_else_of_the_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "epoch_1.pth", seed="checkpoint")
    assert Run(tmp_path).settings == {"seed": "checkpoint"}
    write_record(tmp_path / RECORD, config="mine", settings={"seed": "record"})
    assert Run(tmp_path).settings == {"seed": "record"}
    dump_config(tmp_path, "20260101_000000", seed="start")
    assert Run(tmp_path).settings == {"seed": "start"}


@pytest.mark.parametrize(("name", "asked"), [(RECORD, "record"), (TEST, "test"), (TIMING, "timing")])
def test_a_damaged_record_is_named(tmp_path, name, asked):
    (tmp_path / name).write_text('{"kind": "tr')
    with pytest.raises(ValueError, match=rf"{tmp_path}/{name} is not a run record"):
        getattr(Run(tmp_path), asked)


def test_damaged_settings_are_refused_and_not_executed(tmp_path):
    save_checkpoint(tmp_path / "epoch_1.pth", seed=1)
    content = torch.load(tmp_path / "epoch_1.pth", weights_only=True)
    content["meta"]["cfg"] = f"seed = open({str(tmp_path / 'ran')!r}, 'w')"
    torch.save(content, tmp_path / "epoch_1.pth")
    with pytest.raises(ValueError, match=r"epoch_1\.pth cannot be read: settings must be literals and dict"):
        _ = Run(tmp_path).settings
    assert not (tmp_path / "ran").exists()


def test_files_are_read_once(tmp_path):
    write_record(tmp_path / RECORD, config="mine", settings={})
    run = Run(tmp_path)
    assert run.record is run.record
    (tmp_path / RECORD).unlink()
    assert run.record["config"] == "mine"
    assert Run(tmp_path).record is None


def test_a_run_that_was_trained_and_tested_is_read_whole(digits_supernet):
    run = Run(digits_supernet.parent)
    assert run.chosen == digits_supernet
    assert run.finished
    assert run.config == run.record["config"] == "supernet_resnet20_se_digits"
    expected = load_config("supernet_resnet20_se_digits", ["train_cfg.max_epochs=1"]).to_dict()
    assert run.settings["model"] == expected["model"] == run.record["settings"]["model"]
    assert run.log().count("\n") > 0


def test_files_that_only_look_like_checkpoints_of_an_epoch_are_passed_over(tmp_path):
    for name in ("epoch_3.pth", "epoch_4_ema.pth", "epoch_x.pth"):
        (tmp_path / name).touch()
    assert Run(tmp_path).latest == tmp_path / "epoch_3.pth"


def test_a_test_in_its_folder_does_not_change_a_runs_settings(tmp_path):
    dump_config(tmp_path, "20260101_000000", scheme="full")
    dump_config(tmp_path, "20260102_000000", scheme="010-000-000")
    (tmp_path / "20260102_000000" / "20260102_000000.json").write_text("{}")  # metrics, which mmengine's test writes
    assert Run(tmp_path).settings == {"scheme": "full"}


def test_a_published_file_of_another_scheme_is_refused():
    (file,) = ZOO.glob("ean_resnet20_se.digits-*.safetensors")
    check_same_network(file, load_config("resnet20_se_digits", ["model.backbone.scheme=100-101-001"]))
    with pytest.raises(ValueError, match=r"with scheme 100-101-001, and the config has 111-111-111; give --cfg-opt"):
        check_same_network(file, load_config("resnet20_se_digits"))
