"""What a run is made with: the QEMU build and what it offers, the guest images, the accelerator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.host.accelerator import choose_accelerator, probe_kvm
from harness.host.slots import GuestSlots
from harness.images.qemu_build import QemuBuild
from harness.images.store import GuestImage, ImageStore, PlatformDisk, cache_directory
from harness.lab.host import LabFacts, open_lab
from harness.machine import migration
from harness.machine.properties import QemuFacts, facts
from harness.machine.spec import PLATFORM_DISK, Accelerator, MachineSpec
from harness.ssh import SshAddress
from harness.templates.store import Templates


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The equipment of one run.

    `accelerator` is `kvm` only where a vCPU was seen to run with it; `accelerator_reason` says what was seen.
    `progress` gets a line whenever something long happens, such as an image being built. `slots` are the places that
    running guests take. With a `lab` host the machines run there: accelerator and slots are that host's.
    """

    qemu: QemuBuild
    facts: QemuFacts
    accelerator: Accelerator
    accelerator_reason: str
    store: ImageStore
    templates: Templates
    slots: GuestSlots
    progress: Callable[[str], None]
    lab: LabFacts | None = None

    def image(self, name: str) -> GuestImage:
        """Give the guest image called `name`, built if need be."""
        return self.store.get(name, self.progress)

    def boot_image(self, spec: MachineSpec) -> GuestImage:
        """Give what the machine of `spec` boots from: its guest image, and the disks that it names."""
        image = self.image(spec.image)
        if not spec.disks:
            return image
        disk = self.platform_disk()
        digest = hashlib.sha256(f"{image.digest} {disk.digest}".encode()).hexdigest()
        return replace(image, disks={PLATFORM_DISK: disk.path}, digest=digest)

    def platform_disk(self) -> PlatformDisk:
        """Give the disk of a guest that runs guests of its own, built if need be."""
        return self.store.platform(self.progress)

    def guest_place(self) -> AbstractContextManager[None]:
        """Hold one of the places for running guests, which follow from the host's cores and memory; waits for it."""
        return self.slots.taken(self.progress)

    def telling(self, progress: Callable[[str], None]) -> HostFacts:
        """Give the same equipment with another to tell; with a function of a module it can go to another process."""
        return replace(self, progress=progress)

    def describe(self) -> dict[str, Any]:
        """Describe the equipment for results.json."""
        return {
            "qemu": self.qemu.version,
            "qemu_digest": self.qemu.digest,
            "accelerator": self.accelerator,
            "accelerator_reason": self.accelerator_reason,
            **({} if self.lab is None else {"lab": self.lab.name, "lab_kernel": self.lab.survey.kernel}),
        }

    def on(self, lab: LabFacts) -> HostFacts:
        """Give the same equipment with its machines on a lab host."""
        return replace(
            self,
            lab=lab,
            accelerator=lab.accelerator,
            accelerator_reason=lab.accelerator_reason,
            slots=lab.slots,
        )


def open_host(
    progress: Callable[[str], None],
    *,
    cache: Path | None = None,
    lab: SshAddress | None = None,
    nics: Sequence[str] = (),
) -> HostFacts:
    """Find or make the QEMU build, ask it what it offers, and see which accelerator really runs a guest.

    With the address of a `lab` host, machines run there, and `nics` are the addresses of NICs that it may hand out.
    """
    directory = cache or cache_directory()
    store = ImageStore(directory)
    qemu = store.qemu(progress)
    offered = facts(qemu, directory)
    if not migration.saves(qemu.version):
        progress(f"QEMU {qemu.version} saves no machine to a file (8.2 and newer do), so every machine is booted")
    # On a lab host it is chosen by what that host's KVM does.
    accelerator, reason = choose_accelerator(
        lambda: probe_kvm(qemu, directory / "checked" / "kvm.json"), "tcg" if lab else None
    )
    host = HostFacts(
        qemu=qemu,
        facts=offered,
        accelerator=accelerator,
        accelerator_reason=reason,
        store=store,
        templates=Templates(directory),
        slots=GuestSlots.of(directory),
        progress=progress,
    )
    if lab is None:
        return host
    return host.on(open_lab(lab, nics, qemu=store.movable_qemu(progress), cache=directory, progress=progress))
