"""reboot: reboot the guest while a device writes, and show that nothing of the old boot reaches the new one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.judgement import Judgement, StepEvidence
from harness.rebooting.in_flight import writing_models
from harness.rebooting.judging import judge_reboot
from harness.rebooting.place import SIZE, Place
from harness.rebooting.reboot import By, leave, reboot, watched
from harness.scenario.section import Section
from harness.scenario.step import Reference, Reserved, Step
from harness.scenario.values import Name, PageAddress
from harness.session import Session
from harness.traffic import counting_translations


class RebootBody(Section):
    """Who writes, who reboots, and the memory that tells."""

    device: Name = Field(
        description="An e1000e, or by machine an edu, that is assigned; it writes while the machine is reset."
    )
    by: By = Field(
        default="machine",
        description="machine: the reset button (QMP system_reset). sysrq: the guest's kernel, at once and without a "
        "word to its drivers. kernel: its orderly restart, with the program that has the device still running.",
    )
    reserved: PageAddress = Field(
        description="Where 64 KiB of memory lie that the kernel leaves alone: kernel_args has memmap=64K$ADDRESS."
    )


class Reboot(Step, keyword="reboot"):
    """Reboot the guest while an assigned device writes through a live mapping.

    The machine stands still just before and just after its reset. Then the unit must have the values that the
    specification gives for a reset, the page behind the mapping and the page at the device's own address must stay as
    they are until the new kernel is up, and nobody may fault or be traced. Afterwards no device is assigned, and no
    buffer is there. Frames that a NIC did not take wait for whoever receives next: put a `traffic` before its next DMA.
    In a counter-proof the devices are taken out of their domains, and nothing is rebooted.
    """

    reboot: RebootBody
    expect: Literal["nothing", "untranslated"] = Field(
        default="nothing",
        description="What the device writes after the reset. untranslated: its last DMA, to memory at the address that "
        "the device uses. QEMU lets a device do so that has no reset, as edu.",
    )

    def summary(self) -> str:
        """Say in a line what is done."""
        who = {"machine": "reset the machine", "sysrq": "reset the guest by sysrq", "kernel": "restart the kernel"}
        return f"{who[self.reboot.by]} while '{self.reboot.device}' writes"

    def references(self) -> list[Reference]:
        """Name the device."""
        return [Reference.use("device", self.reboot.device, "reboot", "device")]

    def needs_assigned(self) -> tuple[str, ...]:
        """The device writes through its domain."""
        return (self.reboot.device,)

    def needs_models(self) -> list[tuple[str, tuple[str, ...]]]:
        """It must write on its own; an edu does so for a moment, which no guest's reboot would catch."""
        return [(self.reboot.device, writing_models(outlast=self.reboot.by != "machine"))]

    def reserved(self) -> list[Reserved]:
        """The memory that outlives the reboot."""
        return [Reserved(self.reboot.reserved, SIZE, "reserved")]

    @property
    def reboots(self) -> bool:
        """That is what it is for."""
        return True

    @property
    def acts_from_outside(self) -> bool:
        """It erases what the device wrote, so that it is seen writing again."""
        return True

    def run(self, session: Session) -> None:
        """Reboot and record; without protection there is only to be seen what comes after."""
        if session.raw:
            leave(session)
            return
        device = session.device(self.reboot.device)
        with counting_translations(session), session.watching(*watched(device)):
            reboot(session, device, self.reboot.by, Place(self.reboot.reserved))

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Nothing of the device came through, and it was a reboot."""
        return judge_reboot(evidence, self.reboot.device, strays=self.expect == "untranslated")
