"""Networks as plain settings: what they tell, and what is built from those of others."""

import copy
import inspect
import pickle
import sys

import pytest
import torch
from mmengine.registry import MODELS

from ean_core import ConnectionScheme, EANResNet, EANResNetCIFAR, ImageClassifier
from ean_core.networks import build_network, check_settings

PREPROCESSOR = {"type": "ImagePreprocessor", "mean": [100.0] * 3, "std": [50.0] * 3}


def classifier(**options):
    return ImageClassifier(EANResNetCIFAR(20, "SGE", "100-010-001", base_channels=8, **options), 4, PREPROCESSOR).eval()


def test_settings_follow_the_network():
    network = classifier()
    network.backbone.set_scheme("100-000-000")
    network.reset_classifier(7)
    assert network.settings() == {
        "type": "ImageClassifier",
        "backbone": {
            "type": "EANResNetCIFAR",
            "depth": 20,
            "attention": "SGE",
            "scheme": "100-000-000",
            "base_channels": 8,
            "out_indices": [0, 1, 2],
        },
        "num_classes": 7,
        "global_pool": "avg",
        "data_preprocessor": PREPROCESSOR,
    }
    rebuilt = MODELS.build(network.settings())
    assert rebuilt(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_keep_their_settings(copied):
    network = classifier(norm_cfg={"type": "GN", "num_groups": 4}, frozen_stages=1)
    assert copied(network).settings() == network.settings()


def test_settings_are_plain_values_without_what_only_affects_training():
    scheme = ConnectionScheme.parse("10-00-00-00")
    with torch.device("meta"):
        network = EANResNet(
            18, {"type": "SE", "reduction": 8}, scheme, strides=(1, 2, 1, 1), init_cfg={"type": "Kaiming"}
        )
    assert network.settings() == {
        "type": "EANResNet",
        "depth": 18,
        "attention": {"type": "SE", "reduction": 8},
        "scheme": "10-00-00-00",
        "strides": [1, 2, 1, 1],
        "out_indices": [0, 1, 2, 3],
    }


def test_the_constructors_signature_stays():
    assert "base_channels" in inspect.signature(EANResNet).parameters
    assert "stem_stride" in inspect.signature(EANResNetCIFAR).parameters
    with pytest.raises(TypeError, match="unexpected keyword argument 'deptth'"):
        EANResNet(deptth=18)


def test_a_type_that_is_not_registered_is_refused_before_anything_of_that_name_is_imported():
    for kind in ("this", "antigravity", "os.system", "CrowdCountr", 3, None):
        with pytest.raises(ValueError, match=r"the network: a network may only use registered modules"):
            check_settings({"type": "CrowdCounter", "backbone": {"type": kind}}, "the network")
    for settings in ({"type": "BN"}, {"type": "CrowdCounter", "backbone": {"type": "EANResNet", "attention": "SE"}}):
        check_settings(settings, "the network")
    assert "this" not in sys.modules


@pytest.mark.parametrize("address", ["weights.pkl", "https://example.org/weights.pkl"])
def test_class_weights_in_a_file_are_refused_which_would_be_unpickled(address):
    head = {"loss_decode": {"class_weight": address}}
    with pytest.raises(ValueError, match=r"it: class_weight must be numbers, got '.*weights\.pkl'"):
        check_settings({"type": "ImageClassifier", "decode_head": head}, "it")
    check_settings({"type": "ImageClassifier", "decode_head": {"loss_decode": {"class_weight": [1.0, 2.0]}}}, "it")


def test_a_network_that_nothing_installed_has_is_said():
    with pytest.raises(ValueError, match=r"unknown network 'CrowdCountr'; did you mean 'CrowdCounter'"):
        build_network({"type": "CrowdCountr"})


def test_none_is_a_setting_where_it_is_not_the_default():
    network = EANResNet(18, scheme="none", base_channels=8, stem_channels=None, norm_cfg=None)
    settings = network.settings()
    assert settings["stem_channels"] is None
    assert "norm_cfg" not in settings
    assert build_network(settings).conv1.out_channels == network.conv1.out_channels == 8


def test_a_scope_is_refused_whose_package_would_be_imported():
    settings = {"type": "EANResNet", "norm_cfg": {"type": "BN", "_scope_": "stranger"}}
    with pytest.raises(ValueError, match="without init_cfg and _scope_"):
        check_settings(settings, "this")


@pytest.mark.parametrize("kind", [["SE"], None, 1])
def test_a_type_that_is_no_text_is_refused(kind):
    with pytest.raises(ValueError, match="may only use registered modules"):
        check_settings({"type": kind}, "this")
