"""Networks on the Hugging Face Hub, against a local server that speaks its protocol."""

import json
import subprocess
import sys

import pytest
import torch

import ean_core
import zoo
from ean_core import EANResNetCIFAR, ImageClassifier
from ean_core.inference import deploy
from tasks.crowd_counting.network import CrowdCounter

pytest.importorskip("huggingface_hub")

PREPROCESSOR = {"type": "ImagePreprocessor", "mean": [100.0] * 3, "std": [50.0] * 3}


def classifier(**options):
    torch.manual_seed(0)
    return ImageClassifier(EANResNetCIFAR(20, "SGE", "100-010-001", base_channels=8, **options), 4, PREPROCESSOR).eval()


def counter():
    return CrowdCounter({"type": "EANResNetCIFAR", "scheme": "full", "base_channels": 8, "stem_stride": 2}).eval()


def segmentor():
    pytest.importorskip("mmcv")
    pytest.importorskip("mmseg")
    from tasks.segmentation.network import Segmentor

    head = {
        "type": "FCNHead",
        "in_channels": 64,
        "in_index": 2,
        "channels": 8,
        "num_classes": 3,
        "norm_cfg": {"type": "BN"},
        "init_cfg": None,
    }
    backbone = {
        "type": "EANResNetCIFAR",
        "scheme": "none",
        "init_cfg": {"type": "Pretrained", "checkpoint": "gone.pth"},
    }
    return Segmentor(backbone, head, data_preprocessor={"mean": [1.0] * 3, "std": [2.0] * 3}).eval()


@pytest.mark.parametrize("make", [classifier, counter, segmentor])
def test_a_network_is_saved_and_loaded(make, tmp_path):
    network, x = make(), torch.randn(2, 3, 32, 32)
    network.save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    loaded = type(network).from_pretrained(tmp_path / "saved")
    assert type(loaded) is type(network)
    assert not loaded.training
    assert torch.equal(loaded(x), network(x))
    assert loaded.settings() == network.settings() == json.loads((tmp_path / "saved" / "config.json").read_text())


@pytest.mark.parametrize("make", [classifier, counter, segmentor])
def test_a_network_is_uploaded_and_downloaded(make, hub):
    network, x = make(), torch.randn(2, 3, 32, 32)
    assert network.push_to_hub("someone/mine", token="hf_token").commit_url.startswith(f"{hub.endpoint}/someone/mine")
    assert hub.files["someone/mine"].keys() == {"config.json", "model.safetensors", "README.md"}
    loaded = type(network).from_pretrained("someone/mine", revision="main")
    assert torch.equal(loaded(x), network(x))


def test_downloads_can_be_forbidden(hub, monkeypatch, tmp_path):
    classifier().push_to_hub("someone/mine", token="hf_token")
    monkeypatch.setenv("EAN_OFFLINE", "1")
    before = len(hub.requests)
    with pytest.raises(OSError, match="EAN_OFFLINE forbids uploading to someone/mine"):
        classifier().push_to_hub("someone/mine")
    with pytest.raises(OSError, match="EAN_OFFLINE forbids uploading to someone/mine"):
        classifier().save_pretrained(tmp_path / "mine", push_to_hub=True, repo_id="someone/mine")
    with pytest.raises((OSError, ValueError)):
        ImageClassifier.from_pretrained("someone/mine")
    assert len(hub.requests) == before


