"""Operations, memory and memory traffic of a forward pass; state of the machine that it is timed on."""

from __future__ import annotations

import os
import subprocess
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

#: Load that a machine has by itself, and the distance of quartiles, relative to the median, of times that are wide.
FREE, SPREAD = 0.5, 0.1
CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")


@torch.inference_mode()
def count_macs(network: Callable[[Tensor], Any], inputs: Tensor) -> int:
    """Multiply-accumulate operations per image in convolutions and matrix products.

    Args:
        network: not compiled.
        inputs: ``(N, C, H, W)``.
    """
    with FlopCounterMode(display=False) as counter:
        network(inputs)
    return counter.get_total_flops() // 2 // len(inputs)


@torch.inference_mode()
def peak_memory(network: Callable[[Tensor], Any], inputs: Tensor) -> int:
    """Peak memory in bytes of the tensors created in a forward pass, without weights and inputs.

    On a GPU as reported by the allocator, including library workspaces; on a CPU from tensors returned by operators.

    Args:
        network: not compiled.
        inputs: ``(N, C, H, W)``.
    """
    if inputs.is_cuda:
        network(inputs)  # compiles and tunes kernels, which takes extra memory
        torch.cuda.synchronize(inputs.device)
        torch.cuda.reset_peak_memory_stats(inputs.device)
        before = torch.cuda.memory_allocated(inputs.device)
        network(inputs)
        torch.cuda.synchronize(inputs.device)
        return torch.cuda.max_memory_allocated(inputs.device) - before
    with _Allocations(network, inputs) as allocations:
        network(inputs)
    return allocations.peak


@torch.inference_mode()
def count_bytes(network: Callable[[Tensor], Any], inputs: Tensor) -> int:
    """Bytes per image that operators read and write, including weights, summed over operators.

    Views count as zero. A kernel that fuses several operators moves fewer bytes than are counted here.

    Args:
        network: not compiled.
        inputs: ``(N, C, H, W)``.
    """
    with _Traffic() as traffic:
        network(inputs)
    return traffic.bytes // len(inputs)


class _Traffic(TorchDispatchMode):
    """Sums the bytes that operators read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        if not any(value.alias_info and not value.alias_info.is_write for value in returns):
            read = {name: value for name, value in (kwargs or {}).items() if name != "out"}
            tensors = [value for value in tree_leaves((args, read, result)) if isinstance(value, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


class _Allocations(TorchDispatchMode):
    """Tracks the storages that operators allocate until they are freed."""

    def __init__(self, network: Any, inputs: Tensor) -> None:
        super().__init__()
        own = [*network.parameters(), *network.buffers()] if isinstance(network, torch.nn.Module) else []
        self.known = {tensor.untyped_storage().data_ptr() for tensor in (inputs, *own)}
        self.live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self.known:
            return
        self.known.add(address)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, address, size)

    def _free(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.live -= size


def disturbance(load: float, threads: int, spread: float, cores: int) -> str | None:
    """Describe what makes the intervals of a timing wide; None if nothing does.

    Args:
        load: average number of running processes on the machine in the minute before.
        threads: CPU threads that were timed; 0 on a GPU.
        spread: distance of the quartiles of a network's times, relative to their median.
        cores: cores of the machine.

    Examples:
        >>> disturbance(load=3.1, threads=2, spread=0.02, cores=4)
        'other programs were running (load 3.1 before the start, with 2 threads to time on 4 cores)'
        >>> disturbance(load=0.3, threads=2, spread=0.25, cores=4)
        'times of the same network vary by 25 %'
        >>> disturbance(load=0.3, threads=2, spread=0.02, cores=4)
    """
    found = []
    if load > FREE and load + threads > cores + FREE:
        what = f" with {threads} thread{'s' * (threads > 1)} to time" if threads else ""
        found.append(f"other programs were running (load {load:.1f} before the start,{what} on {cores} cores)")
    if spread > SPREAD:
        found.append(f"times of the same network vary by {100 * spread:.0f} %")
    return " and ".join(found) or None


def clock_notes(device: torch.device) -> dict[str, Any]:
    """Conditions that may limit a device's clock during timing, as far as the system reports them."""
    notes: dict[str, Any] = {"load_average_1min": os.getloadavg()[0]}
    for name in ("scaling_governor", "scaling_cur_freq", "scaling_max_freq"):
        if (CPUFREQ / name).is_file():
            notes[name] = (CPUFREQ / name).read_text().strip()
    if device.type == "cuda":
        asked = ("clocks.sm", "clocks.max.sm", "clocks.mem", "power.draw", "power.limit", "temperature.gpu")
        gpu = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        command = ["nvidia-smi", f"--id={gpu}", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            return notes
        notes |= dict(zip(asked, (value.strip() for value in answer.strip().split(",")), strict=False))
    return notes
