"""EANResNet in configs of mmsegmentation, mmdetection and mmpretrain that this project does not own."""

import copy
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData

from ean_core import EANResNet
from ean_core.common.mmcv_ops import StandIn

PSPNET = "pspnet/pspnet_r50-d8_4xb4-20k_voc12aug-512x512.py"
SEGMENTATION = [
    PSPNET,
    "fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py",
    "deeplabv3plus/deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512.py",
    "upernet/upernet_r50_4xb4-20k_voc12aug-512x512.py",
]
EVERY_STAGE = {"layer1", "layer2", "layer3", "layer4"}
USERS = """
_base_ = {base!r}
custom_imports = dict(imports=['ean_core'], allow_failed_imports=False)
model = dict({changes}backbone=dict(type='EANResNet', {options}))
"""


def of_library(library, name):
    """A config that a library's wheel ships."""
    pytest.importorskip("mmcv")
    pytest.importorskip(library)
    (package,) = find_spec(library).submodule_search_locations
    path = Path(package, ".mim", "configs", name)
    if not path.is_file():
        pytest.skip(f"this {library} comes without its configs")
    return path


def users(folder, base, changes="", options="", narrow=True):
    """A user's config, which changes another one by two lines; networks get an eighth of their width, to be quick."""
    path = folder / "users.py"
    path.write_text(USERS.format(base=str(base), changes=changes, options=options))
    config = Config.fromfile(path)
    if narrow:
        narrow_down(config.model)
    return config


def narrow_down(model):
    model.backbone.base_channels = model.backbone.stem_channels = 8
    for name in ("decode_head", "auxiliary_head", "neck", "head"):
        part = model.get(name) or {}
        for key in ("in_channels", "c1_in_channels", "channels", "c1_channels"):
            if key in part:
                widths = part[key]
                part[key] = [width // 8 for width in widths] if isinstance(widths, list) else widths // 8


def build(config, scope="mmseg"):
    """A network as mmengine's runner builds it, for a machine with one process."""
    with DefaultScope.overwrite_default_scope(config.get("default_scope", scope)):
        return revert_sync_batchnorm(MODELS.build(config.model))


def segmented(size=64):
    from mmseg.structures import SegDataSample

    labels = torch.arange(size) // (size // 4)  # four classes, in stripes
    maps = labels.expand(1, size, size).clone()
    return SegDataSample(
        gt_sem_seg=PixelData(data=maps), metainfo={"img_shape": (size, size), "ori_shape": (size, size)}
    )


def detected(size=64):
    from mmdet.structures import DetDataSample

    boxes = torch.tensor([[4.0, 4.0, 40.0, 44.0], [20.0, 8.0, 60.0, 60.0]])
    instances = InstanceData(bboxes=boxes, labels=torch.tensor([3, 7]))
    shapes = {"img_shape": (size, size), "ori_shape": (size, size), "scale_factor": (1.0, 1.0)}
    return DetDataSample(gt_instances=instances, metainfo=shapes)


def classified(size=64):
    from mmpretrain.structures import DataSample

    return DataSample(metainfo={"img_shape": (size, size)}).set_gt_label(3)


def train(model, sample):
    """Two steps, since blocks begin as the identity, where no gradient reaches attention; what they changed."""
    before = copy.deepcopy(model.state_dict())
    # moves what has a gradient, however small, and nothing else
    steps = OptimWrapper(torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01))
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(2):
        images = [torch.randint(256, (3, 64, 64), generator=generator).to(torch.uint8) for _ in range(2)]
        losses = model.train_step({"inputs": images, "data_samples": [sample(), sample()]}, optim_wrapper=steps)
        assert all(torch.isfinite(loss).all() for name, loss in losses.items() if "loss" in name)
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def attention_in(names):
    """The attention modules that parameters of a whole network belong to."""
    return {name.split(".")[1] for name in names if name.startswith("backbone.") and ".attention." in name}


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("name", SEGMENTATION, ids=lambda name: name.split("/")[0])
def test_a_segmentation_network_trains_with_two_lines_changed(name, tmp_path):
    base = of_library("mmseg", name)
    assert Config.fromfile(base).model.pretrained == "open-mmlab://resnet50_v1c"
    model = build(users(tmp_path, base, "pretrained=None, "))
    assert type(model.backbone) is EANResNet
    assert (model.backbone.init_cfg, str(model.backbone.scheme)) == (None, "010-0010-110011-001")
    model.init_weights()
    assert (
        attention_in(train(model, segmented))
        == {name.split(".")[0] for name in model.backbone.attentions()}
        == EVERY_STAGE
    )
    with torch.no_grad():
        (found,) = model.eval().test_step({"inputs": [torch.zeros(3, 64, 64)], "data_samples": [segmented()]})
    assert found.pred_sem_seg.data.shape == (1, 64, 64)


