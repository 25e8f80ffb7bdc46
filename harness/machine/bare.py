"""A machine without a guest: QEMU with the vIOMMU and devices, whose memory and registers the harness works itself.

The CPU halts at its first instruction. With `-icount shift=0,sleep=off` the virtual clock of an idle machine jumps to
the next timer, so a device that takes 100 ms for a DMA (edu) is done at once. That is why it has no timer that ticks by
itself (PIT, HPET): QEMU would jump from tick to tick, half a core without end.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from harness import bounds
from harness.errors import LaunchError, MonitorError, WaitTimeout
from harness.evidence import Journal, VariantDirectory
from harness.machine import repro
from harness.machine.bare_argv import MEMORY, BareChannels, bare_command_line
from harness.machine.inherited import in_memory, require_plain
from harness.machine.launch import ARGV, GREETING_S, STDERR, TRACE
from harness.machine.outgrown import outgrown
from harness.machine.parts import QemuBinary
from harness.machine.properties import QemuFacts, resolve_all
from harness.machine.spec import ROM_TABLE, MachineSpec
from harness.machine.tracing import switch_events, whole_lines
from harness.machine.vitals import Halt, Vitals
from harness.process import Process, StopRung
from harness.qmp import Monitor, journal_qmp
from harness.qtest import Qtest, QtestLost, Read, Write
from harness.vtd.registers import DEFAULT_BASE
from harness.waiting import Abort, Deadline, wait_for
from harness.wire import Wire

#: The page that all paging entries in ROM map.
ROM_TARGET = 0x0180_0000

_ROM_SIZE = 64 << 10
#: Present, writable, for users (or read and write of a second-stage entry); neither accessed nor dirty.
_ROM_RIGHTS = 0b111


class BareMachine:
    """A started machine; a context manager that leaves nothing behind."""

    def __init__(self, argv: Sequence[str], directory: VariantDirectory, journal: Journal, memory: int) -> None:
        self.argv = tuple(argv)
        self.directory = directory
        self.journal = journal
        self.process: Process
        self.monitor: Monitor
        self.qtest: Qtest
        self.wires: dict[str, Wire] = {}
        self._vitals: Vitals
        self._memory = memory
        self._stack = ExitStack()
        self._stopped = False

    @classmethod
    def start(
        cls,
        spec: MachineSpec,
        devices: Sequence[Mapping[str, Any]],
        *,
        qemu: QemuBinary,
        facts: QemuFacts,
        directory: VariantDirectory,
        journal: Journal,
    ) -> BareMachine:
        """Start QEMU for `spec` with `devices` (properties as for `device_add`) and its files in `directory`.

        Raises Unsupported for an IOMMU option this QEMU does not have, LaunchError with QEMU's own words when QEMU
        refuses the configuration.
        """
        require_plain(directory)
        iommus = resolve_all(spec.iommus, facts)
        with ExitStack() as stack:
            wires = {name: stack.enter_context(Wire(name)) for name in spec.wires}
            memory = in_memory(stack, b"")
            os.ftruncate(memory, MEMORY)
            rom = in_memory(stack, _rom())
            monitor_ours, monitor_theirs = _pair(stack)
            qtest_ours, qtest_theirs = _pair(stack)
            channels = BareChannels(
                memory=memory,
                rom=rom,
                qmp=monitor_theirs.fileno(),
                qtest=qtest_theirs.fileno(),
                wires={name: wire.qemu_fd for name, wire in wires.items()},
                trace=str(directory.file(TRACE)),
            )
            argv = bare_command_line(spec, iommus, devices, channels, qemu)
            directory.write_text(ARGV, repro.shell_lines(argv) + "\n")
            machine = cls(argv, directory, journal, memory)
            machine.monitor = stack.enter_context(
                Monitor(monitor_ours, "qmp", lambda kind, message: journal_qmp(journal, kind, message))
            )
            machine.qtest = stack.enter_context(Qtest(qtest_ours))
            machine.wires = wires
            inherited = [memory, rom, monitor_theirs.fileno(), qtest_theirs.fileno()]
            inherited += [wire.qemu_fd for wire in wires.values()]
            machine.process = Process(
                argv, stderr=directory.file(STDERR), pass_fds=inherited, env=qemu.env, file_bytes=bounds.QEMU_FILE_BYTES
            )
            stack.callback(lambda: machine.process.stop(quit=None))
            machine._watch()
            journal.record("process", "start", pid=machine.process.pid, argv=list(argv))
            monitor_theirs.close()
            qtest_theirs.close()
            for wire in wires.values():
                wire.inherited()
            machine._connect()
            machine._stack = stack.pop_all()
        return machine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> StopRung | None:
        """End QEMU, close every channel and return the rung of the ladder it took; None if that was done before."""
        if self._stopped:
            return None
        self._stopped = True
        try:
            rung = self.process.stop(quit=lambda: self.monitor.execute("quit", timeout_s=2.0))
            self.journal.record("process", "stop", rung=rung.value, exit_status=self.process.poll())
        finally:
            self._stack.close()
        return rung

    def abort(self) -> Exception | None:
        """What makes every further wait on this machine pointless, as for a machine with a guest."""
        status = self.process.poll()
        if status is not None:
            return self.launch_error(f"QEMU ended on its own with exit status {status}")
        return self._error(self._vitals.halted())

    def _watch(self) -> None:
        self._vitals = Vitals(self.process, self.monitor)
        self._vitals.begin()
        standstill: tuple[Abort, ...] = (lambda: self._error(self._vitals.stopped()),)
        self.monitor.abort = self.qtest.abort = standstill
        for wire in self.wires.values():
            wire.abort = (self.abort,)

    def _error(self, halt: Halt | None) -> Exception | None:
        return None if halt is None else halt.error(self.process.stderr_text(), (), self.directory.path)

    def launch_error(self, message: str) -> LaunchError:
        """A LaunchError with all that is known about this machine."""
        return LaunchError(
            message,
            argv=self.argv,
            exit_status=self.process.poll(),
            stderr=self.process.stderr_text(),
            console_tail="",
            evidence=self.directory.path,
        )

    def ended_within(self, seconds: float) -> bool:
        """Whether QEMU ends on its own within so many seconds."""
        with contextlib.suppress(WaitTimeout):
            return bool(wait_for("QEMU to end", lambda: self.process.poll() is not None, Deadline.after(seconds)))
        return False

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Replace the error of a lost channel by its cause if QEMU's end shows within a second."""
        try:
            yield
        except (MonitorError, QtestLost) as error:
            refused = isinstance(error, MonitorError) and error.error_class is not None
            if not refused and self.ended_within(1.0):
                status = self.process.poll()
                files = [self.directory.file(name) for name in (TRACE, STDERR)]
                flooded = outgrown(files)
                if flooded is not None:
                    raise flooded from error
                raise self.launch_error(f"QEMU ended on its own with exit status {status}") from error
            raise
        except WaitTimeout as error:
            error.explain(self._vitals.told())
            raise

    # -- memory and registers ---------------------------------------------------------------------------------------

    def read(self, gpa: int, size: int) -> bytes:
        """`size` bytes of memory at guest-physical address `gpa`; ValueError outside of it."""
        self._check(gpa, size)
        return os.pread(self._memory, size, gpa)

    def write(self, gpa: int, data: bytes) -> None:
        """Put `data` at guest-physical address `gpa`; ValueError outside of the memory."""
        self._check(gpa, len(data))
        os.pwrite(self._memory, data, gpa)

    def holds(self, gpa: int, size: int = 1) -> bool:
        """Whether there is memory at `gpa` (the holes that a PC has below 1 MiB left out)."""
        return 0 <= gpa <= gpa + size <= MEMORY and not (gpa < 0x10_0000 and gpa + size > 0xA_0000)

    def register(self, offset: int, size: int = 4) -> int:
        """Read the unit's register of `size` bytes at `offset` of its register page."""
        with self.explaining():
            return self.qtest.read(DEFAULT_BASE + offset, size)

    def set_register(self, offset: int, value: int, size: int = 4) -> None:
        """Write the unit's register of `size` bytes at `offset` of its register page."""
        with self.explaining():
            self.qtest.write(DEFAULT_BASE + offset, value, size)

    def registers(self, *places: tuple[int, int]) -> list[int]:
        """Read several registers of the unit, each by offset and size."""
        with self.explaining():
            return self.qtest.exchange(*(Read(DEFAULT_BASE + offset, size) for offset, size in places))

    def set_registers(self, *values: tuple[int, int, int]) -> None:
        """Write several registers of the unit in order, each by offset, value and size."""
        with self.explaining():
            self.qtest.exchange(*(Write(DEFAULT_BASE + offset, value, size) for offset, value, size in values))

    # -- traces -----------------------------------------------------------------------------------------------------

    def trace(self, events: Sequence[str], *, on: bool) -> None:
        """Switch trace events and check with QEMU that they are; MonitorError for one QEMU does not have."""
        switch_events(self.monitor, events, on=on)

    def trace_lines(self, since_offset: int = 0) -> tuple[list[str], int]:
        """The whole lines of the trace log from byte `since_offset`, and the offset at which to go on."""
        return whole_lines(self.directory.file(TRACE), since_offset)

    def _connect(self) -> None:
        """Wait for QMP; a QEMU that ends instead has said why on its stderr."""
        try:
            self.monitor.connect(Deadline.after(GREETING_S))
            version = self.monitor.execute("query-version")["qemu"]
        except MonitorError as error:
            self.ended_within(1.0)
            status, said = self.process.poll(), self.process.stderr_text()
            self.journal.record("process", "exit", exit_status=status, stderr=said)
            last = ([line for line in said.splitlines() if line.strip()] or [error.message])[-1]
            raise self.launch_error(f"QEMU did not start: {last}") from error
        told = f"{version['major']}.{version['minor']}.{version['micro']}"
        self.journal.record("process", "qemu", version=told)

    def _check(self, gpa: int, size: int) -> None:
        if not self.holds(gpa, size):
            raise ValueError(f"there is no memory for {size} bytes at {gpa:#x}")


def _rom() -> bytes:
    """What stands below 4 GiB: a page of paging entries, and at the reset vector a CPU that halts for good."""
    rom = bytearray(b"\xf4" * _ROM_SIZE)
    table = ROM_TABLE - ((1 << 32) - _ROM_SIZE)
    rom[table : table + 4096] = struct.pack("<Q", ROM_TARGET | _ROM_RIGHTS) * 512
    rom[-16:-12] = b"\xfa\xf4\xeb\xfd"  # cli; hlt; and once more
    return bytes(rom)


def _pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    stack.callback(ours.close)
    stack.callback(theirs.close)
    return ours, theirs
