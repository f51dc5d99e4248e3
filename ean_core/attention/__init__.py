"""Attention modules. All files in this folder are imported when one is used: a new module is one file."""

import ast
import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import ATTENTION, Attention, State, attention_class

__all__ = ["ATTENTION", "Attention", "State", "attention_class", "attention_names"]


def attention_names() -> Mapping[str, bool]:
    """Return the names of all attention modules, and whether each is recurrent.

    Until they are imported, names are read from the files, which takes no PyTorch.
    """
    if "ATTENTION" in globals():
        return {name: bool(kind.recurrent) for name, kind in globals()["ATTENTION"].module_dict.items()}
    return _names_in_files()


@cache
def _names_in_files() -> Mapping[str, bool]:
    names = {}
    for path in sorted(Path(__path__[0]).glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef):
                continue
            lines = [ast.unparse(line) for line in node.body]
            for decorator in map(ast.unparse, node.decorator_list):
                if decorator.startswith("ATTENTION.register_module("):
                    given = re.search(r"name='(\w+)'", decorator)
                    names[given[1] if given else node.name] = any(
                        re.fullmatch(r"recurrent(: [\w\[\]]+)? = True", line) for line in lines
                    )
    return names


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    base = sys.modules[f"{__name__}.base"]
    globals().update({each: getattr(base, each) for each in __all__ if each != "attention_names"})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
