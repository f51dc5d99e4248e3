import copy
import importlib

import pytest
import torch
from mmengine.registry import METRICS, MODELS
from torch import nn
from torch.nn import functional as F

from ean_core import EANResNetCIFAR, ImageClassifier
from ean_core.classifier import ImagePreprocessor, TopK, label_ranks


def classifier(num_classes=4, **options):
    torch.manual_seed(0)
    backbone = EANResNetCIFAR(20, scheme="full", base_channels=4)
    preprocessor = {"type": "ImagePreprocessor", "mean": [100.0, 110.0, 120.0], "std": [50.0, 60.0, 70.0]}
    return ImageClassifier(backbone, num_classes, preprocessor, **options)


@pytest.fixture
def images():
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([0, 3, 1, 2, 2, 0])


# ---------------------------------------------------------------- preprocessing


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_are_normalised_channel_by_channel_and_the_rest_is_kept(dtype):
    inputs = torch.randint(256, (2, 3, 4, 5)).to(dtype)
    data = {"inputs": inputs, "labels": torch.tensor([1, 2]), "names": ["a", "b"]}
    out = ImagePreprocessor(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0])(data)
    for c, (mean, std) in enumerate([(100, 50), (110, 60), (120, 70)]):
        assert torch.allclose(out["inputs"][:, c], (inputs[:, c].float() - mean) / std)
    assert out["inputs"].dtype == torch.float32
    assert out["labels"].tolist() == [1, 2]
    assert out["names"] == ["a", "b"]
    assert data["inputs"] is inputs


def test_normalisation_is_no_part_of_a_checkpoint():
    assert ImagePreprocessor([1.0], [1.0]).state_dict() == {}


@pytest.mark.parametrize(("mean", "std"), [([1.0, 2.0], [1.0]), ([1.0], [0.0]), ([1.0], [-1.0])])
def test_means_and_deviations_that_do_not_fit_are_refused(mean, std):
    with pytest.raises(ValueError, match=r"one value per channel, with std above 0; got mean="):
        ImagePreprocessor(mean, std)


# ---------------------------------------------------------------- the network


def test_it_is_a_backbone_pooling_and_a_linear_layer(images):
    model = classifier().eval()
    with torch.no_grad():
        last = model.backbone(images)[-1]
        expected = F.linear(F.adaptive_avg_pool2d(last, 1).flatten(1), model.fc.weight, model.fc.bias)
        assert torch.allclose(model(images), expected, atol=1e-6)
    assert sorted({name.split(".")[0] for name in model.state_dict()}) == ["backbone", "fc"]


def test_it_is_built_from_a_config():
    config = {
        "type": "ImageClassifier",
        "num_classes": 3,
        "backbone": {"type": "EANResNet", "depth": 18, "scheme": "none"},
    }
    model = MODELS.build(config)
    assert model.fc.weight.shape == (3, 512)
    assert config["backbone"] == {"type": "EANResNet", "depth": 18, "scheme": "none"}


# ---------------------------------------------------------------- timm's names


def test_features_and_head_make_the_logits(images):
    model = classifier().eval()
    features = model.forward_features(images)
    assert torch.equal(features, model.backbone(images)[-1])
    assert torch.equal(model.forward_head(features), model(images))
    assert torch.equal(model.forward_head(features, pre_logits=True), features.mean((2, 3)))
    assert (model.num_classes, model.num_features) == (4, 16)
    assert model.get_classifier() is model.fc
    assert [each["module"] for each in model.feature_info] == [f"backbone.layer{k}" for k in (1, 2, 3)]
    assert [(each["num_chs"], each["reduction"]) for each in model.feature_info] == [(4, 1), (8, 2), (16, 4)]
    assert [model.get_submodule(each["module"]) for each in model.feature_info] == [
        *map(model.backbone.stage, range(3))
    ]


def test_the_classifier_is_replaced_or_removed(images):
    model = classifier().eval().double()
    images = images.double()
    model.reset_classifier(7)
    assert model(images).shape == (6, 7)
    assert (model.num_classes, model.fc.weight.dtype) == (7, torch.float64)
    model.reset_classifier(0)
    assert isinstance(model.fc, nn.Identity)
    assert torch.equal(model(images), model.forward_features(images).mean((2, 3)))
    model.reset_classifier(0, "")
    assert torch.equal(model(images), model.forward_features(images))
    with pytest.raises(ValueError, match=r"global_pool='' returns the feature map and needs num_classes=0, got 3"):
        model.reset_classifier(3)
    assert model.num_classes == 0
    model.reset_classifier(3, "avg")
    assert model(images).shape == (6, 3)
    with pytest.raises(ValueError, match=r"unknown global_pool 'max'; choose from '', 'avg'"):
        model.reset_classifier(3, "max")


