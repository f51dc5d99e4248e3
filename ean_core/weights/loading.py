"""Load the weights that fit into a network; raise if none do."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.model.weight_init import update_init_info
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ean_core.common.places import SCHEME

from .addresses import read_metadata, resolve
from .files import heads_of, read_state_dict
from .names import is_gate, matching_prefixes, translate

_BLOCK = re.compile(r"((?:.*\.)?layer\d+)\.(\d+)\.")
_ATTENTION = re.compile(r"((?:.*\.)?layer\d+)\.attention\.")
_STEM = re.compile(r"(?:backbone\.)?(stem|conv1)\.")
#: Stem or residual block that a tensor belongs to.
_PART = re.compile(r"(.*\.)?(layer\d+\.\d+(?!\.attention|\.constant_gate)|stem|conv1|bn1)\.")


def load_weights(
    module: nn.Module,
    source: str | os.PathLike[str],
    prefix: str | None = None,
    *,
    strict: bool = False,
    partial: bool = False,
) -> None:
    """Load the tensors of ``source`` that ``module`` has; missing and unused ones are logged.

    Modules with an attribute ``optional_tensors`` that is true load what the file has of theirs, whatever it is.
    Names of other ResNets are translated, and prefixes found; see :func:`~ean_core.weights.names.translate`. From a
    whole network, a backbone loads its part. Stages that only the file has are skipped entirely.

    Args:
        module: the network.
        source, prefix: see :func:`read_state_dict`.
        strict: require every tensor of the network to be in the file; the file may hold more.
        partial: let the file lack all blocks, or some of a block's or the stem's layers, which are then left as
            initialized.

    Raises:
        ValueError: if no key matches, tensors of the same name differ in shape, a stage has a different number of
            blocks in the file, no block is there, a block or the stem is there in part, or ``strict`` is violated. The
            module is then unchanged.
    """
    published = os.fspath(source).startswith(SCHEME)
    path = resolve(os.fspath(source)) if published else source
    optional = optional_prefixes(module)
    own = {name: value for name, value in module.state_dict().items() if not name.startswith(optional)}
    kind = type(module).__name__
    state, changed = translate(read_state_dict(path, prefix), own)
    if changed and not published:
        print_log(f"{source}: {changed} at the start of its keys, to match {kind}", logger="current")
    _refuse(state, own, kind, source, path, strict=strict, partial=partial)
    module.load_state_dict(
        {name: value for name, value in state.items() if name in own or name.startswith(optional)}, strict=False
    )
    _log_differences({name: value for name, value in state.items() if not name.startswith(optional)}, own, kind, source)
    attention = [name for name in own.keys() - state.keys() if "attention" in name.split(".")]
    if attention and any(getattr(each, "gain", None) == 1 for each in module.modules()):
        print_log(
            f"{kind}: attention is new to these weights and at first shrinks the blocks that it is connected to; with "
            "attention=dict(type=..., identity_start=True) it starts without effect",
            logger="current",
        )
    constant = [name for name in own.keys() - state.keys() if name.endswith("constant_gate")]
    if constant:
        print_log(
            f"{kind}: constant gates are not in these weights and start at the value of a fresh module's: "
            f"{heads_of(constant, depth=4)}; `ean fold` gives them the means of the gates that they replace",
            logger="current",
            level=logging.WARNING,
        )
    _compare_networks(module, source, path)


def optional_prefixes(module: nn.Module) -> tuple[str, ...]:
    """Prefixes of the tensors that a file may lack or have in addition: those of modules with ``optional_tensors``."""
    return tuple(f"{name}." for name, part in module.named_modules() if getattr(part, "optional_tensors", False))


def untraced_options(attention: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an attention module that change its output but no tensor, where they are not the defaults.

    Examples:
        >>> untraced_options({"type": "SE", "reduction": 4, "identity_start": True, "window": (256, 320)})
        {'identity_start': True, 'window': [256, 320]}
        >>> untraced_options({"type": "SE", "identity_start": False})
        {}
    """
    found: dict[str, Any] = {}
    if attention.get("identity_start"):
        found["identity_start"] = True
    if window := attention.get("window"):
        found["window"] = list(window)
    return found


def check_fit(
    build: Callable[[], nn.Module], path: str | os.PathLike[str], prefix: str | None = None, *, part: str = ""
) -> None:
    """Compare the network that a file or index describes with the tensors of the file, before it takes any memory.

    Args:
        build: builds the network; called with the meta device as the default one.
        path, prefix: see :func:`read_state_dict`.
        part: name of the submodule to compare; by default all of it.

    Raises:
        ValueError: if ``load_weights(..., strict=True)`` would raise.
    """
    tensors = len(read_state_dict(path))
    with torch.device("meta"), _at_most(2 * tensors + 100, f"the {tensors} tensors of {path}"):  # some are replaced
        module = build().get_submodule(part)
    own = module.state_dict()
    state, _ = translate(read_state_dict(path, prefix), own)
    _refuse(state, own, type(module).__name__, path, path, strict=True)


