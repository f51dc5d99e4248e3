"""CUDA graphs: the kernels of a forward pass, recorded once and launched together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: Passes before the recording, in which libraries choose their algorithms and kernels are compiled.
WARMUP = 3
#: Recordings that are kept; the oldest goes first.
LIMIT = 8


class CUDAGraphs:
    """Runs a function of one tensor on a GPU, from the second call with a shape on by replaying its kernels.

    Each shape, type and memory order of the input has a recording, which holds the memory of a forward pass.
    """

    def __init__(self) -> None:
        self.recordings: dict[Any, tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]] = {}

    def __call__(self, run: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor) -> tuple[Tensor, ...]:
        """The outputs of ``run(x)``, in memory of their own."""
        # Recorded tensors outlive this call, so they must not belong to an inference mode that it is made in.
        with torch.inference_mode(False), torch.no_grad():
            key = (x.shape, x.stride(), x.dtype, x.device)
            if key not in self.recordings:
                if len(self.recordings) == LIMIT:
                    del self.recordings[next(iter(self.recordings))]
                self.recordings[key] = self._record(run, x)
            graph, inputs, outputs = self.recordings[key]
            inputs.copy_(x)
            graph.replay()
            return tuple(output.clone() for output in outputs)

    def clear(self) -> None:
        """Forget all recordings, as is needed when weights move."""
        self.recordings.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> CUDAGraphs:
        return CUDAGraphs()  # recordings hold the addresses of one network's weights

    @staticmethod
    def _record(
        run: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]:
        with torch.cuda.device(x.device):
            inputs = torch.empty_like(x).copy_(x)  # packed, also where x repeats a channel
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARMUP):
                    run(inputs)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=side):
                outputs = run(inputs)
        return graph, inputs, outputs