@pytest.mark.parametrize(("pool", "shape"), [("avg", (6, 16)), ("", (6, 16, 2, 2))])
def test_a_network_without_classes_gives_features(images, pool, shape):
    model = classifier(0, global_pool=pool)
    assert model(images).shape == shape
    assert not any(name.startswith("fc") for name in model.state_dict())
    for mode in ("loss", "predict"):
        with pytest.raises(ValueError, match=rf"mode='{mode}' needs classes, and this network has none"):
            model(images, LABELS, mode=mode)


def test_checkpointing_is_switched_on_and_off():
    model = classifier()
    for enabled in (True, False):
        model.set_grad_checkpointing(enabled)
        assert {block.with_cp for _, _, block in model.backbone.blocks()} == {enabled}


@pytest.mark.parametrize("form", ["FeatureHookNet", "FeatureGraphNet", "FeatureListNet"])
def test_timms_extractors_find_the_maps(images, form):
    pytest.importorskip("timm")
    features = importlib.import_module("timm.models._features")
    model = classifier().eval()
    expected = EANResNetCIFAR(20, scheme="full", base_channels=4).eval()
    expected.load_state_dict(model.backbone.state_dict())
    if form == "FeatureListNet":  # it calls a network's modules one after another
        found = features.FeatureListNet(copy.deepcopy(expected), out_indices=(0, 2))(images)
    elif form == "FeatureHookNet":
        found = features.FeatureHookNet(model, out_indices=(0, 2))(images)
    else:
        found = importlib.import_module("timm.models._features_fx").FeatureGraphNet(model, out_indices=(0, 2))(images)
    maps = expected(images)
    assert all(torch.allclose(mine, theirs, atol=1e-5) for mine, theirs in zip(found, (maps[0], maps[2]), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x[0],
            r"^ImageClassifier takes float images \(N, 3, H, W\), got torch.float32 \(3, 8, 8\); x\[N",
        ),
        (lambda x: x.byte(), r"got torch.uint8 \(6, 3, 8, 8\); normalize them with the model's data_preprocessor"),
        (lambda x: x[:, :1], r"got torch.float32 \(6, 1, 8, 8\); build the network with in_channels=1"),
    ],
)
@pytest.mark.parametrize("channels_last", [True, False])
def test_what_is_not_a_batch_of_images_is_refused(images, change, message, channels_last):
    with pytest.raises(ValueError, match=message):
        classifier(channels_last=channels_last)(change(images))


# ---------------------------------------------------------------- loss and predictions


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_cross_entropy_and_reaches_every_parameter(images, smoothing):
    model = classifier(label_smoothing=smoothing).train()
    loss = model(images, LABELS, mode="loss")["loss"]
    logs = model(images).log_softmax(1)
    own = -logs.gather(1, LABELS[:, None]).mean()
    assert torch.allclose(loss, (1 - smoothing) * own - smoothing * logs.mean(), atol=1e-4)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_loss_of_bf16_logits_is_computed_in_fp32(images):
    model = classifier()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(images).dtype == torch.bfloat16
        assert model(images, LABELS, mode="loss")["loss"].dtype == torch.float32
    assert model.bfloat16()(images.bfloat16(), LABELS, mode="loss")["loss"].dtype == torch.float32


def test_predictions_come_one_an_image_with_label_and_rank(images):
    model = classifier().eval()
    with torch.no_grad():
        logits, found = model(images), model(images, LABELS, mode="predict")
    for row, label, prediction in zip(logits, LABELS.tolist(), found, strict=True):
        order = row.argsort(descending=True).tolist()
        assert prediction == {"prediction": order[0], "label": label, "rank": order.index(label)}


@pytest.mark.parametrize("mode", ["loss", "predict"])
def test_modes_that_need_labels_say_so(images, mode):
    with pytest.raises(ValueError, match=f"mode='{mode}' needs labels"):
        classifier()(images, mode=mode)


