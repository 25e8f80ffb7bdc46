"""What a QEMU is given at its start besides its sockets: keys, memory and kernels, by descriptor or file."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InfraError
from harness.evidence import VariantDirectory
from harness.machine import acpi_override, migration
from harness.machine.argv import Ram
from harness.machine.parts import BootImage
from harness.machine.spec import MachineSpec
from harness.machine.stub import StubImage
from harness.machine.template import Template
from harness.qtest import Qtest
from harness.ssh import KeyPair


@dataclass(frozen=True, slots=True)
class GuestKeys:
    """The SSH keys of one machine: the client's, made for this start, and the host key its server proves."""

    client: KeyPair
    host_public: str


def require_plain(directory: VariantDirectory) -> None:
    """InfraError for a directory whose name QEMU takes for a template in that of its log (qemu_set_log_internal)."""
    if "%" in str(directory.path):
        raise InfraError(f"QEMU can keep no trace below {directory.path}", hint="take a directory without '%'")


def host_key(template: Template | None) -> tuple[bytes, str]:
    """The host key for fw_cfg and its public half; the server of a restored guest has long read the template's."""
    if template is not None:
        return b"-\n", template.host_public
    pair = KeyPair.generate()
    return pair.private, pair.public


def stub_image(image: BootImage, descriptor: int) -> StubImage:
    """Give the kernel of a machine whose real one is in its saved memory: the file of a descriptor."""
    file = Path(f"/proc/self/fd/{descriptor}")
    return StubImage(image.name, image.digest, kernel=file, initrd=file, disks=image.disks)


def overridden_initrd(stack: ExitStack, image: BootImage, spec: MachineSpec) -> int | None:
    """Give an initial RAM disk with another DMAR table in front of it; None where the guest gets QEMU's."""
    if spec.dmar_override is None:
        return None
    return in_memory(stack, acpi_override.archive(spec.dmar_override) + image.initrd.read_bytes())


def ram(template: Template | None, kept: Path | None, own_fd: int | None) -> Ram:
    """Give where the guest's memory is: a copy of its own, a template's mapped copy-on-write, or a kept file."""
    if own_fd is not None:
        return Ram(f"/proc/self/fd/{own_fd}", shared=True)
    if template is not None:
        return Ram(str(template.ram))
    return Ram() if kept is None else Ram(str(kept), shared=True)


def qtest_channel(stack: ExitStack) -> tuple[Qtest, socket.socket]:
    """Give the channel of QEMU's test protocol, and QEMU's end of it."""
    ours, theirs = socket.socketpair()
    stack.callback(ours.close)
    stack.callback(theirs.close)
    return Qtest(ours), theirs


def own_memory(stack: ExitStack, spec: MachineSpec, template: Template | None) -> int:
    """Give a descriptor of memory that can be written from outside, with the template's contents."""
    descriptor = in_memory(stack, b"")
    os.ftruncate(descriptor, spec.memory_mib << 20)
    if template is not None:
        try:
            migration.copy_data(template.ram, descriptor)
        except OSError as error:
            raise InfraError(f"the memory of template {template.key} cannot be copied: {error}") from error
    return descriptor


def in_memory(stack: ExitStack, data: bytes) -> int:
    """Give a descriptor of an anonymous file with `data`; it has no name, so there is nothing to clean up."""
    descriptor = os.memfd_create("vtd", os.MFD_CLOEXEC)
    stack.callback(os.close, descriptor)
    os.write(descriptor, data)
    return descriptor
