"""Reading weights, safely and never silently empty; writing the weights of a backbone."""

from __future__ import annotations

import json
import logging
import os
import pickletools
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.model.weight_init import update_init_info
from mmengine.runner import CheckpointLoader
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .addresses import SCHEME, backbone_of, load_from_ean, read_metadata, resolve
from .data.root import offline
from .errors import writing

_BLOCK = re.compile(r"((?:.*\.)?layer\d+)\.(\d+)\.")
_ATTENTION = re.compile(r"((?:.*\.)?)attention\.(layer\d+)[._]")
_STEM = re.compile(r"(?:backbone\.)?(stem|conv1)\.")


def read_state_dict(source: str | os.PathLike[str], prefix: str | None = None) -> dict[str, Tensor]:
    """Weights from a file or address, on the CPU.

    Args:
        source: a ``.safetensors`` file, a PyTorch file (read with ``weights_only=True``: nothing in it is executed),
            or an address: ``ean://NAME``, or one that mmengine knows, such as ``torchvision://resnet50``.
        prefix: keep only keys that begin so, and cut it off; e.g. ``'backbone.'`` for the file of a classifier.

    Returns:
        Names and tensors. A ``state_dict`` entry is unwrapped and a ``module.`` in front of all names removed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a checkpoint, needs code to be executed, or has no key with the prefix.
    """
    source = os.fspath(source)
    if source.startswith(SCHEME):
        content: object = load_from_ean(source)
    elif "://" in source and not source.startswith("file:"):
        if offline():
            raise OSError(f"EAN_OFFLINE forbids to fetch {source}; unset that, or give a file")
        with _plain_weights(source), weights_only():
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

    A backbone takes its part of a whole network at ``ean://`` without a prefix. Stages that only the file has are left
    out whole.

    Args:
        module: the network.
        source, prefix: see :func:`read_state_dict`.
        strict: every tensor of the network must be in the file; the file may hold more.

    Raises:
        ValueError: if no key matches, a tensor of the same name has another shape, a stage has another number of blocks
            in the file, or ``strict`` is violated. Nothing is changed then.
    """
    published = os.fspath(source).startswith(SCHEME)
    path = resolve(os.fspath(source)) if published else source
    state = read_state_dict(path, prefix)
    own = module.state_dict()
    kind = type(module).__name__
    if published and prefix is None and not state.keys() & own.keys():
        part = backbone_of(state)
        state = part if part.keys() & own.keys() else state
    _refuse_misfits(state, own, kind, source, path)
    missing = own.keys() - state.keys()
    if missing and strict:
        raise ValueError(
            f"{source} is no checkpoint of this {kind}: it lacks {_heads(missing, depth=3)}{_network_of(path)}"
        )
    module.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)
    _log_differences(state, own, kind, source)
    _compare_networks(module, source, path)


class PretrainedOrRaise:
    """For modules in front of mmengine's BaseModule: ``init_cfg`` of type ``Pretrained`` raises where no key matches.

    mmengine loads nothing then and says so in a log line.
    """

    init_cfg: Any
    _pending: Sequence[Mapping[str, Any]] = ()

    def init_weights(self) -> None:
        """Apply ``init_cfg``: pretrained weights last, by :func:`load_weights`."""
        whole = self.init_cfg
        configs = [whole] if isinstance(whole, Mapping) else list(whole or [])
        self._pending = [cfg for cfg in configs if cfg["type"] in ("Pretrained", PretrainedInit)]
        self.init_cfg = [cfg for cfg in configs if cfg not in self._pending]
        try:
            super().init_weights()  # type: ignore[misc]
        finally:
            self.init_cfg = whole
        self._load_pretrained()

    def _dump_init_info(self) -> None:
        """Load before mmengine says, at the end of a whole model, where each parameter came from."""
        self._load_pretrained()
        super()._dump_init_info()  # type: ignore[misc]

    def _load_pretrained(self) -> None:
        pending, self._pending = self._pending, ()
        for cfg in pending:
            load_weights(self, cfg["checkpoint"], cfg.get("prefix"))  # type: ignore[arg-type]
            print_log(f"{type(self).__name__}: loaded {cfg['checkpoint']}", "current")
            if hasattr(self, "_params_init_info"):
                update_init_info(self, f"PretrainedInit: load from {cfg['checkpoint']}")


def save_weights(state: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    """Write plain tensors and plain metadata as safetensors, whole or not at all; equal content gives equal bytes."""
    path = Path(path)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    partial = path.with_name(path.name + ".part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # save_file of safetensors 0.8 makes the file unreadable to others
            partial.write_bytes(_in_order(save(tensors, dict(metadata))))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its metadata in alphabetical order, which the library writes in a random one."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at multiples of eight bytes
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _refuse_misfits(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], kind: str, source: object, path: str | os.PathLike[str]
) -> None:
    """Raise where a state dict is of another network than ``own``, that of a module of this kind."""
    matched = state.keys() & own.keys()
    if not matched:
        hint = ""
        for head in {name.split(".")[0] + "." for name in state}:
            if any(name.removeprefix(head) in own for name in state):
                hint = f"; add prefix={head!r} to load what is under it"
        raise ValueError(
            f"no key of {source} matches {kind}: its keys begin with {_heads(state)}, "
            f"those of {kind} with {_heads(own)}{hint}"
        )
    wrong = [name for name in state if name in matched and state[name].shape != own[name].shape]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{len(wrong)} tensors of {source} have another shape than in {kind}; first {name}: "
            f"{tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the network{_network_of(path)}"
        )
    theirs, ours = _stem(state), _stem(own)
    if theirs and ours and theirs != ours:
        kinds = {"stem": "a deep stem, as ResNetV1c", "conv1": "a stem of one convolution"}
        raise ValueError(
            f"{source} has {kinds[theirs]}, {kind} has {kinds[ours]}; add deep_stem={theirs == 'stem'} to the "
            f"backbone, or take other weights{_network_of(path)}"
        )
    there, here = _blocks(state), _blocks(own)
    for stage in sorted(there.keys() & here.keys()):
        if there[stage] != here[stage]:
            raise ValueError(
                f"{source} has {len(there[stage])} blocks in {stage}, {kind} has {len(here[stage])}; build the "
                f"network at the depth of the file{_network_of(path)}"
            )


def _log_differences(state: Mapping[str, Tensor], own: Mapping[str, Tensor], kind: str, source: object) -> None:
    """Say what only one of a file and a network has."""
    missing, left = own.keys() - state.keys(), state.keys() - own.keys()
    if missing:
        expected = all("attention" in name.split(".") for name in missing)
        print_log(
            f"{source}: not in the file, left as initialised: {_heads(missing, depth=2)}",
            logger="current",
            level=logging.INFO if expected else logging.WARNING,
        )
    ours = _blocks(own)
    gone = sorted(_blocks(state).keys() - ours.keys())
    if gone and ours:
        print_log(f"{source}: {kind} has no {', '.join(gone)}, left out whole", "current", logging.WARNING)
        left = {name for name in left if _stage_of(name) not in gone}
    if left:
        recalibrates = any("attention" in name.split(".") for name in left)  # without it something else is computed
        print_log(
            f"{source}: not in {kind}, ignored: {_heads(left, depth=2)}",
            logger="current",
            level=logging.WARNING if recalibrates else logging.INFO,
        )


def _blocks(names: Iterable[str]) -> dict[str, set[int]]:
    """The blocks of a network by the names of its stages, such as ``backbone.layer4``."""
    stages = defaultdict(set)
    for name in names:
        if match := _BLOCK.match(name):
            stages[match[1]].add(int(match[2]))
    return dict(stages)


def _stem(names: Iterable[str]) -> str:
    """What a network's stem is called: ``conv1``, or ``stem`` for a deep one; empty where there is none or both."""
    found = {match[1] for name in names if (match := _STEM.match(name))}
    return found.pop() if len(found) == 1 else ""


