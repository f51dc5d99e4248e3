from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    FUNCTIONS,
    HOOKS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    DefaultScope,
)

from ean_core.backbone import find_backbone
from ean_core.common.config import config_root, find_config, load_config, packaged_configs
from ean_core.common.tasks import ACCURACY, find_metric
from ean_core.runs.signatures import check_signatures
from ean_core.search import Reward, build_strategy

NAMES = sorted(packaged_configs())
COUNTERS = [name for name in NAMES if name.endswith(("_shanghaitech_a", "_shanghaitech_b", "_crowd"))]
SEGMENTORS = [name for name in NAMES if name.endswith(("_voc2012", "_voc2012aug", "_ade20k", "_cityscapes"))]
SUPERNETS = [name for name in NAMES if name.startswith(("supernet_", "search_"))]
ATTENTIONS = {"se": "SE", "sge": "SGE", "dia": "DIA"}
ONE_OF_EACH = ["resnet20_se_digits", "resnet20_sge_cifar100", "resnet164_dia_cifar100", "resnet50_se_imagenet"]


def parts(name):
    """Network, attention and data set according to the name of a config."""
    return name.removeprefix("supernet_").removeprefix("search_").split("_", 2)


@pytest.fixture(scope="module")
def configs():
    return {name: load_config(name) for name in NAMES}


@pytest.fixture(scope="module")
def models(configs):
    """Build on the meta device, without memory."""
    with torch.device("meta"):
        return {name: MODELS.build(config.model) for name, config in configs.items()}


# ---------------------------------------------------------------- what is packaged


def test_there_is_a_config_for_each_task_network_attention_and_data_set():
    networks = [f"resnet{depth}_{{}}_cifar100" for depth in (20, 56, 164)]
    networks += ["resnet20_{}_digits", "resnet50_{}_imagenet"]
    expected = {
        task + network.format(attention)
        for task in ("", "supernet_", "search_")
        for network in networks
        for attention in ATTENTIONS
    }
    counters = {
        f"{network}_{attention}_shanghaitech_{part}"
        for network in ("resnet18", "resnet20", "resnet50")
        for attention in ATTENTIONS
        for part in "ab"
    }
    segmentors = {f"resnet{network}_{attention}_voc2012" for network in (18, 20, 50) for attention in ATTENTIONS}
    segmentors |= {f"resnet50_{attention}_voc2012aug" for attention in ATTENTIONS}
    searched = {f"resnet18_{attention}_shanghaitech_b" for attention in ATTENTIONS} | {"resnet18_se_voc2012"}
    searched = {part + name for part in ("supernet_", "search_") for name in searched}
    others = {"resnet18_se_crowd", "resnet20_se_crowd", "resnet50_se_ade20k", "resnet50_se_cityscapes"}
    assert set(NAMES) == expected | counters | segmentors | searched | others


def test_the_names_of_configs_are_unique():
    files = [path for path in config_root().rglob("*.py") if "_base_" not in path.parts]
    assert [name for name, count in Counter(path.stem for path in files).items() if count > 1] == []
    assert len(files) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_builds_the_network_its_name_says(models, name):
    network, attention, data = parts(name)
    backbone = find_backbone(models[name])
    assert f"resnet{backbone.depth}" == network
    assert backbone.attention_cfg["type"] == ATTENTIONS[attention]
    assert backbone.in_channels == (1 if data == "digits" else 3)
    if name in COUNTERS:
        assert models[name].stride == 8
    elif name in SEGMENTORS:
        assert models[name].num_classes == {"ade20k": 150, "cityscapes": 19}.get(data, 21)
    else:
        classes = {"digits": 10, "cifar100": 100, "imagenet": 1000}[data]
        assert models[name].fc.out_features == classes
    assert models[name].data_preprocessor.mean.numel() == backbone.in_channels


