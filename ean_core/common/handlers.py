"""mmengine's handlers of YAML, JSON and pickle files, restricted to plain values; :mod:`.plain` installs them."""

from __future__ import annotations

import json
import pickle
import sys
from typing import Any

from mmengine.fileio.handlers import JsonHandler, PickleHandler, YamlHandler

from .plain import MAX_CONFIG, parsed_yaml

#: Classes and functions that pickles of plain values and NumPy arrays need.
_PLAIN = {
    *(("builtins", name) for name in ("bytearray", "complex", "frozenset", "range", "set", "slice")),
    *(("_codecs", "encode"), ("collections", "OrderedDict"), ("numpy", "dtype"), ("numpy", "ndarray")),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


class PlainYaml(YamlHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        return parsed_yaml(file.read())


def _small(file: Any) -> str:
    text = file.read(MAX_CONFIG + 1)
    if len(text) > MAX_CONFIG:
        raise ValueError(f"it has more than {MAX_CONFIG:,} characters")
    return text


class SmallYaml(YamlHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        return parsed_yaml(_small(file))


class SmallJson(JsonHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        return json.loads(_small(file))


class PlainPickle(PickleHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        # mmengine.load, which calls this, passes the content without the name.
        name = sys._getframe(1).f_locals.get("file")
        return _PlainUnpickler(file, name if isinstance(name, str) else "a pickle").load()


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: Any, name: str) -> None:
        super().__init__(file)
        self.name = name

    def find_class(self, module: str, name: str) -> Any:
        if (module.replace("__builtin__", "builtins"), name) in _PLAIN:  # as up to protocol 2, which mmengine writes
            return super().find_class(module, name)
        raise ValueError(
            f"{self.name} would execute code from {module}.{name}; a pickle may hold plain values and NumPy arrays only"
        )
