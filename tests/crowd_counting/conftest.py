"""A counter that nobody trained, as a file and ready to count."""

import json

import pytest
import torch
from mmengine.registry import MODELS

from ean_core.weights.files import save_weights
from tasks.crowd_counting.counter import Counter

SETTINGS = {
    "type": "CrowdCounter",
    "backbone": {
        "type": "EANResNetCIFAR",
        "depth": 20,
        "attention": "SE",
        "scheme": "010-100-000",
        "stem_stride": 2,
    },
    "data_preprocessor": {
        "type": "ImagePreprocessor",
        "mean": [129.304, 124.070, 112.434],
        "std": [68.170, 65.392, 70.418],
    },
}


@pytest.fixture(scope="session")
def network():
    """Its eager network, in evaluation mode; not to be changed."""
    torch.manual_seed(0)
    return MODELS.build(SETTINGS).eval()


@pytest.fixture(scope="session")
def counter_file(network, tmp_path_factory):
    """It as a published counter is written."""
    path = tmp_path_factory.mktemp("counter") / "counter.safetensors"
    save_weights(network.state_dict(), path, {"network": json.dumps(SETTINGS)})
    return path


@pytest.fixture(scope="session")
def counter(counter_file):
    """It as it counts."""
    return Counter.from_checkpoint(counter_file, device="cpu")
