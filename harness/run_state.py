"""What QEMU tells of its machine's run state, held against what the harness has told it to do.

A guest that QEMU has halted does not answer, and QEMU goes on answering: an internal error of KVM, an I/O error, a
watchdog or a panic device stops the vCPUs and says so by events only (vm_stop in QEMU's system/cpus.c; the events are
those of its qapi/run-state.json and qapi/block-core.json).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Events that nobody who waits for a guest has asked for, whatever was told before, and what each means.
_NEVER_ASKED = {
    "WATCHDOG": "its watchdog has run out",
    "GUEST_PANICKED": "its guest has told of a panic",
    "GUEST_CRASHLOADED": "its guest has loaded a crash kernel",
    "BLOCK_IO_ERROR": "a disk of it had an I/O error",
    "MEMORY_FAILURE": "its memory has failed",
    "SUSPEND": "its guest sleeps",
    "SUSPEND_DISK": "its guest sleeps",
    "POWERDOWN": "somebody has pressed its power button",
}

#: Of an event's data: what a reader is told of it.
_TOLD = ("action", "operation", "reason", "recipient", "device", "guest")

#: Seconds that QEMU is given to end once it has told that it will.
_END_S = 2.0


@dataclass(frozen=True, slots=True)
class Surprise:
    """An event that nobody asked for: its name, and in words what it means."""

    event: str
    text: str


class RunState:
    """What was asked of one QEMU and what it told; fed by the monitor, from any thread.

    An event that somebody expects (`Monitor.expect`) is no surprise, once; so whoever resets or halts a machine by
    other means than these commands says so by expecting the event.
    """

    def __init__(self) -> None:
        self._running: bool | None = None
        self._resets = 0
        self._ends = False
        self._first: Surprise | None = None
        self._shutdown: tuple[float, Surprise] | None = None

    def asked(self, command: str) -> None:
        """Take note of a command before it is sent."""
        if command in ("stop", "cont"):
            self._running = command == "cont"
        elif command == "system_reset":
            self._resets += 1
        elif command == "quit":
            self._ends = True

    def saw(self, event: Mapping[str, Any], *, expected: bool) -> None:
        """Take note of an event; `expected` is one that somebody waits for."""
        name, data = event["event"], event.get("data", {})
        if expected:
            if name in ("STOP", "RESUME"):
                self._running = name == "RESUME"
            return
        said = ", ".join(f"{key} {data[key]}" for key in _TOLD if key in data)
        if name == "STOP" and self._running is not False:
            self._keep(name, "it stands still, and nobody halted it")
        elif name == "RESUME" and self._running is not True:
            self._keep(name, "it runs again, and nobody let it")
        elif name == "RESET":
            if self._resets and data.get("reason") == "host-qmp-system-reset":
                self._resets -= 1
            else:
                self._keep(name, f"it was reset, and nobody asked for it ({said})")
        elif name == "SHUTDOWN" and not self._ends:
            self._shutdown = time.monotonic(), Surprise(name, f"it was to end ({said})")
        elif name in _NEVER_ASKED:
            self._keep(name, _NEVER_ASKED[name] + (f" ({said})" if said else ""))

    def surprise(self) -> Surprise | None:
        """The first event that nobody asked for; a shutdown only once QEMU has not ended after it."""
        if self._first is None and self._shutdown is not None and time.monotonic() - self._shutdown[0] > _END_S:
            return self._shutdown[1]
        return self._first

    def last_words(self) -> Surprise | None:
        """What QEMU that has ended told of it: a shutdown that nobody asked for, or what came before."""
        return self._first or (None if self._shutdown is None else self._shutdown[1])

    def _keep(self, name: str, text: str) -> None:
        # A panic, a watchdog or an I/O error is told before the STOP that it causes, so the first names the cause.
        if self._first is None:
            self._first = Surprise(name, text)
