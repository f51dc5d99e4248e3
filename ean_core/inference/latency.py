"""Time each part of a network: the cost of a connection, eager or deployed."""

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
from ean_core.backbone import EANResNet, walk
from ean_core.common.memory import keep_freed_memory
from ean_core.common.progress import Progress
from ean_core.common.record import read_record, write_record
from ean_core.layers import ResidualBlock, join
from ean_core.scheme import ConnectionScheme

from .deploy import DeployedBlock, deploy
from .timing import median_interval, synchronize


@dataclass(frozen=True)
class BlockTimes:
    """Median seconds of each part of a network, in a forward pass of one batch.

    Args:
        stages: blocks in each stage.
        stem: time before the first block.
        bodies: time of each block's residual branch and shortcut, without attention; in a deployed network also
            without the last convolution.
        connections: additional time for connecting each block: its attention, shared or not.
        joins: time of the rest of each block: addition and ReLU; in a deployed network also the last convolution.
        head: time from the last block to the logits; 0 if only a backbone was measured.

    Raises:
        ValueError: if there is not one time per block.
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
        """Return the seconds that the connections of a scheme take.

        Raises:
            ValueError: if the scheme belongs to another network.
        """
        if scheme.stages != self.stages:
            raise ValueError(f"these times are for stages {self.stages}; {str(scheme)!r} has stages {scheme.stages}")
        # Costs are differences of measured times; a negative one is noise around a cost of zero.
        return sum(bit * max(0.0, seconds) for bit, seconds in zip(scheme.bits, self.connections, strict=True))

    def saved(self, scheme: ConnectionScheme) -> float:
        """Return the share of the fully connected network's attention time that a scheme saves, in ``[0, 1]``.

        Raises:
            ValueError: if no connection has a measurable cost.
        """
        everything = self.connected(ConnectionScheme.full(self.stages))
        if not everything:
            raise ValueError(
                "no connection has a measurable cost in these times; measure longer, or weight sparsity instead"
            )
        return 1 - self.connected(scheme) / everything

    def whole(self, scheme: ConnectionScheme) -> float:
        """Return the seconds of a forward pass, as the sum of its parts."""
        return self.stem + sum(self.bodies) + sum(self.joins) + self.connected(scheme) + self.head

    def save(self, path: str | os.PathLike[str], **more: Any) -> None:
        """Write the times as a run record, with ``more`` fields about the measurement."""
        write_record(path, kind="block times", **asdict(self), **more)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BlockTimes:
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it does not contain block times.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no block times at {path}; `ean time --per-block` writes them")
        record = read_record(Path(path))
        if record.get("kind") != "block times":
            raise ValueError(
                f"{path} has no block times (kind {record.get('kind')!r}); `ean time --per-block` writes them"
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
                f"{path} has incomplete block times ({error!r}); `ean time --per-block` writes them"
            ) from error


@dataclass(frozen=True)
class BlockProfile:
    """Times of each part of a network over many forward passes; every pass runs each connected block with and without
    its attention.

    Args:
        scheme: the connections.
        form: ``eager`` or ``deployed``.
        stem, head: seconds per pass.
        bodies: seconds per pass, for each block: the part that attention does not affect.
        plain: seconds per pass, for each block: the rest, without attention.
        connected: seconds per pass, for each block: the rest, with attention; None for an unconnected block.
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
        """Median times; for connections, over pairs of passes, and 0 for unconnected blocks."""
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
        """Cost of all connections of the scheme together, relative to the network without them (Eqn 9)."""
        return statistics.median(self._sums()) / self._without()

    @property
    def increment_interval(self) -> tuple[float, float] | None:
        """95 % interval of the increment, over pairs of passes; None if there are too few."""
        interval = median_interval(self._sums())
        return interval and (interval[0] / self._without(), interval[1] / self._without())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a record."""
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
        """Return the cost of each connection per pair of passes, which run a block's two forms in opposite order."""
        return [
            [0.0] * (len(without) // 2)
            if with_it is None
            else [
                (with_it[j] - without[j] + with_it[j + 1] - without[j + 1]) / 2 for j in range(0, len(without) - 1, 2)
            ]
            for without, with_it in zip(self.plain, self.connected, strict=True)
        ]

    def _sums(self) -> list[float]:
        """Return the cost of all connections together, in each pair of passes."""
        return [sum(costs) for costs in zip(*self._costs(), strict=True)]

    def _without(self) -> float:
        """Return the median seconds of the network without attention."""
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
    """Time the parts of a network in the order in which they run, connected blocks with and without attention.

    In an eager network, attention runs between the residual branch and the addition. In a deployed one it affects
    everything after the input of the last convolution, so that part is timed in both forms, alternately, on the same
    input. On a GPU each part is synchronized with the device, so the parts add up to more than a forward pass.

    Args:
        backbone: backbone in evaluation mode, on the device of ``inputs``.
        inputs: normalized images ``(N, C, H, W)``, in the memory format to be timed.
        head: function of the last feature map, if it is to be timed too.
        deployed: time the network after :func:`~ean_core.inference.deploy`.
        rounds: number of timed passes, at least 2.
        warmup: number of passes run first, without timing.
        clock: returns seconds; replaced in tests.

    Raises:
        ValueError: if there are fewer than 2 passes, or the network has stages that it does not compute.
    """
    if max(backbone.out_indices) + 1 < len(backbone.stage_blocks):
        raise ValueError(
            f"out_indices={backbone.out_indices} skips stages; build the network with "
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
    """Return median times of the parts of a fully connected network; see :func:`profile_blocks`.

    Raises:
        ValueError: if a block is not connected.
    """
    if backbone.scheme.sparsity:
        raise ValueError(f"{str(backbone.scheme)!r} does not connect all blocks; build the network with scheme='full'")
    return profile_blocks(backbone, inputs, head, **options).times


@dataclass(frozen=True)
class _Cut:
    """A block split where attention starts to have an effect, with the times of its parts; none modifies its inputs."""

    body: Callable[[Tensor], tuple[Tensor, Tensor]]
    plain: Callable[[Tensor, Tensor], Tensor]
    connected: Callable[[Tensor, Tensor, State], tuple[Tensor, State]] | None
    body_times: list[float] = field(default_factory=list)
    plain_times: list[float] = field(default_factory=list)
    connected_times: list[float] = field(default_factory=list)


def _eager_cuts(backbone: EANResNet) -> list[list[_Cut]]:
    """Split the blocks of an eager network, by stage."""

    def cut(block: ResidualBlock, attention: nn.Module | None) -> _Cut:
        def connected(residual: Tensor, shortcut: Tensor, state: State) -> tuple[Tensor, State]:
            assert attention is not None
            residual, state = attention(residual, state)
            return join(residual, shortcut), state

        return _Cut(block.branches, join, connected if attention is not None else None)

    return [[cut(block, backbone.attention_at(k, i)) for k, i, block in places] for places in backbone.stages()]


def _deployed_cuts(backbone: EANResNet) -> tuple[Callable[[Tensor], Tensor], list[list[_Cut]]]:
    """Return the stem of the deployed network and its split blocks, by stage."""
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
