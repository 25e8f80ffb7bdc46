"""Whether a machine's QEMU can still do what is waited for, and how it stands when it did not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import HarnessError, MachineHalted
from harness.process import StopRung
from harness.qmp import Monitor

#: What the kernel's letters for a process's state mean (proc_pid_stat(5)).
_STATES = {
    "R": "runs",
    "S": "sleeps",
    "D": "waits for a device (D)",
    "T": "is stopped by a signal (T)",
    "t": "is stopped by a debugger (t)",
    "Z": "is a zombie (Z)",
    "X": "is dead (X)",
    "": "is gone",
}

#: Seconds for which a process is seen stopped before that is told: a debugger that attaches stops it for a moment.
STOPPED_S = 1.0

#: Seconds between looks at the process, and those that QMP is given to tell its run state.
_LOOK_S, _ANSWER_S = 0.25, 2.0

#: How QEMU's threads of vCPUs are called, with `-name debug-threads=on` (tcg_..., kvm_start_vcpu_thread).
_VCPU = "CPU "


class Watched(Protocol):
    """The process of a machine, as far as it is watched."""

    def state(self) -> str:
        """Give the kernel's letter for what it does; "" once it is gone, "?" where that cannot be seen."""

    def cpu_s(self) -> dict[str, float]:
        """Give the seconds that each of its threads has run, by name; empty where that cannot be seen."""

    def stderr_text(self) -> str:
        """Give what it wrote to stdout and stderr so far."""


class QemuProcess(Watched, Protocol):
    """The process of a machine, on this host (`harness.process.Process`) or on another."""

    pid: int

    def poll(self) -> int | None:
        """Give the exit status, None while it runs."""

    def failure(self) -> Exception | None:
        """Give why what it says could not be kept, None while it was."""

    def kill(self) -> None:
        """Kill it without waiting."""

    def stop(self, *, quit: Callable[[], None] | None) -> StopRung:  # noqa: A002 - it is the QMP command's name
        """End it, and tell what that took."""


@dataclass(frozen=True, slots=True)
class Halt:
    """Why a machine goes on no more: in words, with QMP's run state and the event that told of it."""

    text: str
    state: str = ""
    event: str = ""

    def error(self, said: str, console_tail: Sequence[str], evidence: Path | None = None) -> MachineHalted:
        """Give the error of the wait that it ends."""
        hint = "`kill -CONT` lets a stopped process run again" if self.text.endswith("(T)") else None
        return MachineHalted(
            f"QEMU {self.text}",
            state=self.state,
            event=self.event,
            said=said,
            console_tail=console_tail,
            evidence=evidence,
            hint=hint,
        )


class Vitals:
    """Looks at the process and at what its monitor heard; cheap, as every wait asks every time."""

    def __init__(self, process: Watched, monitor: Monitor, clock: Callable[[], float] = time.monotonic) -> None:
        self._process = process
        self._monitor = monitor
        self._clock = clock
        self._looked_at = float("-inf")
        self._stopped_since: float | None = None
        self._halt: Halt | None = None
        self._standstill: Halt | None = None
        self._baseline: Mapping[str, float] = {}
        self._since = clock()

    def begin(self) -> None:
        """Count the vCPUs' time from now on."""
        self._baseline, self._since = self._process.cpu_s(), self._clock()

    def stopped(self) -> Halt | None:
        """That the process has been stopped for `STOPPED_S`, by its state in the kernel; asks QEMU nothing."""
        now = self._clock()
        if now - self._looked_at >= _LOOK_S:
            self._looked_at, letter = now, self._process.state()
            if letter not in ("T", "t"):
                self._stopped_since = self._standstill = None
            elif self._stopped_since is None:
                self._stopped_since = now
            elif now - self._stopped_since >= STOPPED_S:
                self._standstill = Halt(f"is held: its process {_STATES[letter]}")
        return self._standstill

    def halted(self) -> Halt | None:
        """That the process is stopped, or that QEMU told of something that nobody asked it for."""
        surprise = self._monitor.run_state.surprise()
        if self._halt is None and surprise is not None:
            state = self._run_state()
            text = f"told of {surprise.event}: {surprise.text}" + (f"; its run state is '{state}'" if state else "")
            self._halt = Halt(text, state, surprise.event)
        return self._halt or self.stopped()

    def told(self) -> str:
        """How all of it stands, for who waited in vain: the process, QMP, and what the vCPUs did since `begin`."""
        state = "" if self._process.state() in ("T", "t", "Z", "X", "") else self._run_state()
        letter = self._process.state()
        qmp = f"QMP's run state is '{state}'" if state else "QMP gives no answer"
        used = {name: seconds for name, seconds in self._process.cpu_s().items() if name.startswith(_VCPU)}
        ran = [f"{name} {used[name] - self._baseline.get(name, 0.0):.2f} s" for name in sorted(used)]
        vcpus = f"; of {self._clock() - self._since:.1f} s its vCPUs ran: {', '.join(ran)}" if ran else ""
        return f"QEMU's process {_STATES.get(letter, 'cannot be seen from here')}; {qmp}{vcpus}"

    def _run_state(self) -> str:
        """QMP's word for the run state; "" where QMP does not answer."""
        with contextlib.suppress(HarnessError):
            return str(self._monitor.execute("query-status", timeout_s=_ANSWER_S)["status"])
        return ""
