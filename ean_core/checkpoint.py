"""Reading weights, safely and never silently empty; writing the weights of a backbone."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.runner import CheckpointLoader
from safetensors.torch import load_file, save
from torch import Tensor, nn


def read_state_dict(source: str | os.PathLike[str], prefix: str | None = None) -> dict[str, Tensor]:
    """Weights from a file or address, on the CPU.

    Args:
        source: a ``.safetensors`` file, a PyTorch file (read with ``weights_only=True``: nothing in it is executed),
            or an address that mmengine knows, such as ``torchvision://resnet50``.
        prefix: keep only keys that begin so, and cut it off; e.g. ``'backbone.'`` for the file of a classifier.

    Returns:
        Names and tensors. A ``state_dict`` entry is unwrapped and a ``module.`` in front of all names removed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a checkpoint, needs code to be executed, or has no key with the prefix.
    """
    source = os.fspath(source)
    if "://" in source and not source.startswith("file:"):
        with _plain_weights(source), _weights_only():
            content = CheckpointLoader.load_checkpoint(source, map_location="cpu")
    else:
        content = _read_file(Path(source.removeprefix("file://")).expanduser())
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{source} holds no state dict: expected names and tensors, or these under 'state_dict'")
    state = dict(state)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    if prefix:
        prefix = prefix.rstrip(".") + "."
        chosen = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if not chosen:
            raise ValueError(f"no key of {source} begins with {prefix!r}; its keys begin with {_heads(state)}")
        return chosen
    return state


def read_meta(path: Path) -> Mapping[str, Any]:
    """The ``meta`` entry that mmengine writes into its checkpoints, empty where a file has none."""
    content = _read_file(path)
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return meta if isinstance(meta, Mapping) else {}


def load_weights(
    module: nn.Module, source: str | os.PathLike[str], prefix: str | None = None, *, strict: bool = False
) -> None:
    """Load what fits from ``source`` into ``module``; what is missing or left over is logged.

    Args:
        module: the network.
        source, prefix: see :func:`read_state_dict`.
        strict: every tensor of the network must be in the file; the file may hold more.

    Raises:
        ValueError: if no key matches, a tensor of the same name has another shape, or ``strict`` is violated. Nothing
            is changed then.
    """
    state = read_state_dict(source, prefix)
    own = module.state_dict()
    matched = {name: value for name, value in state.items() if name in own}
    kind = type(module).__name__
    if not matched:
        hint = ""
        for head in {name.split(".")[0] + "." for name in state}:
            if any(name.removeprefix(head) in own for name in state):
                hint = f"; add prefix={head!r} to load what is under it"
        raise ValueError(
            f"no key of {source} matches {kind}: its keys begin with {_heads(state)}, "
            f"those of {kind} with {_heads(own)}{hint}"
        )
    wrong = [name for name, value in matched.items() if value.shape != own[name].shape]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{len(wrong)} tensors of {source} have another shape than in {kind}; first {name}: "
            f"{tuple(matched[name].shape)} in the file, {tuple(own[name].shape)} in the network"
        )
    missing = own.keys() - matched.keys()
    if missing and strict:
        raise ValueError(f"{source} is no checkpoint of this {kind}: it lacks {_heads(missing, depth=3)}")
    module.load_state_dict(matched, strict=False)
    if missing:
        expected = all("attention" in name.split(".") for name in missing)
        print_log(
            f"{source}: not in the file, left as initialised: {_heads(missing, depth=2)}",
            logger="current",
            level=logging.INFO if expected else logging.WARNING,
        )
    if state.keys() - own.keys():
        print_log(f"{source}: not in {kind}, ignored: {_heads(state.keys() - own.keys(), depth=2)}", logger="current")


class PretrainedOrRaise:
    """For modules in front of mmengine's BaseModule: ``init_cfg`` of type ``Pretrained`` raises where no key matches.

    mmengine loads nothing then and says so in a log line.
    """

    init_cfg: Any

    def init_weights(self) -> None:
        """Apply ``init_cfg``: pretrained weights last, by :func:`load_weights`."""
        whole = self.init_cfg
        configs = [whole] if isinstance(whole, Mapping) else list(whole or [])
        pretrained = [cfg for cfg in configs if cfg["type"] in ("Pretrained", PretrainedInit)]
        self.init_cfg = [cfg for cfg in configs if cfg not in pretrained]
        try:
            super().init_weights()  # type: ignore[misc]
        finally:
            self.init_cfg = whole
        for cfg in pretrained:
            load_weights(self, cfg["checkpoint"], cfg.get("prefix"))  # type: ignore[arg-type]


def save_weights(state: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    """Write plain tensors and plain metadata as safetensors, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_bytes(save(tensors, dict(metadata)))  # save_file of safetensors 0.8 makes it unreadable to others
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Have every ``torch.load`` inside refuse code, also on torch below 2.6, where that is not its default."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _read_file(path: Path) -> object:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except Exception as error:  # the safetensors error class is not a public name in all versions
            raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    with _plain_weights(path):
        return torch.load(path, map_location="cpu", weights_only=True)


@contextmanager
def _plain_weights(source: object) -> Iterator[None]:
    """Turn what ``torch.load`` raises for a file that is not plain weights into one error."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # a damaged pickle fails in a dozen ways
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
        raise ValueError(
            f"{source} cannot be read as plain weights: it is damaged, no PyTorch file, or needs code to be executed "
            f"({reason.splitlines()[0].partition('. Please')[0]})"
        ) from error


def _heads(names: Iterable[str], depth: int = 1) -> str:
    heads = sorted({".".join(name.split(".")[:depth]) for name in names})
    return ", ".join(heads[:8]) + (f", and {len(heads) - 8} more" if len(heads) > 8 else "") or "(nothing)"
