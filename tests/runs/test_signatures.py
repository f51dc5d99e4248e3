import pytest
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.utils import deprecated_api_warning

from ean_core import EANResNet, EANResNetCIFAR, ImageClassifier
from ean_core.common.config import load_config
from ean_core.runs.signatures import arguments_of, check_signatures
from tasks.crowd_counting.network import CrowdCounter

from ..test_openmmlab import of_library

DIGITS = "resnet20_se_digits"
#: Configs of other libraries, with ``**kwargs`` of all kinds.
THEIRS = [
    ("mmseg", "pspnet/pspnet_r50-d8_4xb4-20k_voc12aug-512x512.py"),
    ("mmseg", "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py"),
    ("mmdet", "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"),
    ("mmdet", "vfnet/vfnet_r101_fpn_1x_coco.py"),  # passes kwargs to the constructor after the next
    ("mmpretrain", "resnet/resnet50_8xb32_in1k.py"),
]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train_cfg.max_epoch=3", r"^train_cfg has no 'max_epoch'; did you mean train_cfg.max_epochs\?$"),
        ("test_cfg.fp6=True", r"^test_cfg \(TestLoop\) has no 'fp6'; did you mean test_cfg.fp16\?$"),
        ("model.backbne.scheme=full", r"^model \(ImageClassifier\) has no 'backbne'; did you mean model.backbone\?$"),
        (
            "model.backbone.shceme=full",
            r"^model.backbone \(EANResNetCIFAR\) has no 'shceme'; .*backbone.scheme\?$",
        ),
        (
            "model.backbone.attention.reductoin=4",
            r"^model.backbone.attention \(SE\) has no 'reductoin'; did you mean model.backbone.attention.reduction\?$",
        ),
        ("model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.chekpoint=a", r"init_cfg.checkpoint\?$"),
        ("train_dataloader.bath_size=8", r"^train_dataloader has no 'bath_size'; .* train_dataloader.batch_size\?$"),
        (
            "train_dataloader.dataset.splt=val",
            r"^train_dataloader.dataset \(Digits\) has no 'splt'; .*split\?$",
        ),
        ("train_dataloader.sampler.shufle=True", r"did you mean train_dataloader.sampler.shuffle\?$"),
        ("optim_wrapper.clip_gard.max_norm=5", r"^optim_wrapper \(OptimWrapper\) has no 'clip_gard'"),
        ("optim_wrapper.clip_grad.max_nrm=5", r"^optim_wrapper.clip_grad has no 'max_nrm'; .*clip_grad.max_norm\?$"),
        ("optim_wrapper.optimizer.momentm=0", r"^optim_wrapper.optimizer \(SGD\) has no 'momentm'"),
        ("param_scheduler.pct_strt=0.1", r"^param_scheduler \(OneCycleLR\) has no 'pct_strt'; .*pct_start\?$"),
        ("test_evaluator.topp=1", r"^test_evaluator \(TopK\) has no 'topp'; did you mean test_evaluator.topk\?$"),
        ("default_hooks.chekpoint.interval=5", r"^default_hooks has no 'chekpoint'; did you mean default_hooks.check"),
        ("default_hooks.logger.intervall=5", r"did you mean default_hooks.logger.interval\?$"),
        ("randomness.sed=1", r"^randomness has no 'sed'; did you mean randomness.seed\?$"),
        ("train_cfg.max_epochs=many", r"^train_cfg.max_epochs must be an integer, got 'many'$"),
        ("train_dataloader.batch_size=1.5", r"^train_dataloader.batch_size must be an integer, got 1.5$"),
        ("optim_wrapper.optimizer.lr=high", r"^optim_wrapper.optimizer.lr must be a number, got 'high'$"),
    ],
)
def test_an_argument_that_does_not_exist_is_answered_with_the_nearest(option, message):
    config = load_config(DIGITS, option.split())
    with pytest.raises(ValueError, match=message):
        check_signatures(config)


@pytest.mark.parametrize(
    "option",
    [
        "optim_wrapper.paramwise_cfg.norm_decay_mult=0",
        "optim_wrapper.optimizer.foreach=False",
        "default_hooks.logger.priority=LOW",
        "train_dataloader.num_batch_per_epoch=3",
        "train_dataloader.pin_memory=True",
        "model.backbone.norm_cfg.requires_grad=True",
        "model.backbone.attention.identity_start=True",
        "train_cfg.val_interval=2.0",
        "custom_hooks=[{'type':'Nowhere','option':3}]",
    ],
)
def test_what_runs_is_not_refused(option):
    check_signatures(load_config(DIGITS, [option]))


def test_the_classes_of_a_library_are_those_of_its_scope():
    pytest.importorskip("mmseg")
    config = load_config("resnet20_se_voc2012", ["train_dataloader.dataset.pipeline.1.reduce_zero_lable=True"])
    with pytest.raises(ValueError, match=r"pipeline.1 \(LoadAnnotations\) has no 'reduce_zero_lable'; did you mean"):
        check_signatures(config)


@pytest.mark.parametrize(("library", "name"), THEIRS)
def test_configs_of_other_libraries_pass(library, name):
    check_signatures(Config.fromfile(of_library(library, name)))


class Open(BaseModule):
    """Uses what it does not know itself."""

    def __init__(self, width, **options):
        super().__init__(**options)
        self.options = options


class Passing(BaseModule):
    def __init__(self, width, **options):
        super().__init__(**options)


class Skipping(Passing, BaseModule):
    def __init__(self, depth, **options):
        super(Passing, self).__init__(**options)


class Renamed(BaseModule):
    @deprecated_api_warning({"breadth": "width"})
    def __init__(self, width):
        super().__init__()


class Made:
    def __new__(cls, **options):
        return super().__new__(cls)


def test_constructors_that_take_other_names_are_not_checked():
    assert arguments_of(Renamed) is None
    assert arguments_of(Made) is None


@pytest.mark.parametrize("kind", [EANResNet, EANResNetCIFAR, ImageClassifier, CrowdCounter])
def test_networks_of_this_package_are_checked(kind):
    assert "init_cfg" in arguments_of(kind)


def test_kwargs_are_followed_where_they_are_only_passed_on():
    assert arguments_of(Passing) == {"width", "init_cfg"}
    assert arguments_of(Open) is None
    assert arguments_of(Skipping) is None
