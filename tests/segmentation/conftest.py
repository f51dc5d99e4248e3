"""Prepared data, and a segmentor that nobody trained. Without mmsegmentation there is nothing to test but its files."""

import importlib.util
import json

import pytest
import torch

from ean_core.weights.files import save_weights
from tasks.segmentation.prepare import prepare
from tasks.segmentation.voc import find_voc

from .drawn import write_voc

FILES = {"conftest.py", "drawn.py", "test_voc.py", "test_prepare.py"}
SETTINGS = {
    "type": "Segmentor",
    "backbone": {"type": "EANResNetCIFAR", "depth": 20, "attention": "SE", "scheme": "010-100-000", "stem_stride": 2},
    "decode_head": {
        "type": "PSPHead",
        "in_channels": 64,
        "in_index": 2,
        "channels": 16,
        "num_classes": 21,
        "norm_cfg": {"type": "BN"},
        "align_corners": False,
    },
    "data_preprocessor": {
        "type": "SegDataPreProcessor",
        "mean": [129.304, 124.070, 112.434],
        "std": [68.170, 65.392, 70.418],
        "bgr_to_rgb": True,
    },
    "test_cfg": {"mode": "whole", "shorter_side": 64},
}


def pytest_ignore_collect(collection_path):
    missing = importlib.util.find_spec("mmseg") is None or importlib.util.find_spec("mmcv") is None
    return True if missing and collection_path.is_file() and collection_path.name not in FILES else None


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """EAN_DATA with a drawn VOCdevkit, prepared."""
    folder = tmp_path_factory.mktemp("data")
    write_voc(folder)
    prepare(find_voc(folder / "VOCdevkit"), folder / "VOCdevkit", folder / "segmentation/voc2012")
    return folder


@pytest.fixture(scope="session")
def network():
    """Its eager network, in evaluation mode; not to be changed."""
    from ean_core.networks import build_network

    torch.manual_seed(0)
    return build_network(SETTINGS).eval()


@pytest.fixture(scope="session")
def segmentor_file(network, tmp_path_factory):
    """It as a published segmentor is written."""
    path = tmp_path_factory.mktemp("segmentor") / "segmentor.safetensors"
    save_weights(network.state_dict(), path, {"network": json.dumps(SETTINGS)})
    return path


@pytest.fixture(scope="session")
def segmenter(segmentor_file):
    """It as it predicts."""
    from tasks.segmentation.segmenter import Segmenter

    return Segmenter.from_checkpoint(segmentor_file, device="cpu")