@contextmanager
def _at_most(number: int, there: str) -> Iterator[None]:
    """Stop building a network that registers more parameters; a million layers take long, even without memory."""
    thread, left = threading.get_ident(), number

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal left
        left -= threading.get_ident() == thread
        if left < 0:
            raise ValueError(f"it has more than {number} parameters, too many for {there}")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


class PretrainedOrRaise:
    """Mixin before mmengine's BaseModule: ``init_cfg`` of type ``Pretrained`` loads with :func:`load_weights`.

    It raises if no key matches, where mmengine would load nothing and only log it, or if a block matches in part;
    ``dict(type='Pretrained', checkpoint=..., partial=True)`` accepts that.
    """

    init_cfg: Any
    _pending: Sequence[Mapping[str, Any]] = ()

    def init_weights(self) -> None:
        """Apply ``init_cfg``: pretrained weights last, with :func:`load_weights`."""
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
        """Load first: mmengine calls this last for a whole model, to log where each parameter came from."""
        self._load_pretrained()
        super()._dump_init_info()  # type: ignore[misc]

    def _load_pretrained(self) -> None:
        pending, self._pending = self._pending, ()
        for cfg in pending:
            load_weights(
                self,  # type: ignore[arg-type]
                cfg["checkpoint"],
                cfg.get("prefix"),
                partial=cfg.get("partial", False),
            )
            print_log(f"{type(self).__name__}: loaded {cfg['checkpoint']}", "current")
            if hasattr(self, "_params_init_info"):
                update_init_info(self, f"PretrainedInit: load from {cfg['checkpoint']}")


def _refuse(
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    kind: str,
    source: object,
    path: str | os.PathLike[str],
    *,
    strict: bool,
    partial: bool = False,
) -> None:
    """Raise if a state dict does not fit; see :func:`load_weights`."""
    _refuse_misfits(state, own, kind, source, path)
    if not partial:
        _refuse_parts(state, own, kind, source, path)
    missing = own.keys() - state.keys()
    if missing and strict:
        raise ValueError(
            f"{source} is not a checkpoint of this {kind}: it lacks {heads_of(missing, depth=3)}{_network_of(path)}"
        )


def _refuse_misfits(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], kind: str, source: object, path: str | os.PathLike[str]
) -> None:
    """Raise if a state dict belongs to a different network than ``own``, the state dict of a ``kind`` module."""
    matched = state.keys() & own.keys()
    if not matched:
        several = matching_prefixes(state, own)
        hint = f"; several prefixes would match, choose with prefix={several[0]!r}" if several else ""
        raise ValueError(
            f"no key of {source} matches {kind}: its keys start with {heads_of(state)}, "
            f"those of {kind} with {heads_of(own)}{hint}"
        )
    wrong = [name for name in state if name in matched and state[name].shape != own[name].shape]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{len(wrong)} tensors of {source} differ in shape from those of {kind}; first {name}: "
            f"{tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the network{_network_of(path)}"
        )
    theirs, ours = _stem(state), _stem(own)
    if theirs and ours and theirs != ours:
        kinds = {"stem": "a deep stem, as in ResNetV1c", "conv1": "a stem with one convolution"}
        raise ValueError(
            f"{source} has {kinds[theirs]}, {kind} has {kinds[ours]}; add deep_stem={theirs == 'stem'} to the "
            f"backbone, or use other weights{_network_of(path)}"
        )
    there, here = _blocks(state), _blocks(own)
    for stage in sorted(there.keys() & here.keys()):
        if there[stage] != here[stage]:
            raise ValueError(
                f"{source} has {len(there[stage])} blocks in {stage}, {kind} has {len(here[stage])}; build the "
                f"network with the depth of the file{_network_of(path)}"
            )


