import json
import time

import pytest
from mmengine.config import Config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ean_core.common.config import load_config
from ean_core.runs import curves
from ean_core.runs.curves import use_tensorboard
from ean_core.runs.folder import Run
from ean_core.runs.training import run_training
from tasks.cli import main

SUPERNET = "supernet_resnet20_se_digits"
EPOCHS, EVERY = 6, 3


def read(folder):
    """Steps and values that TensorBoard reads from a folder, by name."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: {event.step: event.value for event in events.Scalars(name)}
        if len({event.step for event in events.Scalars(name)}) == len(events.Scalars(name))
        else pytest.fail(f"{name} has doubled points: {[event.step for event in events.Scalars(name)]}")
        for name in events.Tags()["scalars"]
    }


def logged(folder, name):
    """Contents of mmengine's scalar files, by step; later entries take precedence."""
    found = {}
    for path in sorted(folder.glob("*/vis_data/scalars.json")):
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        found.update({line["step"]: line[name] for line in lines if name in line})
    return found


def test_a_killed_training_goes_on_in_one_curve(tmp_path, ean, start_ean):
    command = ["train", SUPERNET, "--tensorboard", "--work-dir", tmp_path / "run"]
    command += ["--cfg-options", f"train_cfg.max_epochs={EPOCHS}", f"default_hooks.logger.interval={EVERY}"]
    process = start_ean(*command)
    log = tmp_path / "run"
    end = time.monotonic() + 120
    while not any(line > 16 * 2 for line in logged(log, "loss")):  # in the third epoch
        assert process.is_alive()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.join()
    assert int(Run(log).latest.stem.split("_")[1]) < EPOCHS, "killed too late to test anything"
    killed = read(log)
    assert set(logged(log, "loss")) - set(killed["loss"]) <= {max(logged(log, "loss"))}  # nothing is kept back

    assert ean(*command, "--resume")[0] == 0
    found = read(log)
    steps = [16 * epoch + step for epoch in range(EPOCHS) for step in range(EVERY, 17, EVERY)]
    assert list(found["loss"]) == list(found["lr"]) == list(found["time"]) == steps  # validation has times of its own
    assert found["loss"] == pytest.approx(logged(log, "loss"), rel=1e-5)
    assert found["lr"] == pytest.approx(logged(log, "lr"), rel=1e-5)
    assert found["accuracy/top1"] == pytest.approx(logged(log, "accuracy/top1"), rel=1e-5)
    assert list(found["accuracy/top1"]) == list(found["val/time"]) == [5, EPOCHS]
    assert len(list(log.glob("events.out.tfevents.*"))) == 2  # one a start, in the run's own folder
    assert not list(log.glob("*/**/events.out.tfevents.*"))


def test_a_validation_that_a_resumed_run_repeats_is_one_point(tmp_path):
    for resume in (False, True):
        config = load_config(SUPERNET, ["train_cfg.max_epochs=3", "train_cfg.val_interval=1"])
        config.default_hooks.checkpoint.max_keep_ckpts = -1
        use_tensorboard(config)
        run_training(config, tmp_path, resume=resume)
        for epoch in (2, 3):  # as if it had been stopped after the first one
            (tmp_path / f"epoch_{epoch}.pth").unlink()
        (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_1.pth"))
    repeated = sorted(tmp_path.glob("*/vis_data/scalars.json"))[1].read_text()
    assert [json.loads(line)["step"] for line in repeated.splitlines() if "accuracy" in line] == [1, 2, 3]
    assert list(read(tmp_path)["accuracy/top1"]) == [1, 2, 3]


def test_without_the_option_a_run_leaves_no_events(tmp_path):
    config = load_config(SUPERNET, ["train_cfg.max_epochs=1"])
    run_training(config, tmp_path)
    assert config.visualizer.vis_backends == [{"type": "LocalVisBackend"}]
    assert not list(tmp_path.rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("name", ["resnet20_se_cifar100", "resnet20_se_shanghaitech_b", "resnet20_se_voc2012"])
def test_classifiers_counters_and_segmentors_take_it(name):
    config = load_config(name)
    use_tensorboard(config)
    assert [backend.type for backend in config.visualizer.vis_backends] == [
        "LocalVisBackend",
        "RunTensorboardVisBackend",
    ]


@pytest.mark.parametrize(
    "visualizer",
    [
        {"visualizer": {"type": "Visualizer", "vis_backends": [{"type": "TensorboardVisBackend"}]}},
        {"visualizer": {"type": "Visualizer", "vis_backends": {"type": "TensorboardVisBackend"}}},
        {"visualizer": {"type": "Visualizer", "vis_backends": None}},
        {},
    ],
)
def test_there_is_one_such_backend_whatever_a_config_has(visualizer):
    config = Config(visualizer)
    use_tensorboard(config)
    use_tensorboard(config)
    assert config.visualizer == {"type": "Visualizer", "vis_backends": [{"type": "RunTensorboardVisBackend"}]}


@pytest.mark.parametrize(
    "words",
    [["train", SUPERNET], ["search", "search_resnet20_se_digits"], ["search", "compare", "search_resnet20_se_digits"]],
)
def test_where_tensorboard_is_missing_nothing_is_begun(monkeypatch, tmp_path, words):
    (tmp_path / "supernet.pth").touch()
    given = [] if words[0] == "train" else ["--supernet", str(tmp_path / "supernet.pth")]
    monkeypatch.setattr(curves, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        main([*words, *given, "--tensorboard", "--work-dir", str(tmp_path / "run")])
    assert '--tensorboard needs TensorBoard: pip install "ean-zoo[tensorboard]"' in str(ended.value.code)
    assert not (tmp_path / "run").exists()
