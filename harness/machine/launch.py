"""A running QEMU with all its channels, from start to the last trace of it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness import bounds
from harness.console import REPORT_S, Console
from harness.errors import (
    AgentError,
    GuestError,
    HarnessError,
    InfraError,
    LaunchError,
    MachineHalted,
    MonitorError,
    SshError,
    WaitTimeout,
)
from harness.evidence import Journal, Record, VariantDirectory
from harness.machine import inherited, migration, repro, taken
from harness.machine.argv import Channels, command_line
from harness.machine.outgrown import outgrown
from harness.machine.parts import BootImage, QemuBinary
from harness.machine.properties import QemuFacts, resolve_all
from harness.machine.spec import MachineSpec
from harness.machine.stub import STUB_KERNEL, StubImage
from harness.machine.template import Template
from harness.machine.tracing import switch_events, whole_lines
from harness.machine.vitals import Halt, QemuProcess, Vitals
from harness.memory import GuestMemory
from harness.process import Process, StopRung
from harness.qmp import Monitor, journal_qmp
from harness.qtest import Qtest, QtestLost
from harness.ssh import KeyPair, SshLine
from harness.storage import LEFT, lacking, write_text, writing
from harness.waiting import Abort, Deadline, wait_for
from harness.wire import Wire

CONSOLE, STDERR, TRACE, ARGV, REPRO = "console.log", "qemu.stderr", "trace.log", "qemu.argv", "repro.sh"

#: Seconds QEMU is given to greet; loading its libraries on a busy host takes most of it.
GREETING_S = 20.0

#: Seconds the guest is given to let go of a device. Measured: 0.04 to 0.11 s, also for igb, since q35 unplugs through
#: ACPI and does not wait for an attention button; the rest is for drivers that are slow to unbind.
UNPLUG_S = 20.0

#: Under what the time is noted that QEMU takes for a template's device state.
_RESTORED = "restored"


class Machine:
    """A started machine, halted until `cont`; a context manager that leaves nothing behind."""

    def __init__(self, argv: Sequence[str], directory: VariantDirectory, journal: Record, stack: ExitStack) -> None:
        self.argv = tuple(argv)
        self.directory = directory
        self.journal = journal
        self.console = Console(directory.file(CONSOLE))
        self.wires: dict[str, Wire] = {}
        self.process: QemuProcess
        self.monitor: Monitor
        self.memory: GuestMemory
        self.qtest: Qtest | None = None
        self.line: SshLine
        self.keys: inherited.GuestKeys
        self.restored = False
        self.template: Template | None = None
        #: What makes this machine pointless as well: its QEMU runs in a machine that may end or halt.
        self.beneath: Sequence[Abort] = ()
        self._vitals: Vitals
        self._stack = stack
        self._stopped = False

    @classmethod
    def start(
        cls,
        spec: MachineSpec,
        *,
        qemu: QemuBinary,
        facts: QemuFacts,
        image: BootImage,
        directory: VariantDirectory,
        journal: Journal,
        template: Template | None = None,
        own_memory: bool = False,
        kept_memory: Path | None = None,
    ) -> Machine:
        """Start QEMU for `spec` with its files in `directory`; the guest does not run before `cont`.

        With a `template` the guest is where that was saved; its memory is then mapped copy-on-write, or, with
        `own_memory`, copied so that `memory.write` and `set_register` can change it from outside. `kept_memory` is a
        file that holds the guest's memory while it runs and afterwards, as `save` needs it.

        Raises Unsupported for an IOMMU option this QEMU does not have, LaunchError with QEMU's own words when QEMU
        refuses the configuration.
        """
        inherited.require_plain(directory)
        iommus = resolve_all(spec.iommus, facts)
        with ExitStack() as stack:
            wires = {name: stack.enter_context(Wire(name)) for name in spec.wires}
            ours, theirs = socket.socketpair()
            stack.callback(ours.close)
            stack.callback(theirs.close)
            ssh, ssh_theirs = socket.socketpair()
            stack.callback(ssh.close)
            stack.callback(ssh_theirs.close)
            client = KeyPair.generate()
            host_private, host_public = inherited.host_key(template)
            key_fds = [inherited.in_memory(stack, data) for data in (host_private, client.public.encode() + b"\n")]
            memory_fd = inherited.in_memory(stack, b"")
            own_fd = inherited.own_memory(stack, spec, template) if own_memory else None
            qtest, qtest_theirs = inherited.qtest_channel(stack) if own_memory else (None, None)
            monitor = stack.enter_context(
                Monitor(ours, "qmp", lambda kind, message: journal_qmp(journal, kind, message))
            )
            channels = Channels.inherited(
                qmp_fd=theirs.fileno(),
                ssh_fd=ssh_theirs.fileno(),
                host_key_fd=key_fds[0],
                authorized_keys_fd=key_fds[1],
                console=str(directory.file(CONSOLE)),
                trace=str(directory.file(TRACE)),
                wire_fds={name: wire.qemu_fd for name, wire in wires.items()},
                qtest_fd=None if qtest_theirs is None else qtest_theirs.fileno(),
            )
            ram = inherited.ram(template, kept_memory, own_fd)
            stub_fd = None if template is None else inherited.in_memory(stack, STUB_KERNEL)
            override_fd = inherited.overridden_initrd(stack, image, spec)
            boots = image if stub_fd is None else inherited.stub_image(image, stub_fd)
            if override_fd is not None:
                initrd = Path(f"/proc/self/fd/{override_fd}")
                boots = StubImage(image.name, image.digest, image.kernel, initrd, image.disks)
            argv = command_line(spec, iommus, channels, boots, qemu, ram=ram, incoming=template is not None)
            directory.write_text(ARGV, repro.shell_lines(argv) + "\n")
            _write_script(directory.file(REPRO), repro.script(spec, iommus, image, qemu, spec.wires))
            machine = cls(argv, directory, journal, stack)
            machine.wires, machine.monitor, machine.keys = wires, monitor, inherited.GuestKeys(client, host_public)
            machine.line = SshLine(ssh, template.greeting if template else b"")
            machine.memory = GuestMemory(monitor, memory_fd, own=own_fd, size=spec.memory_mib << 20)
            descriptors = [theirs.fileno(), ssh_theirs.fileno(), *key_fds, memory_fd]
            descriptors += [wire.qemu_fd for wire in wires.values()]
            descriptors += [fd for fd in (own_fd, stub_fd, override_fd) if fd is not None]
            handed_over = [theirs, ssh_theirs]
            if qtest_theirs is not None:
                machine.qtest = qtest
                descriptors.append(qtest_theirs.fileno())
                handed_over.append(qtest_theirs)
            machine._launch(descriptors, qemu.env)
            for end in handed_over:
                end.close()
            for wire in wires.values():
                wire.inherited()
            machine.connect()
            if template is not None:
                machine._restore(template)
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
        self.line.shut()
        try:
            rung = self.process.stop(quit=lambda: self.monitor.execute("quit", timeout_s=2.0))
            self.journal.record("process", "stop", rung=rung.value, exit_status=self.process.poll())
        finally:
            self._stack.close()
        return rung

    def abort(self) -> Exception | None:
        """What makes every further wait on this machine pointless.

        Its evidence cannot be kept, QEMU has ended, its process is stopped, QMP told of something that nobody asked
        for, or the guest kernel has panicked; the same of the machine that this one runs in.
        """
        unheard = self._unheard()
        if unheard is not None:
            return unheard
        for check in self.beneath:
            error = check()
            if error is not None:
                return error
        status = self.process.poll()
        if status is None:
            return self.console.panic() or self.halted()
        panic = self.console.panic(over=True)
        words = self.monitor.run_state.last_words()
        why = "" if words is None else f" (it told of {words.event}: {words.text})"
        return panic or self.launch_error(f"QEMU ended on its own with exit status {status}{why}")

    def watch(self) -> None:
        """Have every wait of this machine's channels end with it; for who has given it its process and channels."""
        self._vitals = Vitals(self.process, self.monitor)
        self.monitor.abort = (self._standstill,)
        for wire in self.wires.values():
            wire.abort = (self.abort,)
        if self.qtest is not None:
            self.qtest.abort = (self._standstill,)

    def standing(self) -> str:
        """How QEMU's process, its monitor and its vCPUs stand, in words."""
        return self._vitals.told()

    def _standstill(self) -> Exception | None:
        """That nothing of QEMU runs any more, which can be seen without asking it."""
        for check in self.beneath:
            error = check()
            if error is not None:
                return error
        halt = self._vitals.stopped()
        return None if halt is None else self._halt_error(halt)

    def halted(self) -> Exception | None:
        """That QEMU is there and the guest does not go on, or began anew, without having been told to."""
        halt = self._vitals.halted()
        # A guest that is halted tells no more of its panic than it has.
        return None if halt is None else self.console.panic(over=True) or self._halt_error(halt)

    def _halt_error(self, halt: Halt) -> MachineHalted:
        return halt.error(self.process.stderr_text(), self.console.tail(20), self.directory.path)

    def _unheard(self) -> Exception | None:
        """What keeps evidence of this machine from being complete: no room, or a bound that was exceeded."""
        failure = self.journal.failure() or self.process.failure()
        failure = failure or outgrown([self.directory.file(name) for name in (CONSOLE, TRACE, STDERR)])
        return failure or lacking(self.directory.path, LEFT, "the evidence of QEMU")

    def launch_error(self, message: str) -> LaunchError:
        """A LaunchError with all that is known about this machine."""
        return LaunchError(
            message,
            argv=self.argv,
            exit_status=self.process.poll(),
            stderr=self.process.stderr_text(),
            console_tail=self.console.tail(20),
            evidence=self.directory.path,
        )

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Replace the error of a lost channel by its cause if QEMU's end or a guest panic shows within a second.

        Who waited in vain is told how the machine stands.
        """
        try:
            yield
        except (MonitorError, SshError, AgentError, QtestLost) as error:
            refused = isinstance(error, MonitorError) and error.error_class is not None
            cause = None if refused else self._cause_of_loss()
            if cause is not None:
                raise cause from error
            raise
        except WaitTimeout as error:
            error.explain(self.standing())
            raise

    def cont(self) -> None:
        """Let the guest run."""
        self._vitals.begin()
        self.monitor.execute("cont")

    def save(self, state: Path) -> None:
        """Stop the guest and save QEMU's device state in `state`; its memory stays in the file it was started with."""
        with self.explaining():
            migration.save(self.monitor, state, [self.abort])

    def device_add(self, qdev: Mapping[str, Any], *, timeout_s: float = 10.0) -> None:
        """Plug the device `qdev` (`{"driver", "id", "bus", ...}`); MonitorError with QEMU's reason if it refuses."""
        path = self.directory.file(REPRO)
        with writing(REPRO, path, alone=True), path.open("a", encoding="utf-8") as script:
            script.write(repro.device_add_note(qdev))
        with self.explaining():
            self.monitor.execute_raw("device_add", qdev, timeout_s=timeout_s)

    def device_del(self, device: str, *, deadline_s: float = UNPLUG_S) -> None:
        """Unplug the device with id `device` and wait until the guest let go of it.

        Raises GuestError if the guest refuses, WaitTimeout if it does not react.
        """
        expect = self.monitor.expect
        with (
            self.explaining(),
            expect("DEVICE_DELETED", device=device) as deleted,
            expect("DEVICE_UNPLUG_GUEST_ERROR", device=device) as refused,
        ):
            self.monitor.execute("device_del", id=device)
            deleted.wait(
                Deadline.after(deadline_s),
                abort=[
                    self.abort,
                    lambda: GuestError(f"the guest refused to release '{device}'") if refused.arrived() else None,
                ],
            )

    def register(self, address: int, size: int = 4) -> int:
        """The value of the device register of `size` bytes at guest-physical `address`, read from outside the guest."""
        return int.from_bytes(self.memory.read(address, size), "little")

    def set_register(self, address: int, value: int, size: int = 4) -> None:
        """Write the device register of `size` bytes at guest-physical `address` from outside the guest.

        InfraError for a machine that was not started with `own_memory`.
        """
        if self.qtest is None:
            raise InfraError(f"the registers of this machine cannot be written (at {address:#x})", hint="own_memory")
        with self.explaining():
            self.qtest.write(address, value, size)

    def trace(self, events: Sequence[str], *, on: bool) -> None:
        """Switch trace events and check with QEMU that they are; MonitorError for one QEMU does not have."""
        switch_events(self.monitor, events, on=on)

    def trace_lines(self, since_offset: int = 0) -> tuple[list[str], int]:
        """The whole lines of the trace log from byte `since_offset`, and the offset at which to go on."""
        return whole_lines(self.directory.file(TRACE), since_offset)

    def _launch(self, inherited: Sequence[int], env: Mapping[str, str]) -> None:
        self.process = Process(
            self.argv,
            stderr=self.directory.file(STDERR),
            pass_fds=inherited,
            env=env,
            file_bytes=bounds.QEMU_FILE_BYTES,
        )
        self._stack.callback(lambda: self.process.stop(quit=None))
        self.journal.record("process", "start", pid=self.process.pid, argv=list(self.argv))
        self.watch()

    def connect(self) -> None:
        """Wait for QMP; a QEMU that ends instead has said why on its stderr."""
        try:
            self.monitor.connect(Deadline.after(GREETING_S))
        except MonitorError as error:
            with contextlib.suppress(WaitTimeout):
                wait_for("QEMU to end", lambda: self.process.poll() is not None, Deadline.after(1.0))
            status, said = self.process.poll(), _last_words(self.process) or error.message
            self.journal.record("process", "exit", exit_status=status, stderr=self.process.stderr_text())
            ended = "" if status is None else f", it ended with exit status {status}"
            raise self.launch_error(f"QEMU did not start{ended}: {said}") from error
        version = self.monitor.execute("query-version")["qemu"]
        told = f"{version['major']}.{version['minor']}.{version['micro']}"
        self.journal.record("process", "qemu", version=told)

    def _restore(self, template: Template) -> None:
        try:
            with self.explaining():
                took = taken.read(template.directory).get(_RESTORED)
                given = taken.within(took, "restoring it", factor=20, floor=10, otherwise=migration.MIGRATION_S)
                spent = Deadline.after(given.seconds)
                migration.restore(self.monitor, template.state, [self.abort], given.seconds)
        except HarnessError as error:
            # Its bytes are what was saved, so only QEMU knows; making it anew each time would hide that.
            error.hint = error.hint or f"the template can be made anew: rm -r {template.directory}"
            raise
        taken.note(template.directory, _RESTORED, spent.elapsed_s)
        self.restored, self.template = True, template
        self.journal.record("process", "restored", template=template.key)

    def _cause_of_loss(self) -> Exception | None:
        cause = self._abort_within(1.0)
        return self._abort_within(REPORT_S + 1.0) if cause is None and self.console.reporting() else cause

    def _abort_within(self, seconds: float) -> Exception | None:
        with contextlib.suppress(WaitTimeout):
            return wait_for("the cause", self.abort, Deadline.after(seconds))
        return None


def _write_script(path: Path, text: str) -> None:
    write_text(path, text)
    path.chmod(0o755)


def _last_words(process: QemuProcess) -> str:
    lines = [line for line in process.stderr_text().splitlines() if line.strip()]
    return lines[-1] if lines else ""