def test_a_published_network_brings_its_card_until_it_changes(tmp_path):
    network = zoo.get_model("ean_resnet20_se.cifar100", pretrained=True)
    network.save_pretrained(tmp_path / "published")
    text = (tmp_path / "published" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: ean-zoo\npipeline_tag: image-classification\n")
    assert "# ean_resnet20_se.cifar100\n" in text
    assert "| Top 1 Accuracy | 65.62" in text
    assert 'ImageClassifier.from_pretrained("OWNER/NAME")' in text
    assert "](.." not in text  # links into the index
    network.fc.bias.data[0] += 1
    network.save_pretrained(tmp_path / "trained on")
    text = (tmp_path / "trained on" / "README.md").read_text()
    assert "# ImageClassifier with EANResNetCIFAR-20" in text
    assert "| scheme | `010-100-000` |" in text
    assert "Accuracy" not in text


def test_a_published_network_with_other_arguments_is_not_the_published_one(tmp_path):
    network = zoo.get_model("ean_resnet20_se.cifar100", pretrained=True, stem_stride=2)
    network.save_pretrained(tmp_path)
    assert "Accuracy" not in (tmp_path / "README.md").read_text()


def test_a_card_counts_connections_and_constant_gates(tmp_path):
    ImageClassifier(EANResNetCIFAR(20, scheme="1c0-c00-000"), 4, PREPROCESSOR).save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "SE, connected to 1 blocks, and constant gates in 2 more" in text
    assert "`1c0-c00-000`" in text
    again = ImageClassifier.from_pretrained(tmp_path)
    assert {name for name in again.backbone.state_dict() if "constant" in name} == {
        "layer1.1.constant_gate",
        "layer2.0.constant_gate",
    }


def test_a_card_that_is_there_stays(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    classifier().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_published_counter_brings_its_card(tmp_path):
    network = zoo.get_model("resnet20.shanghaitech_b", pretrained=True)
    network.save_pretrained(tmp_path)
    assert "# resnet20.shanghaitech_b" in (tmp_path / "README.md").read_text()
    assert all(
        map(torch.equal, CrowdCounter.from_pretrained(tmp_path).state_dict().values(), network.state_dict().values())
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda settings: settings.update(type="CrowdCounter"),
            "is of type 'CrowdCounter', not 'ImageClassifier'; load",
        ),
        (lambda settings: settings["backbone"].update(type="os.system"), "a network may only use registered modules"),
        (lambda settings: settings["backbone"].update(norm_cfg={"type": "pip.main"}), "only use registered modules"),
        (lambda settings: settings.update(init_cfg={"type": "Pretrained"}), "without init_cfg"),
        (lambda settings: settings["backbone"].update(_scope_="stranger"), "without init_cfg and _scope_"),
        (lambda settings: settings.update(classes=5), r"does not fit ImageClassifier: .* argument 'classes'"),
        (lambda settings: settings.update(num_classes=5), "differ in shape"),
        (lambda settings: settings["backbone"].update(attention="DIA"), "is not a checkpoint of this ImageClassifier"),
    ],
)
def test_settings_of_others_execute_nothing_and_must_fit(change, message, tmp_path):
    classifier().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    change(settings)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=message):
        ImageClassifier.from_pretrained(tmp_path)


def test_a_folder_without_settings_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json with settings; save_pretrained writes it"):
        ImageClassifier.from_pretrained(tmp_path)


def test_networks_that_settings_cannot_describe_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a DeployedImageClassifier has no settings: .*use the one it was made from"):
        deploy(classifier()).save_pretrained(tmp_path)
    network = ImageClassifier(EANResNetCIFAR(scheme="none"), 4, torch.nn.Identity())
    with pytest.raises(ValueError, match=r"ImageClassifier.data_preprocessor is a Identity, which settings cannot"):
        network.save_pretrained(tmp_path)


def test_huggingface_hub_is_imported_only_when_it_is_used():
    code = "import sys, ean_core, zoo, tasks.crowd_counting.network; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "use",
    [
        lambda folder: classifier().save_pretrained(folder),
        lambda folder: classifier().push_to_hub("someone/mine"),
        lambda folder: ImageClassifier.from_pretrained(folder),
    ],
)
def test_without_huggingface_hub_the_extra_is_named(use, monkeypatch, tmp_path):
    ean_core.hub._mixin.cache_clear()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r'pip install "ean-zoo\[hub\]"'):
        use(tmp_path)
    ean_core.hub._mixin.cache_clear()
