"""A template made: the machine booted to a quiet state and saved, with the digests by which it is checked later."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import InfraError
from harness.evidence import VariantDirectory, write_json
from harness.machine.argv import Channels, command_line
from harness.machine.migration import data_extents
from harness.machine.parts import BootImage, QemuBinary
from harness.machine.properties import QemuFacts, resolve_all
from harness.machine.spec import MachineSpec
from harness.machine.stub import StubImage
from harness.machine.template import RAM, STATE, Template
from harness.waiting import Deadline

#: Raised whenever what is saved, or how the guest is made ready for it, changes in a way that no digest shows.
FORMAT = 1

RECORD = "template.json"

#: What everything but the guest's memory takes at most.
_STATE_MIB = 16

_BLOCK = 1 << 16
_ZEROS = bytes(_BLOCK)

#: Holds a place for one running guest.
Slot = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """All that shapes a template."""

    spec: MachineSpec
    qemu: QemuBinary
    facts: QemuFacts
    image: BootImage

    @property
    def name(self) -> str:
        """What a reader is told: the image and how its machine differs from another's."""
        how = ["no vIOMMU"] if not self.spec.iommus else []
        how += [f"{key}={value}" for iommu in self.spec.iommus for key, value in iommu.options.items()]
        how += self.spec.kernel_args
        return f"{self.spec.image} ({', '.join(how)})" if how else self.spec.image

    def key(self) -> str:
        """What tells this template from all others: digests of QEMU and image, and the whole command line."""
        nowhere = Channels(monitor=(), serial="null", ssh="null", host_key="", authorized_keys="", wires={})
        iommus = resolve_all(self.spec.iommus, self.facts)
        # Where QEMU and the image lie is no part of it: their digests are, and a cache may be moved.
        disks = {name: Path(name) for name in self.image.disks}
        image = StubImage(self.image.name, self.image.digest, kernel=Path("kernel"), initrd=Path("initrd"), disks=disks)
        argv = command_line(self.spec, iommus, nowhere, image, self.qemu)
        shape = {
            "format": FORMAT,
            "qemu": [self.qemu.version, self.qemu.digest],
            "image": self.image.digest,
            "argv": argv[len(self.qemu.argv_prefix) :],
            "cpu": _processor() if self.spec.accelerator == "kvm" else None,
        }
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:24]


def make(what: Ingredients, directory: Path, evidence: VariantDirectory, slot: Slot) -> float:
    """Boot the machine, save it in `directory` with its record, and return the seconds that took.

    The files of the boot (console, journal, argv) go into `evidence`. Raises what starting and booting raise.
    """
    from harness.guest import Guest  # noqa: PLC0415 - collecting scenarios needs no guest, and paramiko takes long
    from harness.machine.launch import Machine  # noqa: PLC0415

    _make_room(directory, what.spec.memory_mib)
    spec = replace(what.spec, wires=())  # a wire is QEMU's end of a socket, and its NIC is plugged in later
    ram, state = directory / RAM, directory / STATE
    ram.touch(mode=0o600)
    # QEMU would (file_ram_alloc in system/physmem.c), were there not a bound for the files that it writes.
    os.truncate(ram, spec.memory_mib << 20)
    with slot(), evidence.journal() as journal:
        taken = Deadline.after(0.0)
        with Machine.start(
            spec,
            qemu=what.qemu,
            facts=what.facts,
            image=what.image,
            directory=evidence,
            journal=journal,
            kept_memory=ram,
        ) as machine:
            with Guest.boot(machine) as guest:
                boot_s = round(guest.boot_s, 3)
                greeting = guest.settle()
            machine.save(state)
            journal.record("process", "saved")
            host_public = machine.keys.host_public
        record = {
            "key": what.key(),
            "name": what.name,
            "host_public": host_public,
            "greeting": greeting.hex(),
            "boot_s": boot_s,
            "files": {RAM: digest(ram), STATE: digest(state)},
        }
        write_json(directory / RECORD, record)
        return taken.elapsed_s


def read_record(directory: Path) -> dict[str, Any] | None:
    """Give the record of the template in `directory`, None if there is none that can be read or it is not whole."""
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        as_template(directory, record)
        whole = record["files"].keys() == {RAM, STATE}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None
    return record if whole else None


def as_template(directory: Path, record: dict[str, Any]) -> Template:
    """Give the template of which `record` tells."""
    return Template(
        key=record["key"],
        directory=directory,
        host_public=record["host_public"],
        greeting=bytes.fromhex(record["greeting"]),
        boot_s=_measured(record.get("boot_s")),
    )


def _measured(seconds: object) -> float | None:
    return float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < float("inf") else None


def digest(path: Path) -> str:
    """Give the digest of a sparse file: of each block that is not all zeros, with its place."""
    # BLAKE2b: a third of the time of SHA-256 where the processor has no instructions for that.
    told = hashlib.blake2b(str(path.stat().st_size).encode(), digest_size=32)
    with path.open("rb") as file:
        for offset in _blocks(file.fileno()):
            file.seek(offset)
            block = file.read(_BLOCK)
            if block != _ZEROS[: len(block)]:
                told.update(offset.to_bytes(8, "little"))
                told.update(block)
    return told.hexdigest()


def _blocks(descriptor: int) -> list[int]:
    """Give the offsets of the blocks that hold data, each once however many holes it has."""
    extents = data_extents(descriptor)
    return sorted({place for begin, end in extents for place in range(begin - begin % _BLOCK, end, _BLOCK)})


def _make_room(directory: Path, memory_mib: int) -> None:
    """Raise InfraError if the guest's memory may not fit: QEMU has it mapped, and a full disk is a SIGBUS then."""
    free = shutil.disk_usage(directory).free >> 20
    if free < memory_mib + _STATE_MIB:
        raise InfraError(
            f"a template needs {memory_mib + _STATE_MIB} MiB below {directory.parent.parent}; {free} MiB are free",
            hint="make room, name another cache by VTD_CACHE, or boot each machine (--cold)",
        )


def _processor() -> str:
    """What KVM's `-cpu max` and a saved state depend on: the host's kernel, and its processor as that tells it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    told = [line for line in lines if line.startswith(("model name", "flags", "microcode"))]
    return hashlib.sha256("\n".join([os.uname().release, *told[:3]]).encode()).hexdigest()
