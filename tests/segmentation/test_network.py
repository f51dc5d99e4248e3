import copy

import mmseg.registry
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.nn import functional as F

from ean_core.common.config import load_config
from ean_core.inference import deploy
from ean_core.networks import build_network, check_settings
from tasks.segmentation.network import tested_size as size_of

from .conftest import SETTINGS


def sample(height, width, labels=None):
    made = SegDataSample(metainfo={"ori_shape": (height, width), "img_shape": (height, width)})
    if labels is not None:
        made.gt_sem_seg = PixelData(data=labels)
    return made


def test_it_computes_what_mmsegmentations_own_does(network):
    with DefaultScope.overwrite_default_scope("mmseg"):
        theirs = mmseg.registry.MODELS.build(
            {**SETTINGS, "type": "EncoderDecoder", "test_cfg": {"mode": "whole"}}
        ).eval()
    theirs.load_state_dict(network.state_dict())
    # in double precision, for sums in another memory order differ by more than 1e-5 on some processors
    network, theirs = copy.deepcopy(network).double(), theirs.double()
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    labels = torch.randint(0, 21, (2, 1, 64, 96))
    samples = [sample(64, 96, each) for each in labels]
    with torch.no_grad():
        assert torch.allclose(network(images), theirs(images), atol=1e-9)
        ours, expected = (model(images, samples, mode="loss") for model in (network, theirs))
        assert ours.keys() == expected.keys()
        assert all(torch.allclose(ours[key], expected[key], atol=1e-9) for key in ours)


def test_images_are_brought_to_the_tested_size_and_answers_back(network):
    image = torch.randn(1, 3, 40, 100)
    assert size_of((40, 100), 64) == (64, 160)
    with torch.no_grad():
        (found,) = network(image, [sample(40, 100)], mode="predict")
        resized = F.interpolate(image, (64, 160), mode="bilinear", align_corners=False)
        logits = F.interpolate(network(resized), (64, 160), mode="bilinear", align_corners=False)
        expected = F.interpolate(logits, (40, 100), mode="bilinear", align_corners=False)
    assert found.pred_sem_seg.data.shape == (1, 40, 100)
    assert torch.allclose(found.seg_logits.data, expected[0], atol=1e-5)
    assert size_of((40, 400), 64) == (26, 256)  # the longer side is four times 64 at most


def test_padded_images_are_not_resized(network):
    padded = sample(40, 100)
    padded.set_metainfo({"img_padding_size": [0, 4, 0, 0]})
    with pytest.raises(ValueError, match="shorter_side needs images without padding"):
        network(torch.zeros(1, 3, 40, 104), [padded], mode="predict")


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (100, 1000), (512, 512), (1, 7)])
def test_the_tested_size_is_that_of_mmsegmentations_resize(shape):
    from mmcv.transforms import Resize

    resize = Resize(scale=(2048, 512), keep_ratio=True)
    expected = resize({"img": torch.zeros(*shape, 3).numpy(), "img_shape": shape})["img_shape"]
    assert all(abs(a - b) <= 1 for a, b in zip(size_of(shape, 512), expected, strict=True))


def test_deployed_it_says_the_same(network):
    model = build_network(SETTINGS).eval().double()
    model.load_state_dict(network.state_dict())
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected, got = model(image), deploy(model)(image)
    assert (got - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_weights_are_in_channels_last_order(network):
    weights = [p for p in network.parameters() if p.ndim == 4 and p.shape[2] > 1]
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


@pytest.mark.parametrize("change", [lambda x: x[0], lambda x: x.byte()])
def test_what_is_not_a_batch_of_images_is_refused(network, change):
    with pytest.raises(ValueError, match=r"takes float images \(N, 3, H, W\), got torch"):
        network(change(torch.zeros(1, 3, 64, 64)))


def test_settings_of_segmentors_may_be_published():
    check_settings(SETTINGS, "it")
    for name in ("resnet20_se_voc2012", "resnet50_se_voc2012", "resnet50_se_ade20k"):
        model = load_config(name).model.to_dict()
        del model["backbone"]["init_cfg"]
        check_settings(model, name)


@pytest.mark.parametrize("attention", ["se", "sge", "dia"])
def test_the_papers_network_is_mmsegmentations_pspnet(attention):
    from importlib.util import find_spec
    from pathlib import Path

    from mmengine.config import Config

    (package,) = find_spec("mmseg").submodule_search_locations
    path = Path(package, ".mim/configs/pspnet/pspnet_r50-d8_4xb4-20k_voc12aug-512x512.py")
    if not path.is_file():
        pytest.skip("this mmsegmentation comes without its configs")
    theirs = Config.fromfile(path)
    theirs.model.update(pretrained=None)
    ours = load_config(
        f"resnet50_{attention}_voc2012aug", ["model.backbone.scheme=none", "model.backbone.init_cfg=None"]
    )
    with torch.device("meta"), DefaultScope.overwrite_default_scope("mmseg"):
        expected = mmseg.registry.MODELS.build(
            {**theirs.model, "backbone": {**theirs.model.backbone, "type": "ResNet"}}
        )
        made = mmseg.registry.MODELS.build(ours.model)
    shapes = [{name: tuple(value.shape) for name, value in m.state_dict().items()} for m in (made, expected)]
    assert shapes[0] == shapes[1]
    for key in ("lr", "momentum", "weight_decay"):
        assert ours.optim_wrapper.optimizer[key] == theirs.optim_wrapper.optimizer[key]
    assert ours.train_cfg.max_epochs * (10582 // ours.train_dataloader.batch_size) == pytest.approx(20000, rel=0.01)
