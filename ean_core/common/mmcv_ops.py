"""A stand-in for mmcv's compiled operators where they are not installed.

mmsegmentation and mmdetection import ``mmcv.ops`` for a few of their networks, and with it ``mmcv._ext``, which
``mmcv-lite`` lacks: without it not even PSPNet, which uses none of these operators, can be imported. Importing
:mod:`ean_core` appends :class:`StandInFinder` to ``sys.meta_path``. Python consults it only after all other finders, so
a full mmcv takes precedence, and mmcv itself is not imported until it is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

MODULE = "mmcv._ext"


class MissingOperatorError(ImportError):
    """The called operator exists only in the full mmcv."""


class StandIn(ModuleType):
    """A module with a function of any name that raises :class:`MissingOperatorError` when called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("get_compiler_version", "get_compiling_cuda_version"):  # queried for logs
            return lambda: "none: installed without operators"

        def operator(*args: Any, **kwargs: Any) -> NoReturn:
            raise MissingOperatorError(
                f"{name} is a compiled operator of the full mmcv, and this mmcv was installed without operators. Use a "
                "network that does not need it, or replace this mmcv by one built with operators, which takes a "
                "compiler, half an hour, and a PyTorch no newer than mmcv: `pip uninstall mmcv-lite` and `pip install "
                "mmcv==2.1.0`"
            )

        operator.__name__ = name
        return operator


class StandInFinder(MetaPathFinder, Loader):
    """Finds a :class:`StandIn` for ``mmcv._ext`` only."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The stand-in's spec; None for any other module."""
        return ModuleSpec(MODULE, self, origin=__file__) if fullname == MODULE else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to execute."""


def provide_stand_in() -> None:
    """Append the finder to ``sys.meta_path``, at most once."""
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(StandInFinder())
