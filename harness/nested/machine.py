"""A machine whose QEMU runs on another host: the same channels, each through the keeper there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Protocol

from harness.evidence import Record, VariantDirectory
from harness.machine import repro
from harness.machine.argv import Channels, command_line
from harness.machine.inherited import GuestKeys, require_plain
from harness.machine.launch import ARGV, CONSOLE, STDERR, TRACE, Machine
from harness.machine.parts import BootImage, QemuBinary
from harness.machine.spec import MachineSpec
from harness.memory import GuestMemory
from harness.nested.kept import Job, KeptProcess
from harness.qmp import Monitor, journal_qmp
from harness.ssh import KeyPair, Ssh, SshLine
from harness.wire import Wire

#: Descriptors under which QEMU has its channels there; those of its wires follow.
_QMP, _SSH, _CONSOLE, _TRACE, _HOST_KEY, _CLIENT_KEY, _SCRATCH = range(40, 47)
_FIRST_WIRE = 50


class Place(Protocol):
    """A host that runs machines: reached by `ssh`, with the QEMU that is there."""

    @property
    def ssh(self) -> Ssh:
        """The connection by which programs are started there."""

    @property
    def qemu(self) -> QemuBinary:
        """Its QEMU, by the paths that it has there."""


def start_on(
    place: Place,
    spec: MachineSpec,
    *,
    image: BootImage,
    directory: VariantDirectory,
    journal: Record,
    iommus: Sequence[Mapping[str, Any]] = (),
    taps: Mapping[str, tuple[str, str]] | None = None,
) -> Machine:
    """Start the machine of `spec` on `place`, with its files in `directory` here; it is halted until `cont`.

    `iommus` holds the resolved properties of its remapping units. With `taps`, its wires are interfaces of the place:
    name to an interface, which is made for it, and the bridge that this joins; otherwise their ends are here. Raises
    LaunchError with QEMU's own words if it refuses.
    """
    require_plain(directory)
    client, host = KeyPair.generate(), KeyPair.generate()
    wire_fds = {name: _FIRST_WIRE + number for number, name in enumerate(spec.wires)}
    channels = Channels.inherited(
        qmp_fd=_QMP,
        ssh_fd=_SSH,
        host_key_fd=_HOST_KEY,
        authorized_keys_fd=_CLIENT_KEY,
        console=f"/proc/self/fd/{_CONSOLE}",
        trace=f"/proc/self/fd/{_TRACE}",
        wire_fds=wire_fds if taps is None else {},
    )
    if taps is not None:
        channels = replace(channels, wires={name: f"tap,fd={fd}" for name, fd in wire_fds.items()})
    argv = command_line(spec, iommus, channels, image, place.qemu)
    directory.write_text(ARGV, repro.shell_lines(argv) + "\n")
    job = Job(
        argv=argv,
        env=place.qemu.env,
        streams={"qmp": _QMP, "ssh": _SSH},
        datagrams=wire_fds if taps is None else {},
        outputs={"console": _CONSOLE, "trace": _TRACE, "stderr": 1},
        data={_HOST_KEY: host.private, _CLIENT_KEY: client.public.encode() + b"\n"},
        scratch=_SCRATCH,
        taps={} if taps is None else {wire_fds[name]: taps[name] for name in spec.wires},
    )
    files = {"console": directory.file(CONSOLE), "trace": directory.file(TRACE), "stderr": directory.file(STDERR)}
    with ExitStack() as stack:
        wires = {name: stack.enter_context(Wire(name)) for name in (spec.wires if taps is None else ())}
        process = KeptProcess(place.ssh, job, files, {name: wire.far_end for name, wire in wires.items()})
        stack.callback(lambda: process.stop(quit=None))
        monitor = stack.enter_context(
            Monitor(process.streams["qmp"], "qmp", lambda kind, message: journal_qmp(journal, kind, message))
        )
        machine = Machine(argv, directory, journal, stack)
        machine.process, machine.monitor, machine.wires = process, monitor, wires
        machine.beneath = place.ssh.abort
        machine.keys = GuestKeys(client, host.public)
        machine.line = SshLine(process.streams["ssh"])
        machine.memory = GuestMemory(monitor, _SCRATCH, size=spec.memory_mib << 20, fetch=process.scratch)
        journal.record("process", "start", pid=process.pid, argv=argv)
        machine.watch()
        machine.connect()
        machine._stack = stack.pop_all()  # noqa: SLF001 - it is made here
    return machine
