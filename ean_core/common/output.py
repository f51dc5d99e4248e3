"""How much a command prints on the terminal: ``--verbose``, ``--quiet``, or neither."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from .text import visible


class Output(Enum):
    """Amount of output of the running command, besides errors."""

    #: The result.
    quiet = "quiet"
    #: Progress, warnings and the result.
    progress = "progress"
    #: The same with a short header.
    short = "short"
    #: All that mmengine logs, and the result.
    verbose = "verbose"


_chosen: list[Output] = []


def chosen() -> Output | None:
    """Return the output of the running command; None outside of commands, such as in a script."""
    return _chosen[-1] if _chosen else None


def say(text: str) -> None:
    """Print what is going on, as a line or several; nothing if quiet."""
    if chosen() is not Output.quiet:
        print(visible(text, "\n"), flush=True)


@contextmanager
def progress_only() -> Iterator[None]:
    """Drop headers, and lines of epochs, of what a command runs as one of its steps."""
    if chosen() is not Output.short:
        yield
        return
    _chosen.append(Output.progress)
    try:
        yield
    finally:
        _chosen.pop()


@contextmanager
def printing(*, verbose: bool = False, quiet: bool = False, header: bool = True) -> Iterator[None]:
    """Set the output of a command by its flags; only verbose ones show Python's warnings about OpenMMLab's own code.

    Args:
        verbose: print all that mmengine logs.
        quiet: print the result only.
        header: with neither, begin with a short header.

    Raises:
        ValueError: if both are set.

    Examples:
        >>> with printing(verbose=False, quiet=True):
        ...     chosen()
        <Output.quiet: 'quiet'>
    """
    if verbose and quiet:
        raise ValueError("--verbose and --quiet exclude each other; give one of them, or neither")
    without = Output.short if header else Output.progress
    _chosen.append(Output.verbose if verbose else Output.quiet if quiet else without)
    try:
        with warnings.catch_warnings():
            if not verbose:
                warnings.filterwarnings("ignore", module=r"mm[a-z]+\.")
            yield
    finally:
        _chosen.pop()
