"""msi: have a device send its interrupt message under Linux, and prove that it was delivered or refused."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from harness.interruption import judge_message
from harness.judgement import Judgement, StepEvidence
from harness.pci_config import interrupt_message
from harness.scenario.expectation import (
    EXPECTATION,
    Expectation,
    expected,
    expects_block,
    refuse_other_than_interrupts,
)
from harness.scenario.section import Section, Shorthand
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session
from harness.table_edit import interrupt_index
from harness.vtd.faults import Access

#: Seconds an interrupt that must come is waited for. QEMU raises it before the write that requests it returns, so one
#: that must not come is waited for only as long as the guest's kernel may be busy with something else.
_COMES_S, _STAYS_AWAY_S = 5.0, 0.3


class MsiBody(Section):
    """Whose message, and how it is sent."""

    device: Name = Field(description="The device whose message it is; it must be assigned, and an edu.")
    by: Literal["msi", "dma"] = Field(
        default="msi", description="By its MSI capability, or by a DMA write of the same message."
    )


class Msi(Step, keyword="msi"):
    """Have a device send its interrupt message, which the guest's kernel hands on to its user and counts.

    Linux gives the device an entry of the interrupt remapping table with the first such step. `expect: landed` means
    that the interrupt came.
    """

    msi: Annotated[MsiBody, Shorthand("device")]
    expect: Expectation = Field(description=EXPECTATION)

    @model_validator(mode="after")
    def _check_reason(self) -> Self:
        """Refuse a behaviour that no interrupt has, or that nothing could tell."""
        refuse_other_than_interrupts(self.expect)
        return self

    @property
    def expects_block(self) -> bool:
        """Whether the specification asks for a refusal."""
        return expects_block(self.expect)

    @property
    def is_control(self) -> bool:
        """Whether it must come."""
        return self.expect == "landed"

    def summary(self) -> str:
        """Say in a line what is done."""
        how = "by DMA" if self.msi.by == "dma" else "by MSI"
        return f"'{self.msi.device}' requests an interrupt {how}"

    def references(self) -> list[Reference]:
        """Name the device."""
        return [Reference.use("device", self.msi.device, "msi", "device")]

    def needs_models(self) -> list[tuple[str, tuple[str, ...]]]:
        """It sends an interrupt when it is told to."""
        return [(self.msi.device, ("edu",))]

    def needs_assigned(self) -> tuple[str, ...]:
        """VFIO hands its interrupts on."""
        return (self.msi.device,)

    def run(self, session: Session) -> None:
        """Send the message, and record what stood in the table for it and how many interrupts came."""
        device = session.device(self.msi.device)
        before = session.call("device_msi_enable", device=device.name)["count"]
        message = interrupt_message(session, device)
        index = interrupt_index(session, device)
        purpose = "attack" if self.expects_block else "control"
        with session.provoking() if self.expects_block else nullcontext():
            if self.msi.by == "msi":
                session.call("device_msi_raise", device=device.name, purpose=purpose)
            else:
                payload = message.data.to_bytes(4, "little")
                session.engine(device).write(session, device, message.address, payload, purpose=purpose)
        stays_away = self.expects_block and not session.unbroken
        within_s = _STAYS_AWAY_S if stays_away else _COMES_S
        after = session.call("device_msi_count", device=device.name, above=before, timeout_s=within_s)["count"]
        broken = session.patches.of(device.name)
        session.record(
            "msi",
            device=device.name,
            model=device.model,
            function=device.address,
            source_id=str(device.source),
            by=self.msi.by,
            attack=self.expects_block,
            address=message.address,
            data=message.data,
            index=index,
            before=before,
            after=after,
            recipe=f"{self.summary()}{' with ' if broken else ''}{', '.join(patch.what for patch in broken)}",
            fault_processing_disabled=any(patch.disables_reports for patch in broken),
        )

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Weigh the witnesses of the one message."""
        return judge_message(evidence, expected(self.expect, Access.WRITE, evidence.qemu))
