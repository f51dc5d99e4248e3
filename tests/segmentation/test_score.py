"""Segmentors' schemes scored by mIoU: like a validation of each scheme alone, and searched through the command."""

import copy
import json
from itertools import product
from pathlib import Path

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from torch.utils.data import DataLoader

from ean_core import ConnectionScheme
from ean_core.networks import build_network
from ean_core.search.evaluator import RecalibratedEvaluator, SupernetEvaluator
from ean_core.search.fold import measure_constants
from ean_core.weights.files import save_weights
from tasks.segmentation.dataset import PreparedVOC
from tasks.segmentation.metrics import ClassIoU

ROOT = Path(__file__).resolve().parents[2]
ALL = [ConnectionScheme((2, 2, 2), bits) for bits in product((0, 1), repeat=6)]
PIPELINE = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
HEAD = {
    "num_classes": 21,
    "channels": 16,
    "norm_cfg": {"type": "BN"},
    "align_corners": False,
}
SETTINGS = {
    "type": "Segmentor",
    "backbone": {
        "type": "EANResNet",
        "depth": 18,
        "attention": "SE",
        "scheme": "full",
        "num_stages": 3,
        "strides": (1, 2, 1),
        "base_channels": 16,
        "stem_channels": 8,
    },
    "decode_head": {**HEAD, "type": "PSPHead", "in_channels": 64, "in_index": 2},
    "auxiliary_head": {**HEAD, "type": "FCNHead", "in_channels": 32, "in_index": 1, "num_convs": 1},
    "data_preprocessor": {"type": "SegDataPreProcessor", "mean": [120.0] * 3, "std": [60.0] * 3, "size": (64, 80)},
    "test_cfg": {"mode": "whole", "shorter_side": 64},
}
#: A head that reads several feature maps.
UPER = {**HEAD, "type": "UPerHead", "in_channels": [16, 32, 64], "in_index": [0, 1, 2], "pool_scales": (1, 2)}


@pytest.fixture
def images(data, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(data))
    return PreparedVOC("val", pipeline=PIPELINE, test_mode=True)


