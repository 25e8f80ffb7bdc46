"""Deadlines on conditions inside the guest; the only module of the agent that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from protocol import Refused

T = TypeVar("T")


def poll(condition: Callable[[], T | None], timeout_s: float, *, every_s: float = 0.01) -> T | None:
    """The first true value of `condition`, or None once `timeout_s` seconds have passed without one."""
    ends = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= ends:
            return None
        time.sleep(every_s)


def wait_for(what: str, condition: Callable[[], T | None], timeout_s: float, *, every_s: float = 0.01) -> T:
    """As `poll`, but a passed deadline is Refused with `what` was waited for."""
    value = poll(condition, timeout_s, every_s=every_s)
    if value is None:
        raise Refused(f"waited {timeout_s:g} s for {what}")
    return value