def _stage_of(name: str) -> str | None:
    """The stage that a tensor of a block or of an attention module belongs to."""
    if match := _BLOCK.match(name):
        return match[1]
    match = _ATTENTION.match(name)
    return match[1] + match[2] if match else None


def _description(source: str | os.PathLike[str]) -> Mapping[str, str]:
    """What a file of ours says of its network; nothing for other files."""
    path = Path(os.fspath(source).removeprefix("file://")).expanduser()
    return read_metadata(path) if path.suffix == ".safetensors" and path.is_file() else {}


def _network_of(source: str | os.PathLike[str]) -> str:
    """What network a file is of, for the end of an error, where the file says so."""
    meta = _description(source)
    if not {"type", "depth", "attention", "scheme"} <= meta.keys():
        return ""
    return (
        f"; it is of {meta['type']}(depth={meta['depth']}, attention={meta['attention']!r}, scheme={meta['scheme']!r})"
    )


def _compare_networks(module: nn.Module, source: object, path: str | os.PathLike[str]) -> None:
    """Warn of differences from the network whose weights were taken that the tensors do not tell."""
    backbone: Any = getattr(module, "backbone", module)
    trained = _description(path)
    if not hasattr(backbone, "scheme") or not {"attention", "scheme", "shared"} <= trained.keys():
        return
    stages = len(backbone.scheme.stages)
    own = {"scheme": str(backbone.scheme)}
    if backbone.scheme.connections:
        own.update(attention=backbone.attention_cfg["type"], shared=str(backbone.shared))
    theirs = {**trained, "scheme": "-".join(trained["scheme"].split("-")[:stages])}
    different = [f"{key}={theirs[key]!r} there, {value!r} here" for key, value in own.items() if theirs[key] != value]
    if different:
        print_log(
            f"{source} was trained as another network: {'; '.join(different)}", logger="current", level=logging.WARNING
        )


