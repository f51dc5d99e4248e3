"""Read and write weights files without executing anything in them."""

from __future__ import annotations

import json
import logging
import os
import pickletools
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from mmengine.logging import print_log
from safetensors.torch import load_file, save
from torch import Tensor

from ean_core.common.hashes import file_hash
from ean_core.common.places import SCHEME, offline
from ean_core.common.writing import replacing

from .addresses import check_safetensors, load_from_ean, read_metadata

#: Beginning of the addresses of torchvision's weights.
TORCHVISION = "torchvision://"
#: Bytes of an archive entry's own header, before its name.
_LOCAL_HEADER = 30
#: Flag of an archive entry with its name in UTF-8.
_UTF8 = 0x800


@dataclass(frozen=True)
class WeightsFile(os.PathLike[str]):
    """A weights file that is read only once, on first use; pass it to functions in place of its path.

    Args:
        path: ``.safetensors`` or PyTorch file, which must not change while this object is in use.
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @cached_property
    def content(self) -> object:
        """The content of the file, on the CPU.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read without executing code.
        """
        return _read_file(self.path)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal digits."""
        return file_hash(self.path)


def read_state_dict(source: str | os.PathLike[str], prefix: str | None = None) -> dict[str, Tensor]:
    """Read weights from a file or address, onto the CPU.

    Args:
        source: a ``.safetensors`` file, a PyTorch file (read with ``weights_only=True``: nothing in it is executed),
            a :class:`WeightsFile`, or an address: ``ean://NAME``, or one that mmengine supports, such as
            ``torchvision://resnet50``.
        prefix: keep only keys with this prefix, and remove it; e.g. ``'backbone.'`` for the file of a classifier.

    Returns:
        Names and tensors. They are searched for in the content: ``state_dict``, or the only mapping to tensors, such as
        ``model``, ``model_state_dict`` or ``net``; which one is logged. Other values among them are left out and named
        in the log. A ``module.`` prefix shared by all names is removed.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be downloaded, or is not in PyTorch's cache and ``EAN_OFFLINE`` forbids downloading it.
        ValueError: if the file is not a checkpoint, has several networks, would have to execute code, or has no key
            with the prefix.
    """
    content: object
    given, source = source, os.fspath(source)
    if isinstance(given, WeightsFile):
        content = given.content
    elif source.startswith(SCHEME):
        content = load_from_ean(source)
    elif "://" in source and not source.startswith("file:"):
        if offline() and not is_downloaded(source):
            raise OSError(f"EAN_OFFLINE forbids downloading {source}; unset it, or give a file")
        from mmengine.runner import CheckpointLoader  # slow to import

        with _plain_weights(source), weights_only():
            content = CheckpointLoader.load_checkpoint(source, map_location="cpu")
    else:
        content = _read_file(Path(source.removeprefix("file://")).expanduser())
    state = _tensors_of(content, source)
    _refuse_repeated(state, source)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    if prefix:
        prefix = prefix.rstrip(".") + "."
        chosen = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if not chosen:
            raise ValueError(f"no key of {source} starts with {prefix!r}; its keys start with {heads_of(state)}")
        return chosen
    return state


def download_address(address: str) -> str:
    """Return the web address of the file that an address of mmengine's loader stands for, such as
    ``torchvision://resnet50``; other addresses stand for themselves.

    Raises:
        ValueError: if torchvision has no weights of that name; the message suggests the nearest.
    """
    if not address.startswith(TORCHVISION):
        return address
    from mmengine.runner.checkpoint import get_torchvision_models  # slow to import

    known, name = get_torchvision_models(), address.removeprefix(TORCHVISION)
    if name not in known:
        near = get_close_matches(name, known, n=2)
        raise ValueError(f"torchvision has no weights {name!r}{'; did you mean ' * bool(near)}{' or '.join(near)}")
    return known[name]


