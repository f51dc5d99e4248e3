"""What each part of a network takes: the cost of a connection, eager or deployed, and of walking many schemes."""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ean_core.attention import State
from ean_core.backbone import EANResNet, join, walk
from ean_core.common.memory import keep_freed_memory
from ean_core.common.progress import Progress
from ean_core.common.record import read_record, write_record
from ean_core.scheme import ConnectionScheme

from .deploy import DeployedBlock, deploy
from .timing import median_interval, synchronize


@dataclass(frozen=True)
class BlockTimes:
    """Median seconds of each part of a network, in a forward pass of one batch.

    Args:
        stages: blocks in each stage.
        stem: up to the first block.
        bodies: of each block's residual branch and shortcut, without attention; in a deployed network without the
            last convolution.
        connections: what connecting each block adds: its attention, shared or not.
        joins: of what follows in each block: addition and ReLU; the last convolution too in a deployed network.
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
        # Costs are differences of measured times; one below zero is noise about a connection that costs nothing.
        return sum(bit * max(0.0, seconds) for bit, seconds in zip(scheme.bits, self.connections, strict=True))

    def saved(self, scheme: ConnectionScheme) -> float:
        """Share of the fully connected network's attention time that a scheme saves, in ``[0, 1]``.

        Raises:
            ValueError: if no connection costs anything.
        """
        everything = self.connected(ConnectionScheme.full(self.stages))
        if not everything:
            raise ValueError("by these times no connection costs anything; measure longer, or weigh sparsity instead")
        return 1 - self.connected(scheme) / everything

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
        if not Path(path).is_file():
            raise FileNotFoundError(f"no table of block times at {path}; `ean time --per-block` makes one")
        record = read_record(Path(path))
        if record.get("kind") != "block times":
            raise ValueError(
                f"{path} holds no block times (kind {record.get('kind')!r}); `ean time --per-block` makes them"
            )
        try:
            return cls(
                stages=tuple(record["stages"]),
                stem=record["stem"],
                bodies=tuple(record["bodies"]),
                connections=tuple(record["connections"]),
                joins=tuple(record["joins"]),
                head=record["head"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path} holds no whole block times ({error!r}); `ean time --per-block` makes them"
            ) from error


@dataclass(frozen=True)
class BlockProfile:
    """Times of each part of a network in many forward passes, each connected block once with its attention and once
    without in every pass.

    Args:
        scheme: the connections.
        form: ``eager`` or ``deployed``.
        stem, head: seconds, one a pass.
        bodies: of each block, one a pass: what comes before attention could change anything.
        plain: of each block, one a pass: the rest of it without attention.
        connected: of each block, one a pass: the rest of it with attention; None where it is not connected.
    """

    scheme: ConnectionScheme
    form: str
    stem: tuple[float, ...]
    bodies: tuple[tuple[float, ...], ...]
    plain: tuple[tuple[float, ...], ...]
    connected: tuple[tuple[float, ...] | None, ...]
    head: tuple[float, ...]

    @property
    def times(self) -> BlockTimes:
        """Medians, those of connections over pairs of passes; 0 for what is not connected."""
        return BlockTimes(
            self.scheme.stages,
            statistics.median(self.stem),
            tuple(map(statistics.median, self.bodies)),
            tuple(map(statistics.median, self._costs())),
            tuple(map(statistics.median, self.plain)),
            statistics.median(self.head),
        )

    @property
    def increment(self) -> float:
        """What all connections of the scheme cost together, relative to the network without them (Eqn 9)."""
        return statistics.median(self._sums()) / self._without()

    @property
    def increment_interval(self) -> tuple[float, float] | None:
        """95 % interval of the increment, over pairs of passes; None where they are too few."""
        interval = median_interval(self._sums())
        return interval and (interval[0] / self._without(), interval[1] / self._without())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {
            **asdict(self.times),
            "scheme": str(self.scheme),
            "form": self.form,
            "passes": len(self.stem),
            "without_attention_s": self._without(),
            "connection_intervals": [median_interval(costs) for costs in self._costs()],
            "increment": self.increment,
            "increment_interval": self.increment_interval,
        }

    def _costs(self) -> list[list[float]]:
        """Of each block, in each pair of passes: what runs first in one of them runs second in the other."""
        return [
            [0.0] * (len(without) // 2)
            if with_it is None
            else [
                (with_it[j] - without[j] + with_it[j + 1] - without[j + 1]) / 2 for j in range(0, len(without) - 1, 2)
            ]
            for without, with_it in zip(self.plain, self.connected, strict=True)
        ]

    def _sums(self) -> list[float]:
        """Of all connections, in each pair of passes."""
        return [sum(costs) for costs in zip(*self._costs(), strict=True)]

    def _without(self) -> float:
        """Median seconds of the network without attention."""
        parts = (self.stem, *self.bodies, *self.plain, self.head)
        return statistics.median(sum(times) for times in zip(*parts, strict=True))


@torch.inference_mode()
def profile_blocks(
    backbone: EANResNet,
    inputs: Tensor,
    head: Callable[[Tensor], Any] | None = None,
    *,
    deployed: bool = False,
    rounds: int = 20,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> BlockProfile:
    """Time the parts of a network one after the other as they run in it, connected blocks with and without attention.

    Eager, attention adds itself between the residual branch and the addition. Deployed, it changes all that follows
    the input of the last convolution, so that is timed in both forms, in turns, on the same input. On a GPU every part
    waits for the device, so that parts add up to more than a forward pass takes.

    Args:
        backbone: in evaluation mode, on the device of ``inputs``.
        inputs: normalised images ``(N, C, H, W)``, in the memory order that counts.
        head: from the last feature map on, if it is to be timed too.
        deployed: time what :func:`~ean_core.inference.deploy` makes of the network.
        rounds: passes that are counted, at least 2.
        warmup: passes that are run first.
        clock: seconds; replaced in tests.

    Raises:
        ValueError: if there are fewer than 2 passes, or the network has stages that it does not compute.
    """
    if max(backbone.out_indices) + 1 < len(backbone.stage_blocks):
        raise ValueError(
            f"out_indices={backbone.out_indices} leaves stages out; build the network with "
            f"num_stages={max(backbone.out_indices) + 1}"
        )
    if rounds < 2:
        raise ValueError(f"needs at least 2 passes, one for each order of a block's two forms, got rounds={rounds}")
    keep_freed_memory()
    stem, stages = _deployed_cuts(backbone) if deployed else (backbone.forward_stem, _eager_cuts(backbone))
    stems: list[float] = []
    heads: list[float] = []

    def timed(times: list[float], run: Callable[..., Any], *arguments: Any) -> Any:
        synchronize(inputs.device)
        start = clock()
        result = run(*arguments)
        synchronize(inputs.device)
        times.append(clock() - start)
        return result

    def step(connected_first: bool, cut: _Cut, x: Tensor, state: State) -> tuple[Tensor, State]:
        z, shortcut = timed(cut.body_times, cut.body, x)
        if cut.connected is None:
            return timed(cut.plain_times, cut.plain, z, shortcut), state
        if not connected_first:
            timed(cut.plain_times, cut.plain, z, shortcut)
        x, state = timed(cut.connected_times, cut.connected, z, shortcut, state)
        if connected_first:
            timed(cut.plain_times, cut.plain, z, shortcut)
        return x, state

    with Progress("timing blocks", warmup + rounds) as progress:
        for turn in range(warmup + rounds):
            (x,) = walk(stages, timed(stems, stem, inputs), partial(step, turn % 2 == 0))
            if head is not None:
                timed(heads, head, x)
            progress.advance()

    def counted(times: list[float]) -> tuple[float, ...]:
        return tuple(times[warmup:]) or (0.0,) * rounds

    cuts = list(chain.from_iterable(stages))
    return BlockProfile(
        backbone.scheme,
        "deployed" if deployed else "eager",
        counted(stems),
        tuple(counted(cut.body_times) for cut in cuts),
        tuple(counted(cut.plain_times) for cut in cuts),
        tuple(counted(cut.connected_times) if cut.connected else None for cut in cuts),
        counted(heads),
    )


def time_blocks(
    backbone: EANResNet, inputs: Tensor, head: Callable[[Tensor], Any] | None = None, **options: Any
) -> BlockTimes:
    """Median times of the parts of a network with every block connected; see :func:`profile_blocks`.

    Raises:
        ValueError: if a block has no attention module.
    """
    if backbone.scheme.sparsity:
        raise ValueError(f"{str(backbone.scheme)!r} does not connect all blocks; build the network with scheme='full'")
    return profile_blocks(backbone, inputs, head, **options).times


@dataclass(frozen=True)
class _Cut:
    """A block, cut where attention begins to matter, and what its parts took; none of them changes what it is given."""

    body: Callable[[Tensor], tuple[Tensor, Tensor]]
    plain: Callable[[Tensor, Tensor], Tensor]
    connected: Callable[[Tensor, Tensor, State], tuple[Tensor, State]] | None
    body_times: list[float] = field(default_factory=list)
    plain_times: list[float] = field(default_factory=list)
    connected_times: list[float] = field(default_factory=list)


def _eager_cuts(backbone: EANResNet) -> list[list[_Cut]]:
    """The blocks by stage."""

    def cut(block: nn.Module, attention: nn.Module | None) -> _Cut:
        def connected(residual: Tensor, shortcut: Tensor, state: State) -> tuple[Tensor, State]:
            assert attention is not None
            residual, state = attention(residual, state)
            return join(residual, shortcut), state

        return _Cut(block, join, connected if attention is not None else None)

    return [[cut(block, backbone.attention_at(k, i)) for k, i, block in places] for places in backbone.stages()]


def _deployed_cuts(backbone: EANResNet) -> tuple[Callable[[Tensor], Tensor], list[list[_Cut]]]:
    """The stem, and the blocks by stage."""
    bare = copy.deepcopy(backbone)
    bare.set_scheme("none")
    without, network = deploy(bare), deploy(backbone)

    def cut(plain: DeployedBlock, own: DeployedBlock) -> _Cut:
        connected = own.attention is not None

        def body(x: Tensor) -> tuple[Tensor, Tensor]:
            return own.body(x), x if own.downsample is None else own.downsample(x)

        def rest(z: Tensor, shortcut: Tensor) -> Tensor:
            return (plain if connected else own).finish(z, shortcut, None)[0]

        return _Cut(body, rest, own.finish if connected else None)

    stages: Any = zip(without.stages, network.stages, strict=True)
    return network.stem, [[cut(*blocks) for blocks in zip(*pair, strict=True)] for pair in stages]
