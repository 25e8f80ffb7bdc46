"""The error tree: every class carries its data and composes its own text.

    HarnessError
    ├── InputError            wrong scenario, recipe or option: diagnostics with file, line and column   exit 2
    ├── Unsupported           the QEMU at hand lacks an option that the machine needs                    ERROR
    ├── InfraError            our side broke; nothing is said about the system under test               ERROR
    │   ├── LaunchError       QEMU did not start, or ended when it should not have
    │   ├── MachineHalted     QEMU is there, but its guest does not run: stopped, paused, reset or in internal error
    │   ├── MonitorError      QMP refused a command or its transport is gone
    │   ├── SshError          the SSH transport is gone or could not be made
    │   ├── AgentError        the guest agent broke its protocol
    │   ├── StorageError      evidence or a cache cannot be written: no room, a quota, no permission, a failing disk
    │   ├── BoundExceeded     a guest said more than a bound of `harness.bounds` lets it
    │   └── ImageError        a guest image or QEMU build could not be had
    ├── GuestError            the guest's side: an operation was refused, a command failed               ERROR
    │   ├── GuestPanic        the guest kernel panicked or oopsed
    │   └── OperationRefused  the guest agent reports a failed system call, with its errno
    └── WaitTimeout           a deadline passed before a condition held                                  ERROR

Anything that is not one of these is a bug of the harness and is reported as ERROR too; nothing unclassified can
become a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class HarnessError(Exception):
    """Base of all errors of this package.

    `message` says what was tried and what was seen; `hint` what to do about it; `evidence` where the raw record is.
    """

    def __init__(self, message: str, *, hint: str | None = None, evidence: Path | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.evidence = evidence

    def __str__(self) -> str:
        lines = [self.message]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        if self.evidence:
            lines.append(f"  see:  {self.evidence}")
        return "\n".join(lines)


class Unsupported(HarnessError):
    """The QEMU at hand lacks what was required. Plans skip such scenarios before; this is for who did not ask."""

    def __init__(self, requirement: str, found: str, *, hint: str | None = None) -> None:
        super().__init__(f"needs {requirement}; found {found}", hint=hint)
        self.requirement = requirement
        self.found = found


class InfraError(HarnessError):
    """The harness or its machine broke, so nothing is known about the system under test."""


class LaunchError(InfraError):
    """QEMU did not start or ended unexpectedly. `exit_status` is negative for a signal, as in `subprocess`."""

    def __init__(
        self,
        message: str,
        *,
        argv: Sequence[str],
        exit_status: int | None,
        stderr: str,
        console_tail: Sequence[str] = (),
        evidence: Path | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, evidence=evidence)
        self.argv = tuple(argv)
        self.exit_status = exit_status
        self.stderr = stderr
        self.console_tail = tuple(console_tail)

    def __str__(self) -> str:
        lines = [super().__str__(), f"  exit status: {self.exit_status}"]
        if self.stderr.strip():
            lines += ["  QEMU said:", *(f"    {line}" for line in self.stderr.strip().splitlines()[-10:])]
        if self.console_tail:
            lines += ["  last console lines:", *(f"    {line}" for line in self.console_tail[-10:])]
        lines.append("  argv: " + " ".join(self.argv))
        return "\n".join(lines)


class MachineHalted(InfraError):
    """A machine stands still, or began anew, and nobody asked for it; nothing waits for its guest any more.

    `state` is QMP's run state (as "internal-error"; "" where QMP does not say), `event` the QMP event that told of it
    ("" where none did: the process was stopped), `said` what QEMU wrote on its stderr.
    """

    def __init__(
        self,
        message: str,
        *,
        state: str = "",
        event: str = "",
        said: str = "",
        console_tail: Sequence[str] = (),
        evidence: Path | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, evidence=evidence)
        self.state = state
        self.event = event
        self.said = said
        self.console_tail = tuple(console_tail)

    def __str__(self) -> str:
        lines = [super().__str__()]
        if self.said.strip():
            lines += ["  QEMU said:", *(f"    {line}" for line in self.said.strip().splitlines()[-10:])]
        if self.console_tail:
            lines += ["  last console lines:", *(f"    {line}" for line in self.console_tail[-10:])]
        return "\n".join(lines)


class MonitorError(InfraError):
    """A QMP command failed. `command` is its name, `arguments` what was sent, `error_class` QEMU's class or None."""

    def __init__(self, message: str, *, command: str, arguments: object = None, error_class: str | None = None) -> None:
        super().__init__(message)
        self.command = command
        self.arguments = arguments
        self.error_class = error_class


