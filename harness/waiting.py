"""Deadlines on conditions: the only module of the harness that sleeps.

The agent in the guest has one of its own, and the scripts of `harness.bench.plain` stand for what a person would write.

Every wait names its condition, ends at a deadline, and ends early when an *abort* says the condition can no longer
come true (QEMU ended, the guest panicked). Nothing here counts attempts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.errors import WaitTimeout

T = TypeVar("T")

#: Called between polls; returns None while the wait still makes sense, otherwise the error to raise.
Abort = Callable[[], Exception | None]


def timeout_scale() -> float:
    """Factor on every default deadline, from `VTD_TIMEOUT_SCALE` (default 1.0), for hosts slower than two TCG cores."""
    return float(os.environ.get("VTD_TIMEOUT_SCALE", "1"))


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock; `started` and `ends` are its seconds."""

    started: float
    ends: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline `seconds` (scaled by `timeout_scale`) from now."""
        now = time.monotonic()
        return cls(now, now + seconds * timeout_scale())

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.ends - time.monotonic())

    @property
    def elapsed_s(self) -> float:
        """Seconds since the deadline was set."""
        return time.monotonic() - self.started

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.remaining_s <= 0


def wait_for(
    what: str,
    condition: Callable[[], T | None],
    deadline: Deadline,
    *,
    abort: Sequence[Abort] = (),
    every_s: float = 0.02,
    observed: Callable[[], str] | None = None,
) -> T:
    """Return the first true value of `condition`.

    Raises the error of the first `abort` that returns one, or WaitTimeout when `deadline` passes; `observed` is then
    asked what was seen instead. `every_s` is the pause between polls in seconds.
    """
    while True:
        value = condition()
        if value:
            return value
        for check in abort:
            error = check()
            if error is not None:
                raise error
        if deadline.expired:
            raise WaitTimeout(what, waited_s=deadline.elapsed_s, observed=observed() if observed else "")
        time.sleep(min(every_s, deadline.remaining_s))


def wait_until(moment: float) -> None:
    """Sleep until `moment` on the monotonic clock; for pacing against a limit that only time resets."""
    while (left := moment - time.monotonic()) > 0:
        time.sleep(left)