def test_an_unknown_mode_is_refused(images):
    with pytest.raises(ValueError, match=r"unknown mode 'predicted'; did you mean 'predict'"):
        classifier()(images, LABELS, mode="predicted")


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_order_is_the_same_all_the_way_and_changes_no_result(images, channels_last):
    model = classifier(channels_last=channels_last).eval()
    order = torch.channels_last if channels_last else torch.contiguous_format
    assert model.backbone.layer1[0].conv1.weight.is_contiguous(memory_format=order)
    assert model.prepare(images).is_contiguous(memory_format=order)
    with torch.no_grad():
        assert model.backbone(model.prepare(images))[-1].is_contiguous(memory_format=order)
        assert torch.allclose(model(images), classifier(channels_last=not channels_last).eval()(images), atol=1e-5)


def test_fewer_than_two_classes_are_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        classifier(num_classes=1)


def test_a_backbone_that_is_built_already_is_taken_as_it_is():
    backbone = EANResNetCIFAR(20, scheme="none")
    model = ImageClassifier(backbone, 10)
    assert model.backbone is backbone
    assert isinstance(model.fc, nn.Linear)
    assert model.fc.in_features == 64


# ---------------------------------------------------------------- the metric

NAN = float("nan")


@pytest.mark.parametrize(
    ("logits", "label", "rank"),
    [
        ([3.0, 2.0, 1.0], 0, 0),
        ([3.0, 2.0, 1.0], 1, 1),
        ([3.0, 2.0, 1.0], 2, 2),
        ([2.0, 2.0, 1.0], 0, 1),  # a tie is not right
        ([1.0, 1.0, 1.0], 2, 2),
        ([NAN, NAN, NAN], 0, 2),
        ([NAN, 2.0, 1.0], 1, 1),  # nor is a label beside a NaN
        ([float("-inf"), 0.0, 0.0], 0, 2),
    ],
)
def test_the_rank_counts_classes_scored_at_least_as_high(logits, label, rank):
    assert label_ranks(torch.tensor([logits]), torch.tensor([label])).tolist() == [rank]


def test_topk_is_the_share_of_labels_among_the_k_best():
    metric = TopK((1, 2, 5))
    metric.process(None, [{"rank": rank, "label": label} for rank, label in ((0, 7), (1, 2), (4, 2))])
    metric.process(None, [{"rank": 0, "label": 0}])
    assert metric.evaluate(4) == {"accuracy/top1": 50.0, "accuracy/top2": 75.0, "accuracy/top5": 100.0}
    low, high = metric.intervals["accuracy/top1"]
    assert (low, high) == pytest.approx((15.0, 85.0), abs=0.1)  # Wilson's, of 2 in 4
    assert metric.intervals["accuracy/top5"] == pytest.approx((51.0, 100.0), abs=0.1)


def test_topk_cuts_off_the_repetitions_that_fill_up_an_epoch():
    metric = METRICS.build({"type": "TopK"})
    metric.process(None, [{"rank": rank, "label": 3} for rank in (0, 0, 1, 1)])
    assert metric.evaluate(2) == {"accuracy/top1": 100.0}
    assert metric.correct["bits"] == "c0"


def test_topk_keeps_which_images_were_right_and_tells_other_images_apart():
    def measured(*pairs):
        metric = TopK()
        metric.process(None, [{"rank": rank, "label": label} for rank, label in pairs])
        metric.evaluate(len(pairs))
        return metric.correct

    first = measured((0, 7), (1, 12), (0, 2))
    assert first["bits"] == "a0"  # 101, filled up
    assert measured((1, 7), (0, 12), (0, 2)) == {"bits": "60", "labels": first["labels"]}
    assert measured((0, 12), (1, 7), (0, 2))["labels"] != first["labels"]  # another order
    assert measured((0, 71), (1, 2), (0, 2))["labels"] != first["labels"]


def test_a_backbone_made_for_the_classifier_returns_what_the_classifier_needs():
    config = {"type": "EANResNetCIFAR", "depth": 20, "scheme": "full", "base_channels": 4}
    assert ImageClassifier(config, 10).backbone.out_indices == (2,)
    assert ImageClassifier({**config, "out_indices": (0, 2)}, 10).backbone.out_indices == (0, 2)
