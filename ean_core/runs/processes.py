"""Processes of a run: initialize distributed training on GPUs or CPUs, and lock the run's folder."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from filelock import Timeout
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, init_dist, is_distributed, is_main_process

from ean_core.common.errors import InUseError, writing
from ean_core.common.writing import check_folder, file_lock, nothing_left, remove_leftovers

#: Files in a run's folder that only the training writes; other commands may be writing the others.
WRITTEN = ("*.pth", "progress.json", "record.json")


def initialize_processes(config: Config, launcher: str) -> None:
    """Initialize the process group of a run, on GPUs or, unlike mmengine, on CPUs.

    Raises:
        ValueError: if the launcher needs GPUs and there are none.
    """
    if launcher == "none":
        return
    if torch.cuda.is_available():
        if launcher == "mpi":  # mmengine reads it but does not set it
            os.environ.setdefault("LOCAL_RANK", os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK", "0"))
        if not is_distributed():
            init_dist(launcher, **config.env_cfg.get("dist_cfg", {"backend": "nccl"}))
        return
    if launcher != "pytorch":
        raise ValueError(f"--launcher {launcher} needs GPUs; on CPUs, start with torchrun and --launcher pytorch")
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
        atexit.register(_leave_processes)
    config.sync_bn = None  # PyTorch's synchronized batch norm needs GPUs
    config.model_wrapper_cfg = {
        "type": "MMDistributedDataParallel",
        "device_ids": None,
        "broadcast_buffers": False,
        "find_unused_parameters": config.get("find_unused_parameters", False),
    }


def agreed(path: Path | None) -> Path | None:
    """Return rank 0's path on all ranks."""
    seen = [path]
    broadcast_object_list(seen)
    return seen[0]


@contextmanager
def starting(work_dir: Path) -> Iterator[None]:
    """Check a run's folder; if the block fails before it got anywhere, nothing of it is left there.

    Raises:
        NotADirectoryError, CannotWriteError: as :func:`~ean_core.common.writing.check_folder`.
    """
    check_folder(work_dir)
    with nothing_left(work_dir) if is_main_process() else nullcontext():
        yield


@contextmanager
def locked(work_dir: Path) -> Iterator[None]:
    """Lock a folder against training by other runs.

    Raises:
        InUseError: if another process is training in it.
    """
    lock = file_lock(work_dir / "train.lock", timeout=0)
    held = [True]
    if is_main_process():
        with writing(work_dir):
            work_dir.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout:
                held = [False]
            else:
                for name in WRITTEN:
                    remove_leftovers(work_dir, f".{name}.*")
    broadcast_object_list(held)
    if not held[0]:
        raise InUseError(f"another process is training in {work_dir}; wait for it, or choose another --work-dir")
    try:
        yield
    finally:
        lock.release()


def _leave_processes() -> None:
    """End gloo's threads before the interpreter exits: a thread still running then aborts the finished process.

    They end with the last reference to the group. The runner and its hooks refer to each other and to the network,
    which holds the group, so only the garbage collector frees them.
    """
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
