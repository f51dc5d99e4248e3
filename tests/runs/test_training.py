import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from mmengine.registry import MODELS
from PIL import Image
from safetensors.torch import load_file

from ean_core.common.bits import unpack_bits
from ean_core.common.config import load_config
from ean_core.data import Digits
from ean_core.inference.export import export_backbone
from ean_core.runs.folder import Run, check_same_network
from ean_core.runs.hooks import RunRecordHook
from ean_core.runs.training import run_test, run_training
from ean_core.weights.files import read_state_dict, save_weights
from ean_core.weights.loading import load_weights
from zoo.publish import publish

SUPERNET = "supernet_resnet20_se_digits"
EPOCHS = 4


def wait_for(condition, is_alive, timeout=120):
    end = time.monotonic() + timeout
    while not condition():
        assert is_alive(), "ended too early"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def same_tensors(first, second):
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    """A work directory with a supernet that was trained in one go."""
    folder = tmp_path_factory.mktemp("supernet")
    config = load_config(SUPERNET, [f"train_cfg.max_epochs={EPOCHS}"])
    run_training(config, folder)
    return folder


def test_a_killed_supernet_run_resumes_to_the_same_tensors(supernet, tmp_path, ean, start_ean):
    arguments = ("train", SUPERNET, "--work-dir", tmp_path, "--cfg-options", f"train_cfg.max_epochs={EPOCHS}")
    process = start_ean(*arguments)
    wait_for(lambda: Run(tmp_path).latest is not None, process.is_alive)
    time.sleep(0.3)  # into the next epoch
    process.kill()
    process.join()
    reached = int(Run(tmp_path).latest.stem.split("_")[1])
    assert reached < EPOCHS, "killed too late to test anything"

    message, _ = ean(*arguments)
    assert "--resume" in message.splitlines()[-1]
    code, output = ean(*arguments, "--resume")
    assert code == 0, output

    whole, resumed = (torch.load(folder / f"epoch_{EPOCHS}.pth", weights_only=True) for folder in (supernet, tmp_path))
    assert same_tensors(whole["state_dict"], resumed["state_dict"]) == []
    momentum = [
        {k: state["momentum_buffer"] for k, state in run["optimizer"]["state"].items()} for run in (whole, resumed)
    ]
    assert same_tensors(*momentum) == []
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["epochs"] == EPOCHS
    assert record["images_per_second"] > 0


def test_interrupting_with_ctrl_c_says_how_to_go_on(tmp_path):
    # a shell's background jobs, and what they start, ignore SIGINT; a user's terminal does not
    listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tasks.cli", "train", SUPERNET, "--work-dir", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **listening,
    )
    wait_for(lambda: Run(tmp_path).latest is not None, lambda: process.poll() is None)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in output.splitlines()[-1]
    assert "Traceback" not in output


