import pytest
from mmengine.config import Config

from ean_core.common.config import load_config
from ean_core.search.bench import DEFAULTS, Bench, complete_search, supernet_name
from ean_core.weights.files import read_state_dict, save_weights

CONFIG = "search_resnet20_se_digits"


def test_what_a_search_section_leaves_out_is_filled_in():
    config = Config({"search": {"reward": {"sparsity": 1}, "finalists": {"count": 3}}})
    complete_search(config)
    assert config.search.reward == {"sparsity": 1}
    assert config.search.finalists == {**DEFAULTS["finalists"], "count": 3}
    assert config.search.strategy == DEFAULTS["strategy"]
    config.search.strategy.type = "random"
    assert DEFAULTS["strategy"] == {"type": "ean"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "config has no `search` section; use a search config, for example search_resnet20_se_cifar100"),
        ({"search": {"finalists": {"images": 0}}}, "search.finalists.images must be an integer of at least 1, got 0"),
        ({"search": {"finalists": {"coun": 3}}}, "unknown setting of search.finalists 'coun'; did you mean 'count'"),
    ],
)
def test_a_search_section_that_cannot_be_completed_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        complete_search(Config(config))


def test_a_config_without_a_search_is_named():
    with pytest.raises(ValueError, match="supernet_resnet20_se_digits has no `search` section"):
        Bench(load_config("supernet_resnet20_se_digits"), None)


def test_the_supernet_of_a_packaged_search_is_known_by_name():
    assert supernet_name(load_config(CONFIG)) == "supernet_resnet20_se_digits"


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("model.backbone.attention=DIA", "model.backbone.attention is 'SE' there, 'DIA' here"),
        ("model.backbone.depth=56", "model.backbone.depth is 20 there, 56 here"),
        ("model.num_classes=9", "model.num_classes is 10 there, 9 here"),
    ],
)
def test_the_supernet_of_another_network_is_refused_by_what_differs(digits_supernet, option, named):
    with pytest.raises(ValueError, match=f"{digits_supernet} was trained with other settings: {named}"):
        Bench(load_config(CONFIG, [option]), digits_supernet)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "model.backbone.attention=DIA",
            "is not a checkpoint of this ImageClassifier: it lacks backbone.layer1.attention",
        ),
        ("model.backbone.depth=56", "has 3 blocks in backbone.layer1, ImageClassifier has 9"),
    ],
)
def test_plain_weights_of_another_network_are_refused_by_their_tensors(digits_supernet, tmp_path, option, message):
    weights = tmp_path / "weights.safetensors"
    save_weights(read_state_dict(digits_supernet), weights, {})
    with pytest.raises(ValueError, match=message):
        _ = Bench(load_config(CONFIG, [option]), weights).plain