def test_a_segmentation_network_has_its_full_width_without_further_changes(tmp_path):
    config = users(tmp_path, of_library("mmseg", PSPNET), "pretrained=None, ", narrow=False)
    with torch.device("meta"):
        model = build(config)
        features = model.backbone(torch.zeros(2, 3, 64, 64))
        assert model.decode_head(features).shape == (2, 21, 8, 8)
        assert model.auxiliary_head(features).shape == (2, 21, 8, 8)


LAZY_BASE = """
from mmseg.models import EncoderDecoder, FCNHead, PSPHead, ResNetV1c, SegDataPreProcessor

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(type=SegDataPreProcessor, bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(64, 64)),
    pretrained='open-mmlab://resnet50_v1c',
    backbone=dict(
        type=ResNetV1c, depth=50, base_channels=8, num_stages=4, out_indices=(0, 1, 2, 3), dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1), norm_cfg=norm_cfg, norm_eval=False, style='pytorch', contract_dilation=True),
    decode_head=dict(
        type=PSPHead, in_channels=256, in_index=3, channels=16, num_classes=4, norm_cfg=norm_cfg, align_corners=False),
    auxiliary_head=dict(
        type=FCNHead, in_channels=128, in_index=2, channels=16, num_classes=4, norm_cfg=norm_cfg, align_corners=False),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
"""
LAZY_USERS = """
from mmengine.config import read_base

from ean_core import EANResNet

with read_base():
    from .base import *

model.update(pretrained=None)
model['backbone'].update(type=EANResNet)
"""


def test_a_segmentation_network_of_a_lazy_config_trains(tmp_path):
    pytest.importorskip("mmcv")
    pytest.importorskip("mmseg")
    (tmp_path / "base.py").write_text(LAZY_BASE)
    (tmp_path / "users.py").write_text(LAZY_USERS)
    model = build(Config.fromfile(tmp_path / "users.py"))
    assert type(model.backbone) is EANResNet
    model.init_weights()
    assert (
        attention_in(train(model, segmented))
        == {name.split(".")[0] for name in model.backbone.attentions()}
        == EVERY_STAGE
    )


@pytest.mark.slow
def test_retinanet_trains(tmp_path):
    base = of_library("mmdet", "retinanet/retinanet_r50_fpn_1x_coco.py")
    config = users(tmp_path, base, options="init_cfg=None")
    config.model.bbox_head.update(stacked_convs=1)
    config.model.neck.out_channels = config.model.bbox_head.in_channels = config.model.bbox_head.feat_channels = 32
    model = build(config)
    assert (type(model.backbone), model.backbone.init_cfg) == (EANResNet, None)
    model.init_weights()
    changed = train(model, detected)
    assert attention_in(changed) == EVERY_STAGE - {"layer1"}  # frozen_stages=1
    assert not any(name.startswith(("backbone.conv1", "backbone.layer1")) for name in changed)


@pytest.fixture
def faster_rcnn(tmp_path):
    config = users(tmp_path, of_library("mmdet", "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"), options="init_cfg=None")
    config.model.roi_head.bbox_head.fc_out_channels = 32
    return build(config)


@pytest.mark.slow
def test_faster_rcnn_builds(faster_rcnn):
    assert (type(faster_rcnn.backbone), faster_rcnn.backbone.out_channels) == (EANResNet, (32, 64, 128, 256))


@pytest.mark.slow
def test_faster_rcnn_trains(faster_rcnn):
    if isinstance(importlib.import_module("mmcv._ext"), StandIn):
        pytest.skip("NMS and RoIAlign are operators of the full mmcv, and this is one without")
    faster_rcnn.init_weights()
    assert attention_in(train(faster_rcnn, detected)) == EVERY_STAGE - {"layer1"}


@pytest.mark.slow
def test_a_classifier_of_mmpretrain_trains(tmp_path):
    model = build(users(tmp_path, of_library("mmpretrain", "resnet/resnet50_8xb32_in1k.py"), options="init_cfg=None"))
    assert type(model).__module__.startswith("mmpretrain.")  # not ours, which has the same name in mmengine's registry
    assert (type(model.backbone), model.backbone.out_indices) == (EANResNet, (3,))
    model.init_weights()
    assert attention_in(train(model, classified)) == EVERY_STAGE


# ---------------------------------------------------------------- arguments


V1C = {"deep_stem": True}
V1D = {"deep_stem": True, "avg_down": True}


@pytest.fixture
def pspnet_backbone():
    """The backbone of mmsegmentation's PSPNet, narrower."""
    config = Config.fromfile(of_library("mmseg", PSPNET)).model.backbone
    return {**config, "norm_cfg": {"type": "BN"}, "base_channels": 8, "stem_channels": 8}


def both(config, kind, ours, options, scheme="none"):
    """mmsegmentation's network and ours, from one config."""
    with DefaultScope.overwrite_default_scope("mmseg"):
        theirs = MODELS.build({**config, **options, "type": kind})
        mine = MODELS.build({**config, **options, **ours, "type": "EANResNet", "scheme": scheme})
    return theirs, mine


