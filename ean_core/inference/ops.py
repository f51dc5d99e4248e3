"""Operations of a deployed block besides its convolutions: pooling; scale, shortcut and ReLU in one pass.

On a GPU with Triton these use the kernels of :mod:`~ean_core.inference.kernels`, elsewhere plain PyTorch with equal
results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from . import kernels

#: Whether the fused kernel was measured to be faster, for the shapes seen so far.
_FUSED: dict[tuple[object, ...], bool] = {}

_enabled = True


def precise(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which gates are computed: fp32 for half precision, otherwise ``dtype`` itself."""
    return torch.promote_types(dtype, torch.float32)


def pool(x: Tensor) -> Tensor:
    """Mean over positions of ``(N, C, H, W)``, as ``(N, C)`` in at least fp32."""
    return x.mean((2, 3), dtype=precise(x.dtype))


def may_overwrite(*tensors: Tensor) -> bool:
    """Whether results may overwrite operands: autograd does not need them and no compiler is tracing."""
    needed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return not (needed or torch.compiler.is_compiling())


def use_kernels(*tensors: Tensor) -> bool:
    """Whether Triton kernels can be used: available, enabled, no gradients or tracing, and not double precision."""
    return (
        _enabled
        and kernels.available(tensors[0])
        and may_overwrite(*tensors)
        and all(tensor.dtype != torch.float64 for tensor in tensors)
    )


@contextmanager
def plain_operators() -> Iterator[None]:
    """Disable Triton kernels, so that every operation is a PyTorch operator."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def _are_alike(*maps: Tensor) -> bool:
    """Whether maps have the same dtype and are channels-last, as kernels require; some norms change the order."""
    return all(x.dtype == maps[0].dtype and x.is_contiguous(memory_format=torch.channels_last) for x in maps)


def conv_scale_add_relu(
    conv: nn.Module, z: Tensor, shortcut: Tensor, factor: Tensor | None = None, *, groups_last: bool = False
) -> Tensor:
    """``relu(shortcut + factor * conv(z))``; see :func:`scale_add_relu`.

    For a 1x1 convolution on a GPU there are two implementations: the library's convolution followed by one pass, or a
    single fused kernel. Both are timed at the first call with a shape, and the faster one is used.

    Args:
        conv: the last convolution of a residual branch, with any layers that could not be folded into it.
        z: its input.
        shortcut, factor, groups_last: as for :func:`scale_add_relu`.
    """
    matrix: Any = conv[0] if isinstance(conv, nn.Sequential) and len(conv) == 1 else conv
    if not (is_pointwise(matrix) and use_kernels(z, shortcut) and _are_alike(z, shortcut, matrix.weight)):
        return scale_add_relu(conv(z), shortcut, factor, groups_last=groups_last)

    def fused() -> Tensor:
        weight, bias = matrix.weight, matrix.bias
        return kernels.conv1x1_scale_add_relu(z, weight, bias, shortcut, factor, groups_last=groups_last)

    def in_two() -> Tensor:
        return scale_add_relu(conv(z), shortcut, factor, groups_last=groups_last)

    factor = _map(factor, shortcut)
    positions = shortcut[:, 0].numel()  # sizes within a factor of two share a choice
    kind = None if factor is None else (factor.shape[1], factor.shape[2:].numel() > 1)
    key = (positions.bit_length(), matrix.weight.shape, z.dtype, kind, groups_last, z.device)
    if key not in _FUSED:
        with torch.cuda.device_of(z):
            _FUSED[key] = _is_faster(fused, in_two)
    return fused() if _FUSED[key] else in_two()


def _is_faster(one: Callable[[], Tensor], other: Callable[[], Tensor]) -> bool:
    if kernels.INTERPRETED:  # timing is meaningless
        return True
    from triton.testing import do_bench

    return do_bench(one, warmup=5, rep=20) < do_bench(other, warmup=5, rep=20)


def is_pointwise(conv: nn.Module) -> bool:
    """Whether a module is a plain 1x1 convolution, the same linear map at every position."""
    return type(conv) is nn.Conv2d and (conv.kernel_size, conv.stride, conv.padding, conv.groups) == (
        (1, 1),
        (1, 1),
        (0, 0),
        1,
    )


def scale_add_relu(
    residual: Tensor, shortcut: Tensor, factor: Tensor | None = None, *, groups_last: bool = False
) -> Tensor:
    """``relu(shortcut + factor * residual)``, the end of a residual block (Eqn 4).

    Args:
        residual: ``(N, C, H, W)``; its contents are undefined afterwards.
        shortcut: ``(N, C, H, W)``, not modified.
        factor: ``(N, G, 1, 1)`` or ``(N, G, H, W)``, one for each of ``G`` channel groups, ``G`` dividing ``C``; or
            ``(N, C, H / r, 1, W)``, where ``r`` rows have the same; None for 1.
        groups_last: channel ``c`` belongs to group ``c % G``, not ``c // (C / G)``. In channels-last memory, the
            factors of small groups are then read in runs of ``G``.

    Returns:
        ``(N, C, H, W)``.
    """
    if use_kernels(residual, shortcut) and _are_alike(residual, shortcut):
        factor = _map(factor, residual)
        return kernels.scale_add_relu(residual, shortcut, factor, groups_last=groups_last)
    if factor is None:
        a, b, f = residual, shortcut, None
    else:
        f = factor.to(residual.dtype)
        groups = f.shape[1]
        if f.dim() == 5:
            split = (f.shape[2], -1)
            a, b = residual.unflatten(2, split), shortcut.unflatten(2, split)
        elif groups == residual.shape[1]:
            a, b = residual, shortcut
        else:
            dim = 2 if groups_last else 1
            split = (-1, groups) if groups_last else (groups, -1)
            a, b, f = residual.unflatten(1, split), shortcut.unflatten(1, split), f.unsqueeze(3 - dim)
    if not may_overwrite(a, b):
        joined = (
            b + a if f is None else b + f * a
        ).relu()  # a compiler fuses it into one pass; autograd needs the parts
    elif f is None:
        joined = a.add_(b).relu_()
    else:
        joined = torch.addcmul(b, f, a, out=a).relu_()
    return joined if joined.dim() == 4 else joined.reshape(residual.shape)


def _map(factor: Tensor | None, residual: Tensor) -> Tensor | None:
    """The factor as kernels take it: of each position where identical rows share one."""
    if factor is None or factor.dim() < 5:
        return factor
    rows = residual.shape[2] // factor.shape[2]
    return factor.expand(-1, -1, -1, rows, -1).flatten(2, 3)
