"""Attention modules. Every file in this folder is imported here, so adding a module means adding one file."""

from importlib import import_module
from pkgutil import iter_modules

from .base import ATTENTION, Attention, State, attention_class

__all__ = ["ATTENTION", "Attention", "State", "attention_class"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
