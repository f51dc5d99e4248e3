"""Ctrl-C held back while outputs that belong together are written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_interrupts() -> Iterator[None]:
    """Hold back Ctrl-C during the block and deliver it at the end; a second one is delivered at once.

    For outputs that must agree: a ``KeyboardInterrupt`` between two of them would leave one more of the first. Outside
    the main thread, which is the only one that Python interrupts, and where SIGINT is ignored, nothing is done. Blocks
    may be nested.

    Raises:
        KeyboardInterrupt: at the end of the block, or whatever else the handler of SIGINT raises; an error of the block
            itself becomes its context.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    held: list[FrameType | None] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if not held:
            held.append(frame)
            return
        signal.signal(signal.SIGINT, before)
        held.clear()  # delivered here, and not again at the end
        before(number, frame)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(signal.SIGINT, held[0])
