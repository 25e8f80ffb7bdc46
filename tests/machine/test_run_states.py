"""A machine whose guest does not run any more ends every wait at once, and tells why; each state is provoked for real.

What a command of ours does behind the monitor's back (`behind`) is what another monitor of the same QEMU would do.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from harness import qmp
from harness.errors import LaunchError, MachineHalted, WaitTimeout
from harness.machine import bare, launch, migration, reset
from harness.machine.bare import BareMachine
from harness.machine.launch import Machine
from harness.machine.spec import IommuSpec, MachineSpec
from harness.process import Process
from harness.waiting import Deadline, wait_for

pytestmark = pytest.mark.qemu

#: Seconds within which a wait of a minute has to end.
SOON = 6.0

BARE = MachineSpec(kind="bare", image="", iommus=(IommuSpec({"aw_bits": 48}),), root_ports=1, wires=("w0",))


def behind(machine: Machine | BareMachine, command: str, **arguments: Any) -> None:
    """Have QEMU do what no command of the harness asked for."""
    asked = machine.monitor._client.execute(command, arguments or None)
    asyncio.run_coroutine_threadsafe(asked, qmp._event_loop()).result(10)


def halted(machine: Machine | BareMachine) -> MachineHalted:
    """The error of a wait of a minute, which has to end soon."""
    begun = time.monotonic()
    with pytest.raises(MachineHalted) as caught:
        wait_for("what never comes", lambda: None, Deadline.after(60), abort=[machine.abort])
    assert time.monotonic() - begun < SOON
    return caught.value


def quiet(machine: Machine | BareMachine) -> None:
    """Nothing was told that nobody asked for."""
    machine.monitor.execute("query-name")  # what was told before it has been heard
    assert machine.abort() is None


@pytest.fixture
def bare_machine(qemu_build, qemu_facts, variant) -> Iterator[Any]:
    """Start a bare machine of a QEMU with more options in front; the test's with block stops it."""

    def start(*options: str) -> BareMachine:
        qemu = Modified(qemu_build, (*qemu_build.argv_prefix, *options))
        return BareMachine.start(BARE, [], qemu=qemu, facts=qemu_facts, directory=variant[0], journal=variant[1])

    return start


@dataclass(frozen=True)
class Modified:
    """A QEMU with other words at the begin of its command line."""

    build: Any
    argv_prefix: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.build, name)


@pytest.fixture
def variant(tmp_path):
    from harness.evidence import VariantDirectory

    directory = VariantDirectory(tmp_path / "bare")
    directory.path.mkdir()
    with directory.journal() as journal:
        yield directory, journal


# -- what is told over QMP ------------------------------------------------------------------------------------------


def test_a_machine_that_somebody_else_halts_is_told_with_its_run_state(halted_machine) -> None:
    halted_machine.cont()
    quiet(halted_machine)
    behind(halted_machine, "stop")
    error = halted(halted_machine)
    assert (error.state, error.event) == ("paused", "STOP")
    assert "nobody halted it" in error.message


def test_a_machine_that_was_let_run_again_has_stood_still_all_the_same(halted_machine) -> None:
    halted_machine.cont()
    behind(halted_machine, "stop")
    behind(halted_machine, "cont")
    error = halted(halted_machine)
    assert (error.state, error.event) == ("running", "STOP")


def test_a_halted_machine_that_somebody_else_lets_run_is_told(halted_machine) -> None:
    quiet(halted_machine)
    behind(halted_machine, "cont")
    assert halted(halted_machine).event == "RESUME"


def test_a_reset_that_nobody_asked_for_is_told(halted_machine) -> None:
    halted_machine.cont()
    halted_machine.monitor.execute_raw("set-action", {"reboot": "reset"})
    behind(halted_machine, "system_reset")
    error = halted(halted_machine)
    assert (error.state, error.event) == ("running", "RESET")
    assert "host-qmp-system-reset" in error.message


def test_a_qemu_that_ends_with_its_guest_tells_what_the_guest_asked_for(halted_machine) -> None:
    halted_machine.cont()
    behind(halted_machine, "system_reset")  # with -no-reboot, it ends QEMU
    with pytest.raises(LaunchError, match=r"exit status 0 .*SHUTDOWN.*host-qmp-system-reset"):
        wait_for("what never comes", lambda: None, Deadline.after(60), abort=[halted_machine.abort])


