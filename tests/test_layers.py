import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from ean_core.layers import BasicBlock, Bottleneck, LayerFactory


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_a_convolution_divides_the_size_by_its_stride(kernel, stride, dilation):
    conv = LayerFactory().conv(3, 5, kernel, stride=stride, dilation=dilation)
    assert conv(torch.zeros(1, 3, 16, 32)).shape == (1, 5, 16 // stride, 32 // stride)
    assert conv.dilation == (dilation, dilation)


@pytest.mark.parametrize(
    ("factory", "biased"),
    [
        (LayerFactory(), False),
        (LayerFactory(bias=True), True),
        (LayerFactory(conv_cfg={"type": "Conv2d"}), False),
        (LayerFactory(conv_cfg={"type": "Conv2d", "bias": True}), True),
    ],
)
def test_convolutions_have_a_bias_only_on_request(factory, biased):
    assert (factory.conv(2, 3, 3).bias is not None) == biased


@pytest.mark.parametrize(
    ("norm_cfg", "kind"),
    [
        ({"type": "BN"}, nn.BatchNorm2d),
        ({"type": "BN2d", "eps": 1e-3, "momentum": 0.01}, nn.BatchNorm2d),
        ({"type": "SyncBN", "requires_grad": True}, nn.SyncBatchNorm),
        ({"type": "GN", "num_groups": 4}, nn.GroupNorm),
        ({"type": "IN", "affine": True}, nn.InstanceNorm2d),
    ],
)
def test_norms_are_made_from_openmmlabs_configs_and_leave_these_alone(norm_cfg, kind):
    before = dict(norm_cfg)
    norm = LayerFactory(norm_cfg=norm_cfg).norm(8)
    assert type(norm) is kind
    assert norm.weight.shape == (8,)
    assert norm_cfg == before
    for name in norm_cfg.keys() - {"type", "requires_grad"}:
        assert getattr(norm, name) == norm_cfg[name]


def test_a_norm_can_be_made_without_gradients():
    norm = LayerFactory(norm_cfg={"type": "BN", "requires_grad": False}).norm(8)
    assert not any(p.requires_grad for p in norm.parameters())


def test_layers_registered_in_mmengine_are_found():
    @MODELS.register_module()
    class CountingConv(nn.Conv2d):
        pass

    @MODELS.register_module()
    class CountingNorm(nn.BatchNorm2d):
        pass

    try:
        factory = LayerFactory(conv_cfg={"type": "CountingConv"}, norm_cfg={"type": "CountingNorm"})
        assert type(factory.conv(3, 4, 3)) is CountingConv
        assert type(factory.norm(4)) is CountingNorm
    finally:
        MODELS.module_dict.pop("CountingConv")
        MODELS.module_dict.pop("CountingNorm")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LayerFactory(norm_cfg={"type": "SynchBN"}).norm(4),
            "unknown norm_cfg type 'SynchBN'; did you mean 'SyncBN'.*'GN'",
        ),
        (lambda: LayerFactory(conv_cfg={"type": "Conv3"}).conv(3, 4, 3), "unknown conv_cfg type 'Conv3'.*'Conv2d'"),
    ],
)
def test_an_unknown_layer_is_answered_with_those_there_are(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("style", ["pytorch", "caffe"])
def test_the_branches_of_a_block_are_its_residual_branch_and_its_shortcut(block, stride, style):
    layers = LayerFactory()
    downsample = layers.conv(8, 4 * block.expansion, 1, stride=stride)
    made = block(8, 4, layers, stride=stride, style=style, downsample=downsample).eval()
    nn.init.constant_(made.last_norm.bias, 7.0)
    nn.init.zeros_(made.last_norm.weight)
    x = torch.randn(2, 8, 6, 6)
    residual, shortcut = made.branches(x)
    assert torch.equal(residual, torch.full((2, 4 * block.expansion, 6 // stride, 6 // stride), 7.0))
    assert torch.equal(shortcut, downsample(x))
    assert torch.equal(made(x), (residual + shortcut).relu())


def test_without_a_projection_the_shortcut_is_the_input_unchanged():
    made = Bottleneck(16, 4, LayerFactory())
    x = torch.randn(2, 16, 6, 6)
    before = x.clone()
    _, shortcut = made.branches(x)
    assert shortcut is x
    assert torch.equal(x, before)


@pytest.mark.parametrize(("style", "strides"), [("pytorch", (1, 2)), ("caffe", (2, 1))])
def test_the_style_says_which_convolution_of_a_bottleneck_strides(style, strides):
    made = Bottleneck(8, 4, LayerFactory(), stride=2, style=style)
    assert (made.conv1.stride[0], made.conv2.stride[0]) == strides


@pytest.mark.parametrize("channels", [4, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_narrow_strided_1x1_convolution_is_the_usual_one(channels, bias):
    """Its gradients in channels-last order are where oneDNN writes past its memory."""
    conv = LayerFactory(bias=bias).conv(channels, 8, 1, stride=2).to(memory_format=torch.channels_last)
    assert (type(conv) is nn.Conv2d) == (channels == 16)
    usual = nn.Conv2d(channels, 8, 1, stride=2, bias=bias)
    usual.load_state_dict(conv.state_dict())
    x = torch.randn(2, channels, 7, 8)
    for _ in range(20):
        conv.zero_grad()
        out = conv(x.to(memory_format=torch.channels_last))
        out.square().sum().backward()
    expected = usual(x)
    expected.square().sum().backward()
    assert torch.allclose(out, expected, atol=1e-5)
    assert torch.allclose(conv.weight.grad, usual.weight.grad, atol=1e-3)
