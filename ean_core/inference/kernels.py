"""Triton kernels for the end of a connected block: the gate in one launch; scale, shortcut and ReLU in one pass.

They compute the same as :mod:`~ean_core.inference.ops` and :mod:`~ean_core.inference.gates` in plain PyTorch, for
inference only (no gradients), wherever :func:`available` returns True. No launcher waits for the device, so all kernels
can be captured in a CUDA graph after a first call with the same shapes and dtypes has compiled and tuned them.

Estimates of memory traffic and arithmetic are for an H200: 4.8 TB/s, 132 SMs with 128 fp32 products per clock each.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

try:
    import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
except ImportError:  # PyTorch does not include it on some platforms
    triton = None

#: Triton selects its interpreter when a kernel is decorated, so changing the variable later has no effect.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

#: Precision of products in gates: a gate scales a whole channel, so full fp32. "tf32x3" is close to it and runs on
#: tensor cores.
GATE_PRECISION = "ieee"

#: Images per program of a gate kernel, the minimum tile size of ``tl.dot``.
IMAGES = 16

#: Programs that run concurrently if each fills an SM.
PROCESSORS = 132

EPS = 1e-5  # of SGE; added to the standard deviation, not to the variance


def available(tensor: Tensor) -> bool:
    """Whether kernels can run on ``tensor``: Triton is installed, with a CUDA tensor or Triton's interpreter."""
    return triton is not None and (tensor.is_cuda or INTERPRETED)


def scale_add_relu(
    residual: Tensor, shortcut: Tensor, factor: Tensor | None = None, *, groups_last: bool = False
) -> Tensor:
    """``relu(shortcut + factor * residual)`` in place of ``residual``, in one pass.

    Three maps are moved (two in, one out) for 3 operations per element, so the kernel is memory-bound: 0.13 ms for the
    617 MB of 128 maps of 256 x 56 x 56 in half precision. A program processes 8 KB of each map, which at 128 threads is
    four 16-byte loads per thread and map, in a tile of positions by channels, so the image index is computed once per
    row. Per-image factors come from the L1 cache for all but a program's first row.

    Args:
        residual: ``(N, C, H, W)`` in channels-last memory, in fp16, bf16 or fp32, with fewer than 2^31 positions.
        shortcut: as ``residual``.
        factor: ``(N, G, 1, 1)`` or ``(N, G, H, W)`` in any memory format, ``G`` dividing ``C``; None for 1.
        groups_last: channel ``c`` belongs to group ``c % G``, not ``c // (C / G)``.

    Returns:
        ``residual``.

    Raises:
        ValueError: if shapes, dtypes or memory formats do not match these.
    """
    n, c, h, w = residual.shape
    _check_maps(residual=residual, shortcut=shortcut)
    if shortcut.shape != residual.shape:
        raise ValueError(f"shortcut is {tuple(shortcut.shape)}; expected that of residual, {tuple(residual.shape)}")
    values, groups, strides = _factor(factor, residual)
    rows, block_c = n * h * w, min(_power_of_2(c), 512)
    block_p = 8192 // residual.element_size() // block_c
    with _device_of(residual):
        _scale_add_relu_kernel[(_blocks(rows, block_p) * _blocks(c, block_c),)](
            *(residual, shortcut, values, rows, h * w, *strides),
            channels=c,
            groups=groups,
            groups_last=groups_last,
            block_p=block_p,
            block_c=block_c,
        )
    return residual


