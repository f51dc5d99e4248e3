"""Networks as plain settings: tell the settings that rebuild a network, and build from those of others safely."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from ean_core.common.errors import unknown_name

from .kinds import UnknownKindError, check_settings, task_networks

__all__ = ["TRAINING", "KeepsSettings", "UnknownKindError", "build_network", "check_settings", "plain"]

#: Arguments that only affect how a network begins or is trained.
TRAINING = {"init_cfg", "pretrained", "compile_blocks", "label_smoothing", "loss"}


class KeepsSettings:
    """Mixin, first among the bases: remembers the constructor's arguments, and tells them as plain settings."""

    _given: Mapping[str, Any] = {}
    #: Arguments of the same name as an attribute with the part that they built.
    PARTS = ("backbone", "data_preprocessor")

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind_partial(made, *args, **kwargs)
        except TypeError:  # the constructor raises the same error, without this line in its traceback
            return made
        given = dict(list(bound.arguments.items())[1:])
        for name, parameter in bound.signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(name, {})
        own = made.__dict__.setdefault("_given", {})  # before nn.Module is initialized, which an attribute would need
        defaults = {name: parameter.default for name, parameter in bound.signature.parameters.items()}
        own.update(
            (key, value)
            for key, value in given.items()
            if key not in TRAINING and not (value is None and defaults.get(key) is None)
        )
        for name in cls.PARTS:
            if isinstance(own.get(name), KeepsSettings):
                del own[name]  # it tells its settings itself
        return made

    def settings(self) -> dict[str, Any]:
        """Return the settings from which ``MODELS.build`` makes this network, without weights, as plain values.

        Raises:
            ValueError: if this is not a registered network, or an argument cannot be written as plain text.
        """
        kind = type(self).__name__
        if MODELS.module_dict.get(kind) is not type(self):
            raise ValueError(f"a {kind} has no settings: it is not a registered network; use the one it was made from")
        parts = {name: getattr(self, name, None) for name in self.PARTS}
        live = {name: part.settings() for name, part in parts.items() if isinstance(part, KeepsSettings)}
        given = {**self._given, **live, **self.changed_settings()}
        return {"type": kind, **{name: plain(value, f"{kind}.{name}") for name, value in given.items()}}

    def changed_settings(self) -> dict[str, Any]:
        """Return the arguments whose values have changed, or may change, since construction."""
        return {}


def plain(value: Any, name: str) -> Any:
    """Return settings as plain values of JSON, without entries that only affect how a network begins.

    Args:
        value: the value of an argument.
        name: its name, for the message.

    Raises:
        ValueError: if it is anything else than text, numbers, and lists and dicts of them; classes become their names.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(each, f"{name}.{key}") for key, each in value.items() if key != "init_cfg"}
    if isinstance(value, (list, tuple)):
        return [plain(each, name) for each in value]
    if isinstance(value, type):
        return value.__name__
    try:
        json.dumps(value)
    except TypeError:
        raise ValueError(
            f"{name} is a {type(value).__name__}, which settings cannot describe; give its config instead"
        ) from None
    return value


def build_network(settings: Mapping[str, Any]) -> nn.Module:
    """Build a network from its settings; task networks are imported first, through the entry points :data:`NETWORKS`.

    Raises:
        ValueError: if no installed package has a network of that name.
    """
    kind = settings["type"]
    if kind not in MODELS.module_dict:  # MODELS.get would also search for a file of that name, and import it
        if kind not in task_networks():
            raise unknown_name("network", kind, [*task_networks(), "ImageClassifier"])
        task_networks()[kind].load()
    return MODELS.build(copy.deepcopy(dict(settings)))