def _refuse_parts(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], kind: str, source: object, path: str | os.PathLike[str]
) -> None:
    """Raise if the file has some layers of a residual block or of the stem and lacks others, or has no block at all.

    With ``zero_init_residual`` a block whose last norm is not loaded contributes nothing, in silence.
    """
    matched = state.keys() & own.keys()
    if _blocks(own) and not _blocks(matched):
        raise ValueError(
            f"{source} has no block of {kind}, only {heads_of(matched, depth=2)}; its keys start with "
            f"{heads_of(state)}. Use other weights, or accept it with partial=True in init_cfg{_network_of(path)}"
        )
    missing = defaultdict(list)
    found = set()
    for name in own:
        match = _PART.match(name)
        if match is None or name.endswith("num_batches_tracked"):  # which old checkpoints lack
            continue
        stem = match[2] in ("stem", "conv1", "bn1")
        part = (match[1] or "") + ("the stem" if stem else match[2])
        if name in state:
            found.add(part)
        else:
            missing[part].append(name)
    names = [name for part in missing.keys() & found for name in missing[part]]
    if names:
        names = [name for name in own if name in names]  # in the network's order
        rest = f", and {len(names) - 6} more" if len(names) > 6 else ""
        raise ValueError(
            f"{source} has only some layers of {kind}'s blocks; it lacks {', '.join(names[:6])}{rest}. Build the "
            "network with the layers of the file (its keys include "
            f"{', '.join(sorted(state.keys() - own.keys())[:4]) or 'no others'}), or accept it with partial=True in "
            f"init_cfg{_network_of(path)}"
        )


def _log_differences(state: Mapping[str, Tensor], own: Mapping[str, Tensor], kind: str, source: object) -> None:
    """Log tensors that only the file or only the network has."""
    missing, left = own.keys() - state.keys(), state.keys() - own.keys()
    if missing:
        expected = all(map(is_gate, missing))
        print_log(
            f"{source}: not in the file, left as initialized: {heads_of(missing, depth=2)}",
            logger="current",
            level=logging.INFO if expected else logging.WARNING,
        )
    ours = _blocks(own)
    gone = sorted(_blocks(state).keys() - ours.keys())
    if gone and ours:
        print_log(f"{source}: {kind} has no {', '.join(gone)}, skipped entirely", "current", logging.WARNING)
        left = {name for name in left if _stage_of(name) not in gone}
    if left:
        recalibrates = any(map(is_gate, left))  # without attention the output differs
        print_log(
            f"{source}: not in {kind}, ignored: {heads_of(left, depth=2)}",
            logger="current",
            level=logging.WARNING if recalibrates else logging.INFO,
        )


def _blocks(names: Iterable[str]) -> dict[str, set[int]]:
    """Return the block indices by stage name, such as ``backbone.layer4``."""
    stages = defaultdict(set)
    for name in names:
        if match := _BLOCK.match(name):
            stages[match[1]].add(int(match[2]))
    return dict(stages)


def _stem(names: Iterable[str]) -> str:
    """Return the name of a network's stem: ``conv1``, or ``stem`` for a deep one; empty if it has neither or both."""
    found = {match[1] for name in names if (match := _STEM.match(name))}
    return found.pop() if len(found) == 1 else ""


def _stage_of(name: str) -> str | None:
    """Return the stage that a tensor of a block or attention module belongs to; None for other tensors."""
    if match := _BLOCK.match(name):
        return match[1]
    match = _ATTENTION.match(name)
    return match[1] if match else None


def _description(source: str | os.PathLike[str]) -> Mapping[str, str]:
    """Return the network description in the metadata of a safetensors file; empty for other files."""
    path = Path(os.fspath(source).removeprefix("file://")).expanduser()
    return read_metadata(path) if path.suffix == ".safetensors" and path.is_file() else {}


def _network_of(source: str | os.PathLike[str]) -> str:
    """Describe the network that a file was saved from, as the end of an error message; empty if it does not say."""
    meta = _description(source)
    if not {"type", "depth", "attention", "scheme"} <= meta.keys():
        return ""
    network = f"{meta['type']}(depth={meta['depth']}, attention={meta['attention']!r}, scheme={meta['scheme']!r})"
    return f"; it was saved from {network}"


def _compare_networks(module: nn.Module, source: object, path: str | os.PathLike[str]) -> None:
    """Warn about differences from the network that was trained which the tensors do not show."""
    backbone: Any = getattr(module, "backbone", module)
    trained = _description(path)
    if not hasattr(backbone, "scheme") or not {"attention", "scheme", "shared"} <= trained.keys():
        return
    stages = len(backbone.scheme.stages)
    own = {"scheme": str(backbone.scheme)}
    if backbone.scheme.gates:
        own.update(attention=backbone.attention_cfg["type"], shared=str(backbone.shared))
    theirs = {**trained, "scheme": "-".join(trained["scheme"].split("-")[:stages])}
    if backbone.scheme.gates and set(trained["scheme"]) - set("0-"):  # from weights without attention it is new
        defaults = {"identity_start": "False", "window": "None"}
        own.update(defaults | {name: str(value) for name, value in untraced_options(backbone.attention_cfg).items()})
        theirs = defaults | theirs
    different = [f"{key}={theirs[key]!r} there, {value!r} here" for key, value in own.items() if theirs[key] != value]
    if different:
        print_log(
            f"{source} was trained as a different network: {'; '.join(different)}",
            logger="current",
            level=logging.WARNING,
        )
