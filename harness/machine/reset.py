"""Resetting a machine, and looking at it just before and just after, while nothing of it runs.

A machine is started with `-no-reboot`, so that a guest which reboots unasked ends QEMU. Here it is told otherwise, for
one reset: a guest that asks for it stands still instead (`set-action shutdown=pause`, main_loop_should_exit in QEMU's
system/runstate.c), and a machine that is reset while it stands still does not run before `cont`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from harness.errors import InfraError
from harness.machine.launch import Machine
from harness.waiting import Deadline

#: Seconds for a guest to get to its reset: its kernel shuts devices down first.
_ASKED_S = 60.0

#: Seconds for QEMU to reset all devices. Measured: a few milliseconds.
_RESET_S = 20.0


def halt(machine: Machine) -> None:
    """Halt the machine where it is."""
    machine.monitor.execute("stop")


def halt_at_reset(machine: Machine, ask: Callable[[], None]) -> str:
    """Have the guest ask for its reset, by `ask`, and halt the machine when it does; gives QEMU's word for the cause.

    Raises WaitTimeout if it never asks, or what ended the machine instead.
    """
    machine.monitor.execute_raw("set-action", {"shutdown": "pause"})
    with (
        machine.explaining(),
        machine.monitor.expect("SHUTDOWN") as asked,
        machine.monitor.expect("STOP") as halted,
    ):
        ask()
        cause = str(asked.wait(Deadline.after(_ASKED_S), abort=[machine.abort])["data"]["reason"])
        halted.wait(Deadline.after(_RESET_S), abort=[machine.abort])
    return cause


def reset(machine: Machine) -> None:
    """Reset a halted machine, which stays halted; the journal then has `process`, `reset`."""
    machine.monitor.execute_raw("set-action", {"reboot": "reset"})
    with machine.explaining(), machine.monitor.expect("RESET") as done:
        machine.monitor.execute("system_reset")
        event = done.wait(Deadline.after(_RESET_S), abort=[machine.abort])
    status = machine.monitor.execute("query-status")
    if status["running"]:
        raise InfraError(f"the machine runs after its reset ({status['status']}), so nobody saw what it was then")
    machine.journal.record("process", "reset", reason=event["data"]["reason"])


@contextlib.contextmanager
def booting_again(machine: Machine) -> Iterator[None]:
    """Around the boot that follows a reset, in which the firmware may ask for one more; then nobody may any more.

    Without KVM, QEMU leaves the firmware's copy in memory as the last boot left it. SeaBIOS sees that it has run, puts
    the original back, and resets the machine again (qemu_reboot and reset_vector in its src/fw/shadow.c and
    src/post.c).
    """
    try:
        with machine.monitor.expect("RESET") as once_more:
            yield
    finally:
        machine.monitor.execute_raw("set-action", {"reboot": "shutdown", "shutdown": "poweroff"})
    event = once_more.arrived()
    if event is not None:
        machine.journal.record("process", "reset", reason=event["data"]["reason"])
