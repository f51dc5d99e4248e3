"""The interface of an attention module, and the registry of all modules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from mmengine.registry import Registry
from torch import Tensor, nn

from ean_core.common.errors import unknown_name
from ean_core.windows import join_cores, windows_of

#: Attention modules by name. ``@ATTENTION.register_module()`` on a class is all that a new module needs.
ATTENTION = Registry("attention", scope="ean_core", locations=["ean_core.attention"])

#: State passed from one connected block of a stage to the next: ``None`` for stateless modules, and at a stage's start,
#: where it is equivalent to zeros.
State = tuple[Tensor, ...] | None


class Attention(nn.Module, ABC):
    """An attention module ``M`` that rescales the residual branch of the blocks it is connected to (Eqn 4).

    The three steps of the paper's introduction are separate methods, because deployment reorders them and
    visualization inspects the gate between them. A subclass implements all three; its ``__init__`` takes ``channels``
    first, then options with defaults (those of the paper's ImageNet networks), and the options of this class.

    Args:
        channels: ``C``, channels of the residual branch.
        identity_start: divide the gate by :attr:`fresh_gate`, and initialize the module to give exactly that gate, so
            that a connected block starts as if it had no attention. For networks that start from weights without
            attention: a fresh gate would shrink their residual branches, and features with them.
        window: height and width, in positions of the feature map, of the regions that have gates of their own; see
            :func:`~ean_core.windows.windows_of`. The ``attention`` option of a backbone gives them in pixels of the
            image. None: one gate for the whole image.
    """

    #: The gate of a module that is initialized with ``identity_start``, before the division.
    fresh_gate: ClassVar[float]

    #: Options that suit the narrow CIFAR networks better than the defaults, for bottlenecks and for basic blocks.
    cifar_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {"bottleneck": {}, "basic": {}}

    #: Whether the gate is one factor per channel, ``(N, C)``, so that a constant gate can take its place (``c`` in a
    #: scheme); such a module has a ``fresh_gate``.
    per_channel: ClassVar[bool] = False

    #: Whether the module carries a state across the blocks of a stage, and therefore exists only once per stage.
    recurrent: ClassVar[bool] = False

    def __init__(self, channels: int, *, identity_start: bool = False, window: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.window = window
        #: Factor of the gate, applied by :meth:`forward`.
        self.gain = 1 / self.fresh_gate if identity_start else 1.0

    @abstractmethod
    def extract(self, residual: Tensor) -> Tensor:
        """Statistics of a residual branch ``(N, C, H, W)``; their shape depends on the module."""

    @abstractmethod
    def process(self, extracted: Tensor, state: State) -> tuple[Tensor, State]:
        """The gate and the next state, from the output of :meth:`extract` and the stage's state."""

    @abstractmethod
    def recalibrate(self, residual: Tensor, gate: Tensor) -> Tensor:
        """The residual branch ``(N, C, H, W)`` scaled by the gate; same shape and dtype."""

    def forward(self, residual: Tensor, state: State = None, connection: Tensor | None = None) -> tuple[Tensor, State]:
        """Recalibrate a residual branch, ``(a M(f) + (1 - a)) f`` (Eqn 4).

        Args:
            residual: ``(N, C, H, W)``, the branch ``f`` after its last normalization.
            state: the state returned by the previous connected block of the stage, ``None`` at the stage's start.
            connection: ``a``, a number in ``[0, 1]`` on the device; None for 1. At 0, branch and state are exactly
                unchanged.

        Returns:
            The recalibrated branch ``(N, C, H, W)`` and the state for the next connected block.
        """
        # Without windows nothing depends on the size of the map, so that it may be symbolic.
        windows = [] if self.window is None else windows_of(residual.shape[2:], self.window)
        if len(windows) < 2:
            extracted = self.extract(residual)
        else:
            extracted = torch.cat([self.extract(window.of(residual)) for window in windows])
        gate, advanced = self.process(extracted, state)
        if self.gain != 1:
            gate = self.gain * gate
        if connection is not None:
            gate = connection * gate + (1 - connection)
            if advanced is not None:
                before = tuple(map(torch.zeros_like, advanced)) if state is None else state
                advanced = tuple(
                    connection * new + (1 - connection) * old for old, new in zip(before, advanced, strict=True)
                )
        if len(windows) < 2:
            return self.recalibrate(residual, gate), advanced
        gates = zip(windows, gate.chunk(len(windows)), strict=True)
        cores = [self.recalibrate(window.core_of(residual), window.inner(each)) for window, each in gates]
        return join_cores(windows, cores), advanced


def attention_class(name: str) -> type[Attention]:
    """The registered module called ``name``.

    Raises:
        ValueError: if there is none; the message lists the valid names.
    """
    found = ATTENTION.module_dict.get(name) if isinstance(name, str) else None
    if found is None:
        raise unknown_name("attention", name, ATTENTION.module_dict)
    return found


def reduced(channels: int, reduction: int) -> int:
    """Number of hidden units of a squeeze layer: ``channels // reduction``, at least one.

    Raises:
        ValueError: if ``reduction`` is below 1.
    """
    if reduction < 1:
        raise ValueError(f"reduction must be a positive integer, got {reduction}; for example 16")
    return max(1, channels // reduction)