def is_downloaded(address: str) -> bool:
    """Whether PyTorch's cache has the file of an address already; errors as in :func:`download_address`."""
    parts = urlsplit(download_address(address))
    file = Path(torch.hub.get_dir(), "checkpoints", Path(parts.path).name)
    return parts.scheme in ("http", "https") and file.is_file()


def read_meta(path: Path | WeightsFile) -> Mapping[str, Any]:
    """Return the ``meta`` entry that mmengine writes into its checkpoints; empty if the file has none."""
    content = path.content if isinstance(path, WeightsFile) else _read_file(path)
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return meta if isinstance(meta, Mapping) else {}


def save_weights(state: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    """Write plain tensors and metadata as safetensors, atomically; equal content gives equal bytes."""
    path = Path(path)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with replacing(path) as partial:
        # save_file of safetensors 0.8 makes the file unreadable for other users
        partial.write_bytes(_in_order(save(tensors, dict(metadata))))


def add_tensors(path: Path, tensors: Mapping[str, Tensor], *, replace: str = "") -> None:
    """Write further tensors into the state dict of a checkpoint, atomically, and leave the rest of the file as it is.

    Args:
        path: ``.safetensors`` file, or PyTorch file with a ``state_dict``.
        tensors: by name.
        replace: remove the tensors whose names start with this first; none if empty.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a checkpoint, or cannot be read without executing code.
    """
    content: Any = _read_file(path)
    inner = content.get("state_dict") if isinstance(content, dict) else None
    state = content if path.suffix == ".safetensors" else inner
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not a checkpoint of `ean train`: it has no state_dict")
    for name in [name for name in state if replace and name.startswith(replace)]:
        del state[name]
    state.update({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    if path.suffix == ".safetensors":
        save_weights(state, path, read_metadata(path))
        return
    with replacing(path) as partial:
        torch.save(content, partial)


def heads_of(names: Iterable[str], depth: int = 1) -> str:
    """List the modules that tensors belong to, as text for messages.

    Examples:
        >>> heads_of(['backbone.conv1.weight', 'backbone.bn1.weight', 'fc.bias'])
        'backbone, fc'
    """
    heads = sorted({".".join(name.split(".")[:depth]) for name in names})
    return ", ".join(heads[:8]) + (f", and {len(heads) - 8} more" if len(heads) > 8 else "") or "(nothing)"


def _tensors_of(content: object, source: str) -> dict[str, Tensor]:
    """Find the state dict in the content of a file; see :func:`read_state_dict`."""
    found = dict(_state_dicts(content))
    if "state_dict" in found:  # OpenMMLab's and timm's, which may stand beside averaged weights
        found = {"state_dict": found["state_dict"]}
    if len(found) != 1:
        keys = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
        if not found:
            raise ValueError(
                f"{source} has no state dict: expected names and tensors, at the top level or under a key such as "
                f"'state_dict' or 'model'; it has {keys or 'nothing'}"
            )
        sizes = ", ".join(f"{key!r} ({len(state)} entries)" for key, state in found.items())
        raise ValueError(f"{source} has several state dicts: {sizes}; save the one to load in a file of its own")
    ((key, state),) = found.items()
    if key not in ("", "state_dict"):
        print_log(f"{source}: the weights are those under {key!r}", logger="current")
    others = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        print_log(
            f"{source}: left out, since they are not tensors: {', '.join(others[:8])}", "current", logging.WARNING
        )
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _state_dicts(content: object, key: str = "", depth: int = 2) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield the mappings that hold tensors, with their keys joined by dots; the outermost one hides those inside."""
    if not isinstance(content, Mapping):
        return
    inner = {name: value for name, value in content.items() if isinstance(value, Mapping)}
    nested = [
        found
        for name, value in inner.items()
        for found in _state_dicts(value, f"{key}.{name}".lstrip("."), depth - 1)
        if depth
    ]
    tensors = sum(isinstance(value, Tensor) and isinstance(name, str) for name, value in content.items())
    if tensors > max((len(state) for _, state in nested), default=0):
        yield key, content
    else:
        yield from nested


@contextmanager
def weights_only() -> Iterator[None]:
    """Make every ``torch.load`` inside refuse code, whatever the library that calls it asks for."""
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


def refuse_expanding(path: Path) -> None:
    """Refuse archives that take more memory than their file has bytes: PyTorch writes none.

    Raises:
        ValueError: if the file is a compressed or damaged archive, or one whose entries share their bytes or exceed it.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
            end = archive.start_dir
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is a damaged archive: {error}") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError(f"{path} is a compressed archive; PyTorch files are uncompressed")
    nexts = [entry.header_offset for entry in entries[1:]] + [end]
    for entry, after in zip(entries, nexts, strict=True):
        begins = (
            entry.header_offset
            + _LOCAL_HEADER
            + len(entry.orig_filename.encode("utf-8" if entry.flag_bits & _UTF8 else "cp437"))
        )
        if entry.file_size != entry.compress_size or begins + entry.file_size > after:
            raise ValueError(
                f"{path} is a damaged archive: its entry {entry.filename[:80]!r} overlaps another one, or the end of "
                f"the file ({entry.file_size:,} bytes from {entry.header_offset:,}, before {after:,})"
            )
    if entries and entries[0].header_offset:  # readers disagree on offsets in such archives
        raise ValueError(f"{path} is a damaged archive: {entries[0].header_offset:,} bytes precede its first entry")


def _read_file(path: Path) -> object:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if path.suffix == ".safetensors":
        try:
            check_safetensors(path)
            return load_file(path)
        except Exception as error:  # the safetensors error class is not a public name in all versions
            raise ValueError(f"{path} is not a complete safetensors file: {error}") from error
    with _plain_weights(path):
        refuse_expanding(path)
        return torch.load(path, map_location="cpu", weights_only=True)


def _refuse_repeated(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors much larger than their file: views that repeat its bytes, which any copy would write out."""
    path = Path(source.removeprefix("file://")).expanduser()
    if not path.is_file():
        return
    claimed, size = sum(value.numel() * value.element_size() for value in state.values()), path.stat().st_size
    if claimed > 2 * size:  # two names may share a tensor
        raise ValueError(f"{source} has {size:,} bytes, but its tensors would take {claimed:,}: they repeat its bytes")


def _in_order(content: bytes) -> bytes:
    """Sort the metadata of a safetensors file, which the library writes in random order."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at multiples of eight bytes
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


@contextmanager
def _plain_weights(source: object) -> Iterator[None]:
    """Turn whatever ``torch.load`` raises for a file that is not plain weights into one error."""
    try:
        yield
    except Exception as error:  # a damaged pickle fails in a dozen ways
        if isinstance(error, OSError) and (error.filename or "://" in str(source)):
            raise
        wanted = _unsafe_globals(source)
        if wanted:
            raise ValueError(
                f"{source} cannot be read as plain weights: it would execute code from "
                f"{', '.join(wanted)}. If you trust its source, load it with "
                "torch.load(..., weights_only=False) and save only its state dict"
            ) from error
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
        raise ValueError(
            f"{source} cannot be read as plain weights: it is damaged, not a PyTorch file, or would execute code "
            f"({reason.splitlines()[0].partition('. Please')[0]})"
        ) from error


def _unsafe_globals(source: object) -> list[str]:
    """List the globals beyond tensors that a pickle would import, as far as possible without executing it."""
    if not isinstance(source, Path):
        return []
    try:
        if zipfile.is_zipfile(source):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(source))
        strings: list[str] = []
        wanted = set()
        for code, value, _ in pickletools.genops(source.read_bytes()):
            if code.name == "GLOBAL":
                wanted.add(str(value).replace(" ", "."))
            elif code.name == "STACK_GLOBAL":
                wanted.add(".".join(strings[-2:]))
            elif isinstance(value, str):
                strings.append(value)
    except Exception:  # an unreadable pickle yields no names
        return []
    return sorted(name for name in wanted if name != "collections.OrderedDict" and not name.startswith("torch."))