def test_two_processes_train_one_supernet(tmp_path):
    """The command under torchrun: all ranks draw the same schemes and end with the same weights and statistics, with
    modules unused in most iterations."""
    script = tmp_path / "ean.py"
    script.write_text(
        "import torch\n"
        "from mmengine.hooks import Hook\n"
        "from ean_core.runs import training\n"
        "from tasks.cli import main\n"
        "class Watch(Hook):\n"
        "    priority = 'LOWEST'\n"
        "    schemes = []\n"
        "    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):\n"
        "        self.schemes.append(str(runner.model.module.backbone.scheme))\n"
        "    def after_train(self, runner):\n"
        "        torch.save((runner.model.module.state_dict(), self.schemes), f'rank{runner.rank}.pt')\n"
        "build_runner = training.build_runner\n"
        "def watched(*arguments):\n"
        "    runner = build_runner(*arguments)\n"
        "    runner.register_hook(Watch())\n"
        "    return runner\n"
        "training.build_runner = watched\n"
        "main()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
    command += ["train", SUPERNET, "--launcher", "pytorch", "--work-dir", "run"]
    done = subprocess.run(
        [*command, "--cfg-options", "train_cfg.max_epochs=2"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for text in ("data: ", "device: 2 processes, each CPU", "epoch 1/2: ", "trained: run/epoch_2.pth"):
        assert done.stdout.count(text) == 1, text
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["world_size"] == 2
    assert set(record["validation"]) == {"accuracy/top1"}
    (first, schemes), (second, others) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert same_tensors(first, second) == []
    assert schemes == others
    assert len(set(schemes)) > 10
    # 997 images over two ranks in batches of 64
    assert len(schemes) == 2 * 8


def test_bf16_training_works_on_this_machine(tmp_path):
    config = load_config("resnet20_dia_digits", ["train_cfg.max_epochs=1", "optim_wrapper.type=Bf16OptimWrapper"])
    final = run_training(config, tmp_path)
    assert all(value.isfinite().all() for value in read_state_dict(final).values() if value.is_floating_point())


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("model.backbone.attention=DIA", "model.backbone.attention is 'SE' there, 'DIA' here"),
        ("randomness.seed=7", "randomness.seed is 0 there, 7 here"),
        ("optim_wrapper.optimizer.lr=0.05", "optim_wrapper.optimizer.lr is 0.2 there, 0.05 here"),
        ("train_dataloader.batch_size=16", "train_dataloader.batch_size is 64 there, 16 here"),
    ],
)
def test_a_run_is_not_resumed_under_other_settings(supernet, option, named):
    before = (supernet / "record.json").read_bytes()
    config = load_config(SUPERNET, [f"train_cfg.max_epochs={EPOCHS}", option])
    with pytest.raises(ValueError, match=re.escape(named)):
        run_training(config, supernet, resume=True)
    assert (supernet / "record.json").read_bytes() == before


def test_resuming_a_finished_run_leaves_its_record(supernet):
    before = (supernet / "record.json").read_bytes()
    config = load_config(SUPERNET, [f"train_cfg.max_epochs={EPOCHS}"])
    assert run_training(config, supernet, resume=True) == supernet / f"epoch_{EPOCHS}.pth"
    assert (supernet / "record.json").read_bytes() == before


def test_resuming_a_finished_run_says_how_to_train_longer(supernet, ean):
    options = ("--cfg-options", f"train_cfg.max_epochs={EPOCHS}")
    status, output = ean("train", SUPERNET, "--work-dir", supernet, "--resume", *options)
    assert not status
    assert f"{supernet} has ended, at train_cfg.max_epochs={EPOCHS}: nothing to resume; to train on" in output
    assert f"load_from={supernet}/epoch_{EPOCHS}.pth train_cfg.max_epochs=N" in output
    assert "search it" not in output
    assert "Loads checkpoint" not in output
    assert "Loads checkpoint by local backend" in "".join(path.read_text() for path in supernet.glob("*/*.log"))


def test_a_run_whose_schedule_depends_on_its_length_is_not_resumed_with_another(tmp_path, ean):
    name = "resnet20_se_digits"
    words = ("train", name, "--work-dir", tmp_path, "--cfg-options")
    assert not ean(*words, "train_cfg.max_epochs=2")[0]
    message, _ = ean(*words[:4], "--resume", "--cfg-options", "train_cfg.max_epochs=3")
    assert message.startswith(
        f"ean train: {tmp_path} holds a run that was planned for train_cfg.max_epochs=2, here 3, and its schedule "
        "depends on that. --cfg-options train_cfg.max_epochs=2 continues it as planned; to train on from its weights"
    )
    way = f"ean train {name} --work-dir {tmp_path}_longer --cfg-options load_from={tmp_path}/epoch_2.pth"
    assert way in message
    status, _ = ean(*way.split()[1:], "train_cfg.max_epochs=1")
    assert not status


# ---------------------------------------------------------------- averaged weights


def averaging(*options):
    config = load_config("resnet20_se_digits", ["train_cfg.max_epochs=4", *options])
    config.custom_hooks = [{"type": "EMAHook", "momentum": 0.1}]
    return config


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A run in one go whose checkpoints hold moving averages of the weights."""
    folder = tmp_path_factory.mktemp("averaged")
    run_training(averaging(), folder)
    return folder


def last_weights(content):
    """Weights of the last iteration, which mmengine keeps in the place of the averages."""
    return {name[7:]: value for name, value in content["ema_state_dict"].items() if name.startswith("module.")}


def test_a_run_with_averaged_weights_resumes_to_the_same_tensors(averaged, tmp_path, monkeypatch):
    def stop(hook, runner):
        if runner.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunRecordHook, "before_train_epoch", stop)
        patch.setattr(RunRecordHook, "after_train_epoch", lambda hook, runner: None)
        with pytest.raises(KeyboardInterrupt):
            run_training(averaging(), tmp_path)
    assert Run(tmp_path).latest.name == "epoch_2.pth"
    run_training(averaging(), tmp_path, resume=True)
    whole, resumed = (torch.load(folder / "epoch_4.pth", weights_only=True) for folder in (averaged, tmp_path))
    assert same_tensors(whole["state_dict"], resumed["state_dict"]) == []
    assert same_tensors(whole["ema_state_dict"], resumed["ema_state_dict"]) == []
    assert same_tensors(whole["state_dict"], last_weights(whole)) != []


def test_averaged_weights_are_what_is_tested_and_published(averaged, tmp_path):
    checkpoint = averaged / "epoch_4.pth"
    content = torch.load(checkpoint, weights_only=True)
    digits = Digits("test")
    images = torch.stack([digits[i]["inputs"] for i in range(len(digits))])
    scores = []
    for state in (content["state_dict"], last_weights(content)):
        network = MODELS.build(averaging().model).eval()
        network.load_state_dict(state)
        data = network.data_preprocessor({"inputs": images, "labels": digits.labels})
        with torch.no_grad():
            scores.append(100 * (network(data["inputs"]).argmax(1) == digits.labels).double().mean().item())
    assert run_test(averaging(), checkpoint, averaged)["accuracy/top1"] == pytest.approx(scores[0], abs=1e-4)
    assert scores[0] != scores[1]
    entry = publish(checkpoint, averaging(), tmp_path / "zoo")
    assert same_tensors(content["state_dict"], load_file(entry.packaged_file)) == []


def test_averages_are_not_resumed_as_if_training_had_reached_them(averaged, tmp_path):
    shutil.copy(averaged / "epoch_3.pth", tmp_path)
    config = averaging()
    config.custom_hooks = []
    with pytest.raises(ValueError, match=r"is of a run with EMAHook; resume it with .*, or start .*load_from="):
        run_training(config, tmp_path, resume=True)


def test_an_image_tree_run_with_workers_resumes_to_the_same_tensors(tmp_path, monkeypatch):
    """Augmentation depends on seed, epoch and image, not on which worker draws it or when the run began."""
    for label in range(2):
        folder = tmp_path / "imagenet" / "train" / f"class{label}"
        folder.mkdir(parents=True)
        for place in range(12):
            pixels = np.random.default_rng((label, place)).integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{place}.jpg")
    monkeypatch.setenv("EAN_DATA", str(tmp_path))
    small = ["model.num_classes=2", "model.backbone.depth=18", "model.backbone.scheme=full"]
    loader = [f"train_dataloader.{setting}" for setting in ("batch_size=8", "num_workers=2", "dataset.size=32")]

    def train(epochs, folder):
        config = load_config("resnet50_sge_imagenet", [*small, *loader, f"train_cfg.max_epochs={epochs}"])
        return read_state_dict(run_training(config, tmp_path / folder, resume=True))

    whole = train(2, "whole")
    train(1, "parts")
    assert same_tensors(whole, train(2, "parts")) == []


@pytest.mark.parametrize("scheme", ["none", "101-010-001"])
def test_test_measures_what_was_trained(tmp_path, scheme):
    config = load_config("resnet20_sge_digits", ["train_cfg.max_epochs=3", f"model.backbone.scheme={scheme}"])
    final = run_training(config, tmp_path)
    metrics = run_test(load_config("resnet20_sge_digits", [f"model.backbone.scheme={scheme}"]), final, tmp_path)

    network = MODELS.build(config.model).eval()
    network.load_state_dict(torch.load(final, weights_only=True)["state_dict"])
    digits = Digits("test")
    images = torch.stack([digits[i]["inputs"] for i in range(len(digits))])
    data = network.data_preprocessor({"inputs": images, "labels": digits.labels})
    with torch.no_grad():
        right = network(data["inputs"]).argmax(1) == digits.labels
    assert metrics["accuracy/top1"] == pytest.approx(100 * right.float().mean().item(), abs=1e-4)
    assert metrics["accuracy/top1"] > 60, "three epochs of digits should teach more than that"
    record = json.loads((tmp_path / "test.json").read_text())
    assert record["images"] == 400
    assert unpack_bits(record["correct"]["bits"], 400) == right.tolist()
    assert record["parameters"] == sum(p.numel() for p in network.parameters())
    assert re.fullmatch("[01]{3}-[01]{3}-[01]{3}", record["scheme"])


def test_a_checkpoint_of_another_network_is_refused(supernet, tmp_path):
    config = load_config("resnet20_dia_digits")
    with pytest.raises(ValueError, match=r"epoch_4.pth was trained .*backbone.attention is 'SE' there, 'DIA'"):
        run_test(config, supernet / f"epoch_{EPOCHS}.pth", tmp_path)
    weights = tmp_path / "weights.safetensors"
    save_weights(read_state_dict(supernet / f"epoch_{EPOCHS}.pth"), weights, {})
    with pytest.raises(ValueError, match=r"is not a checkpoint of this ImageClassifier.*backbone\.layer1\.attention"):
        run_test(config, weights, tmp_path)


def test_a_network_is_measured_and_exported_under_its_own_scheme_only(tmp_path, supernet):
    config = load_config("resnet20_se_digits", ["train_cfg.max_epochs=1", "model.backbone.scheme=100-100-100"])
    final = run_training(config, tmp_path)
    elsewhere = {"type": "Pretrained", "checkpoint": "ean://resnet20.digits"}
    same = load_config("resnet20_se_digits", ["model.backbone.scheme=100-100-100"])
    same.model.backbone.init_cfg = elsewhere  # the source of initial weights is not part of the network
    check_same_network(final, same)
    forgotten = load_config("resnet20_se_digits")  # its tensors would fit
    for use in (run_test, export_backbone):
        with pytest.raises(ValueError, match=r"backbone.scheme is '100-100-100' there, 'full' here.*--cfg-options"):
            use(forgotten, final, tmp_path / "out.safetensors")
    subnetwork = load_config(SUPERNET, ["model.backbone.scheme=100-000-001"])
    assert 0 <= run_test(subnetwork, supernet / f"epoch_{EPOCHS}.pth", tmp_path)["accuracy/top1"] <= 100


def test_settings_in_a_checkpoint_are_read_and_not_executed(supernet, tmp_path):
    content = torch.load(Run(supernet).latest, weights_only=True)
    content["meta"]["cfg"] = f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()\nmodel = dict()"
    torch.save(content, tmp_path / "epoch_1.pth")
    with pytest.raises(
        ValueError, match=r"the settings in .*epoch_1.pth cannot be read: settings must be literals and dict"
    ):
        run_test(load_config("resnet20_se_digits"), tmp_path / "epoch_1.pth", tmp_path / "test")
    assert not (tmp_path / "ran").exists()


def test_an_exported_backbone_initialises_others(supernet, tmp_path, ean):
    checkpoint = supernet / f"epoch_{EPOCHS}.pth"
    out = tmp_path / "backbone.safetensors"
    assert ean("export", SUPERNET, checkpoint, out)[0] == 0
    assert "backbone.conv1.weight" in read_state_dict(checkpoint)
    assert "conv1.weight" in load_file(out)
    backbone = MODELS.build(
        {
            "type": "EANResNetCIFAR",
            "depth": 20,
            "in_channels": 1,
            "scheme": "100-100-100",
            "init_cfg": {"type": "Pretrained", "checkpoint": str(out)},
        }
    )
    backbone.init_weights()
    trained = read_state_dict(checkpoint, "backbone.")
    assert all(torch.equal(value, trained[name]) for name, value in backbone.state_dict().items())


def test_a_trained_network_is_exported_to_run_elsewhere(supernet, tmp_path, ean):
    config = load_config(SUPERNET, ["model.backbone.scheme=100-000-001"])
    checkpoint = shutil.copy(supernet / f"epoch_{EPOCHS}.pth", tmp_path / "supernet.pth")
    options = ["--format", "onnx", "--cfg-options", "model.backbone.scheme=100-000-001"]
    assert ean("export", SUPERNET, checkpoint, *options)[0] == 0
    session = onnxruntime.InferenceSession(str(tmp_path / f"{SUPERNET}.onnx"), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert (metadata["scheme"], metadata["config"]) == ("100-000-001", SUPERNET)
    model = MODELS.build(config.model).eval()
    load_weights(model, checkpoint, strict=True)
    images = torch.rand(5, 1, 8, 8) * 16
    with torch.no_grad():
        expected = model(model.data_preprocessor({"inputs": images})["inputs"])
    (logits,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)


def test_the_folder_of_a_run_stands_for_its_last_or_its_best_checkpoint(supernet, tmp_path, ean, monkeypatch):
    run = Path(shutil.copytree(supernet, tmp_path / "run"))

    def measured():
        return json.loads((run / "test.json").read_text())["checkpoint"]["name"]

    assert ean("test", SUPERNET, run)[0] == 0
    assert measured() == f"epoch_{EPOCHS}.pth"
    best = run / "best_accuracy_top1_epoch_3.pth"
    shutil.copy(run / f"epoch_{EPOCHS - 1}.pth", best)
    assert ean("test", SUPERNET, run)[0] == 0
    assert measured() == best.name
    assert ean("export", SUPERNET, run, "--format", "safetensors")[0] == 0
    exported, trained = load_file(run / f"{SUPERNET}.safetensors"), read_state_dict(best, "backbone.")
    assert all(torch.equal(exported[name], trained[name]) for name in trained)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    message, _ = ean("test", SUPERNET, "empty")
    assert message.startswith("ean test: there is no checkpoint in the folder empty")


def test_work_directories_are_not_overwritten(supernet):
    before = {path: path.stat().st_mtime_ns for path in Path(supernet).rglob("*")}
    with pytest.raises(FileExistsError, match="--resume"):
        run_training(load_config(SUPERNET), supernet)
    assert {path: path.stat().st_mtime_ns for path in Path(supernet).rglob("*")} == before