@pytest.mark.parametrize("name", NAMES)
def test_what_a_config_names_exists(configs, name):
    config = configs[name]
    loaders = [config[key] for key in config if key.endswith("_dataloader")]
    assert {"train_dataloader", "test_dataloader"} <= set(config)
    for loader in loaders:
        assert DATASETS.get(loader.dataset.type)
        assert DATA_SAMPLERS.get(loader.sampler.type)
        if name in SEGMENTORS:  # batches are lists, mmengine's default
            steps = loader.dataset.get("dataset", loader.dataset).pipeline
            with DefaultScope.overwrite_default_scope(config.default_scope):
                assert all(TRANSFORMS.build(step) for step in steps)
        else:
            assert FUNCTIONS.get(loader.collate_fn.type)
    assert METRICS.get(config.test_evaluator.type)
    assert OPTIM_WRAPPERS.get(config.optim_wrapper.type)
    assert PARAM_SCHEDULERS.get(config.param_scheduler.type)
    assert all(HOOKS.get(hook.type) for hook in config.default_hooks.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_classes_that_a_config_names_have_the_arguments_that_it_gives(configs, name):
    check_signatures(configs[name])


@pytest.mark.parametrize("name", SUPERNETS)
def test_a_supernet_is_fully_connected_trains_random_schemes_and_allows_for_unused_modules(configs, models, name):
    config, backbone = configs[name], find_backbone(models[name])
    assert backbone.scheme.sparsity == 0
    assert config.model.backbone.scheme == "full"
    assert config.find_unused_parameters is True
    assert config.default_hooks.scheme == {"type": "RandomSchemeHook", "p": 0.5}
    # Schemes are compared on images that the supernet was not trained on.
    splits = (config.train_dataloader.dataset.split, config.val_dataloader.dataset.split)
    assert splits == (("fit", "held_out") if name in SEGMENTORS else ("train", "val"))
    assert not config.val_dataloader.dataset.get("augment", config.val_dataloader.dataset.get("flip", False))
    assert config.val_dataloader.sampler.shuffle is False


@pytest.mark.parametrize("name", COUNTERS)
def test_a_counter_is_not_selected_and_never_looks_at_the_test_images(configs, name):
    config = configs[name]
    splits = [config[f"{part}_dataloader"].dataset.split for part in ("train", "val", "test")]
    assert splits == ["train", "val", "test"]
    assert len({config[f"{part}_dataloader"].dataset.part for part in ("train", "val", "test")}) == 1
    assert "save_best" not in config.default_hooks.checkpoint  # the best of many noisy validations is the luckiest
    assert [hook.type for hook in config.custom_hooks] == ([] if "resnet50" in name else ["EMAHook"])
    assert config.train_dataloader.batch_size > 1 or config.model.backbone.norm_eval


@pytest.mark.parametrize("name", [name for name in SEGMENTORS if name not in SUPERNETS])
def test_a_segmentor_trains_on_all_training_images_and_is_measured_once_on_those_of_val(configs, name):
    config = configs[name]
    assert config.get("val_dataloader") is None
    training, test = config.train_dataloader.dataset, config.test_dataloader.dataset
    if training.type == "KeyedDataset":
        assert all("train" in path for path in training.dataset.data_prefix.values())
        assert all("val" in path for path in test.dataset.data_prefix.values())
        assert training.dataset.type == test.dataset.type
    else:
        assert (training.split, test.split) == ("trainaug" if name.endswith("aug") else "train", "val")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SUPERNETS + COUNTERS + SEGMENTORS])
