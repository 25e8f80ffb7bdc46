"""Ctrl-C and SIGTERM during a run: they end it, and they never cost the reports of what has already run."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from harness.process import heed_every_interrupt
from harness.uninterrupted import interrupt

#: The first interrupt ends the work, the second one the patience with its end. More could hit the writing of reports.
_MOST = 2


class Interrupts:
    """While this context lasts, SIGINT and SIGTERM interrupt nothing but `ended_early`, and that twice at most."""

    def __init__(self) -> None:
        self._left = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._told = sys.unraisablehook
        heed_every_interrupt()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._told

    def ended_early(self, work: Callable[[], None]) -> bool:
        """Do `work` and tell whether it was interrupted."""
        try:
            self._left = _MOST
            try:
                work()
            finally:
                self._left = 0
        except KeyboardInterrupt:
            return True
        return False

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._left > 0:
            self._left -= 1
            interrupt()