def test_a_shutdown_that_leaves_qemu_standing_is_told(halted_machine) -> None:
    halted_machine.cont()
    halted_machine.monitor.execute_raw("set-action", {"shutdown": "pause"})
    behind(halted_machine, "system_reset")
    error = halted(halted_machine)
    assert error.event in ("SHUTDOWN", "STOP")
    assert error.state == "shutdown"


def test_what_the_harness_does_itself_is_no_surprise(halted_machine, tmp_path) -> None:
    for _ in range(20):
        halted_machine.cont()
        reset.halt(halted_machine)
    reset.reset(halted_machine)
    quiet(halted_machine)
    with reset.booting_again(halted_machine):
        halted_machine.cont()
    quiet(halted_machine)
    halted_machine.save(tmp_path / "state")
    quiet(halted_machine)


def test_an_expected_event_is_expected_once(halted_machine) -> None:
    halted_machine.cont()
    halted_machine.monitor.execute_raw("set-action", {"reboot": "reset"})
    with halted_machine.monitor.expect("RESET") as once:
        behind(halted_machine, "system_reset")
        once.wait(Deadline.after(5))
        quiet(halted_machine)
        behind(halted_machine, "system_reset")
    assert halted(halted_machine).event == "RESET"


# -- what a machine's devices do to it ------------------------------------------------------------------------------


def test_a_guest_that_tells_of_its_panic_is_told(bare_machine) -> None:
    with bare_machine("-device", "pvpanic", "-action", "panic=pause") as machine:
        quiet(machine)
        machine.qtest.port_write(0x505, 1, 1)
        error = halted(machine)
        assert (error.state, error.event) == ("guest-panicked", "GUEST_PANICKED")
        assert "action pause" in error.message


def test_a_disk_with_an_error_is_told(bare_machine) -> None:
    """A PIO read of the first sector through the ports of an IDE controller (ATA READ SECTORS, 0x20)."""
    disk = (
        '{"driver":"blkdebug","node-name":"bad","image":{"driver":"null-co","size":1048576},'
        '"inject-error":[{"event":"none","errno":5}]}'
    )
    drive = ("-blockdev", disk, "-device", "isa-ide,id=ide", "-device", "ide-hd,bus=ide.0,drive=bad,rerror=stop")
    with bare_machine(*drive) as machine:
        quiet(machine)
        for port, value in ((0x1F6, 0xE0), (0x1F2, 1), (0x1F3, 0), (0x1F4, 0), (0x1F5, 0), (0x1F7, 0x20)):
            machine.qtest.port_write(port, value, 1)
        error = halted(machine)
        assert (error.state, error.event) == ("io-error", "BLOCK_IO_ERROR")
        assert "operation read" in error.message


def test_a_watchdog_that_runs_out_is_told(bare_machine) -> None:
    """The TCO timer of the ICH9 (its datasheet, 13.9), as QEMU's tests/qtest/tco-test.c sets it up."""
    options = ("-action", "watchdog=pause", "-global", "ICH9-LPC.noreboot=false")
    with bare_machine(*options) as machine:
        write = machine.qtest.port_write
        for register, value in ((0x40, 0xB001), (0x44, 0x80), (0xF0, 0xFED1C001)):
            write(0xCF8, 0x8000F800 | register, 4)
            write(0xCFC, value, 4)
        machine.qtest.write(0xFED1C000 + 0x3410, 0, 4)  # General Control and Status: No Reboot off
        base = 0xB000 + 0x60
        for offset, value in ((0x08, 0x0800), (0x12, 4), (0x00, 1), (0x08, 0)):
            write(base + offset, value, 2)
        error = halted(machine)
        assert (error.state, error.event) == ("watchdog", "WATCHDOG")


# -- a process that stands still ------------------------------------------------------------------------------------


def freeze(machine: Machine | BareMachine) -> None:
    os.kill(machine.process.pid, signal.SIGSTOP)