def test_a_final_network_trains_on_all_training_images_and_never_looks_at_the_test_images(configs, name):
    config = configs[name]
    assert (config.train_dataloader.dataset.split, config.test_dataloader.dataset.split) == ("trainval", "test")
    assert config.get("val_dataloader") is None
    assert "scheme" not in config.default_hooks


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("search_")])
def test_a_search_has_a_strategy_a_reward_and_the_supernet_of_its_name(configs, name):
    settings = configs[name].search
    metric, sparsity = ACCURACY, 2.0
    if name in COUNTERS + SEGMENTORS:
        metric = find_metric("count/MAE" if name in COUNTERS else "mIoU")
        sparsity = 0.5 if name in COUNTERS else 2.0
    blocks = (2, 2, 2) if "resnet18" in name else (9, 9, 9)
    strategy = build_strategy(settings.strategy, blocks, configs[name].randomness.seed)
    assert strategy.evaluations == settings.strategy.get("evaluations", strategy.evaluations)
    assert Reward.of(settings.reward, None, metric) == Reward(1.0, sparsity, metric=metric)
    assert settings.precision in ("fp32", "bf16")
    assert name.replace("search_", "supernet_") in NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("epochs", [None, 7])
def test_a_schedule_that_spans_the_training_follows_the_number_of_epochs(configs, name, epochs):
    config = configs[name] if epochs is None else load_config(name, [f"train_cfg.max_epochs={epochs}"])
    assert epochs is None or config.train_cfg.max_epochs == epochs
    lengths = {"OneCycleLR": "total_steps", "CosineAnnealingLR": "T_max", "PolyLR": "end"}
    length = lengths.get(config.param_scheduler.type)
    if length:
        assert config.param_scheduler[length] == config.train_cfg.max_epochs
    else:
        assert config.param_scheduler.type in ("MultiStepLR", "StepLR", "ConstantLR", "ExponentialLR")


def test_a_schedule_begins_where_it_says_and_a_length_given_is_kept(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "train_cfg = dict(by_epoch=True, max_epochs=30)\n"
        "param_scheduler = [dict(type='LinearLR', end=5), dict(type='CosineAnnealingLR', begin=5),\n"
        "                   dict(type='CosineAnnealingLR', T_max=3)]\n"
    )
    assert [schedule.get("T_max") for schedule in load_config(str(path)).param_scheduler] == [None, 25, 3]


def test_a_config_without_training_loads(tmp_path):
    (tmp_path / "mine.py").write_text("model = dict(type='ImageClassifier')\n")
    assert load_config(str(tmp_path / "mine.py")).model.type == "ImageClassifier"


# ---------------------------------------------------------------- finding one


@pytest.mark.parametrize(
    "name",
    [
        "resnet20_se_digits",
        "resnet20_se_digits.py",
        "classification/resnet20_se_digits",
        "classification/resnet20_se_digits.py",
    ],
)
def test_a_packaged_config_is_found_by_name_and_by_folder_and_name(name):
    assert find_config(name) == config_root() / "classification" / "resnet20_se_digits.py"


def test_a_config_is_found_by_path(tmp_path, monkeypatch):
    path = tmp_path / "resnet20_se_digits.py"  # takes precedence over the packaged one
    path.write_text("x = 1\n")
    assert find_config(str(path)) == path
    monkeypatch.chdir(tmp_path)
    assert find_config("resnet20_se_digits.py") == Path("resnet20_se_digits.py")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_config("~/resnet20_se_digits.py") == path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet20_se_digit", r"unknown config 'resnet20_se_digit'; did you mean 'resnet20_se_digits'"),
        ("supernet_resnet50_ge_imagenet", r"did you mean 'supernet_resnet50_sge_imagenet'"),
        ("supernet/resnet20_se_digits", r"did you mean '.*resnet20_se_digits'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        find_config(name)


def test_a_file_that_does_not_exist_is_answered_with_the_nearest_config():
    with pytest.raises(FileNotFoundError, match=r"no file resnet20_se_digit.py, .*did you mean 'resnet20_se_digits'"):
        find_config("resnet20_se_digit.py")
    with pytest.raises(FileNotFoundError, match=r"no config at mine/resnet20_se_digit.py; did you mean 'resnet20_se_"):
        find_config("mine/resnet20_se_digit.py")


@pytest.mark.parametrize("name", ["/nowhere/mine.py", "configs/classification/mine.py"])
def test_a_path_without_a_file_is_a_missing_file(name):
    with pytest.raises(FileNotFoundError, match=f"no config at {name}"):
        find_config(name)


# ---------------------------------------------------------------- overriding entries


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model.backbone.scheme=010-010-001", "010-010-001"),
        ("model.backbone.scheme=none", "none"),
        ("train_cfg.max_epochs=5", 5),
        ("optim_wrapper.optimizer.lr=1e-3", 0.001),
        ("search.reward.sparsity=0.5", 0.5),
        ("test_evaluator.topk=[1,5]", [1, 5]),
        ("test_evaluator.topk=(1,5)", (1, 5)),
        ("model.backbone.shared=False", False),
        ("search.supernet=None", None),
        ("search.supernet=a=b.pth", "a=b.pth"),
        ("model.backbone.attention=SGE", "SGE"),
    ],
)
def test_options_are_read_as_openmmlab_reads_them(option, value):
    found = load_config("search_resnet20_se_digits", [option])
    for key in option.split("=")[0].split("."):
        found = found[key]
    assert found == value
    assert type(found) is type(value)