@pytest.mark.parametrize(
    ("kind", "ours", "options"),
    [
        ("ResNetV1c", V1C, {}),
        ("ResNetV1c", V1C, {"multi_grid": (1, 2, 4), "in_channels": 4, "stem_channels": 12}),
        ("ResNetV1c", V1C, {"multi_grid": (1, 2, 4), "contract_dilation": False}),
        ("ResNetV1d", V1D, {}),
        ("ResNetV1d", V1D, {"strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1), "base_channels": 16}),
        ("ResNet", {}, {}),
        ("ResNet", {}, {"in_channels": 1, "stem_channels": 12, "style": "caffe"}),
        ("ResNet", {}, {"conv_cfg": {"type": "ConvWS"}}),
        ("ResNet", {}, {"deep_stem": True, "avg_down": True}),
        ("ResNet", {}, {"depth": 18, "avg_down": True}),
    ],
)
def test_without_attention_it_is_mmsegmentations_network(pspnet_backbone, kind, ours, options):
    theirs, mine = both(pspnet_backbone, kind, ours, options)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in theirs.state_dict().items():
        if tensor.dim() == 1:
            low = 0.5 if name.endswith(("weight", "running_var")) else -0.5
            tensor.uniform_(low, low + 1, generator=generator)
    mine.load_state_dict(theirs.state_dict())
    x = torch.randn(2, options.get("in_channels", 3), 64, 96, generator=generator)
    for training in (False, True):
        for network in (theirs, mine):
            network.train(training)
        for found, expected in zip(mine(x), theirs(x), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize(("kind", "ours"), [("ResNetV1c", V1C), ("ResNetV1d", V1D), ("ResNet", {})])
def test_attention_adds_parameters_and_renames_none(pspnet_backbone, kind, ours):
    with torch.device("meta"):
        theirs, mine = both(pspnet_backbone, kind, ours, {"base_channels": 64, "stem_channels": 64}, scheme="full")
    shapes = {name: value.shape for name, value in mine.state_dict().items() if ".attention." not in name}
    assert shapes == {name: value.shape for name, value in theirs.state_dict().items()}


@pytest.mark.parametrize("zero", [True, False])
def test_the_same_norms_begin_at_zero(pspnet_backbone, zero):
    networks = both(pspnet_backbone, "ResNetV1c", V1C, {"zero_init_residual": zero})
    for network in networks:
        network.init_weights()
    theirs, mine = (
        {name for name, value in n.named_parameters() if value.ndim == 1 and not value.any()} for n in networks
    )
    assert mine == theirs
    assert ("layer4.2.bn3.weight" in mine) == zero


# ---------------------------------------------------------------- weights


@pytest.fixture
def pretrained(tmp_path, pspnet_backbone):
    """Weights of mmsegmentation's ResNetV1c, in a file as the library writes them."""
    with DefaultScope.overwrite_default_scope("mmseg"):
        network = MODELS.build(pspnet_backbone)
    network.init_weights()
    torch.save({"state_dict": network.state_dict(), "meta": {}}, tmp_path / "resnet50_v1c.pth")
    return tmp_path / "resnet50_v1c.pth"


def test_pretrained_of_the_whole_network_loads_into_a_deep_stem(pretrained, tmp_path):
    changes = f"pretrained={str(pretrained)!r}, "
    model = build(users(tmp_path, of_library("mmseg", PSPNET), changes, "deep_stem=True"))
    model.init_weights()
    state = torch.load(pretrained, weights_only=True)["state_dict"]
    found = model.backbone.state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    assert all(".attention." in name for name in found.keys() - state.keys())


def test_pretrained_for_another_stem_is_refused_and_says_what_to_add(pretrained, tmp_path):
    model = build(users(tmp_path, of_library("mmseg", PSPNET), f"pretrained={str(pretrained)!r}, "))
    with pytest.raises(ValueError, match=r"resnet50_v1c.pth has a deep stem, as in ResNetV1c, .*add deep_stem=True"):
        model.init_weights()


@pytest.mark.parametrize("where", ["pretrained", "init_cfg"])
def test_weights_of_another_network_are_refused(where, tmp_path):
    base = of_library("mmseg", PSPNET)
    torch.save({"patch_embed.proj.weight": torch.ones(1)}, tmp_path / "vit.pth")
    checkpoint = str(tmp_path / "vit.pth")
    changes, options = f"pretrained={checkpoint!r}, ", ""
    if where == "init_cfg":
        changes, options = "pretrained=None, ", f"init_cfg=dict(type='Pretrained', checkpoint={checkpoint!r})"
    model = build(users(tmp_path, base, changes, options))
    with pytest.raises(ValueError, match=r"no key of .*vit.pth matches EANResNet: its keys start with patch_embed"):
        model.init_weights()