def network(**more):
    """A supernet with weights and statistics far from their initial values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = build_network(copy.deepcopy({**SETTINGS, **more}))
        for name, tensor in made.state_dict().items():
            if tensor.dim() == 1 and "attention" not in name:
                tensor.uniform_(*((0.5, 1.5) if name.endswith(("weight", "var")) else (-0.5, 0.5)))
            elif "attention" in name:
                tensor.mul_(3).add_(0.3 * torch.randn_like(tensor))
    return made.eval()


def loader(images):
    return DataLoader(images, 1, collate_fn=pseudo_collate)


def validated(segmentor, images, scheme):
    """mIoU of one scheme as in a validation, which rounds it to two digits."""
    segmentor.backbone.set_scheme(scheme)
    evaluator = Evaluator(ClassIoU())
    evaluator.dataset_meta = images.metainfo
    with torch.no_grad():
        for batch in loader(images):
            evaluator.process(data_samples=segmentor.val_step(batch), data_batch=batch)
    segmentor.backbone.set_scheme("full")
    return pytest.approx(evaluator.evaluate(len(images))["mIoU"], abs=0.00501)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"test_cfg": {"mode": "slide", "crop_size": (40, 48), "stride": (24, 32)}},
        {"decode_head": UPER},
    ],
)
def test_schemes_score_as_a_validation_of_each(images, more):
    segmentor = network(**more)
    evaluator = SupernetEvaluator(segmentor, loader(images), "data")
    chosen = ALL[::13]
    scores = evaluator.evaluate(chosen)
    assert scores == [validated(segmentor, images, scheme) for scheme in chosen]
    assert len({round(score, 2) for score in scores}) > 2
    assert (evaluator.metric.label, evaluator.metric.unit, evaluator.metric.less_is_better) == ("mIoU", "%", False)
    assert all(0 < score.standard_error < 10 for score in scores if score)
    alone = [SupernetEvaluator(segmentor, loader(images), "data").evaluate([scheme])[0] for scheme in chosen[:2]]
    assert alone == scores[:2]  # to the last bit
    assert not any("seg_logits" in sample for batch in evaluator.batches for sample in batch["data_samples"])


def test_constants_in_the_place_of_gates_score_as_a_validation(images):
    segmentor = network()
    measure_constants(segmentor, loader(images))
    chosen = [ConnectionScheme.parse(text) for text in ("c1-11-11", "cc-1c-11", "11-11-cc")]
    scores = SupernetEvaluator(segmentor, loader(images), "data").evaluate(chosen)
    assert scores == [validated(segmentor, images, scheme) for scheme in chosen]
    assert len({*scores}) == 3


def test_norms_of_the_head_are_estimated_again_too(images):
    segmentor = network()
    plain = SupernetEvaluator(segmentor, loader(images), "data")
    calibration = [pseudo_collate([images[0], images[1]]), pseudo_collate([images[2], images[3]])]
    careful = RecalibratedEvaluator(plain, calibration, "four images")
    before = {name: value.clone() for name, value in segmentor.state_dict().items()}
    scheme = ALL[37]
    found = careful.evaluate([scheme])

    other = network()
    other.backbone.set_scheme(scheme)
    norms = [module for module in other.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for batch in calibration:
            other(**other.data_preprocessor(batch, True), mode="tensor")
    other.eval()
    full = copy.deepcopy(other)
    assert found == [validated(full, images, scheme)] != plain.evaluate([scheme])
    assert careful.key["calibration"] == "four images"
    assert all(torch.equal(value, before[name]) for name, value in segmentor.state_dict().items())


def test_the_fingerprint_tells_images_masks_and_how_they_are_read(images):
    scorer = SupernetEvaluator(network(), (), "data", images=6).scorer
    before = scorer.fingerprint(images, {"pipeline": PIPELINE})
    assert scorer.fingerprint(images, {"pipeline": PIPELINE}) == before
    assert scorer.fingerprint(images, {"pipeline": PIPELINE[::-1]}) != before
    train = PreparedVOC("train", pipeline=PIPELINE, test_mode=True)
    assert scorer.fingerprint(train, {"pipeline": PIPELINE}) != before
    network_of_other_size = network(test_cfg={"mode": "whole", "shorter_side": 48})
    other = SupernetEvaluator(network_of_other_size, (), "data", images=6).scorer
    assert other.fingerprint(images, {"pipeline": PIPELINE}) != before


CONFIG = """
_base_ = {base!r}
model = dict(
    data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3, size=(64, 80), bgr_to_rgb=False),
    test_cfg=dict(shorter_side=64),
    backbone=dict(base_channels=16, stem_channels=8, dilations=(1, 1, 1), contract_dilation=False, init_cfg=None),
    decode_head=dict(in_channels=64, channels=16, pool_scales=(1, 2, 3, 6)))
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(split='train', pipeline={pipeline!r}))
val_dataloader = dict(num_workers=0, dataset=dict(split='val'))
search = dict(finalists=dict(count=2, images=8), strategy=dict(_delete_=True, type='random', evaluations=6))
"""


@pytest.mark.usefixtures("images")
def test_a_search_compares_by_miou_with_an_interval(ean, ledger_lines, tmp_path):
    crop = [*PIPELINE[:2], {"type": "RandomCrop", "crop_size": (48, 48)}, PIPELINE[2]]
    config = tmp_path / "search_small.py"
    base = str(ROOT / "configs/search/search_resnet18_se_voc2012.py")
    config.write_text(CONFIG.format(base=base, pipeline=crop))
    state = {name: value for name, value in network().state_dict().items() if "auxiliary" not in name}
    save_weights(state, tmp_path / "supernet.safetensors", {})
    words = ["--supernet", tmp_path / "supernet.safetensors", "--work-dir", tmp_path / "run"]
    status, out = ean("search", config, *words)
    assert not status, out
    key, *lines = ledger_lines(tmp_path / "run/ledger.jsonl")
    assert key["metric"]["name"] == "mIoU"
    assert key["finalists"]["calibration"].startswith("8 of ")
    finalists = [line for line in lines if line["step"] == "finalists"]
    assert all(line["mIoU"] != line["supernet_mIoU"] for line in finalists)
    record = json.loads((tmp_path / "run/search.json").read_text())
    assert "norms" not in record
    for each in record["differences"].values():
        low, high = each["interval"]
        assert low <= each["value"] <= high
    assert f"mIoU {record['scheme']['mIoU']:.2f} ± {record['scheme']['standard_error']:.2f} %" in out
    assert "95 % interval" in out
