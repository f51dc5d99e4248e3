"""Attention modules. Every file of this folder is imported here, so a new module is one new file."""

from importlib import import_module
from pkgutil import iter_modules

from .base import ATTENTION, Attention, State, attention_class

__all__ = ["ATTENTION", "Attention", "State", "attention_class"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
