"""Message-signalled interrupts of an open function, counted by the kernel in an eventfd."""

from __future__ import annotations

import os
from contextlib import suppress

from function import Function
from protocol import Refused


class InterruptCounter:
    """Counts the interrupts of one function, from `enable` on."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._eventfd: int | None = None
        self._count = 0

    def enable(self) -> None:
        """Have the kernel give the function an interrupt message; nothing happens if it has one."""
        if self._eventfd is not None:
            return
        eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._function.config.signal_msi(eventfd)
        except Refused:
            os.close(eventfd)
            raise
        self._eventfd = eventfd

    def count(self) -> int:
        """How many interrupts have come so far."""
        if self._eventfd is None:
            raise Refused(f"{self._function.bdf} has no interrupt message; enable it first")
        with suppress(BlockingIOError):  # none since it was read last
            self._count += os.eventfd_read(self._eventfd)
        return self._count

    def close(self) -> None:
        """Let go of the counter; the function must be closed."""
        if self._eventfd is not None:
            os.close(self._eventfd)
            self._eventfd = None
