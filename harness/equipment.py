"""What a run is made with: the QEMU build and what it offers, the guest images, the accelerator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.host.accelerator import (
    KvmFinding,
    choose_accelerator,
    host_identity,
    kvm_missing,
    probe_kvm,
    wanted_accelerator,
)
from harness.host.kvm_findings import KvmFindings
from harness.host.slots import GuestSlots
from harness.images.qemu_build import QemuBuild
from harness.images.store import GuestImage, ImageStore, PlatformDisk, cache_directory
from harness.lab.host import LabFacts, open_lab
from harness.lockfile import exclusive
from harness.machine import migration
from harness.machine.properties import QemuFacts, facts
from harness.machine.spec import PLATFORM_DISK, Accelerator, MachineSpec
from harness.ssh import SshAddress
from harness.templates.store import Templates

#: The image of scenarios that name none: KVM is tried with its kernel before a run begins.
USUAL_IMAGE = "debian-13"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The equipment of one run.

    `accelerator` is what machines are planned with, `kvm` only where a vCPU was seen to run with it;
    `accelerator_reason` says what was seen. Which one a machine really has, `accelerated` tells.
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

    def accelerated(self, spec: MachineSpec, *, nests: bool = False) -> MachineSpec:
        """Give `spec` with the accelerator that it can have: KVM only where the kernel of its image boots with it.

        That is tried once for each QEMU, kernel and boot of the host, and kept. A machine that `nests` guests has KVM
        until a nested guest was seen to fail over it (`distrust`): the first of them is the trial, since one more would
        cost as much. InfraError where KVM is asked for and cannot be had.
        """
        if spec.kind != "linux" or spec.accelerator != "kvm":
            return spec
        found = self._kernel_boot(self.image(spec.image))
        if found.usable and nests:
            found = self._findings.recalled(self._question(self.image(spec.image), nests=True)) or found
        if found.usable:
            return spec
        self._refuse_if_asked_for(found)
        self.progress(f"{spec.image}: TCG instead of KVM: {found.reason}")
        return replace(spec, accelerator="tcg")

    def distrust(self, spec: MachineSpec, why: str, *, nests: bool = False) -> None:
        """Keep that KVM failed while a machine of `spec`, or a guest that it `nests`, ran: the next ones get TCG."""
        found = KvmFinding(usable=False, reason=f"KVM failed in the middle of a run: {why}")
        self._findings.keep(self._question(self.image(spec.image), nests=nests), found)
        if wanted_accelerator() == "auto":
            self.progress(f"{spec.image}: {found.reason}; machines that start from here on run with TCG")

    def settled(self) -> HostFacts:
        """Give the same equipment, planning with KVM only if the usual image boots with it; as `accelerated`."""
        if self.accelerator != "kvm":
            return self
        found = self._kernel_boot(self.image(USUAL_IMAGE))
        if not found.usable:
            self._refuse_if_asked_for(found)
            self.progress(f"TCG instead of KVM: {found.reason}")
        return replace(self, accelerator="kvm" if found.usable else "tcg", accelerator_reason=found.reason)

    def try_kvm(self) -> KvmFinding:
        """Boot the kernel of each guest image that is built; the first no is the answer.

        What is known is asked again, and what is found is kept for the runs that come.
        """
        reasons = []
        for state in map(self.store.state, self.store.names()):
            if state.kind == "guest" and self.store.intact(state.name):
                found = self._kernel_boot(self.image(state.name), anew=True)
                if not found.usable:
                    return found
                reasons.append(found.reason)
        return KvmFinding(
            usable=True, reason="; ".join(reasons) or "a vCPU ran; no image is built that could be booted"
        )

    def _kernel_boot(self, image: GuestImage, *, anew: bool = False) -> KvmFinding:
        from harness import kernel_boot  # noqa: PLC0415 - collecting scenarios boots nothing, and paramiko takes long

        question, findings = self._question(image), self._findings
        with exclusive(self.store.cache / "locks" / "kvm.lock", "the trial of KVM", self.progress):
            found = None if anew else findings.recalled(question)
            if found is None:
                self.progress(f"KVM: booting Linux {image.kernel_release} to see whether it runs a kernel")
                start = (
                    kernel_boot.starts_here(self.qemu, self.facts, image)
                    if self.lab is None
                    else kernel_boot.starts_there(self.lab, self.facts, image, self.progress)
                )
                with self.guest_place():
                    spec = kernel_boot.arrangement(image.name, "kvm")
                    found = kernel_boot.boots(start, spec, image, findings.evidence(question))
                findings.keep(question, found)
        return found

    @property
    def _findings(self) -> KvmFindings:
        return KvmFindings(self.store.cache / "checked" / "kvm")

    def _question(self, image: GuestImage, *, nests: bool = False) -> list[str | int]:
        where = host_identity() if self.lab is None else [self.lab.name, self.lab.survey.boot_id]
        return ["nests" if nests else "boots", image.digest, self.qemu.version, self.qemu.digest, *where]

    def _refuse_if_asked_for(self, found: KvmFinding) -> None:
        if wanted_accelerator() == "kvm":
            raise kvm_missing(found.reason)

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
    boots: bool = True,
) -> HostFacts:
    """Find or make the QEMU build, ask it what it offers, and see which accelerator really runs a guest.

    Who `boots` nothing is told what a first look says: that a vCPU ran is no proof that a kernel does.

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
    if lab is not None:
        host = host.on(open_lab(lab, nics, qemu=store.movable_qemu(progress), cache=directory, progress=progress))
    return host.settled() if boots else host
