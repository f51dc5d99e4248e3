"""What each part of a network takes: the cost of a connection, and of walking many schemes at once."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ean_core.attention import State
from ean_core.backbone import EANResNet, join
from ean_core.record import read_record, write_record
from ean_core.scheme import ConnectionScheme

from .timing import synchronize


@dataclass(frozen=True)
class BlockTimes:
    """Median seconds of each part of a network, in a forward pass of one batch.

    Args:
        stages: blocks in each stage.
        stem: up to the first block.
        bodies: of each block's residual branch and shortcut, without attention.
        connections: what connecting each block adds: its attention, shared or not.
        joins: of each block's addition and ReLU.
        head: from the last block to the logits; 0 where only a backbone was measured.

    Raises:
        ValueError: if there is not one time a block.
    """

    stages: tuple[int, ...]
    stem: float
    bodies: tuple[float, ...]
    connections: tuple[float, ...]
    joins: tuple[float, ...]
    head: float = 0.0

    def __post_init__(self) -> None:
        lengths = {len(self.bodies), len(self.connections), len(self.joins)}
        if lengths != {sum(self.stages)}:
            raise ValueError(f"stages {self.stages} need {sum(self.stages)} times of each kind, got {sorted(lengths)}")

    def connected(self, scheme: ConnectionScheme) -> float:
        """Seconds that the connections of a scheme take.

        Raises:
            ValueError: if it is a scheme of another network.
        """
        if scheme.stages != self.stages:
            raise ValueError(f"these times are of stages {self.stages}; {str(scheme)!r} has stages {scheme.stages}")
        return sum(bit * seconds for bit, seconds in zip(scheme.bits, self.connections, strict=True))

    def saved(self, scheme: ConnectionScheme) -> float:
        """Share of the fully connected network's attention time that a scheme saves, in ``[0, 1]``."""
        return 1 - self.connected(scheme) / sum(self.connections)

    def whole(self, scheme: ConnectionScheme) -> float:
        """Seconds of a forward pass, as the sum of its parts."""
        return self.stem + sum(self.bodies) + sum(self.joins) + self.connected(scheme) + self.head

    def save(self, path: str | os.PathLike[str], **more: Any) -> None:
        """Write the times as a run record, with ``more`` about how they were measured."""
        write_record(path, kind="block times", **asdict(self), **more)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BlockTimes:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds no block times.
        """
        record = read_record(Path(path))
        if record.get("kind") != "block times":
            raise ValueError(
                f"{path} holds no block times (kind {record.get('kind')!r}); `ean search latency` makes them"
            )
        return cls(
            stages=tuple(record["stages"]),
            stem=record["stem"],
            bodies=tuple(record["bodies"]),
            connections=tuple(record["connections"]),
            joins=tuple(record["joins"]),
            head=record["head"],
        )


@torch.inference_mode()
def time_blocks(
    backbone: EANResNet,
    inputs: Tensor,
    head: Callable[[Tensor], Any] | None = None,
    *,
    rounds: int = 20,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> BlockTimes:
    """Time the parts of a network, one after the other as they run in it, with every block connected.

    Args:
        backbone: in evaluation mode, on the device of ``inputs``, with a module for every connection.
        inputs: normalised images ``(N, C, H, W)``, in the memory order that counts.
        head: from the last feature map on, if it is to be timed too.
        rounds: passes that are counted; medians are over them.
        warmup: passes that are run first.
        clock: seconds; replaced in tests.

    Raises:
        ValueError: if a block has no attention module.
    """
    if backbone.scheme.sparsity:
        raise ValueError(f"{str(backbone.scheme)!r} does not connect all blocks; build the network with scheme='full'")
    blocks = [(i, block, backbone.attention_at(k, i)) for k, i, block in backbone.blocks()]
    parts: list[list[float]] = [[] for _ in range(3 * len(blocks) + 2)]

    def timed(part: int, run: Callable[..., Any], *arguments: Any) -> Any:
        synchronize(inputs.device)
        start = clock()
        result = run(*arguments)
        synchronize(inputs.device)
        parts[part].append(clock() - start)
        return result

    for _ in range(warmup + rounds):
        x = timed(0, backbone.forward_stem, inputs)
        state: State = None
        for index, (i, block, attention) in enumerate(blocks):
            residual, shortcut = timed(3 * index + 1, block, x)
            assert attention is not None  # all are connected
            residual, state = timed(3 * index + 2, attention, residual, state if i else None)
            x = timed(3 * index + 3, join, residual, shortcut)
        if head is not None:
            timed(-1, head, x)
    stem, *inner, last = (statistics.median(part[warmup:]) if part else 0.0 for part in parts)
    return BlockTimes(backbone.stage_blocks, stem, tuple(inner[0::3]), tuple(inner[1::3]), tuple(inner[2::3]), last)