def conv1x1_scale_add_relu(
    z: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shortcut: Tensor,
    factor: Tensor | None = None,
    *,
    groups_last: bool = False,
) -> Tensor:
    """``relu(shortcut + factor * (W z + b))`` without storing the residual branch in memory.

    With ``K = C / 4``, a position takes ``8 K^2`` operations and, in half precision, ``18 K`` bytes, where a
    convolution followed by :func:`scale_add_relu` moves ``34 K``. That is 28 operations per byte at ``K = 64`` and 228
    at 512; about 180 would balance tensor cores and memory, so all stages but the last are memory-bound. Concurrent
    programs therefore share rows of ``z`` in the L2 cache (``W`` has at most 2 MB and stays there), and the shortcut is
    loaded before the loop over ``K`` where that loop is too short to hide the load. Tile sizes are autotuned at the
    first call with a shape.

    The sum is rounded to the maps' dtype once, at the end; a separate convolution also rounds ``W z + b``.

    Args:
        z: ``(N, K, H, W)`` in channels-last memory, in fp16, bf16 or fp32, with fewer than 2^31 positions. fp32
            products use TF32 if PyTorch allows it for convolutions.
        weight: ``(C, K, 1, 1)`` or ``(C, K)``, in the dtype of ``z``.
        bias: ``(C,)``, or None for 0.
        shortcut: ``(N, C, H, W)``, otherwise as ``z``.
        factor: ``(N, G, 1, 1)`` or ``(N, G, H, W)`` in any memory format, ``G`` dividing ``C``; None for 1.
        groups_last: channel ``c`` belongs to group ``c % G``, not ``c // (C / G)``.

    Returns:
        ``(N, C, H, W)`` in channels-last memory.

    Raises:
        ValueError: if shapes, dtypes or memory formats do not match these.
    """
    n, k, h, w = z.shape
    c = weight.shape[0]
    _check_maps(z=z, shortcut=shortcut)
    if weight.numel() != c * k or weight.dtype != z.dtype or shortcut.shape != (n, c, h, w):
        raise ValueError(
            f"weight {tuple(weight.shape)} of {weight.dtype} and shortcut {tuple(shortcut.shape)} do not fit "
            f"z {tuple(z.shape)} of {z.dtype}; expected (C, {k}, 1, 1) and ({n}, C, {h}, {w})"
        )
    values, groups, strides = _factor(factor, shortcut)
    matrix, offset = weight.reshape(c, k).contiguous(), None if bias is None else bias.contiguous()
    out = torch.empty((n, c, h, w), dtype=z.dtype, device=z.device, memory_format=torch.channels_last)
    rows = n * h * w

    def grid(tile: dict[str, int]) -> tuple[int]:
        return (_blocks(rows, tile["block_p"]) * _blocks(c, tile["block_c"]),)

    with _device_of(z):
        _conv1x1_scale_add_relu_kernel[grid](
            *(z, matrix, offset, shortcut, values, out, rows, rows.bit_length(), h * w, *strides),
            channels=c,
            depth=k,
            groups=groups,
            groups_last=groups_last,
            precision=_precision(z.dtype),
        )
    return out


