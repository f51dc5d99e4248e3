import json

import pytest
import torch
from mmengine.registry import DATASETS, MODELS

from ean_core.commands.fold import FOLDED, images_of, training_images
from ean_core.common.config import load_config
from ean_core.data.sampler import SampleKey
from ean_core.inference import deploy
from ean_core.runs.folder import FOLD, Run
from ean_core.search.ledger import Ledger
from ean_core.weights.files import read_state_dict, save_weights
from ean_core.weights.loading import load_weights

CONFIG = "resnet20_se_digits"
SCHEME = "model.backbone.scheme"
SMALL = ("model.backbone.base_channels=8", f"{SCHEME}=110-001-000")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A network with random weights, whose gates differ between images."""
    torch.manual_seed(0)
    network = MODELS.build(load_config(CONFIG, SMALL).model)
    for name, value in network.state_dict().items():
        if "attention" in name:
            value.normal_(0, 0.7)
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    save_weights(network.state_dict(), path, {})
    return path


def words(checkpoint, folder, *more, options=SMALL):
    return ["fold", CONFIG, checkpoint, "--work-dir", folder, "--images", 100, *more, "--cfg-options", *options]


def done(ean, *given):
    """Runs a command to its end; returns what it printed."""
    status, said = ean(*given)
    assert status == 0, status
    return " ".join(said.split())


def refused(ean, *given):
    """Runs a command that is refused; returns the message."""
    status, _ = ean(*given)
    assert isinstance(status, str)
    return status


def correct(config, path, scheme, half):
    """Whether each image of one half of the test images is classified correctly by a checkpoint."""
    config.model.backbone.scheme = scheme
    network = MODELS.build(config.model).eval()
    load_weights(network, path, strict=True)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    samples = [dataset[SampleKey(0, 0, item)] for item in range(half, len(dataset), 2)]
    images = torch.stack([torch.as_tensor(sample["inputs"]) for sample in samples])
    with torch.no_grad():
        logits = network(network.data_preprocessor({"inputs": images})["inputs"])
    return network, logits.argmax(1) == torch.tensor([int(sample["labels"]) for sample in samples])


def test_a_network_is_folded_and_measured_on_images_that_did_not_choose(ean, checkpoint, tmp_path):
    said = done(ean, *words(checkpoint, tmp_path, "--margin", 100))
    record = json.loads((tmp_path / FOLD).read_text())
    assert record["scheme"] == "cc0-00c-000"
    assert said.startswith("fold resnet20_se_digits: ResNet-20 SE, scheme 110-001-000")
    assert f"ean test {CONFIG} {tmp_path / FOLDED} --cfg-options {SMALL[0]} {SCHEME}=cc0-00c-000" in said
    assert said.endswith(f"ean time {CONFIG} --cfg-options {SMALL[0]} {SCHEME}=cc0-00c-000")
    assert (record["chosen_on"]["which"], record["reported_on"]["which"]) == (
        "test images of even index",
        "test images of odd index",
    )
    config = load_config(CONFIG, SMALL)
    tensors = read_state_dict(tmp_path / FOLDED)
    assert not [name for name in tensors if "attention" in name]
    folded, own = correct(config, tmp_path / FOLDED, "cc0-00c-000", 1)
    assert record["parameters"] == sum(each.numel() for each in folded.parameters())
    assert all(block.form in ("constant", "plain") for block in deploy(folded.backbone).blocks())
    _, base = correct(config, checkpoint, "110-001-000", 1)
    reported = record["reported_on"]
    assert reported["images"] == len(own)
    assert reported["folded"]["score"] == pytest.approx(float(100 * own.double().mean()))
    assert reported["computed"]["score"] == pytest.approx(float(100 * base.double().mean()))
    assert reported["folded"]["difference"]["value"] == pytest.approx(
        100 * float((own.double() - base.double()).mean())
    )
    assert {"command", "environment", "seed", "source", "mean_gates"} <= record.keys()
    assert "test.json" in done(
        ean, "test", CONFIG, tmp_path / FOLDED, "--cfg-options", SMALL[0], f"{SCHEME}=cc0-00c-000"
    )


def test_a_folder_is_not_overwritten_and_an_ended_search_is_read_again(ean, checkpoint, tmp_path):
    done(ean, *words(checkpoint, tmp_path, "--margin", 100))
    first = json.loads((tmp_path / FOLD).read_text())
    ledger = (tmp_path / "fold.jsonl").read_bytes()
    assert "exists; add --resume" in refused(ean, *words(checkpoint, tmp_path, "--margin", 100))
    done(ean, *words(checkpoint, tmp_path, "--margin", 100, "--resume"))
    assert (tmp_path / "fold.jsonl").read_bytes() == ledger
    again = json.loads((tmp_path / FOLD).read_text())
    assert {name: again[name] for name in ("scheme", "chosen_on", "reported_on")} == {
        name: first[name] for name in ("scheme", "chosen_on", "reported_on")
    }
    assert "belongs to another search: fold.margin is 100" in refused(
        ean, *words(checkpoint, tmp_path, "--margin", 1, "--resume")
    )


def test_an_interrupted_search_keeps_the_scores_that_it_has(ean, checkpoint, tmp_path, monkeypatch):
    append = Ledger.append

    def interrupted(self, *lines):
        append(self, *lines)
        if "scheme" in lines[0]:  # not the key
            raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "append", interrupted)
    given = words(checkpoint, tmp_path / "out", "--margin", 100)
    assert ean(*given)[0] == 130
    monkeypatch.undo()
    scores = (tmp_path / "out/fold.jsonl").read_bytes()
    done(ean, *given, "--resume")
    assert (tmp_path / "out/fold.jsonl").read_bytes() == scores  # all eight schemes were scored together


def test_quiet_prints_the_result_only(ean, checkpoint, tmp_path):
    said = done(ean, *words(checkpoint, tmp_path / "b", "--margin", 100, "--quiet"))
    assert said.startswith("Best schemes on")
    assert "ean test" not in said


def test_missing_images_are_said_before_the_checkpoint_is_read(ean, tmp_path, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("EAN_OFFLINE", "1")
    (tmp_path / "damaged.pth").write_text("damaged")
    given = ("fold", "resnet20_se_cifar100", tmp_path / "damaged.pth", "--work-dir", tmp_path / "out")
    assert "CIFAR-100 is missing" in refused(ean, *given)
    assert not (tmp_path / "out").exists()


def test_constants_are_tuned_by_the_ordinary_training(ean, checkpoint, tmp_path):
    done(ean, *words(checkpoint, tmp_path, "--margin", 100, "--epochs", 1))
    record, run = json.loads((tmp_path / FOLD).read_text()), Run(tmp_path / "tuned")
    assert run.record["settings"]["model"]["backbone"]["scheme"] == "cc0-00c-000"
    assert run.record["epochs"] == 1
    before, after = (read_state_dict(path) for path in (tmp_path / FOLDED, run.latest))
    name = "backbone.layer1.0.constant_gate"
    assert not torch.equal(before[name], after[name])
    _, own = correct(load_config(CONFIG, SMALL), run.latest, "cc0-00c-000", 1)
    assert record["reported_on"]["tuned"]["score"] == pytest.approx(float(100 * own.double().mean()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((f"{SCHEME}=none",), "scheme '000-000-000' connects no block"),
        (("model.backbone.attention=SGE",), "the gates of SGE are not one per channel"),
    ],
)
def test_what_has_no_gates_to_replace_is_refused(ean, tmp_path, options, message):
    given = (*SMALL, *options)
    path = tmp_path / "network.safetensors"
    save_weights(MODELS.build(load_config(CONFIG, given).model).state_dict(), path, {})
    assert message in refused(ean, *words(path, tmp_path / "out", options=given))


def trained(settings, folder):
    """A checkpoint as a training with these settings writes it."""
    state = MODELS.build(settings.model).state_dict()
    torch.save({"meta": {"cfg": settings.pretty_text}, "state_dict": state}, folder / "epoch_1.pth")
    return folder / "epoch_1.pth"


def test_a_supernet_is_refused_as_config_and_as_checkpoint(ean, checkpoint, tmp_path):
    said = refused(ean, "fold", "supernet_resnet20_se_digits", checkpoint, "--work-dir", tmp_path / "out")
    assert "supernet_resnet20_se_digits is the config of a supernet" in said
    assert "fold a trained network, for example: ean fold resnet20_se_digits" in said
    path = trained(load_config("supernet_resnet20_se_digits", (SMALL[0],)), tmp_path)
    said = refused(ean, *words(path, tmp_path / "out", options=(SMALL[0],)))
    assert f"{path} is a checkpoint of a supernet" in said
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_was_trained_on_other_images_is_refused(ean, tmp_path):
    split = "train_dataloader.dataset.split"
    path = trained(load_config(CONFIG, SMALL), tmp_path)
    (tmp_path / "mine.py").touch()
    said = refused(ean, *words(path, tmp_path / "out", options=(*SMALL, f"{split}=train")))
    assert f"{path} (its config is mine) was trained with other settings" in said
    assert f"{split} is 'trainval' there, 'train' here" in said
    done(ean, *words(path, tmp_path / "out", "--margin", 100))


def test_validation_images_choose_where_training_leaves_them_out():
    final, searched = load_config(CONFIG, ()), load_config("supernet_resnet20_se_digits", ())
    assert [(images.name, images.half) for images in images_of(searched)] == [
        ("validation images", None),
        ("test images", None),
    ]
    assert [(images.name, images.half) for images in images_of(final)] == [
        ("test images of even index", 0),
        ("test images of odd index", 1),
    ]
    searched.train_dataloader.dataset.split = "trainval"
    assert [images.half for images in images_of(searched)] == [0, 1]


def test_means_are_of_training_images_read_as_test_images():
    config = load_config(CONFIG, ())
    assert training_images(config).dataset.to_dict() == {"type": "Digits", "split": "trainval"}
    assert config.test_dataloader.dataset.split == "test"
    config.train_dataloader.dataset.type = "Other"
    assert training_images(config) == config.train_dataloader