WAITS: dict[str, Callable[[Machine], object]] = {
    "a wait": lambda it: wait_for("what never comes", lambda: None, Deadline.after(60), abort=[it.abort]),
    "a command": lambda it: it.monitor.execute("query-name", timeout_s=60),
    "a frame": lambda it: it.wires["w0"].receive(Deadline.after(60)),
    "an unplug": lambda it: it.device_del("rp0", deadline_s=60),
    "a greeting": lambda it: it.line.greeting(Deadline.after(60), [it.abort]),
    "a reset": reset.reset,
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_stopped_qemu_ends_each_wait_soon(wait, halted_machine) -> None:
    halted_machine.cont()
    freeze(halted_machine)
    begun = time.monotonic()
    with pytest.raises(MachineHalted, match=r"stopped by a signal \(T\)") as caught:
        WAITS[wait](halted_machine)
    assert time.monotonic() - begun < SOON
    assert "kill -CONT" in (caught.value.hint or "")


def test_a_qemu_that_is_stopped_before_it_greets_is_told(start_machine, empty_image, monkeypatch) -> None:
    monkeypatch.setattr(launch, "Process", Frozen)
    begun = time.monotonic()
    with pytest.raises(MachineHalted, match="stopped by a signal"):
        start_machine(MachineSpec(image="empty", memory_mib=64), empty_image)
    assert time.monotonic() - begun < SOON + 4  # and SIGTERM is not heard


def test_a_bare_qemu_that_is_stopped_before_it_greets_is_told(bare_machine, monkeypatch) -> None:
    monkeypatch.setattr(bare, "Process", Frozen)
    begun = time.monotonic()
    with pytest.raises(MachineHalted, match="stopped by a signal"):
        bare_machine()
    assert time.monotonic() - begun < SOON + 4


class Frozen(Process):
    """A process that is stopped as soon as it is there."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        os.kill(self.pid, signal.SIGSTOP)


def test_a_bare_machine_that_is_stopped_ends_a_read_of_its_registers(bare_machine) -> None:
    with bare_machine() as machine:
        freeze(machine)
        begun = time.monotonic()
        with pytest.raises(MachineHalted, match="stopped by a signal"):
            machine.register(0)
        assert time.monotonic() - begun < SOON


def test_a_process_that_is_stopped_for_a_moment_goes_on(halted_machine) -> None:
    freeze(halted_machine)
    assert halted_machine.abort() is None
    os.kill(halted_machine.process.pid, signal.SIGCONT)
    with pytest.raises(WaitTimeout):
        wait_for("what never comes", lambda: None, Deadline.after(2), abort=[halted_machine.abort])


def test_who_waits_in_vain_is_told_how_the_machine_stands(halted_machine) -> None:
    halted_machine.cont()
    with pytest.raises(WaitTimeout) as caught, halted_machine.explaining():
        wait_for("what never comes", lambda: None, Deadline.after(1), abort=[halted_machine.abort])
    assert "QMP's run state is 'running'" in caught.value.message
    assert "CPU 0/TCG" in caught.value.message


def test_a_stopped_process_has_its_state_and_no_answer_told(halted_machine) -> None:
    halted_machine.cont()
    freeze(halted_machine)
    begun = time.monotonic()
    told = halted_machine.standing()
    assert "is stopped by a signal (T); QMP gives no answer" in told
    assert time.monotonic() - begun < SOON


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_qemu_that_is_stopped_while_it_restores_is_told(when, start_machine, empty_image, tmp_path, monkeypatch):
    from harness.machine.template import RAM, STATE, Template

    spec = MachineSpec(image="empty", memory_mib=64)
    (tmp_path / RAM).touch()
    with start_machine(spec, empty_image, name="maker", kept_memory=tmp_path / RAM) as maker:
        maker.save(tmp_path / STATE)
    template = Template(key="0" * 24, directory=tmp_path, host_public="ssh-ed25519 AAAA", greeting=b"SSH-2.0-x\r\n")
    frozen: list[float] = []

    def stop(monitor: qmp.Monitor, *_: object) -> None:
        os.kill(Started.pids[-1], signal.SIGSTOP)
        frozen.append(time.monotonic())

    restore, execute = migration.restore, qmp.Monitor.execute
    if when == "before":
        monkeypatch.setattr(migration, "restore", lambda *those: (stop(those[0]), restore(*those)))
    else:
        monkeypatch.setattr(
            qmp.Monitor,
            "execute",
            lambda self, command, **how: (
                (stop(self) if command == "query-migrate" and not frozen else None) or execute(self, command, **how)
            ),
        )
    monkeypatch.setattr(launch, "Process", Started)
    with pytest.raises(MachineHalted, match=r"stopped by a signal \(T\)") as caught:
        start_machine(spec, empty_image, template=template)
    assert time.monotonic() - frozen[0] < SOON + 4
    assert caught.value.state == ""


class Started(Process):
    """A process whose number is known."""

    pids: list[int] = []

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.pids.append(self.pid)
