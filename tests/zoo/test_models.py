import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import zoo
from ean_core import ConnectionScheme, EANResNetCIFAR
from ean_core.backbone import find_backbone
from ean_core.data import Digits
from zoo.index import known_name
from zoo.names import ModelName, trained_by


@pytest.fixture
def own(root, monkeypatch):
    """Name of a model in a custom index."""
    monkeypatch.setenv("EAN_ZOO_INDEX", str(root))
    return "ean_resnet20_se.digits"


def test_all_models_are_listed_and_patterns_choose():
    assert set(zoo.list_models()) >= set(map(str, trained_by()))
    assert zoo.list_models("ean_resnet50_*.imagenet") == [f"ean_resnet50_{a}.imagenet" for a in ("dia", "se", "sge")]
    assert zoo.list_models("ean_resnet*_se*", pretrained=True)
    assert set(zoo.list_models(pretrained=True)) < set(zoo.list_models())
    assert zoo.list_models("nothing*") == []
    names = [name for name in zoo.list_models() if name.startswith(("resnet18.", "resnet20.c", "resnet50.imagenet"))]
    assert names[:3] == ["resnet20.cifar100", "resnet50.imagenet", "resnet18.shanghaitech_a"]


@pytest.mark.parametrize("name", [str(name) for name in trained_by() if name.depth != 164])
def test_every_model_can_be_built_and_is_what_its_name_says(name):
    model = zoo.get_model(name)
    scheme, shared = model.backbone.scheme, model.backbone.shared
    variant = re.match(r"(org|full|ean|)_?resnet(\d+)", name)
    assert model.backbone.depth == int(variant[2])
    expected = {
        "": scheme == ConnectionScheme.none(scheme.stages),
        "full": scheme == ConnectionScheme.full(scheme.stages) and shared,
        "org": scheme == ConnectionScheme.full(scheme.stages) and not shared,
        "ean": 0 < scheme.sparsity < 1 and shared,
    }
    assert expected[variant[1]]


def test_weights_load_and_classify_as_recorded(own):
    model = zoo.get_model(own, pretrained=True).eval()
    weights = zoo.get_weights(own)
    assert weights.state_dict().keys() == model.state_dict().keys()
    images = Digits("test", device="cpu")
    batch = torch.stack([images[i]["inputs"] for i in range(len(images))])
    with torch.no_grad():
        right = (model(weights.transforms()(batch)).argmax(1) == images.labels).float().mean()
    assert 100 * right == pytest.approx(weights.meta["metrics"]["Top 1 Accuracy"], abs=0.01)


def test_meta_says_what_one_wants_to_know(own):
    meta = zoo.get_weights(own).meta
    assert meta["scheme"] == "100-010-001"
    assert meta["categories"] == [str(digit) for digit in range(10)]
    assert meta["training"]["Epochs"] == 1
    assert meta["parameters"] == sum(p.numel() for p in zoo.get_model(own).parameters())


def test_another_number_of_classes_initialises_the_head_alone_anew_and_says_so(own, log):
    model = zoo.get_model(own, pretrained=True, num_classes=3)
    trained = zoo.get_weights(own).state_dict()
    assert model.fc.out_features == 3
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, trained[f"backbone.{name}"])
    assert "the head is newly initialized for 3 classes, the weights have 10" in log.text
    log.clear()
    same = zoo.get_model(own, pretrained=True, num_classes=10)
    assert torch.equal(same.fc.weight, trained["fc.weight"])
    assert "newly" not in log.text


def test_without_classes_there_is_no_head_and_no_warning(own, log):
    whole = zoo.get_model(own, pretrained=True).eval()
    pooled = zoo.get_model(own, pretrained=True, num_classes=0).eval()
    maps = zoo.get_model(own, pretrained=True, num_classes=0, global_pool="").eval()
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(maps(x), whole.forward_features(x))
    assert torch.equal(whole.fc(pooled(x)), whole(x))
    assert "newly initialized" not in log.text
    with pytest.raises(ValueError, match=r"global_pool='' is for classifiers"):
        zoo.get_model(own, features_only=True, global_pool="")


