"""Grad-CAM, and the explainer of classifiers."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import zoo
from tasks.explain import MODELS, load_explainer
from tasks.explainers import MOST_PIXELS, grad_cam, within_memory

pytest.importorskip("captum", reason="explaining needs Captum")

COUNTER, SEGMENTOR = "ean_resnet18_se.shanghaitech_b", "ean_resnet20_se.voc2012"


@pytest.fixture(scope="module")
def pixels():
    """Squares of four pixels, of which counters count some (of noise, they count none)."""
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8).repeat(4, 0).repeat(4, 1)


def by_hand(network, inputs, score):
    """Grad-CAM in plain autograd."""
    kept = []
    hook = network.backbone.register_forward_hook(lambda _, __, maps: kept.append(maps[-1]))
    value = score(inputs)
    hook.remove()
    (gradient,) = torch.autograd.grad(value.sum(), kept)
    cam = (kept[0] * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()
    cam = F.interpolate(cam, inputs.shape[2:], mode="bilinear", align_corners=False)[0, 0]
    return (cam / cam.max()).detach().numpy()


@pytest.mark.parametrize("model", [MODELS[2], COUNTER, SEGMENTOR])
def test_the_heat_is_grad_cam_as_published(model, pixels):
    explainer = load_explainer(model)
    inputs, shown = explainer.prepare(pixels)
    heat = explainer.heat(inputs, 0)
    assert heat.shape == shown.shape[:2] == tuple(inputs.shape[2:])
    assert heat.min() >= 0
    assert heat.max() == pytest.approx(1)
    expected = by_hand(explainer.network, inputs, lambda images: explainer.target(images, 0))
    np.testing.assert_allclose(heat, expected, atol=1e-5)
    assert not explainer.network.backbone._forward_hooks


def test_another_class_has_another_heat(pixels):
    explainer = load_explainer(MODELS[0])
    inputs, _ = explainer.prepare(pixels)
    assert np.abs(explainer.heat(inputs, 3) - explainer.heat(inputs, 4)).max() > 0.01


def test_a_score_that_depends_on_nothing_has_no_heat(pixels):
    explainer = load_explainer(MODELS[0])
    inputs, _ = explainer.prepare(pixels)
    assert grad_cam(explainer.network, inputs, lambda images: 0 * explainer.network(images)[:, 0]).max() == 0


def test_scores_of_a_classifier_are_its_softmax(pixels):
    classifier = load_explainer(MODELS[2])
    inputs, _ = classifier.prepare(pixels)
    model = zoo.get_model(MODELS[2], pretrained=True).eval()
    expected = model(zoo.get_weights(MODELS[2]).transforms()(Image.fromarray(pixels))[None])[0].softmax(0)
    np.testing.assert_allclose(classifier.scores(inputs), expected.detach(), atol=1e-5)


def test_images_are_made_smaller_only_beyond_what_gradients_have_memory_for(pixels):
    assert within_memory(pixels) is pixels
    smaller = within_memory(np.zeros((2000, 3000, 3), np.uint8))
    assert smaller.shape == (1000, 1500, 3)
    assert smaller.shape[0] * smaller.shape[1] == MOST_PIXELS


def test_without_captum_the_error_says_what_to_install(monkeypatch, pixels):
    explainer = load_explainer(MODELS[0])
    inputs, _ = explainer.prepare(pixels)
    for name in ("captum", "captum.attr"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "ean-zoo\[explain\]"'):
        explainer.heat(inputs, 0)
