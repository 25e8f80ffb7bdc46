"""Pacing by the guest's log: Linux logs only so many faults in a window, and evidence must not be lost to that.

`dmar_fault` (drivers/iommu/intel/dmar.c) lets 10 messages pass in 5 s and spends 3 on each fault: the status line, the
fault line, and the turn of the loop that finds the record empty.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from harness.waiting import wait_until

LOGGED_FAULTS = 3

#: The kernel's 5 s, and a little for the difference between its clock and ours.
WINDOW_S = 5.2


@dataclass(slots=True)
class LogAllowance:
    """The kernel's current rate-limit window: when it ends (monotonic seconds) and the faults it has room for."""

    ends: float = 0.0
    left: int = LOGGED_FAULTS

    def take(self, *, everything: bool = False) -> float:
        """Wait until the log has room for a fault, book it (or the whole window), and return the seconds waited."""
        begun = time.monotonic()
        if self.left == 0:
            wait_until(self.ends)
        now = time.monotonic()
        if now >= self.ends:
            self.ends, self.left = now + WINDOW_S, LOGGED_FAULTS
        self.left = 0 if everything else self.left - 1
        return now - begun
