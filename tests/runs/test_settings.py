import pytest
from mmengine.config import Config

from ean_core.common.config import load_config
from ean_core.runs.settings import read_settings

ONE_OF_EACH = ["resnet20_se_digits", "resnet20_sge_cifar100", "resnet164_dia_cifar100", "resnet50_se_imagenet"]


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_settings_come_back_as_mmengine_writes_them(name):
    config = load_config(name)
    assert read_settings(config.pretty_text).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    "settings",
    [
        {"paramwise_cfg": {"custom_keys": {".cls_token": {"decay_mult": 0.0}}}},
        {"a": {"b": {"x-y": {"c": 1}}, "e": (1, -2.5), "f": None}, "l": [{"a": 1}, {"p.q": 2}]},
        {"words": 'it\'s "quoted"\n', "empty": {}, "nested": [[], ()], "flag": True},
    ],
)
def test_settings_with_keys_that_are_no_names_come_back_too(settings):
    assert read_settings(Config(settings).pretty_text).to_dict() == Config(settings).to_dict()


@pytest.mark.parametrize(
    "text",
    [
        "import os",
        "a = __import__('os').getcwd()",
        "a = dict(b=open('x'))",
        "a = dict(**b)",
        "a = dict([('b', 1)])",
        "a = [x for x in (1, 2)]",
        "a.b = 1",
        "print(1)",
        "a = (",
        "a = f'{1}'",
    ],
)
def test_settings_that_are_more_than_values_are_refused_and_not_executed(text):
    with pytest.raises(ValueError, match=r"settings must be literals and dict\(\.\.\.\), (found|this is not Python)"):
        read_settings(text)
