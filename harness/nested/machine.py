"""A machine whose QEMU runs on another host: the same channels, each through the keeper there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from harness.evidence import Record, VariantDirectory
from harness.machine import repro
from harness.machine.argv import Channels, command_line
from harness.machine.launch import ARGV, CONSOLE, STDERR, TRACE, GuestKeys, Machine, journal_qmp, require_plain
from harness.machine.parts import BootImage
from harness.machine.spec import MachineSpec
from harness.memory import GuestMemory
from harness.nested.kept import Job, KeptProcess
from harness.nested.platform import Platform
from harness.qmp import Monitor
from harness.ssh import KeyPair, SshLine

#: Descriptors under which QEMU has its channels there; those of taps follow.
_QMP, _SSH, _CONSOLE, _TRACE, _HOST_KEY, _CLIENT_KEY, _SCRATCH = range(40, 47)
_FIRST_TAP = 50


def start_on(
    platform: Platform,
    spec: MachineSpec,
    *,
    image: BootImage,
    directory: VariantDirectory,
    journal: Record,
    taps: Mapping[str, tuple[str, str]],
) -> Machine:
    """Start the machine of `spec` on `platform`, with its files in `directory` here; it is halted until `cont`.

    `taps` are its wires: name to an interface of the platform, which is made for it, and the bridge that this joins.
    Raises LaunchError with QEMU's own words if it refuses.
    """
    require_plain(directory)
    client, host = KeyPair.generate(), KeyPair.generate()
    tap_fds = {name: _FIRST_TAP + number for number, name in enumerate(spec.wires)}
    channels = Channels.inherited(
        qmp_fd=_QMP,
        ssh_fd=_SSH,
        host_key_fd=_HOST_KEY,
        authorized_keys_fd=_CLIENT_KEY,
        console=f"/proc/self/fd/{_CONSOLE}",
        trace=f"/proc/self/fd/{_TRACE}",
        wire_fds={},
    )
    channels = replace(channels, wires={name: f"tap,fd={fd}" for name, fd in tap_fds.items()})
    argv = command_line(spec, [], channels, image, platform.qemu)
    directory.file(ARGV).write_text(repro.shell_lines(argv) + "\n", encoding="utf-8")
    job = Job(
        argv=argv,
        env=platform.qemu.env,
        streams={"qmp": _QMP, "ssh": _SSH},
        outputs={"console": _CONSOLE, "trace": _TRACE, "stderr": 1},
        data={_HOST_KEY: host.private, _CLIENT_KEY: client.public.encode() + b"\n"},
        scratch=_SCRATCH,
        taps={tap_fds[name]: taps[name] for name in spec.wires},
    )
    files = {"console": directory.file(CONSOLE), "trace": directory.file(TRACE), "stderr": directory.file(STDERR)}
    with ExitStack() as stack:
        process = KeptProcess(platform.guest.ssh, job, files)
        stack.callback(lambda: process.stop(quit=None))
        monitor = stack.enter_context(
            Monitor(process.streams["qmp"], "qmp", lambda kind, message: journal_qmp(journal, kind, message))
        )
        machine = Machine(argv, directory, journal, stack)
        machine.process, machine.monitor = process, monitor
        machine.keys = GuestKeys(client, host.public)
        machine.line = SshLine(process.streams["ssh"])
        machine.memory = GuestMemory(monitor, _SCRATCH, size=spec.memory_mib << 20, fetch=process.scratch)
        journal.record("process", "start", pid=process.pid, argv=argv)
        machine.connect()
        machine._stack = stack.pop_all()  # noqa: SLF001 - it is made here
    return machine
