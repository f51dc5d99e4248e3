"""Memory: what becomes of it when it is freed, which glibc's malloc gives back at a price, and copies to a GPU's."""

from __future__ import annotations

import ctypes
import platform

from torch import Tensor

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Have this process keep the memory that it frees, for its next allocation, where its C library is glibc.

    A feature map of some megabytes is otherwise returned to the system when it is freed and comes back page by page
    when the next one of its size is needed, in each forward pass anew. That took half the time of a small network on
    one machine, and depends on the order of allocations: two networks of equal work differed by a tenth. Results stay
    the same; the process stays as large as it once was. What lives long and sees inputs of many sizes, such as a
    server, should rather not.

    Returns:
        Whether it is so now; False on other systems, where nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    malloc = ctypes.CDLL(None)
    return bool(malloc.mallopt(_M_MMAP_MAX, 0)) and bool(malloc.mallopt(_M_TRIM_THRESHOLD, -1))


def copy_over(source: Tensor, target: Tensor) -> None:
    """Copy from a CPU to wherever the target is; to a GPU, from page-locked memory, which the CPU does not wait for."""
    if target.device.type == "cuda":
        source = source.pin_memory()
    target.copy_(source, non_blocking=True)