def se_gate(pooled: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """SE's gate ``sigmoid(W2 relu(W1 pooled + b1) + b2)`` in one launch, where PyTorch needs four or more.

    A program handles 16 images and a block of channels, and recomputes the hidden layer of its images. With ``K = 512``
    and ``h = 128``, the largest in a ResNet-50, this takes a million products, or at least 8,000 clocks of an SM, and
    256 KB from the L2 cache: a few microseconds, where a second launch would cost two or three. Channel blocks are
    small, for many programs and a short second product, as long as all programs run concurrently. The hidden layer is
    processed in blocks of 64 units, since the operands for all 128 do not fit in registers.

    Args:
        pooled: ``(N, K)`` in fp32, like all arguments.
        w1: ``(h, K)``.
        b1: ``(h,)``.
        w2: ``(C, h)``.
        b2: ``(C,)``.

    Returns:
        ``(N, C)``.
    """
    pooled, w1, b1, w2, b2 = _packed(pooled, w1, b1, w2, b2)
    n, k = pooled.shape
    c, hidden = w2.shape
    gate = torch.empty((n, c), dtype=torch.float32, device=pooled.device)
    block_c = _channel_block(n, c)
    with _device_of(pooled):
        _se_gate_kernel[_blocks(n, IMAGES), _blocks(c, block_c)](
            *(pooled, w1, b1, w2, b2, gate, n),
            channels=c,
            hidden=hidden,
            depth=k,
            block_n=IMAGES,
            block_u=_block(hidden, 64),
            block_c=block_c,
            block_k=_block(k, 64),
            precision=GATE_PRECISION,
            num_warps=8 if hidden > 32 else 4,
        )
    return gate


def dia_gate(
    pooled: Tensor,
    w1: Tensor,
    b1: Tensor,
    w_ih2: Tensor,
    bias: Tensor,
    state: tuple[Tensor, Tensor] | None,
    w_hh1: Tensor,
    b_hh1: Tensor,
    w_hh2: Tensor,
) -> tuple[Tensor, Tensor]:
    """DIA's gate and cell, in one launch at a stage's start and in two elsewhere.

    Without a state this is :func:`se_gate` with four outputs per channel and the same launch grid. A state adds a
    hidden layer over all ``C`` channels: for ``C = 2048`` and ``h = 102``, 4.2 million products for 16 images (tiles
    have 128 units) and 0.8 MB of weights, four times those of the input's hidden layer. Recomputing it for each block
    of channels would take at least 33,000 clocks, or 18 microseconds. Instead, a first launch computes both hidden
    layers once, in blocks of 16 images by 32 units (8,000 clocks), and a second launch computes gate and cell, which
    costs two or three microseconds more.

    Args:
        pooled: ``(N, K)`` in fp32, like all arguments.
        w1: ``(h, K)``, the map from the input to its hidden layer.
        b1: ``(h,)``.
        w_ih2: ``(4 C, h)``, the map to input, forget, cell and output gates.
        bias: ``(4 C,)``, bias of the gates; without a state, it includes the recurrent map's output for zeros.
        state: gate and cell of the previous connected block, ``(N, C)`` each; None at a stage's start.
        w_hh1: ``(h, C)``, the map from the state to its hidden layer; like the next two, unused without a state.
        b_hh1: ``(h,)``.
        w_hh2: ``(4 C, h)``.

    Returns:
        Gate and cell, ``(N, C)`` each; together they are the next state.
    """
    pooled, w1, b1, w_ih2, bias = _packed(pooled, w1, b1, w_ih2, bias)
    n, k = pooled.shape
    c, hidden = w_ih2.shape[0] // 4, w_ih2.shape[1]
    gate = torch.empty((n, c), dtype=torch.float32, device=pooled.device)
    cell = torch.empty((n, c), dtype=torch.float32, device=pooled.device)
    if state is None:
        block_c = _channel_block(n, c)
        with _device_of(pooled):
            _dia_start_kernel[_blocks(n, IMAGES), _blocks(c, block_c)](
                *(pooled, w1, b1, w_ih2, bias, gate, cell, n),
                channels=c,
                hidden=hidden,
                depth=k,
                block_n=IMAGES,
                block_u=_block(hidden, 64 if block_c == 32 else 32),
                block_c=block_c,
                block_k=_block(k, 64),
                precision=GATE_PRECISION,
                num_warps=8,
            )
        return gate, cell
    before, cell_before, w_hh1, b_hh1, w_hh2 = _packed(*state, w_hh1, b_hh1, w_hh2)
    layers = torch.empty((2, n, hidden), dtype=torch.float32, device=pooled.device)
    block_u, block_c = 32, 32  # nothing is recomputed, so small blocks for many programs
    with _device_of(pooled):
        _dia_hidden_kernel[_blocks(n, IMAGES), _blocks(hidden, block_u), 2](
            *(pooled, w1, b1, before, w_hh1, b_hh1, layers, n),
            channels=c,
            hidden=hidden,
            depth=k,
            block_n=IMAGES,
            block_u=block_u,
            block_k=_block(k, 64),
            block_kc=_block(c, 64),
            precision=GATE_PRECISION,
        )
        _dia_cell_kernel[_blocks(n, IMAGES), _blocks(c, block_c)](
            *(layers, w_ih2, w_hh2, bias, cell_before, gate, cell, n),
            channels=c,
            hidden=hidden,
            block_n=IMAGES,
            block_u=block_u,
            block_c=block_c,
            precision=GATE_PRECISION,
            num_warps=8,
        )
    return gate, cell


def sge_gate(similarity: Tensor, weight: Tensor, bias: Tensor, *, out_dtype: torch.dtype = torch.float32) -> Tensor:
    """SGE's gate from similarities in one launch: normalization over positions, scale, shift and sigmoid.

    A program handles one image and 16 groups, so that a row of its tile is 32 or 64 bytes, whole sectors of a cache
    line; there are ``N G / 16`` programs. It reads its tile, at most 200 KB (3136 positions in fp32), twice; the second
    time from the L2 cache if the tiles of all concurrent programs fit in its 50 MB. Mean and deviation are computed in
    one pass with Welford's algorithm, which stays accurate if the mean is large.

    Args:
        similarity: ``(N, HW, G)`` in any memory format, in fp16, bf16 or fp32.
        weight: ``(G,)``.
        bias: ``(G,)``.
        out_dtype: dtype of the result.

    Returns:
        ``(N, HW, G)``. A single position does not deviate from its own mean, so its gate is the sigmoid of the bias.
    """
    n, positions, groups = similarity.shape
    weight, bias = _packed(weight, bias)
    gate = torch.empty((n, positions, groups), dtype=out_dtype, device=similarity.device)
    block_g = min(_power_of_2(groups), 16)
    with _device_of(similarity):
        _sge_gate_kernel[n, _blocks(groups, block_g)](
            *(similarity, weight, bias, gate, positions, *similarity.stride()),
            groups=groups,
            eps=EPS,
            block_p=min(_power_of_2(positions), 4096 // block_g),
            block_g=block_g,
            num_warps=8,
        )
    return gate


def _device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Context that launches kernels on the device of ``tensor``."""
    if not available(tensor):
        raise RuntimeError(
            f"no Triton kernels for tensors on {tensor.device}{'' if triton else ' without Triton'}; check `available` "
            "first, and use ean_core.inference.ops and gates if it returns False"
        )
    return torch.cuda.device_of(tensor)


def _check_maps(**maps: Tensor) -> None:
    first = next(iter(maps.values()))
    n, _, h, w = first.shape
    for name, x in maps.items():
        if x.dtype not in (torch.float16, torch.bfloat16, torch.float32) or x.dtype != first.dtype:
            raise ValueError(f"{name} has dtype {x.dtype}; expected the same of fp16, bf16 and fp32 for all maps")
        if (x.shape[0], *x.shape[2:]) != (n, h, w):
            raise ValueError(f"{name} is {tuple(x.shape)}; expected ({n}, C, {h}, {w})")
        if not x.is_contiguous(memory_format=torch.channels_last):
            raise ValueError(f"{name} has strides {x.stride()}; use .contiguous(memory_format=torch.channels_last)")


def _factor(factor: Tensor | None, residual: Tensor) -> tuple[Tensor | None, int, tuple[int, int, int]]:
    """The factor, its number of groups, and its strides over images, groups and positions."""
    n, c, h, w = residual.shape
    if factor is None:
        return None, 1, (0, 0, 0)
    groups = factor.shape[1]
    if factor.shape not in ((n, groups, 1, 1), (n, groups, h, w)) or c % groups:
        raise ValueError(
            f"factor is {tuple(factor.shape)}; expected ({n}, G, 1, 1) or ({n}, G, {h}, {w}), G dividing {c}"
        )
    flat = factor.flatten(2)  # a view, unless rows are neither dense nor expanded
    image, group, position = flat.stride()
    return flat, groups, (image, group, position if flat.shape[2] > 1 else 0)


def _precision(dtype: torch.dtype) -> str:
    """Precision of fp32 products, as PyTorch sets it for convolutions; half precision has only one."""
    if dtype != torch.float32:
        return "ieee"
    conv = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return "tf32" if conv.fp32_precision == "tf32" else "ieee"


def _packed(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in tensors)


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


def _power_of_2(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _channel_block(n: int, c: int) -> int:
    """The smallest channel block with which all programs of a gate run concurrently."""
    small = (block for block in (32, 64) if _blocks(n, IMAGES) * _blocks(c, block) <= PROCESSORS)
    return next(small, 128)


def _block(size: int, largest: int) -> int:
    """Block size for one side of a product, where ``tl.dot`` requires at least 16."""
    return min(max(_power_of_2(size), 16), largest)


def _tiles() -> list[Any]:
    """Tiles of the convolution: large ones for large maps, small ones for enough programs at batch size 1."""
    if INTERPRETED:
        return [_tile(32, 32, 32, 2, True, warps=4, stages=1)]
    return [
        _tile(128, 128, 64, 8, False, warps=8, stages=3),
        _tile(128, 128, 64, 8, True, warps=8, stages=2),
        _tile(64, 256, 64, 4, True, warps=8, stages=2),
        _tile(128, 64, 64, 8, True, warps=4, stages=3),
        _tile(64, 128, 64, 8, False, warps=4, stages=4),
        _tile(64, 128, 32, 8, True, warps=4, stages=3),
        _tile(64, 64, 64, 8, True, warps=4, stages=4),
        _tile(32, 64, 64, 8, True, warps=4, stages=4),
        _tile(32, 32, 32, 8, True, warps=2, stages=4),
    ]


def _tile(p: int, c: int, k: int, band: int, early: bool, *, warps: int, stages: int) -> Any:
    blocks = {"block_p": p, "block_c": c, "block_k": k, "band": band, "early": early}
    return triton.Config(blocks, num_warps=warps, num_stages=stages)


def _worthwhile(tiles: list[Any], arguments: dict[str, Any], **options: Any) -> list[Any]:
    """The tiles that are not larger than the problem."""
    known = {**arguments, **options}
    limits = {"block_p": known["rows"], "block_c": known["channels"], "block_k": known["depth"]}
    found = [t for t in tiles if all(t.kwargs[name] <= max(_power_of_2(size), 32) for name, size in limits.items())]
    if known["z"].dtype == torch.float32 and known["precision"] == "ieee":
        # No tensor cores: every product of a tile is a separate instruction, and large tiles spill registers.
        found = [t for t in found if t.kwargs["block_p"] * t.kwargs["block_c"] * t.kwargs["block_k"] <= 64 * 64 * 64]
    return found


def _kernel(function: Callable[..., Any]) -> Any:
    """``triton.jit`` if Triton is installed; without it, the function is never run."""
    return function if triton is None else triton.jit(function)


def _tuned(kernel: Any) -> Any:
    if triton is None:
        return kernel
    # Tensor dtypes are always part of the key. Row counts within a factor of two share a choice, so that not every
    # image size is tuned separately.
    key = ["magnitude", "channels", "depth", "groups", "precision"]
    return triton.autotune(_tiles(), key, prune_configs_by={"early_config_prune": _worthwhile})(kernel)


@_kernel
def _relu(x: tl.tensor) -> tl.tensor:
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)  # as in PyTorch, so that NaNs stay visible


@_kernel
def _factor_tile(
    factor: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    inside: tl.tensor,
    positions: tl.tensor,
    stride_n: tl.tensor,
    stride_g: tl.tensor,
    stride_p: tl.tensor,
    channels: tl.constexpr,
    groups: tl.constexpr,
    groups_last: tl.constexpr,
) -> tl.tensor:
    """The fp32 factor for each row (a position of an image) and column (a channel)."""
    image = rows // positions  # 32-bit: a 64-bit division takes about a hundred instructions
    offset = image.to(tl.int64) * stride_n + (rows - image * positions).to(tl.int64) * stride_p
    group = columns % groups if groups_last else columns // (channels // groups)
    return tl.load(factor + offset[:, None] + group[None, :] * stride_g, mask=inside, other=0).to(tl.float32)


@_kernel
def _scale_add_relu_kernel(
    residual: tl.tensor,
    shortcut: tl.tensor,
    factor: tl.tensor,
    count: tl.tensor,
    positions: tl.tensor,
    stride_n: tl.tensor,
    stride_g: tl.tensor,
    stride_p: tl.tensor,
    channels: tl.constexpr,
    groups: tl.constexpr,
    groups_last: tl.constexpr,
    block_p: tl.constexpr,
    block_c: tl.constexpr,
) -> None:
    program, across = tl.program_id(0), (channels + block_c - 1) // block_c
    rows = (program // across) * block_p + tl.arange(0, block_p)
    columns = (program % across) * block_c + tl.arange(0, block_c)
    inside = (rows < count)[:, None] & (columns < channels)[None, :]
    offset = rows.to(tl.int64)[:, None] * channels + columns[None, :]
    value = tl.load(residual + offset, mask=inside, other=0).to(tl.float32)
    other = tl.load(shortcut + offset, mask=inside, other=0).to(tl.float32)
    if factor is not None:
        value *= _factor_tile(
            factor, rows, columns, inside, positions, stride_n, stride_g, stride_p, channels, groups, groups_last
        )
    tl.store(residual + offset, _relu(value + other).to(residual.dtype.element_ty), mask=inside)


@_tuned
@_kernel
def _conv1x1_scale_add_relu_kernel(
    z: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    shortcut: tl.tensor,
    factor: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    magnitude: tl.tensor,
    positions: tl.tensor,
    stride_n: tl.tensor,
    stride_g: tl.tensor,
    stride_p: tl.tensor,
    channels: tl.constexpr,
    depth: tl.constexpr,
    groups: tl.constexpr,
    groups_last: tl.constexpr,
    precision: tl.constexpr,
    block_p: tl.constexpr,
    block_c: tl.constexpr,
    block_k: tl.constexpr,
    band: tl.constexpr,
    early: tl.constexpr,
) -> None:
    # Process bands of rows over all columns in order, so that concurrent programs share rows and columns.
    program, across = tl.program_id(0), (channels + block_c - 1) // block_c
    first = program // (band * across) * band
    height = tl.minimum((rows + block_p - 1) // block_p - first, band)
    within = program % (band * across)
    row = (first + within % height) * block_p + tl.arange(0, block_p)
    column = within // height * block_c + tl.arange(0, block_c)

    inside = (row < rows)[:, None] & (column < channels)[None, :]
    offset = row.to(tl.int64)[:, None] * channels + column[None, :]
    if early:
        other = tl.load(shortcut + offset, mask=inside, other=0)
    # Rows and columns past the edge repeat the last one; they need no mask as they are not stored.
    k = tl.arange(0, block_k)
    z_tile = z + tl.minimum(row, rows - 1).to(tl.int64)[:, None] * depth + k[None, :]
    weight_tile = weight + tl.minimum(column, channels - 1)[None, :] * depth + k[:, None]
    total = tl.zeros((block_p, block_c), dtype=tl.float32)
    for start in range(0, depth, block_k):
        if depth % block_k == 0:
            a = tl.load(z_tile + start)
            b = tl.load(weight_tile + start)
        else:
            a = tl.load(z_tile + start, mask=(start + k < depth)[None, :], other=0)
            b = tl.load(weight_tile + start, mask=(start + k < depth)[:, None], other=0)
        total = tl.dot(a, b, total, input_precision=precision)
    if not early:
        other = tl.load(shortcut + offset, mask=inside, other=0)
    if bias is not None:
        total += tl.load(bias + column, mask=column < channels, other=0).to(tl.float32)[None, :]
    if factor is not None:
        total *= _factor_tile(
            factor, row, column, inside, positions, stride_n, stride_g, stride_p, channels, groups, groups_last
        )
    total += other.to(tl.float32)
    tl.store(out + offset, _relu(total).to(out.dtype.element_ty), mask=inside)


@_kernel
def _hidden_tile(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    images: tl.tensor,
    units: tl.tensor,
    count: tl.tensor,
    depth: tl.constexpr,
    hidden: tl.constexpr,
    block_n: tl.constexpr,
    block_u: tl.constexpr,
    block_k: tl.constexpr,
    precision: tl.constexpr,
) -> tl.tensor:
    """``relu(W x + b)`` for a tile of images and units, 0 for units out of range; ``(block_n, block_u)``."""
    total = tl.zeros((block_n, block_u), dtype=tl.float32)
    for start in range(0, depth, block_k):
        k = start + tl.arange(0, block_k)
        a_inside = (images < count)[:, None] & (k < depth)[None, :]
        b_inside = (units < hidden)[None, :] & (k < depth)[:, None]
        a = tl.load(x + images[:, None] * depth + k[None, :], mask=a_inside, other=0)
        b = tl.load(weight + units[None, :] * depth + k[:, None], mask=b_inside, other=0)
        total = tl.dot(a, b, total, input_precision=precision)
    return _relu(total + tl.load(bias + units, mask=units < hidden, other=0)[None, :])


@_kernel
def _product(
    layer: tl.tensor,
    weight: tl.tensor,
    rows: tl.tensor,
    known: tl.tensor,
    units: tl.tensor,
    total: tl.tensor,
    hidden: tl.constexpr,
    precision: tl.constexpr,
) -> tl.tensor:
    """``total + W x`` for the given units of ``x`` and rows of ``W``; ``known`` masks rows out of range."""
    mask = (units < hidden)[:, None] & known[None, :]
    matrix = tl.load(weight + rows[None, :] * hidden + units[:, None], mask=mask, other=0)
    return tl.dot(layer, matrix, total, input_precision=precision)


@_kernel
def _tanh(x: tl.tensor) -> tl.tensor:
    return 2 * tl.sigmoid(2 * x) - 1  # accurate to 1e-7, without overflow


@_kernel
def _se_gate_kernel(
    pooled: tl.tensor,
    w1: tl.tensor,
    b1: tl.tensor,
    w2: tl.tensor,
    b2: tl.tensor,
    gate: tl.tensor,
    count: tl.tensor,
    channels: tl.constexpr,
    hidden: tl.constexpr,
    depth: tl.constexpr,
    block_n: tl.constexpr,
    block_u: tl.constexpr,
    block_c: tl.constexpr,
    block_k: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    images = tl.program_id(0) * block_n + tl.arange(0, block_n)
    columns = tl.program_id(1) * block_c + tl.arange(0, block_c)
    known = columns < channels
    total = tl.zeros((block_n, block_c), dtype=tl.float32) + tl.load(b2 + columns, mask=known, other=0)[None, :]
    for start in range(0, hidden, block_u):
        units = start + tl.arange(0, block_u)
        layer = _hidden_tile(pooled, w1, b1, images, units, count, depth, hidden, block_n, block_u, block_k, precision)
        total = _product(layer, w2, columns, known, units, total, hidden, precision)
    inside = (images < count)[:, None] & known[None, :]
    tl.store(gate + images[:, None] * channels + columns[None, :], tl.sigmoid(total), mask=inside)


@_kernel
def _gate_rows(block: tl.tensor, channels: tl.constexpr, block_c: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Rows of the map to DIA's four gates, grouped by channel, and a mask of those in range.

    One product with four times the channels keeps its left operand in registers for less time than four products.
    """
    lanes = tl.arange(0, 4 * block_c)
    channel = block * block_c + lanes // 4
    return lanes % 4 * channels + channel, channel < channels


@_kernel
def _store_cell(
    gates: tl.tensor,
    before: tl.tensor,
    gate: tl.tensor,
    cell: tl.tensor,
    images: tl.tensor,
    count: tl.tensor,
    channels: tl.constexpr,
    block_n: tl.constexpr,
    block_c: tl.constexpr,
) -> None:
    """Store DIA's gate and cell, from gates in the order of :func:`_gate_rows` and the previous cell, if any."""
    columns = tl.program_id(1) * block_c + tl.arange(0, block_c)
    inside = (images < count)[:, None] & (columns < channels)[None, :]
    offset = images[:, None] * channels + columns[None, :]
    even, odd = tl.split(tl.reshape(gates, (block_n, block_c, 2, 2)))
    i, g = tl.split(even)
    f, o = tl.split(odd)
    new = tl.sigmoid(i) * _tanh(g)
    if before is not None:
        new += tl.sigmoid(f) * tl.load(before + offset, mask=inside, other=0)
    tl.store(cell + offset, new, mask=inside)
    tl.store(gate + offset, tl.sigmoid(o) * tl.sigmoid(new), mask=inside)


@_kernel
def _dia_start_kernel(
    pooled: tl.tensor,
    w1: tl.tensor,
    b1: tl.tensor,
    w_ih2: tl.tensor,
    bias: tl.tensor,
    gate: tl.tensor,
    cell: tl.tensor,
    count: tl.tensor,
    channels: tl.constexpr,
    hidden: tl.constexpr,
    depth: tl.constexpr,
    block_n: tl.constexpr,
    block_u: tl.constexpr,
    block_c: tl.constexpr,
    block_k: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    images = tl.program_id(0) * block_n + tl.arange(0, block_n)
    # Without a previous cell, the forget gates are unused: a quarter of this product, the smaller of the two.
    rows, known = _gate_rows(tl.program_id(1), channels, block_c)
    total = tl.zeros((block_n, 4 * block_c), dtype=tl.float32) + tl.load(bias + rows, mask=known, other=0)[None, :]
    for start in range(0, hidden, block_u):
        units = start + tl.arange(0, block_u)
        layer = _hidden_tile(pooled, w1, b1, images, units, count, depth, hidden, block_n, block_u, block_k, precision)
        total = _product(layer, w_ih2, rows, known, units, total, hidden, precision)
    _store_cell(total, None, gate, cell, images, count, channels, block_n, block_c)


@_kernel
def _dia_hidden_kernel(
    pooled: tl.tensor,
    w1: tl.tensor,
    b1: tl.tensor,
    before: tl.tensor,
    w_hh1: tl.tensor,
    b_hh1: tl.tensor,
    layers: tl.tensor,
    count: tl.tensor,
    channels: tl.constexpr,
    hidden: tl.constexpr,
    depth: tl.constexpr,
    block_n: tl.constexpr,
    block_u: tl.constexpr,
    block_k: tl.constexpr,
    block_kc: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    images = tl.program_id(0) * block_n + tl.arange(0, block_n)
    units = tl.program_id(1) * block_u + tl.arange(0, block_u)
    inside = (images < count)[:, None] & (units < hidden)[None, :]
    out = layers + images[:, None] * hidden + units[None, :]
    if tl.program_id(2) == 0:
        of_input = _hidden_tile(
            pooled, w1, b1, images, units, count, depth, hidden, block_n, block_u, block_k, precision
        )
        tl.store(out, of_input, mask=inside)
    else:
        of_state = _hidden_tile(
            before, w_hh1, b_hh1, images, units, count, channels, hidden, block_n, block_u, block_kc, precision
        )
        tl.store(out + count * hidden, of_state, mask=inside)


@_kernel
def _dia_cell_kernel(
    layers: tl.tensor,
    w_ih2: tl.tensor,
    w_hh2: tl.tensor,
    bias: tl.tensor,
    cell_before: tl.tensor,
    gate: tl.tensor,
    cell: tl.tensor,
    count: tl.tensor,
    channels: tl.constexpr,
    hidden: tl.constexpr,
    block_n: tl.constexpr,
    block_u: tl.constexpr,
    block_c: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    images = tl.program_id(0) * block_n + tl.arange(0, block_n)
    rows, known = _gate_rows(tl.program_id(1), channels, block_c)
    total = tl.zeros((block_n, 4 * block_c), dtype=tl.float32) + tl.load(bias + rows, mask=known, other=0)[None, :]
    for start in range(0, hidden, block_u):
        units = start + tl.arange(0, block_u)
        inside = (images < count)[:, None] & (units < hidden)[None, :]
        layer = layers + images[:, None] * hidden + units[None, :]
        of_input = tl.load(layer, mask=inside, other=0)
        total = _product(of_input, w_ih2, rows, known, units, total, hidden, precision)
        of_state = tl.load(layer + count * hidden, mask=inside, other=0)
        total = _product(of_state, w_hh2, rows, known, units, total, hidden, precision)
    _store_cell(total, cell_before, gate, cell, images, count, channels, block_n, block_c)


@_kernel
def _sge_gate_kernel(
    similarity: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    gate: tl.tensor,
    positions: tl.tensor,
    stride_n: tl.tensor,
    stride_p: tl.tensor,
    stride_g: tl.tensor,
    groups: tl.constexpr,
    eps: tl.constexpr,
    block_p: tl.constexpr,
    block_g: tl.constexpr,
) -> None:
    image = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * block_g + tl.arange(0, block_g)
    lanes = tl.arange(0, block_p)
    known = columns < groups
    tile = similarity + image * stride_n + lanes[:, None] * stride_p + columns[None, :] * stride_g
    # Each tile element accumulates mean and squares of its own positions; they are combined only at the end.
    mean = tl.zeros((block_p, block_g), dtype=tl.float32)
    squares = tl.zeros((block_p, block_g), dtype=tl.float32)
    met = 0.0
    for start in range(0, positions, block_p):
        met += 1.0
        inside = (start + lanes < positions)[:, None] & known[None, :]
        x = tl.load(tile + start * stride_p, mask=inside, other=0).to(tl.float32)
        apart = x - mean
        mean = tl.where(inside, mean + apart / met, mean)
        squares = tl.where(inside, squares + apart * (x - mean), squares)
    count = ((positions - lanes + block_p - 1) // block_p).to(tl.float32)[:, None]  # per element; (block_p, 1)
    centre = tl.sum(mean * count, axis=0) / positions
    apart = mean - centre[None, :]
    total = tl.sum(squares + count * apart * apart, axis=0)
    deviation = tl.sqrt(total / tl.maximum(positions - 1, 1))
    slope = tl.load(weight + columns, mask=known, other=0).to(tl.float32) / (deviation + eps)
    shift = tl.load(bias + columns, mask=known, other=0).to(tl.float32)
    out = gate + image * positions * groups + lanes[:, None] * groups + columns[None, :]
    for start in range(0, positions, block_p):
        inside = (start + lanes < positions)[:, None] & known[None, :]
        x = tl.load(tile + start * stride_p, mask=inside, other=0).to(tl.float32)
        value = tl.sigmoid((x - centre[None, :]) * slope[None, :] + shift[None, :])
        tl.store(out + start * groups, value.to(gate.dtype.element_ty), mask=inside)