def test_the_preprocessor_fits_the_channels():
    name = "ean_resnet20_se.cifar100"
    mean = zoo.get_model(name).data_preprocessor.mean.flatten()
    assert len(mean) == 3
    for options in ({"in_channels": 1}, {"in_chans": 1}):
        model = zoo.get_model(name, **options)
        assert model.backbone.in_channels == 1
        assert torch.allclose(model.data_preprocessor.mean.flatten(), mean.mean())
        assert model(model.data_preprocessor({"inputs": torch.zeros(2, 1, 8, 8)})["inputs"]).shape == (2, 100)
    five = zoo.get_model(name, in_chans=5).data_preprocessor
    assert torch.equal(five.mean.flatten(), mean[[0, 1, 2, 0, 1]])
    assert len(five.std) == 5
    assert len(zoo.get_model("ean_resnet20_se.digits", in_chans=3).data_preprocessor.mean) == 3
    plain, gray = (zoo.get_model("resnet20.cifar100", pretrained=True, in_chans=n).eval() for n in (3, 1))
    assert torch.equal(gray.backbone.conv1.weight, plain.backbone.conv1.weight.sum(1, keepdim=True))
    with pytest.raises(ValueError, match="in_chans and in_channels are two names of one argument"):
        zoo.get_model(name, in_chans=1, in_channels=1)


@pytest.mark.parametrize("features_only", [False, True])
def test_custom_weights_are_loaded_at_once(tmp_path, features_only):
    state = zoo.get_model("resnet20.digits", features_only=True).state_dict()
    torch.save({name: torch.full_like(value, 3) for name, value in state.items()}, tmp_path / "w.pth")
    init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "w.pth")}
    model = zoo.get_model("resnet20.digits", features_only=features_only, init_cfg=init_cfg)
    assert all((value == 3).all() for value in find_backbone(model).state_dict().values())
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at nowhere\.pth"):
        zoo.get_model("resnet20.digits", init_cfg={"type": "Pretrained", "checkpoint": "nowhere.pth"})
    with pytest.raises(ValueError, match="would both load weights; give one of them"):
        zoo.get_model("resnet20.digits", pretrained=True, init_cfg=init_cfg)


@pytest.mark.parametrize(
    ("short", "name"),
    [
        ("ean_resnet20_se", "ean_resnet20_se.cifar100"),
        ("resnet20", "resnet20.cifar100"),
        ("ean_resnet50_se", "ean_resnet50_se.imagenet"),
        ("full_resnet164_se", "full_resnet164_se.cifar100"),
    ],
)
def test_a_name_without_data_set_has_a_default(short, name):
    assert str(known_name(short)) == name
    if zoo.list_models(name, pretrained=True):
        assert zoo.get_weights(short).name == name


def test_a_default_with_weights_comes_first(own, monkeypatch):
    monkeypatch.setattr("zoo.index.published", lambda: {ModelName.parse(own): None})
    assert str(known_name("ean_resnet20_se")) == own


def test_suggestions_begin_with_models_that_have_weights():
    with pytest.raises(ValueError, match=r"did you mean (ean_resnet20_\w+.cifar100|full_resnet20_se.cifar100)"):
        zoo.get_weights("ean_resnet2_se.cifar100")
    with pytest.raises(ValueError) as raised:
        zoo.get_model("ean_resnet20_see")
    near = re.search(r"did you mean (.*)\?", str(raised.value))[1].split(" or ")
    ready = [name in zoo.list_models(pretrained=True) for name in near]
    assert ready[0]
    assert ready == sorted(ready, reverse=True)


def test_features_only_takes_indices_from_the_end(own):
    assert zoo.get_model(own, features_only=True, out_indices=-1).out_indices == (2,)
    assert zoo.get_model(own, features_only=True, out_indices=(0, -1)).out_indices == (0, 2)


def test_features_only_is_the_backbone_with_all_its_maps(own):
    backbone = zoo.get_model(own, pretrained=True, features_only=True).eval()
    trained = zoo.get_weights(own).state_dict()
    assert isinstance(backbone, EANResNetCIFAR)
    assert [tuple(f.shape) for f in backbone(torch.zeros(1, 1, 8, 8))] == [(1, 16, 8, 8), (1, 32, 4, 4), (1, 64, 2, 2)]
    assert all(torch.equal(value, trained[f"backbone.{name}"]) for name, value in backbone.state_dict().items())


def test_arguments_of_the_backbone_go_to_it(own, log):
    backbone = zoo.get_model(own, pretrained=True, features_only=True, out_indices=(1,), frozen_stages=2)
    assert backbone.out_indices == (1,)
    assert backbone.frozen_stages == 2
    short = zoo.get_model(own, pretrained=True, features_only=True, num_stages=2, strides=(1, 2))
    assert str(short.scheme) == "100-010"
    assert "EANResNetCIFAR has no layer3, skipped entirely" in log.text