def test_several_options_override_and_the_rest_stays():
    options = ["model.backbone.scheme=010-010-001", "model.backbone.attention=DIA", "train_dataloader.batch_size=8"]
    config, plain = load_config("resnet20_se_digits", options), load_config("resnet20_se_digits")
    backbone = MODELS.build(config.model).backbone
    assert (str(backbone.scheme), backbone.attention_cfg["type"]) == ("010-010-001", "DIA")
    assert config.train_dataloader.pop("batch_size") == 8
    assert plain.train_dataloader.pop("batch_size") == 64
    assert config.train_dataloader == plain.train_dataloader
    assert plain.model.backbone.scheme == "full"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "model.backbone.scheme",
            r"takes KEY=VALUE, got 'model.backbone.scheme'; for example model.backbone.scheme=full",
        ),
        ("test_evaluator.topk=[1,5", r"--cfg-options: Imbalanced brackets exist in \[1,5"),
        ("trian_cfg.max_epochs=3", r"a config has no entry 'trian_cfg'; did you mean train_cfg.max_epochs\?"),
        ("max_epochs=3", r"a config has no entry 'max_epochs'; did you mean train_cfg.max_epochs\?"),
        ("model.type.name=A", r"--cfg-options .*model.type.name=A: "),
    ],
)
def test_an_option_that_cannot_be_read_is_refused(option, message):
    with pytest.raises(ValueError, match=message):
        load_config("resnet20_se_digits", ["train_cfg.max_epochs=3", option])


def test_an_option_of_the_attention_keeps_its_name():
    config = load_config("resnet20_sge_digits", ["model.backbone.attention.groups=8"])
    assert config.model.backbone.attention == {"type": "SGE", "groups": 8}


def test_variables_of_a_config_file_can_be_overridden(tmp_path):
    (tmp_path / "mine.py").write_text("width = 3\nmodel = dict(type='ImageClassifier')\n")
    assert load_config(str(tmp_path / "mine.py"), ["width=4"]).width == 4


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_one_network_of_each_kind_builds_and_runs(name):
    model = MODELS.build(load_config(name, ["model.backbone.scheme=full"]).model).eval()
    channels, pixels = find_backbone(model).in_channels, 8 if "digits" in name else 32
    batch = model.data_preprocessor({"inputs": torch.zeros(1, channels, pixels, pixels, dtype=torch.uint8)})
    with torch.inference_mode():
        assert model(batch["inputs"]).shape == (1, model.fc.out_features)


def test_one_cycle_rises_to_the_learning_rate_of_the_optimizer():
    config = load_config("resnet20_se_cifar100", ["optim_wrapper.optimizer.lr=0.05"])
    assert config.param_scheduler.eta_max == 0.05
