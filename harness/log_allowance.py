"""Pacing by the guest's log: Linux logs only so many faults in a window, and evidence must not be lost to that.

`dmar_fault` (drivers/iommu/intel/dmar.c) lets 10 messages pass in 5 s and spends 3 on each fault: the status line, the
fault line, and the turn of the loop that finds the record empty. Its window begins with the first fault after the one
before has ended (___ratelimit in lib/ratelimit.c), at a time that is not known here: so no 5 s may have more faults.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field

from harness.waiting import wait_until

LOGGED_FAULTS = 3

#: The kernel's 5 s, and a little for the difference between its clock and ours.
WINDOW_S = 5.2


@dataclass(slots=True)
class LogAllowance:
    """When the last faults were provoked, at the latest (monotonic seconds), as many as a window has room for.

    `_booked` is how many of them the last `take` was for, `_awaited` how many were booked since the last `saw`.
    """

    _booked: int = 0
    _awaited: float = 0
    _last: deque[float] = field(default_factory=lambda: deque(maxlen=LOGGED_FAULTS))

    def take(self, *, everything: bool = False) -> float:
        """Wait until the log has room for a fault, book it (or the whole window), and return the seconds waited."""
        waited = self.wait()
        self._booked = LOGGED_FAULTS if everything else 1
        self._awaited += math.inf if everything else 1
        self._last.extend([time.monotonic()] * self._booked)
        return waited

    def wait(self) -> float:
        """Wait until the log has room for a fault, without booking it, and return the seconds waited."""
        begun = time.monotonic()
        if len(self._last) == LOGGED_FAULTS:
            wait_until(self._last[0] + WINDOW_S)
        return time.monotonic() - begun

    def saw(self, faults: int) -> bool:
        """Book what happened without having been booked; `faults` were recorded since the last call.

        Tells whether nobody had expected any of them.
        """
        unbooked, surprising = faults - self._awaited, self._awaited == 0 and faults > 0
        self._awaited = 0
        if unbooked > 0:
            self._last.extend([time.monotonic()] * min(int(unbooked), LOGGED_FAULTS))
        return surprising

    def over(self) -> None:
        """Note that what the last `take` was for has happened by now: it may have been told long after."""
        for _ in range(self._booked):
            self._last.pop()
        self._last.extend([time.monotonic()] * self._booked)
