"""Ctrl-C held back for as long as a library has locks that a KeyboardInterrupt would leave taken.

Python runs the handler of a signal between any two steps of the main thread, and paramiko takes its locks by `acquire`
before a `try`. Interrupted in between, it never gives the lock back, and to close the channel waits for it for ever.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import FrameType


class _Held:
    """How many sections the main thread is in, and whether it owes an interrupt to the end of the outermost."""

    sections = 0
    owed = False


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Raise what `interrupt` would raise in this section at its end instead; it must be short.

    Only the main thread is ever interrupted, so in any other this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Held.sections += 1
    try:
        yield
    finally:
        _Held.sections -= 1
        if _Held.owed and not _Held.sections:
            _Held.owed = False
            raise KeyboardInterrupt


def interrupt(_number: int | None = None, _frame: FrameType | None = None) -> None:
    """Raise KeyboardInterrupt as soon as nothing is left half done by it: a handler for signals, or what one calls."""
    if _Held.sections:
        _Held.owed = True
    else:
        raise KeyboardInterrupt
