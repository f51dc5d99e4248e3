"""Kernels against the formulas in fp64 and against the modules that they speed up.

Without a GPU they run in Triton's interpreter. Triton and this package choose it when they are imported, so this file
starts itself again in a process where that is so; with a GPU, the same tests run on it as well.
"""

import importlib.util
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ean_core.attention.dia import DIA
from ean_core.attention.se import SE
from ean_core.attention.sge import SGE
from ean_core.inference import kernels, ops
from ean_core.inference.gates import DIAGate, SEGate, SGEGate

DEVICE = "cpu" if kernels.INTERPRETED else "cuda"
#: On results of about 1: rounding of the result, and of sums of tens of products.
TOLERANCE = {torch.float32: 5e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
HALVES = [torch.float16, torch.bfloat16]

on_device = pytest.mark.skipif(not (kernels.INTERPRETED or torch.cuda.is_available()), reason="needs a GPU")
on_gpu = pytest.mark.skipif(kernels.INTERPRETED or not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def inference():
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fill memory with NaN, which remains wherever a kernel does not write."""
    empty = torch.empty

    def poisoned(*args, **options):
        made = empty(*args, **options)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poisoned)


@pytest.fixture
def full_precision(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def random(*shape, mean=0.0, scale=1.0, dtype=torch.float32):
    """Normal values, in memory with NaN on both sides."""
    size = math.prod(shape)
    around = torch.full((size + 128,), torch.nan, dtype=dtype, device=DEVICE)
    around[64 : size + 64] = mean + scale * torch.randn(size, device=DEVICE)
    return around[64 : size + 64].view(shape)


def maps(n, c, h, w, dtype=torch.float32):
    """``(N, C, H, W)`` in channels-last memory."""
    return random(n, h, w, c, dtype=dtype).permute(0, 3, 1, 2)


def factors(n, groups, h, w, order, dtype=torch.float32):
    """A factor in the named memory format."""
    values = torch.rand(n, groups, h, w, device=DEVICE).to(dtype) + 0.5
    if order == "one an image":
        return values[:, :, :1, :1]  # with the strides of a map
    if order == "the same for all images":
        return values[:1, :, :1, :1].expand(n, -1, -1, -1)
    if order == "channels last":
        return values.contiguous(memory_format=torch.channels_last)
    if order == "columns first":
        return values.transpose(2, 3).contiguous().transpose(2, 3)
    assert order == "channels first"
    return values


def joined(residual, shortcut, factor, groups_last):
    """Scale, shortcut and ReLU in fp64, one channel after the other."""
    out = shortcut.double().clone()
    c = out.shape[1]
    for k in range(c):
        scale = 1.0
        if factor is not None:
            groups = factor.shape[1]
            scale = factor[:, k % groups if groups_last else k // (c // groups)].double()
        out[:, k] += scale * residual[:, k].double()
    return out.relu()


def assert_near(result, expected, dtype=torch.float32):
    assert result.dtype == dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(result.double(), expected.double(), rtol=tolerance, atol=tolerance)


ORDERS = ["one an image", "the same for all images", "channels last", "channels first", "columns first"]
SIZES = [(1, 48, 1, 1), (2, 24, 3, 5), (17, 64, 1, 1), (3, 640, 2, 3), (1, 256, 7, 7)]


@on_device
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_without_a_factor_the_shortcut_is_added_in_place(size, dtype):
    residual, shortcut = maps(*size, dtype=dtype), maps(*size, dtype=dtype)
    kept = shortcut.clone()
    expected = joined(residual, shortcut, None, False)
    result = kernels.scale_add_relu(residual, shortcut)
    assert result is residual
    assert torch.equal(shortcut, kept)
    assert_near(residual, expected, dtype)


@on_device
@pytest.mark.parametrize("groups_last", [False, True])
@pytest.mark.parametrize("members", [1, 4, 32])
@pytest.mark.parametrize("order", ORDERS)
def test_a_factor_of_any_order_scales_its_group(order, members, groups_last):
    size = n, c, h, w = 3, 96, 4, 3
    residual, shortcut, factor = maps(*size), maps(*size), factors(n, c // members, h, w, order)
    expected = joined(residual, shortcut, factor, groups_last)
    plain = ops.scale_add_relu(residual.clone(), shortcut, factor, groups_last=groups_last)
    result = kernels.scale_add_relu(residual, shortcut, factor, groups_last=groups_last)
    assert_near(result, expected)
    assert_near(result, plain)


@on_device
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("factor_dtype", TOLERANCE, ids=str)
def test_half_precisions_are_rounded_once(dtype, factor_dtype):
    size = (17, 40, 2, 3)
    residual, shortcut = maps(*size, dtype=dtype), maps(*size, dtype=dtype)
    factor = factors(17, 10, 2, 3, "channels last", dtype=factor_dtype)
    expected = joined(residual, shortcut, factor, False).to(dtype)
    result = kernels.scale_add_relu(residual, shortcut, factor)
    if dtype == torch.float16 or not kernels.INTERPRETED:  # which cuts bf16 off
        assert (result != expected).float().mean() < 0.01  # as close as fp32 before it is
    assert_near(result, expected, dtype)


@on_device
def test_memory_around_the_maps_is_left_alone():
    around, shortcut = maps(5, 24, 3, 3), maps(3, 24, 3, 3)
    before = around.clone()
    kernels.scale_add_relu(around[1:4], shortcut)
    assert torch.equal(around[::4], before[::4])
    assert_near(around[1:4], joined(before[1:4], shortcut, None, False))


@on_gpu
@pytest.mark.slow
def test_maps_of_more_than_2_to_the_31_elements():
    size = (2, 2048, 1024, 513)
    residual = torch.ones(size, dtype=torch.float16, device=DEVICE).contiguous(memory_format=torch.channels_last)
    shortcut = torch.zeros_like(residual)
    shortcut[1, :, -1, -1] = torch.arange(2048, device=DEVICE)
    factor = torch.full((2, 2048, 1, 1), 2.0, device=DEVICE)
    kernels.scale_add_relu(residual, shortcut, factor)
    assert torch.equal(residual[1, :, -1, -1], shortcut[1, :, -1, -1] + 2)
    assert residual[:, :, 0].eq(2).all()


# The interpreter keeps bf16 as integers, which it cannot multiply as matrices.
PRODUCTS = [torch.float32, torch.float16] if kernels.INTERPRETED else list(TOLERANCE)
CONVOLUTIONS = [(1, 16, 48, 1, 1), (2, 40, 36, 3, 5), (17, 16, 64, 1, 1), (3, 64, 96, 4, 3)]


def convolved(z, weight, bias):
    """A 1x1 convolution in fp64; ``(N, C, H, W)``."""
    products = torch.einsum("nkhw,ck->nchw", z.double(), weight.flatten(1).double())
    return products if bias is None else products + bias.double()[:, None, None]


@on_device
@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("dtype", PRODUCTS, ids=str)
@pytest.mark.parametrize("size", CONVOLUTIONS, ids=str)
def test_a_convolution_with_its_end(size, dtype):
    n, k, c, h, w = size
    z, shortcut = maps(n, k, h, w, dtype=dtype), maps(n, c, h, w, dtype=dtype)
    weight, bias = random(c, k, 1, 1, scale=0.1, dtype=dtype), random(c, dtype=dtype)
    kept = z.clone(), shortcut.clone()
    factor = factors(n, c // 4, h, w, "channels last")
    for f in (None, factor):
        result = kernels.conv1x1_scale_add_relu(z, weight, bias, shortcut, f)
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert_near(result, joined(convolved(z, weight, bias), shortcut, f, False), dtype)
    assert torch.equal(z, kept[0])
    assert torch.equal(shortcut, kept[1])


@on_device
@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("groups_last", [False, True])
@pytest.mark.parametrize("members", [1, 4, 32])
@pytest.mark.parametrize("order", ORDERS)
def test_a_convolution_with_a_factor_of_any_order(order, members, groups_last):
    n, k, c, h, w = 2, 24, 64, 3, 4
    z, shortcut, weight = maps(n, k, h, w), maps(n, c, h, w), random(c, k, scale=0.2)
    factor = factors(n, c // members, h, w, order)
    result = kernels.conv1x1_scale_add_relu(z, weight, None, shortcut, factor, groups_last=groups_last)
    assert_near(result, joined(convolved(z, weight, None), shortcut, factor, groups_last))
    residual = nn.functional.conv2d(z, weight[:, :, None, None])
    assert_near(result, ops.scale_add_relu(residual, shortcut, factor, groups_last=groups_last))


@on_device
@pytest.mark.usefixtures("full_precision")
def test_a_convolution_in_several_bands_of_rows():
    z, shortcut, weight = maps(5, 16, 9, 5), maps(5, 80, 9, 5), random(80, 16, scale=0.2)
    result = kernels.conv1x1_scale_add_relu(z, weight, None, shortcut)  # 8 blocks of rows, 3 of columns in a small tile
    assert_near(result, joined(convolved(z, weight, None), shortcut, None, False))


def test_tf32_is_for_fp32_where_convolutions_may_use_it(monkeypatch):
    for allowed, precision in ((True, "tf32"), (False, "ieee")):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
        assert kernels._precision(torch.float32) == precision
        assert kernels._precision(torch.float16) == "ieee"


@pytest.mark.skipif(not kernels.triton, reason="needs Triton")
@pytest.mark.parametrize("precision", ["tf32", "ieee"])
@pytest.mark.parametrize("rows", [1, 49, 100000])
@pytest.mark.parametrize(("depth", "channels"), [(16, 48), (64, 256), (512, 2048)])
def test_there_are_tiles_for_every_shape(monkeypatch, rows, depth, channels, precision):
    monkeypatch.setattr(kernels, "INTERPRETED", False)
    sizes = {"rows": rows, "z": torch.zeros(1)}
    tiles = kernels._worthwhile(kernels._tiles(), sizes, channels=channels, depth=depth, precision=precision)
    assert tiles
    assert all(tile.kwargs["block_p"] <= max(2 * rows, 32) for tile in tiles)
    if precision == "tf32" and rows > 1000 and depth == 512:
        assert len(tiles) == len(kernels._tiles())


GATES = [(1, 16, 3, 24), (17, 40, 9, 72), (3, 130, 70, 65), (40, 20, 16, 48)]  # N, K, h, C


@on_device
@pytest.mark.parametrize("size", GATES, ids=str)
def test_the_gate_of_se(size):
    n, k, hidden, c = size
    pooled, w1, b1 = random(n, k), random(hidden, k, scale=k**-0.5), random(hidden)
    w2, b2 = random(c, hidden, scale=hidden**-0.5), random(c)
    layer = (pooled.double() @ w1.double().t() + b1.double()).relu()
    expected = (layer @ w2.double().t() + b2.double()).sigmoid()
    assert_near(kernels.se_gate(pooled, w1, b1, w2, b2), expected)
    assert_near(kernels.se_gate(pooled.t().contiguous().t(), w1, b1, w2, b2), expected)


def blocks(module, count, k):
    """Convolutions before a shared attention module, whose parameters are made random."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return [nn.Conv2d(k, module.channels, 1).to(DEVICE) for _ in range(count)]


@on_device
@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("n", [1, 17])
def test_the_gate_of_an_se_module(n):
    module = SE(48, reduction=4).to(DEVICE)
    (conv,) = blocks(module, 1, 20)
    gate, z = SEGate(module, conv, False), maps(n, 20, 3, 2)
    squeeze, excite = gate.squeeze, gate.excite
    result = kernels.se_gate(ops.pool(z), squeeze.weight, squeeze.bias, excite.weight, excite.bias)
    assert_near(result[:, :, None, None], gate(z, None)[0])
    assert_near(result, module.double().process(module.extract(conv.double()(z.double())), None)[0])


def cell(pooled, w1, b1, w_ih2, bias, state, w_hh1, b_hh1, w_hh2):
    """DIA's cell in fp64."""
    pooled, w1, b1, w_ih2, bias, w_hh1, b_hh1, w_hh2 = (
        x.double() for x in (pooled, w1, b1, w_ih2, bias, w_hh1, b_hh1, w_hh2)
    )
    gates = (pooled @ w1.t() + b1).relu() @ w_ih2.t() + bias
    before = 0.0
    if state is not None:
        before = state[1].double()
        gates = gates + (state[0].double() @ w_hh1.t() + b_hh1).relu() @ w_hh2.t()
    i, f, g, o = gates.chunk(4, 1)
    new = f.sigmoid() * before + i.sigmoid() * g.tanh()
    return o.sigmoid() * new.sigmoid(), new


@on_device
@pytest.mark.parametrize("size", GATES, ids=str)
@pytest.mark.parametrize("started", [False, True])
def test_the_cell_of_dia(size, started):
    n, k, hidden, c = size
    weights = [
        random(hidden, k, scale=k**-0.5),
        random(hidden),
        random(4 * c, hidden, scale=hidden**-0.5),
        random(4 * c),
    ]
    recurrent = [random(hidden, c, scale=c**-0.5), random(hidden), random(4 * c, hidden, scale=hidden**-0.5)]
    state = (random(n, c), random(n, c)) if started else None
    pooled = random(n, k)
    kept = None if state is None else [x.clone() for x in state]
    results = kernels.dia_gate(pooled, *weights, state, *recurrent)
    for result, expected in zip(results, cell(pooled, *weights, state, *recurrent), strict=True):
        assert_near(result, expected)
    if state is not None:
        assert all(torch.equal(x, y) for x, y in zip(state, kept, strict=True))


@on_device
def test_gates_of_many_channels_have_larger_blocks(monkeypatch):
    pooled, w1, b1, w2, b2 = (
        random(18, 16),
        random(40, 16, scale=0.2),
        random(40),
        random(400, 40, scale=0.2),
        random(400),
    )
    of_se = ((pooled.double() @ w1.double().t() + b1.double()).relu() @ w2.double().t() + b2.double()).sigmoid()
    recurrent = [random(40, 100), random(40), random(400, 40)]
    of_dia = cell(pooled, w1, b1, w2, b2, None, *recurrent)
    found = set()
    for processors in (132, 4, 1):
        monkeypatch.setattr(kernels, "PROCESSORS", processors)
        found.add(kernels._channel_block(18, 100))
        assert_near(kernels.se_gate(pooled, w1, b1, w2, b2), of_se)
        for result, expected in zip(kernels.dia_gate(pooled, w1, b1, w2, b2, None, *recurrent), of_dia, strict=True):
            assert_near(result, expected)
    assert found == {32, 64, 128}


def dia_gate(gate, z, state):
    """The kernel with the parameters of a :class:`DIAGate`."""
    bias = gate.first_bias if state is None else gate.bias
    return kernels.dia_gate(
        *(ops.pool(z), gate.squeeze.weight, gate.squeeze.bias, gate.second_ih.weight, bias, state),
        *(gate.first_hh.weight, gate.first_hh.bias, gate.second_hh.weight),
    )


@on_device
@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("n", [1, 17])
def test_the_gate_of_a_dia_module_over_three_blocks(n):
    module = DIA(48, reduction=5).to(DEVICE)
    convs = blocks(module, 3, 20)
    gates = [DIAGate(module, conv, False) for conv in convs]
    module, convs = module.double(), [conv.double() for conv in convs]
    gates = [gate.float() for gate in gates]
    exact = DIA(48, reduction=5).to(DEVICE).double()
    exact.load_state_dict(module.state_dict())
    found = plain = expected = None
    for gate, conv in zip(gates, convs, strict=True):
        z = maps(n, 20, 3, 2)
        found = dia_gate(gate, z, found)
        _, plain = gate(z, plain)
        residual = nn.functional.conv2d(z.double(), conv.weight.double(), conv.bias.double())
        _, expected = exact.process(exact.extract(residual), expected)
        for result, one, other in zip(found, plain, expected, strict=True):
            assert_near(result, one)
            assert_near(result, other)


def similarities(n, positions, groups, order, dtype=torch.float32):
    """``(N, HW, G)``, with a mean that is large against the deviation."""
    x = random(n, positions, groups, mean=3, dtype=dtype)
    return x.transpose(1, 2).contiguous().transpose(1, 2) if order == "positions last" else x


def enhanced(similarity, weight, bias):
    """SGE's gate in fp64, for more than one position."""
    std, mean = torch.std_mean(similarity.double(), 1, keepdim=True)
    return ((similarity.double() - mean) / (std + 1e-5) * weight.double() + bias.double()).sigmoid()


@on_device
@pytest.mark.parametrize("order", ["groups last", "positions last"])
@pytest.mark.parametrize("size", [(1, 2, 4), (2, 49, 5), (17, 15, 1), (2, 520, 20), (1, 1030, 4)], ids=str)
def test_the_gate_of_sge(size, order):
    similarity, weight, bias = similarities(*size, order), random(size[2]), random(size[2])
    result = kernels.sge_gate(similarity, weight, bias)
    assert result.is_contiguous()
    assert_near(result, enhanced(similarity, weight, bias))


@on_device
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("out_dtype", TOLERANCE, ids=str)
def test_the_gate_of_sge_in_other_types(dtype, out_dtype):
    similarity, weight, bias = similarities(2, 49, 8, "groups last", dtype), random(8), random(8)
    result = kernels.sge_gate(similarity, weight, bias, out_dtype=out_dtype)
    assert_near(result, enhanced(similarity, weight, bias), out_dtype)


@on_device
def test_a_mean_far_from_zero_leaves_a_deviation():
    similarity, weight, bias = random(2, 600, 16, mean=1000), random(16), random(16)  # multiples of 6e-5
    result, expected = kernels.sge_gate(similarity, weight, bias), enhanced(similarity, weight, bias)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-3)  # 0.2 from a difference of mean squares


@on_device
def test_what_is_not_a_number_is_passed_on():
    residual, shortcut = maps(1, 16, 2, 2), maps(1, 16, 2, 2)
    z, weight = maps(1, 16, 2, 2), random(16, 16)
    shortcut[0, 3, 1, 1] = torch.nan
    for result in (
        kernels.conv1x1_scale_add_relu(z, weight, None, shortcut),
        kernels.scale_add_relu(residual, shortcut),
    ):
        assert result.isnan().nonzero().tolist() == [[0, 3, 1, 1]]


@on_device
def test_one_position_has_no_deviation():
    similarity, weight, bias = random(3, 1, 8), random(8), random(8)
    assert_near(kernels.sge_gate(similarity, weight, bias), bias.double().sigmoid().expand(3, 1, -1))


@on_device
@pytest.mark.parametrize("groups_last", [False, True])
def test_the_gate_of_an_sge_module(groups_last):
    module = SGE(24, groups=6).to(DEVICE)
    blocks(module, 0, 0)
    gate, residual = SGEGate(module, None, groups_last), maps(3, 24, 5, 4)
    similarity = gate._similarity(residual)
    result = kernels.sge_gate(similarity, gate.weight, gate.bias)
    plain, _ = gate(residual, None)
    assert_near(result.transpose(1, 2).unflatten(2, (5, 4)), plain)
    if not groups_last:
        expected, _ = module.double().process(module.extract(residual.double()), None)
        assert_near(result.transpose(1, 2).unflatten(2, (5, 4)), expected)


@on_gpu
@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_all_kernels_in_a_graph(dtype):
    n, k, c, h, w = 17, 24, 96, 7, 5
    z, shortcut, residual = maps(n, k, h, w, dtype=dtype), maps(n, c, h, w, dtype=dtype), maps(n, c, h, w, dtype=dtype)
    weight, bias, similarity = random(c, k, scale=0.2, dtype=dtype), random(c, dtype=dtype), random(n, h * w, c // 4)
    se = [random(6, k), random(6), random(c, 6), random(c)]
    dia = [random(6, k), random(6), random(4 * c, 6), random(4 * c)]
    recurrent = [random(6, c), random(6), random(4 * c, 6)]
    sge = [random(c // 4), random(c // 4)]

    def run():
        pooled = ops.pool(z)
        gate = kernels.se_gate(pooled, *se)
        first = kernels.dia_gate(pooled, *dia, None, *recurrent)
        second = kernels.dia_gate(pooled, *dia, first, *recurrent)
        enhancement = kernels.sge_gate(similarity, *sge)
        kernels.scale_add_relu(residual, shortcut, gate[:, :, None, None])
        spatial = enhancement.transpose(1, 2).unflatten(2, (h, w))
        out = kernels.conv1x1_scale_add_relu(z, weight, bias, shortcut, spatial, groups_last=True)
        return gate, *first, *second, enhancement, out

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    for tensor in (z, shortcut, residual, similarity):
        tensor.copy_(torch.randn_like(tensor))
    before = residual.clone()
    graph.replay()
    gate, *_ = results
    assert_near(residual, joined(before, shortcut, gate[:, :, None, None], False), dtype)
    spatial = results[-2].transpose(1, 2).unflatten(2, (h, w))
    assert_near(results[-1], joined(convolved(z, weight, bias), shortcut, spatial, True), dtype)
    pooled = z.double().mean((2, 3)).float()
    assert_near(gate, ((pooled @ se[0].t() + se[1]).relu() @ se[2].t() + se[3]).sigmoid())
    first = cell(pooled, *dia, None, *recurrent)
    second = cell(pooled, *dia, first, *recurrent)
    for result, expected in zip(results[1:5], (*first, *second), strict=True):
        assert_near(result, expected)
    assert_near(results[-2], enhanced(similarity, *sge))


@on_device
def test_maps_that_do_not_fit_are_refused():
    x = maps(2, 8, 3, 3)
    with pytest.raises(ValueError, match="channels_last"):
        kernels.scale_add_relu(x, x.contiguous())
    with pytest.raises(ValueError, match="float64"):
        kernels.scale_add_relu(x.double(), x.double())
    with pytest.raises(ValueError, match=r"shortcut is \(1, 8, 3, 3\)"):
        kernels.scale_add_relu(x, x[:1])
    with pytest.raises(ValueError, match=r"expected that of residual, \(2, 8, 3, 3\)"):
        kernels.scale_add_relu(x, maps(2, 6, 3, 3))
    with pytest.raises(ValueError, match=r"factor is \(2, 3, 1, 1\)"):
        kernels.scale_add_relu(x, x, random(2, 3, 1, 1))
    with pytest.raises(ValueError, match=r"weight \(8, 4\)"):
        kernels.conv1x1_scale_add_relu(x, random(8, 4), None, x)


def test_kernels_are_available_on_cuda_and_in_the_interpreter():
    assert kernels.available(torch.zeros(1)) == kernels.INTERPRETED
    if kernels.triton and torch.cuda.is_available():
        assert kernels.available(torch.zeros(1, device="cuda"))


def test_without_triton_the_module_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed
    spec = importlib.util.spec_from_file_location("kernels_without_triton", kernels.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.available(torch.zeros(1))
    with pytest.raises(RuntimeError, match="without Triton"):
        module.scale_add_relu(torch.zeros(1, 8, 1, 1), torch.zeros(1, 8, 1, 1))


@pytest.mark.skipif(kernels.INTERPRETED, reason="runs there already")
@pytest.mark.skipif(not kernels.triton, reason="needs Triton")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__))]
    process = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert int(re.search(r"(\d+) passed", process.stdout)[1]) > 100
    assert not kernels.INTERPRETED
