"""A guest whose QEMU is stopped, in whatever phase of its life, is told of within seconds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from harness import guest as guests
from harness.errors import MachineHalted
from harness.guest import Guest
from harness.machine import taken
from harness.machine.launch import Machine
from harness.ssh import SshLine
from harness.waiting import Deadline, wait_for

pytestmark = [pytest.mark.guest, pytest.mark.parametrize("guest_image", ["debian-13"], indirect=True)]

#: Seconds that a halt may take to be told: a second of it is seen, all waits have more than ten.
SOON = 6.0


def freezing(machine: Machine, action: Callable[..., Any], frozen: list[float], *, after: bool) -> Callable[..., Any]:
    """Do `action`, and stop QEMU before or after it; the time of that goes to `frozen`."""

    def act(*arguments: Any, **named: Any) -> Any:
        result = action(*arguments, **named) if after else None
        os.kill(machine.process.pid, signal.SIGSTOP)
        frozen.append(time.monotonic())
        return result if after else action(*arguments, **named)

    return act


PHASES = {
    "authentication": (SshLine, "greeting", True),
    "the agent's start": (guests, "_attach", False),
    "the agent's first words": (guests, "_attach", True),
    "the clock": (guests, "_set_clock", False),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_qemu_that_is_stopped_while_its_guest_starts_is_told(phase, restored_machine, monkeypatch) -> None:
    place, name, after = PHASES[phase]
    frozen: list[float] = []
    with restored_machine() as machine:
        monkeypatch.setattr(place, name, freezing(machine, getattr(place, name), frozen, after=after))
        with pytest.raises(MachineHalted, match=r"stopped by a signal \(T\)"):
            Guest.boot(machine)
        assert time.monotonic() - frozen[0] < SOON


def test_a_qemu_that_is_stopped_in_its_boot_is_told(start_machine, guest_image) -> None:
    from harness.machine.spec import MachineSpec

    frozen: list[float] = []

    def begun() -> bool:
        if machine.console.path.stat().st_size > 500 and not frozen:
            os.kill(machine.process.pid, signal.SIGSTOP)
            frozen.append(time.monotonic())
        return False

    with start_machine(MachineSpec(image=""), guest_image) as machine:
        looked = machine.abort
        machine.abort = lambda: (begun(), looked())[1]  # type: ignore[method-assign]
        with pytest.raises(MachineHalted, match=r"stopped by a signal \(T\)") as caught:
            Guest.boot(machine)
        assert time.monotonic() - frozen[0] < SOON
    assert any("Linux version" in line or "[    0." in line for line in caught.value.console_tail)


ACTS: dict[str, Callable[[Guest], object]] = {
    "a call of the agent": lambda guest: guest.agent.call("kmsg", within_s=60),
    "a command": lambda guest: guest.run(["true"], timeout_s=60),
    "a device that is plugged": lambda guest: guest.machine.device_add({"driver": "edu", "id": "e"}, timeout_s=60),
    "memory that is read": lambda guest: guest.machine.memory.read(0x10_0000, 64),
}


@pytest.mark.parametrize("act", ACTS)
def test_a_qemu_that_is_stopped_in_a_step_is_told(act, restored_guest) -> None:
    os.kill(restored_guest.machine.process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(MachineHalted, match=r"stopped by a signal \(T\)"):
        ACTS[act](restored_guest)
    assert time.monotonic() - begun < SOON


def test_a_guest_that_never_answers_is_given_what_its_start_took_before(restored_machine, monkeypatch) -> None:
    """Its vCPUs are halted by the harness itself, so nothing but the time tells that it does not come."""
    within = taken.within
    monkeypatch.setattr(
        taken, "within", lambda took, what, **how: within(took, what, **{**how, "floor": 3.0, "factor": 1.0})
    )
    with restored_machine("first") as machine:
        with Guest.boot(machine):
            pass
        noted = taken.read(machine.template.directory)
        assert noted["restored"] > 0
        assert noted["ready"] > 0
    with restored_machine("second") as machine:
        monkeypatch.setattr(machine, "cont", lambda: None)
        begun = time.monotonic()
        with pytest.raises(guests.InfraError, match=r"a start from its template took .*run state is 'paused'.*CPU 0"):
            Guest.boot(machine)
        assert time.monotonic() - begun < 60


def test_a_guest_that_is_reset_between_two_steps_is_told(restored_guest) -> None:
    import asyncio

    from harness import qmp

    machine = restored_guest.machine
    machine.monitor.execute_raw("set-action", {"reboot": "reset"})
    asked = machine.monitor._client.execute("system_reset", None)
    asyncio.run_coroutine_threadsafe(asked, qmp._event_loop()).result(10)
    with pytest.raises(MachineHalted) as caught:
        wait_for("what never comes", lambda: None, Deadline.after(60), abort=[machine.abort])
    assert caught.value.event == "RESET"
