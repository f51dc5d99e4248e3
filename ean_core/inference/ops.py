"""What a deployed block computes beside its convolutions: pooling, and scale, shortcut and ReLU in one pass."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(dtype: torch.dtype) -> torch.dtype:
    """In which gates are computed: fp32 for half precisions, the type itself otherwise."""
    return torch.promote_types(dtype, torch.float32)


def pool(x: Tensor) -> Tensor:
    """The mean over positions ``(N, C)`` of ``(N, C, H, W)``, in fp32 at least."""
    return x.mean((2, 3), dtype=precise(x.dtype))


def scale_add_relu(
    residual: Tensor, shortcut: Tensor, factor: Tensor | None = None, *, groups_last: bool = False
) -> Tensor:
    """``relu(shortcut + factor * residual)``, the end of a residual block (Eqn 4).

    Args:
        residual: ``(N, C, H, W)``; what it holds afterwards is undefined.
        shortcut: ``(N, C, H, W)``, left as it is.
        factor: ``(N, G, 1, 1)`` or ``(N, G, H, W)``, one for each of ``G`` groups of channels, ``G`` dividing ``C``;
            None for 1.
        groups_last: channel ``c`` is of group ``c % G``, not ``c // (C / G)``. In channels-last memory a factor of
            few-channel groups is then read in runs of ``G``.

    Returns:
        ``(N, C, H, W)``.
    """
    if factor is None:
        a, b, f = residual, shortcut, None
    else:
        f = factor.to(residual.dtype)
        groups = f.shape[1]
        if groups == residual.shape[1]:
            a, b = residual, shortcut
        else:
            dim = 2 if groups_last else 1
            split = (-1, groups) if groups_last else (groups, -1)
            a, b, f = residual.unflatten(1, split), shortcut.unflatten(1, split), f.unsqueeze(3 - dim)
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)):
        joined = (b + a if f is None else b + f * a).relu()  # a compiler makes one pass of it; autograd needs the parts
    elif f is None:
        joined = a.add_(b).relu_()
    else:
        joined = torch.addcmul(b, f, a, out=a).relu_()
    return joined if joined.dim() == 4 else joined.flatten(1, 2)
