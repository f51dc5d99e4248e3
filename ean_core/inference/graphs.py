"""CUDA graphs: the kernels of a forward pass, captured once and launched together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: Passes before the capture, in which libraries select algorithms and kernels are compiled.
WARMUP = 3
#: Maximum number of recordings; the oldest is dropped first.
LIMIT = 8


class CUDAGraphs:
    """Runs a function of one tensor on a GPU by replaying its captured kernels.

    Each shape, dtype and memory format of the input has its own recording, which holds the memory of a forward pass.
    """

    def __init__(self) -> None:
        self.recordings: dict[Any, tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]] = {}

    def __call__(self, run: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor) -> tuple[Tensor, ...]:
        """The outputs of ``run(x)``, in newly allocated memory."""
        # Recorded tensors outlive this call, so they must not be inference tensors.
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
        """Drop all recordings; required when weights are moved."""
        self.recordings.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> CUDAGraphs:
        return CUDAGraphs()  # recordings contain addresses of one network's weights

    @staticmethod
    def _record(
        run: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]:
        with torch.cuda.device(x.device):
            inputs = torch.empty_like(x).copy_(x)  # dense, even if x is an expanded tensor
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
