"""Names of the modules that a network's settings may use, checked without importing any of them."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from .attention import attention_names

#: Entry point group of task networks, by registered name.
NETWORKS = "ean.networks"
#: How deep the settings of a network may be nested.
DEPTH = 32
#: Registered modules that most networks use: their names are known before mmengine is imported.
USUAL = {"Conv2d", "BN", "SyncBN", "EANResNet", "EANResNetCIFAR", "ImageClassifier", "ImagePreprocessor"}


class UnknownKindError(ValueError):
    """Settings name a module that this installation does not know."""


def check_settings(settings: object, what: str, depth: int = DEPTH) -> None:
    """Refuse settings that would make mmengine import and call arbitrary code: only registered names may be built.

    Args:
        settings: nested settings of a network.
        what: their description, for the beginning of the message.
        depth: how deep they may be nested.

    Raises:
        UnknownKindError: if a type is the name of a module that is not registered.
        ValueError: if a type is not a name, there is an ``init_cfg``, a ``_scope_`` or a file of class weights, or they
            are nested too deeply.
    """
    if not depth:
        raise ValueError(f"{what}: its settings are nested more than {DEPTH} times")
    if isinstance(settings, Mapping):
        kind = settings.get("type", "Conv2d")
        code = settings.keys() & {"init_cfg", "_scope_"}  # a registry imports the package that _scope_ names
        if code or not isinstance(kind, str) or not _is_known(kind):
            error = UnknownKindError if isinstance(kind, str) and not code else ValueError
            raise error(
                f"{what}: a network may only use registered modules, without init_cfg and _scope_; got "
                f"{reprlib.repr(settings)}"
            )
        if isinstance(settings.get("class_weight"), str):
            raise ValueError(
                f"{what}: class_weight must be numbers, got {settings['class_weight']!r}; mmsegmentation would "
                "unpickle a file of that name"
            )
        for value in settings.values():
            check_settings(value, what, depth - 1)
    elif isinstance(settings, (list, tuple)):
        for value in settings:
            check_settings(value, what, depth - 1)


@cache
def task_networks() -> Mapping[str, EntryPoint]:
    """Task networks by registered name; finding them scans all installed packages."""
    return {point.name: point for point in entry_points(group=NETWORKS)}


def _is_known(kind: str) -> bool:
    """Whether networks may use modules of this name; for an unknown one, a registry would import a module."""
    if kind in USUAL or kind in task_networks() or kind in attention_names():
        return True
    import_module("mmengine.model")  # registers modules of its own
    from mmengine.registry import MODELS

    from .attention import ATTENTION
    from .layers import NORMS

    return kind in NORMS or kind in ATTENTION.module_dict or kind in MODELS.module_dict
