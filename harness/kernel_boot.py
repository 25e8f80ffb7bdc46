"""A kernel booted to its agent's answer, to see whether an accelerator runs it, in the arrangement the machines use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from harness.errors import HarnessError
from harness.evidence import Journal, VariantDirectory
from harness.guest import Guest
from harness.host.accelerator import KvmFinding
from harness.host.kvm_findings import kvm_words
from harness.images.store import GuestImage
from harness.lab.host import LabFacts
from harness.machine.launch import Machine
from harness.machine.parts import QemuBinary
from harness.machine.properties import QemuFacts, resolve_all
from harness.machine.spec import Accelerator, IommuSpec, MachineSpec
from harness.nested.machine import start_on

#: Seconds from the first instruction to the agent's answer. KVM takes one to three, nested in another about ten.
BOUND_S = 30.0

_OPTIONS: Mapping[str, bool] = {"intremap": True, "caching_mode": True}

#: Starts the machine of a spec with its files in a directory, halted.
Start = Callable[[MachineSpec, VariantDirectory, Journal], AbstractContextManager[Machine]]


def arrangement(image: str, accelerator: Accelerator) -> MachineSpec:
    """Give the machine that is booted: what most scenarios have, with the two processors of those with guests."""
    return MachineSpec(
        image=image,
        kernel_args=("intel_iommu=on",),
        vcpus=2,
        accelerator=accelerator,
        iommus=(IommuSpec(_OPTIONS),),
    )


def boots(
    start: Start, spec: MachineSpec, image: GuestImage, directory: Path, *, bound_s: float = BOUND_S
) -> KvmFinding:
    """Boot `spec` until its agent answers over SSH; whatever else comes first is a no. Files stay in `directory`."""
    place = VariantDirectory(directory)
    try:
        with (
            place.journal() as journal,
            start(spec, place, journal) as machine,
        ):
            begun = time.monotonic()
            Guest.boot(machine, deadline_s=bound_s).close()
            took = time.monotonic() - begun
    except HarnessError as error:
        reason = f"Linux {image.kernel_release} does not boot with {spec.accelerator.upper()}: {kvm_words(error)}"
        return KvmFinding(usable=False, reason=reason)
    return KvmFinding(usable=True, reason=f"Linux {image.kernel_release} booted in {took:.1f} s")


def starts_here(qemu: QemuBinary, offered: QemuFacts, image: GuestImage) -> Start:
    """Give what starts machines on this host."""

    def start(spec: MachineSpec, directory: VariantDirectory, journal: Journal) -> AbstractContextManager[Machine]:
        return Machine.start(spec, qemu=qemu, facts=offered, image=image, directory=directory, journal=journal)

    return start


def starts_there(lab: LabFacts, offered: QemuFacts, image: GuestImage, progress: Callable[[str], None]) -> Start:
    """Give what starts machines on a lab host, over a connection of their own."""

    @contextmanager
    def start(spec: MachineSpec, directory: VariantDirectory, journal: Journal) -> Iterator[Machine]:
        iommus = resolve_all(spec.iommus, offered)
        with lab.opened(progress) as host:
            sent = host.image(image)
            with start_on(host, spec, image=sent, directory=directory, journal=journal, iommus=iommus) as machine:
                yield machine

    return start
