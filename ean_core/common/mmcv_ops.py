"""A stand-in for mmcv's compiled operators, where there are none.

mmsegmentation and mmdetection import ``mmcv.ops`` for a few of their networks, and with it ``mmcv._ext``, which
``mmcv-lite`` does not have: without it not even PSPNet, which uses no such operator, can be imported. Importing
:mod:`ean_core` puts :class:`StandInFinder` at the end of Python's finders. It is asked only after all others have
failed, so that a full mmcv is found first and used as it is, and mmcv is imported by nobody but its users.
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
    """An operator was called that only the full mmcv has."""


class StandIn(ModuleType):
    """Has a function by any name; called, they raise :class:`MissingOperatorError`."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("get_compiler_version", "get_compiling_cuda_version"):  # asked of any mmcv, for logs
            return lambda: "none: installed without operators"

        def operator(*args: Any, **kwargs: Any) -> NoReturn:
            raise MissingOperatorError(
                f"{name} is a compiled operator of the full mmcv, and this mmcv was installed without any. Take a "
                "network that does without it, or build mmcv with them in the place of this one, which needs a "
                "compiler, half an hour, and a PyTorch no newer than mmcv: `pip uninstall mmcv-lite` and `pip install "
                "mmcv==2.1.0`"
            )

        operator.__name__ = name
        return operator


class StandInFinder(MetaPathFinder, Loader):
    """Finds a :class:`StandIn` for ``mmcv._ext``, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The stand-in's spec; None for any other module."""
        return ModuleSpec(MODULE, self, origin=__file__) if fullname == MODULE else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to execute."""


def provide_stand_in() -> None:
    """Put the finder behind all others, once."""
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(StandInFinder())