@contextmanager
def weights_only() -> Iterator[None]:
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
        refuse_compressed(path)
        return torch.load(path, map_location="cpu", weights_only=True)


def refuse_compressed(path: Path) -> None:
    """PyTorch writes its archives uncompressed; a compressed one may become a thousand times as large in memory.

    Raises:
        ValueError: if a file is a compressed archive.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError(f"{path}: its parts are compressed, those of PyTorch's files are not")


@contextmanager
def _plain_weights(source: object) -> Iterator[None]:
    """Turn what ``torch.load`` raises for a file that is not plain weights into one error."""
    try:
        yield
    except Exception as error:  # a damaged pickle fails in a dozen ways
        if isinstance(error, OSError) and (error.filename or "://" in str(source)):
            raise
        wanted = _unsafe_globals(source)
        if wanted:
            raise ValueError(
                f"{source} cannot be read as plain weights: it needs code to be executed, and wanted "
                f"{', '.join(wanted)}. Where it comes from someone you trust, load it with "
                "torch.load(..., weights_only=False) and save its state dict alone"
            ) from error
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
        raise ValueError(
            f"{source} cannot be read as plain weights: it is damaged, no PyTorch file, or needs code to be executed "
            f"({reason.splitlines()[0].partition('. Please')[0]})"
        ) from error


def _unsafe_globals(source: object) -> list[str]:
    """All that a pickle would import beyond tensors, as far as it can be told without executing it."""
    if not isinstance(source, Path):
        return []
    listing = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)  # from torch 2.6 on
    try:
        if zipfile.is_zipfile(source):
            return sorted(listing(source)) if listing else []
        strings: list[str] = []
        wanted = set()
        for code, value, _ in pickletools.genops(source.read_bytes()):
            if code.name == "GLOBAL":
                wanted.add(str(value).replace(" ", "."))
            elif code.name == "STACK_GLOBAL":
                wanted.add(".".join(strings[-2:]))
            elif isinstance(value, str):
                strings.append(value)
    except Exception:  # what cannot be read says nothing
        return []
    return sorted(name for name in wanted if name != "collections.OrderedDict" and not name.startswith("torch."))


def _heads(names: Iterable[str], depth: int = 1) -> str:
    heads = sorted({".".join(name.split(".")[:depth]) for name in names})
    return ", ".join(heads[:8]) + (f", and {len(heads) - 8} more" if len(heads) > 8 else "") or "(nothing)"