def test_a_scheme_that_the_weights_were_not_trained_with_is_pointed_out(own, log):
    zoo.get_model(own, pretrained=True, features_only=True, scheme="010-010-001")
    assert "was trained as a different network: scheme='100-010-001' there, '010-010-001' here" in log.text


def test_num_classes_is_for_classifiers_only(own, monkeypatch, root):
    text = (root / "metafiles" / "resnet20_digits.yml").read_text()
    (root / "metafiles" / "resnet20_digits.yml").write_text(text.replace("    num_classes: 10\n", ""))
    with pytest.raises(ValueError, match=r"ean_resnet20_se.digits is not a classifier and has no num_classes"):
        zoo.get_model(own, num_classes=3)


def test_arguments_that_do_not_go_together_or_are_none_are_refused(own):
    with pytest.raises(
        ValueError, match=r"unknown argument of EANResNetCIFAR 'frozen_stage'; did you mean 'frozen_stages'"
    ):
        zoo.get_model(own, frozen_stage=1)
    with pytest.raises(ValueError, match=r"out_indices=\(0, 1\) needs features_only"):
        zoo.get_model(own, out_indices=(0, 1))
    with pytest.raises(ValueError, match=r"pretrained must be True or False, got 'weights.pth'"):
        zoo.get_model(own, "weights.pth")


def test_an_address_is_a_name_too(own):
    assert zoo.get_weights(f"ean://{own}").name == own
    assert repr(zoo.get_weights(own)).startswith(f"Weights('{own}', '{own}-")


def test_a_scheme_of_ones_own_where_none_is_on_record():
    assert str(zoo.get_model("ean_resnet20_dia.cifar100", scheme="100-000-000").backbone.scheme) == "100-000-000"


def test_feature_maps_have_no_classes(own):
    with pytest.raises(ValueError, match=r"features_only=True has no head for num_classes=3; remove one of them"):
        zoo.get_model(own, num_classes=3, features_only=True)


def test_a_scheme_beyond_the_trained_modules_is_refused(own):
    """The last stage of 100-010-000 has no module."""
    with pytest.raises(ValueError, match=r"the network has stages \(3, 3, 3\)"):
        zoo.get_model(own, pretrained=True, scheme="1-1")


def test_names_without_weights_say_what_trains_them():
    with pytest.raises(zoo.NoWeightsError, match=r"has no weights yet; `ean train resnet50_se_voc2012 .*` trains it"):
        zoo.get_weights("ean_resnet50_se.voc2012")
    with pytest.raises(ValueError, match=r"there is no model 'org_resnet50_dia.imagenet'"):
        zoo.get_weights("org_resnet50_dia.imagenet")


@pytest.mark.parametrize(
    ("function", "nearest", "listed"),
    [
        (zoo.get_weights, "ean_resnet20_se", "`ean zoo list` lists those with weights"),
        (zoo.get_model, "ean_resnet50_s", "`ean zoo list --all` lists all"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(function, nearest, listed):
    with pytest.raises(ValueError, match=rf"there is no model 'ean_resnet5_se.imagenet'; did you mean {nearest}"):
        function("ean_resnet5_se.imagenet")
    with pytest.raises(ValueError, match=rf"there is no model '\?', {listed}"):
        function("?")


def test_a_model_without_weights_says_so_and_names_the_config_that_trains_it():
    with pytest.raises(zoo.NoWeightsError, match=r"has no weights yet; `ean train resnet50_se_imagenet --cfg-options "):
        zoo.get_model("ean_resnet50_se.imagenet", pretrained=True)
    with pytest.raises(
        zoo.NoWeightsError,
        match=r"`ean search search_resnet164_dia_cifar100` finds a scheme for it, `ean train",
    ):
        zoo.get_weights("ean_resnet164_dia.cifar100")
    with pytest.raises(ValueError, match=r"has neither weights nor a scheme on record; `ean search"):
        zoo.get_model("ean_resnet164_dia.cifar100")


def test_weights_are_plain_tensors(own):
    assert load_file(zoo.get_weights(own).path).keys() == zoo.get_weights(own).state_dict().keys()


def test_a_counter_is_built_without_importing_its_task_first():
    code = "import zoo; print(type(zoo.get_model('resnet20.shanghaitech_b', pretrained=True)).__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "tasks.crowd_counting.network"
