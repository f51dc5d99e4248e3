"""Where segmentations come from."""

import numpy as np
import pytest

from ean_core.networks import build_network
from tasks.explain import explain_picture, load_explainer
from tasks.segmentation.explain import SegmentorExplainer

from .conftest import SETTINGS
from .drawn import draw

MODEL = "resnet20.voc2012"


@pytest.fixture(scope="module")
def explainer():
    return load_explainer(MODEL)


@pytest.fixture(scope="module")
def picture():
    return np.array(draw(1, (120, 160))[0])


def test_the_registry_finds_the_explainer_of_segmentors(explainer):
    assert type(explainer) is SegmentorExplainer
    assert (len(explainer.classes), explainer.classes[15]) == (21, "person")
    assert explainer.text(0.25, "person") == "person: 25.0 %"


@pytest.mark.parametrize(
    ("given", "number", "first"), [([], 21, "background"), ([], 3, "0"), (["a", "b"], 2, "a"), (["a", "b"], 3, "0")]
)
def test_classes_are_those_of_the_checkpoint_then_vocs_then_numbers(given, number, first):
    head = {**SETTINGS["decode_head"], "num_classes": number}
    network = build_network({**SETTINGS, "decode_head": head})
    classes = SegmentorExplainer("one", network, given).classes
    assert (len(classes), classes[0]) == (number, first)


def test_scores_are_shares_of_the_picture(explainer, picture):
    inputs, _ = explainer.prepare(picture)
    scores = explainer.scores(inputs)
    assert len(scores) == 21
    assert sum(scores) == pytest.approx(1)


def test_background_is_not_what_a_segmentor_is_asked_about(explainer, picture, tmp_path):
    pytest.importorskip("captum", reason="explaining needs Captum")
    inputs, _ = explainer.prepare(picture)
    assert explainer.classes[int(np.argmax(explainer.scores(inputs)))] == "background"
    (one,) = explain_picture([explainer], picture, "c", None, tmp_path / "a.png")
    assert one.target != "background"
