import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch.nn import functional as F

from ean_core.common.config import load_config
from ean_core.runs.folder import Run
from ean_core.runs.training import run_training
from tasks.segmentation.losses import MaskedCrossEntropyLoss

from .test_training import write_config

WEIGHTS = (0.5, 2.0, 1.0, 3.0)
IGNORED = 255


@pytest.fixture
def pixels():
    """Logits of four classes and labels, some of them ignored."""
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 4, 6, 5, generator=draw)
    labels = torch.randint(0, 4, (2, 6, 5), generator=draw)
    labels[:, 0] = labels[0, :, 2] = IGNORED
    return logits, labels


def value_and_gradient(loss, logits):
    logits = logits.clone().requires_grad_()
    value = loss(logits)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_is_pytorchs_cross_entropy(pixels, weights, reduction, dtype):
    logits, labels = pixels
    logits = logits.to(dtype)
    loss = MaskedCrossEntropyLoss(reduction, weights)
    tensor = None if weights is None else torch.tensor(weights)

    def expected(logits):
        return F.cross_entropy(logits.float(), labels, tensor, ignore_index=IGNORED, reduction=reduction)

    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = value_and_gradient(lambda logits: loss(logits, labels, ignore_index=IGNORED), logits)
    for one, other in zip(found, value_and_gradient(expected, logits), strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-6 if dtype == torch.float32 else 1e-2, atol=1e-7)


@pytest.mark.parametrize("average", [True, False])
def test_without_class_weights_it_is_mmsegmentations(pixels, average):
    logits, labels = pixels
    theirs = MODELS.build({"type": "mmseg.CrossEntropyLoss", "avg_non_ignore": average, "loss_weight": 0.4})
    ours = MaskedCrossEntropyLoss(avg_non_ignore=average, loss_weight=0.4)
    chosen = torch.rand(labels.shape)  # as from a sampler
    for arguments in ({}, {"weight": chosen}, {"avg_factor": 7.0}, {"reduction_override": "none"}):
        found, expected = (loss(logits, labels, ignore_index=IGNORED, **arguments) for loss in (ours, theirs))
        torch.testing.assert_close(found, expected)


def test_a_samplers_weights_multiply_the_loss_of_a_pixel(pixels):
    logits, labels = pixels
    each = F.cross_entropy(logits, labels, torch.tensor(WEIGHTS), ignore_index=IGNORED, reduction="none")
    chosen = torch.rand(labels.shape)
    total = torch.tensor(WEIGHTS)[labels[labels != IGNORED]].sum()
    found = MaskedCrossEntropyLoss(class_weight=WEIGHTS)(logits, labels, chosen, ignore_index=IGNORED)
    torch.testing.assert_close(found, (each * chosen).sum() / total)


@pytest.mark.parametrize("weights", [None, WEIGHTS, (0, 0, 0, 0)])
def test_where_every_pixel_is_ignored_it_is_zero_and_so_is_its_gradient(pixels, weights):
    logits, labels = pixels
    labels = torch.full_like(labels, IGNORED)
    loss = MaskedCrossEntropyLoss(class_weight=weights)
    value, gradient = value_and_gradient(lambda logits: loss(logits, labels, ignore_index=IGNORED), logits)
    assert value == 0
    assert not gradient.any()


def test_a_wrong_number_of_weights_is_named(pixels):
    logits, labels = pixels
    with pytest.raises(ValueError, match="class_weight has 3 weights, the network 4 classes"):
        MaskedCrossEntropyLoss(class_weight=(1, 1, 1))(logits, labels, ignore_index=IGNORED)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("label", [-1, 4, 254])
def test_labels_outside_are_named(pixels, weights, label):
    logits, labels = pixels
    labels[1, 3, 3] = label
    with pytest.raises(ValueError, match=rf"labels {label} are outside of the network's 4 classes, 0 to 3; .* is 255"):
        MaskedCrossEntropyLoss(class_weight=weights)(logits, labels, ignore_index=IGNORED)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"use_sigmoid": True}, "use_sigmoid"),
        ({"use_mask": True}, "use_mask"),
        ({"reduction": "average"}, "none, mean, sum, got 'average'"),
        ({"class_weight": (1, -1)}, "not negative"),
        ({"class_weight": (1, float("nan"))}, "finite"),
        ({"class_weight": "weights.pkl"}, r"weights\.pkl"),
    ],
)
def test_settings_that_it_does_not_have_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        MaskedCrossEntropyLoss(**options)


@pytest.mark.parametrize("scope", ["mmseg", "mmengine", "mmdet"])
def test_heads_of_every_library_find_it(scope):
    with DefaultScope.overwrite_default_scope(scope):
        assert isinstance(MODELS.build({"type": "MaskedCrossEntropyLoss"}), MaskedCrossEntropyLoss)


def test_a_packaged_config_trains_with_class_weights_where_borders_are_ignored(data, tmp_path, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(data))
    weights = [1.0, *([5.0] * 20)]
    config = load_config(
        str(write_config(tmp_path, epochs=2)), [f"model.decode_head.loss_decode.class_weight={weights}"]
    )
    config.model.decode_head.sampler = {"type": "OHEMPixelSampler", "min_kept": 100}
    run_training(config, tmp_path / "run")
    assert Run(tmp_path / "run").finished
