"""delivery: have a device interrupt under Linux, and prove by which way its interrupts are delivered."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.delivery import Delivery, Remapping
from harness.errors import InfraError
from harness.judgement import Judgement, StepEvidence, nobody_faulted, single
from harness.pci_config import interrupt_message
from harness.remapping import entry_named, unit_registers
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session
from harness.verdict import Finding, Outcome, WitnessVerdict
from harness.witnesses.host_trace import INTERRUPT_REMAPPED

#: Seconds each interrupt is waited for; QEMU raises it before the write that requests it returns.
_COMES_S = 5.0


class DeliveryBody(Section):
    """How many interrupts of which device, and how they must be remapped."""

    device: Name = Field(description="The device that sends them; it must be assigned, and an edu.")
    remapping: Remapping = Field(
        description="`off`: not at all; `xapic` or `x2apic`: with destinations of 8 or of 32 bits (IRTA.EIME)."
    )
    messages: Annotated[int, Field(ge=1, le=100)] = Field(default=5, description="How many, one after the other.")


class DeliverInterrupts(Step, keyword="delivery"):
    """Have a device send interrupts, each counted before the next is sent, and prove by which way they were delivered.

    As many must come to their user as were sent, and /proc/interrupts must rise by as many. The name of the chip there,
    the unit's registers, the device's MSI capability, the entry that this names, and what QEMU traced of each message
    must all agree on the way.
    """

    delivery: DeliveryBody

    def summary(self) -> str:
        """Say in a line what is done."""
        body = self.delivery
        way = "without remapping" if body.remapping == "off" else f"remapped ({body.remapping})"
        return f"{body.messages} interrupts of '{body.device}' are delivered {way}"

    def references(self) -> list[Reference]:
        """Name the device."""
        return [Reference.use("device", self.delivery.device, "delivery", "device")]

    def needs_models(self) -> list[tuple[str, tuple[str, ...]]]:
        """It sends an interrupt when it is told to."""
        return [(self.delivery.device, ("edu",))]

    def needs_assigned(self) -> tuple[str, ...]:
        """VFIO hands its interrupts on."""
        return (self.delivery.device,)

    def run(self, session: Session) -> None:
        """Send them one by one, and record what the guest counted and what stands in registers, device and table."""
        device = session.device(self.delivery.device)
        before = session.call("device_msi_enable", device=device.name)["count"]
        counted = session.call("interrupts", bdf=device.address)["interrupts"]
        message = interrupt_message(session, device)
        after = before
        with session.watching(INTERRUPT_REMAPPED):
            for _ in range(self.delivery.messages):
                session.call("device_msi_raise", device=device.name, purpose="control")
                after = session.call("device_msi_count", device=device.name, above=after, timeout_s=_COMES_S)["count"]
        if interrupt_message(session, device) != message:
            raise InfraError(
                f"the guest has given '{device.name}' another interrupt message meanwhile",
                hint="it moves interrupts between CPUs; take a machine with one",
            )
        session.record(
            "delivery",
            device=device.name,
            function=device.address,
            source_id=str(device.source),
            before=before,
            after=after,
            counted_before=counted,
            counted_after=session.call("interrupts", bdf=device.address)["interrupts"],
            **unit_registers(session),
            message=(message.address, message.data),
            entry=entry_named(session, message),
        )

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Let each witness say what it saw; they must all agree with the statement."""
        seen = evidence.observation("delivery")
        if seen is None:
            return single(Outcome.ERROR, "the interrupts were never sent", evidence.index)
        body = self.delivery
        delivery = Delivery(
            evidence=evidence, about=seen.data, ref=seen.ref, messages=body.messages, remapping=body.remapping
        )
        witnesses = (*delivery.witnesses(), nobody_faulted(evidence))
        missing = [witness for witness in witnesses if witness.verdict is WitnessVerdict.MISSING]
        denying = [witness for witness in witnesses if witness.verdict is WitnessVerdict.DENIES]
        outcome = Outcome.ERROR if missing else Outcome.FAIL if denying else Outcome.PASS
        told = "; ".join(f"{witness.name}: {witness.evidence}" for witness in missing or denying)
        text = f"{self.summary()}: {told or 'all witnesses agree'}"
        finding = Finding(outcome=outcome, text=text, step=evidence.index, refs=(seen.ref,))
        return Judgement(findings=(finding,), witnesses=witnesses)
