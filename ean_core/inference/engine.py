"""Deployed networks in ONNX Runtime, which is faster than PyTorch on CPUs, as soon as that pays.

Exporting a network takes seconds, and loading an exported one half a second. The rule is that of renting until one
could have bought: a graph is loaded, or exported, once PyTorch has computed for as long as that takes. A single image
thus never waits, and in total no run takes much more than twice as long as if it had known its number of images.

Exported graphs are kept in the folder ``graphs`` beside the downloads (:func:`~ean_core.common.places.home`), under a
hash of the network and one of the file, and only in a folder that nobody else can write to. A file with another hash is
removed and exported again; outputs were compared with PyTorch's before it was written.

PyTorch cannot run autograd in children that are forked after an export; start them before, or by another method.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import logging
import os
import stat
import tempfile
import threading
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

import ean_core
from ean_core.common.places import home
from ean_core.common.writing import replacing

if TYPE_CHECKING:
    from .export import FromPixels

#: Seconds of computation in PyTorch after which a graph is loaded, or exported if there is none.
LOADING_S, EXPORTING_S = 0.5, 10.0
#: Number of graphs that are kept in the folder, and in memory if a network needs one for each size of images.
KEPT, LOADED = 16, 4
#: Height and width of the images that graphs for any size are traced with.
TRACED = (64, 96)
PYTORCH, ONNXRUNTIME = "PyTorch", "ONNX Runtime"

#: Address and version of each tensor of a network.
Weights = tuple[tuple[int, int], ...]


class Engine:
    """A deployed network, computed by PyTorch at first and by ONNX Runtime later.

    It stays with PyTorch on GPUs, in half precision, and where ONNX Runtime is missing or fails; the reason is logged
    once. If the network's weights change, their graph takes the place of the earlier one.

    Args:
        network: the deployed network; used, not copied.
        wrap: the class that maps its inputs to its outputs, in operations that files can express.
    """

    def __init__(self, network: nn.Module, wrap: type[FromPixels]) -> None:
        self.network = copy.copy(network)  # with the same weights, but without references to this object
        self.wrap = wrap
        self.maps = wrap(self.network).eval()
        #: Number of passes by engine.
        self.passes: Counter[str] = Counter()
        self._spent: dict[Any, float] = defaultdict(float)
        self._sessions: dict[Any, tuple[int, Weights, Any]] = {}
        self._lock = threading.Lock()
        self._failed = importlib.util.find_spec("onnxruntime") is None
        self._key: tuple[Weights, str] | None = None

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of ``wrap`` for images ``(N, C, H, W)``, also if there is only one."""
        session = self._session(images)
        if session is not None:
            try:
                found = session.run(None, {"images": images.contiguous().numpy()})
            except Exception as error:  # of ONNX Runtime, which has a dozen classes
                self._give_up(error)
            else:
                self.passes[ONNXRUNTIME] += 1
                return tuple(map(torch.from_numpy, found))
        start = time.perf_counter()
        outputs = self.maps(images)
        self._spent[self._size(images)] += time.perf_counter() - start
        self.passes[PYTORCH] += 1
        return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)

    def __getstate__(self) -> dict[str, Any]:
        """All but what belongs to this process, so that networks with an engine can be copied and saved."""
        return {**vars(self), "_sessions": {}, "_key": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    @property
    def used(self) -> str:
        """Names of the engines that have computed something."""
        return " and ".join(self.passes)

    def _size(self, images: Tensor) -> tuple[int, int] | None:
        return None if self.wrap.any_size else (images.shape[2], images.shape[3])

    def _is_suited(self) -> bool:
        parameter = next(self.network.parameters())
        return not self._failed and (parameter.device.type, parameter.dtype) == ("cpu", torch.float32)

    def _weights(self) -> Weights:
        """Place of each tensor, and how often it was written to: these change with the network's weights."""
        tensors = (*self.network.parameters(), *self.network.buffers())
        return tuple((each.data_ptr(), 0 if each.is_inference() else each._version) for each in tensors)

    def _session(self, images: Tensor) -> Any:
        """The session for these images; None if PyTorch computes them."""
        size, threads = self._size(images), torch.get_num_threads()
        if self._spent[size] < LOADING_S or not self._is_suited():
            return None
        weights, known = self._weights(), self._sessions.get(size)
        if known is not None and known[:2] == (threads, weights):
            return known[2]
        if not self._lock.acquire(blocking=False):
            return None  # another thread exports or loads, which takes seconds
        try:
            self._sessions.pop(size, None)
            content = self._content(size, weights)
            if content is None:
                return None
            session = _session(content, threads)
            self._sessions[size] = (threads, weights, session)
            if len(self._sessions) > LOADED:
                oldest = next(iter(self._sessions))
                del self._sessions[oldest]
                self._spent[oldest] = 0.0  # loading it again has to pay again
            return session
        except Exception as error:  # exporters raise anything
            self._give_up(error)
            return None
        finally:
            self._lock.release()

    def _content(self, size: tuple[int, int] | None, weights: Weights) -> bytes | None:
        """The graph, from the folder, or exported if that pays by now."""
        if self._key is None or self._key[0] != weights:
            self._key = weights, network_key(self.network, self.wrap)
        name = self._key[1] + ("" if size is None else "-{}x{}".format(*size))
        content = read_graph(name)
        if content is None and self._spent[size] >= EXPORTING_S:
            content = self._exported(size)
            keep_graph(name, content)
        return content

    def _exported(self, size: tuple[int, int] | None) -> bytes:
        from .export import write_onnx

        with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about its own operators
            path = Path(folder) / "graph.onnx"
            write_onnx(self.network, path, size or TRACED, wrap=self.wrap)
            return path.read_bytes()

    def _give_up(self, error: Exception) -> None:
        self._failed = True
        self._sessions.clear()
        reason = str(error).partition("\n")[0] or type(error).__name__
        print_log(f"PyTorch goes on without ONNX Runtime: {reason}", "current", logging.WARNING)


def _session(content: bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # cores are for others between two images
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def network_key(network: nn.Module, wrap: type[FromPixels]) -> str:
    """Hash of all that the exported graph of a network depends on: weights, plain attributes, and versions."""
    digest = hashlib.sha256(repr((wrap.__qualname__, ean_core.__version__, torch.__version__)).encode())
    for name, module in network.named_modules():
        attributes = {key: value for key, value in sorted(vars(module).items()) if _is_plain(value)}
        digest.update(repr((name, type(module).__qualname__, attributes)).encode())
    for name, value in network.state_dict().items():
        digest.update(repr((name, value.dtype, value.shape)).encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _is_plain(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


# ---------------------------------------------------------------- folder


def graphs_folder() -> Path:
    """The folder of exported graphs."""
    return home() / "graphs"


def read_graph(name: str) -> bytes | None:
    """Return a kept graph; None if there is none. Damaged files are removed."""
    folder = graphs_folder()
    if not _is_private(folder):
        return None
    for path in folder.glob(f"{name}.*.onnx"):
        try:
            content = path.read_bytes()
            if path.name == _file_name(name, content):
                os.utime(path)  # it was used
                return content
            print_log(f"{path} is damaged, and is removed", "current", logging.WARNING)
            path.unlink()
        except OSError:
            continue
    return None


def keep_graph(name: str, content: bytes) -> None:
    """Write a graph to the folder, if only this user can write there, and remove those not used for longest."""
    folder = graphs_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(folder):
            return
        with replacing(folder / _file_name(name, content)) as partial:
            partial.write_bytes(content)
        for old in sorted(folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:  # a full disk, or another process that removes files at the same time
        print_log(f"the exported network is not kept: {error}", "current", logging.WARNING)


def _file_name(name: str, content: bytes) -> str:
    return f"{name}.{hashlib.sha256(content).hexdigest()[:32]}.onnx"


def _is_private(folder: Path) -> bool:
    """Whether a folder exists and only this user can write to it."""
    try:
        found = folder.stat()
    except OSError:
        return False
    return os.name != "posix" or (found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
