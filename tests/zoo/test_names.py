import pytest
import torch

from ean_core import RECORDED, ConnectionScheme, EANResNet, RecordedScheme
from ean_core.common.config import packaged_configs
from ean_core.common.tasks import known_datasets
from zoo.names import ModelName, config_of, trained_by, variant_of
from zoo.publish import model_name


@pytest.mark.parametrize(
    "text", ["resnet20.cifar100", "org_resnet50_sge.imagenet", "ean_resnet50_dia.voc2012", "best_resnet20_se.digits"]
)
def test_a_name_is_its_text(text):
    assert str(ModelName.parse(text)) == text


@pytest.mark.parametrize("text", ["", "resnet.cifar100", "ean_resnet20_se", "ean-resnet20-se.cifar100", "vgg.imagenet"])
def test_what_is_no_name_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"is not a model name: expected .*, such as ean_resnet20_se.cifar100"):
        ModelName.parse(text)


@pytest.mark.parametrize("text", ["resnet20_se.cifar100", "ean_resnet20.cifar100"])
def test_a_variant_needs_an_attention_and_the_other_way_round(text):
    with pytest.raises(ValueError, match=r"a name has both a variant .* and an attention, or neither"):
        ModelName.parse(text)


def test_an_unknown_data_set_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown data set 'cifar10'; did you mean 'cifar100'"):
        ModelName.parse("ean_resnet20_se.cifar10")


@pytest.mark.parametrize(
    ("scheme", "shared", "variant"),
    [
        ("00-0", True, ""),
        ("00-0", False, ""),
        ("11-1", True, "full"),
        ("11-1", False, "org"),
        ("10-1", True, "ean"),
        ("1c-1", True, "fold"),
        ("cc-c", True, "fold"),
        ("1c-0", False, "fold"),
    ],
)
def test_the_variant_follows_from_the_connections(scheme, shared, variant):
    assert variant_of(ConnectionScheme.parse(scheme), shared) == variant


def test_ean_on_a_data_set_is_the_scheme_found_there_or_else_the_familys(monkeypatch):
    name = ModelName.parse("ean_resnet18_se.shanghaitech_b")
    monkeypatch.delitem(RECORDED, ("imagenet", 18, "SE", "shanghaitech_b"))
    assert name.settings() is None
    found = RecordedScheme(ConnectionScheme.parse("10-01-11"), "found here", "a search", "shanghaitech_b")
    monkeypatch.setitem(RECORDED, ("imagenet", 18, "SE", "shanghaitech_b"), found)
    assert name.settings() == {"scheme": "ean:shanghaitech_b", "shared": True}
    assert ModelName.parse("ean_resnet18_se.shanghaitech_a").settings() is None
    assert ModelName.parse("ean_resnet50_se.shanghaitech_b").settings() == {"scheme": "ean", "shared": True}


def test_another_scheme_than_that_on_record_for_the_data_is_not_named_ean(monkeypatch):
    found = RecordedScheme(ConnectionScheme.parse("10-01-11"), "found here", "a search", "shanghaitech_b")
    monkeypatch.setitem(RECORDED, ("imagenet", 18, "SE", "shanghaitech_b"), found)
    with torch.device("meta"):
        own, other = (EANResNet(18, scheme=scheme, num_stages=3) for scheme in ("ean:shanghaitech_b", "10-00-11"))
    assert str(model_name("shanghaitech_b", own)) == "ean_resnet18_se.shanghaitech_b"
    assert str(model_name("shanghaitech_a", other)) == "ean_resnet18_se.shanghaitech_a"
    assert str(model_name("shanghaitech_b", other, best=True)) == "best_resnet18_se.shanghaitech_b"
    with pytest.raises(ValueError, match=r"10-00-11 cannot be named ean_… on shanghaitech_b, where 10-01-11 is on rec"):
        model_name("shanghaitech_b", other)


def test_modules_that_are_not_shared_on_a_part_of_the_blocks_have_no_name():
    with pytest.raises(ValueError, match=r"there is no name for scheme '10-1' with one module per block"):
        variant_of(ConnectionScheme.parse("10-1"), shared=False)


def test_every_config_that_trains_a_network_has_its_names():
    trainers = {config for config in packaged_configs() if not config.startswith(("supernet_", "search_"))}
    assert set(trained_by().values()) == trainers - {"resnet18_se_crowd", "resnet20_se_crowd"}  # no data set name
    assert all(name.dataset in known_datasets() for name in trained_by())


def test_org_full_is_for_modules_without_a_state_and_ean_for_schemes_on_record():
    names = set(map(str, trained_by()))
    assert {"org_resnet50_se.imagenet", "ean_resnet50_dia.imagenet", "full_resnet50_dia.imagenet"} <= names
    assert "org_resnet50_dia.imagenet" not in names
    assert "ean_resnet164_dia.cifar100" not in names


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("ean_resnet20_dia.cifar100", "resnet20_dia_cifar100"),
        ("resnet20.cifar100", "resnet20_se_cifar100"),
        ("best_resnet50_sge.imagenet", "resnet50_sge_imagenet"),
        ("resnet18.imagenet", None),
    ],
)
def test_the_config_that_trains_a_name(name, config):
    assert config_of(ModelName.parse(name)) == config