class SshError(InfraError):
    """The SSH connection to the guest could not be made or was lost."""


class AgentError(InfraError):
    """The guest agent died, or sent something its protocol does not know."""


class StorageError(InfraError):
    """Something could not be written.

    `what` names it, `path` is where, `errno` the kernel's reason, `needed` the bytes that were to be written and `free`
    those that the file system has for this user, each None if it is not known.
    """

    def __init__(
        self, message: str, *, what: str, path: Path, errno: int, needed: int | None, free: int | None, hint: str
    ) -> None:
        super().__init__(message, hint=hint)
        self.what = what
        self.path = path
        self.errno = errno
        self.needed = needed
        self.free = free

    def __reduce__(self) -> tuple[Callable[..., StorageError], tuple[object, ...]]:
        """Let a worker hand it to its run: the arguments have names."""
        given = {name: getattr(self, name) for name in ("what", "path", "errno", "needed", "free", "hint")}
        return _storage_error, (self.message, given)


def _storage_error(message: str, given: dict[str, Any]) -> StorageError:
    return StorageError(message, **given)


class BoundExceeded(InfraError):
    """A guest said more than it may: `who` on `channel`, more than `bound` of `unit`; nothing of it is believed."""

    def __init__(self, who: str, channel: str, *, bound: int, unit: str, evidence: Path | None = None) -> None:
        super().__init__(
            f"{who} said more than {bound:,} {unit} on its {channel}; the machine is ended",
            hint="a guest that floods its channels is no witness; the bounds are in harness/bounds.py",
            evidence=evidence,
        )
        self.who = who
        self.channel = channel
        self.bound = bound
        self.unit = unit


class ImageError(InfraError):
    """A guest image or QEMU build could not be fetched, built or trusted."""


class GuestError(HarnessError):
    """Something failed on the guest's side."""


class GuestPanic(GuestError):
    """The guest kernel panicked or oopsed; `title` is the kernel's own first line, `console_tail` what surrounds it."""

    def __init__(self, title: str, *, console_tail: Sequence[str], evidence: Path | None = None) -> None:
        super().__init__(f"guest kernel: {title}", evidence=evidence)
        self.title = title
        self.console_tail = tuple(console_tail)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"    {line}" for line in self.console_tail[-15:])])


class OperationRefused(GuestError):
    """The guest agent could not do `operation`: `errno` (0 if not a system call's) and `reason` tell why."""

    def __init__(self, operation: str, *, reason: str, errno: int = 0) -> None:
        super().__init__(f"guest refused '{operation}': {reason}")
        self.operation = operation
        self.reason = reason
        self.errno = errno


class WaitTimeout(HarnessError):
    """A deadline passed. `what` names the condition, `waited_s` the seconds spent, `observed` what was seen instead."""

    def __init__(self, what: str, *, waited_s: float, observed: str = "", evidence: Path | None = None) -> None:
        seen = f"; seen instead: {observed}" if observed else ""
        super().__init__(f"waited {waited_s:.1f} s for {what}{seen}", evidence=evidence)
        self.what = what
        self.waited_s = waited_s
        self.observed = observed
        self.standing = ""

    def explain(self, standing: str) -> None:
        """Add how the machine that was waited for stands; the first who knows tells it."""
        if not self.standing:
            self.standing = standing
            self.message += f"; {standing}"
