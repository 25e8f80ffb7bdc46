"""start: start a nested guest, and hand it devices."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.judgement import Judgement, StepEvidence, nobody_faulted
from harness.nesting import acting, hand_over, start_guest
from harness.scenario.section import Section, Shorthand
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name, OnOff
from harness.session import Session
from harness.verdict import Finding, Outcome, WitnessVerdict


class StartBody(Section):
    """Which guest, and what it is handed."""

    guest: Name = Field(description="One of `guests`.")
    assigns: tuple[Name, ...] = Field(default=(), description="Devices that it is handed, once it runs.")
    msix_exposed: OnOff = Field(
        default="off",
        description="Whether their real MSI-X tables lie open to the guest, which finds one that its QEMU emulates "
        "elsewhere (x-msix-relocation).",
    )


class Start(Step, keyword="start"):
    """Start a nested guest and hand it devices through VFIO; its own kernel's drivers must then drive them.

    Without the unit, in a counter-proof, no device can be handed over: no guest is started then, and what it would do
    with the device is done by the platform, without anything in between.
    """

    start: Annotated[StartBody, Shorthand("guest")]

    def summary(self) -> str:
        """Say in a line what is done."""
        handed = ", ".join(f"'{name}'" for name in self.start.assigns)
        return f"start guest '{self.start.guest}'" + (f" and hand it {handed}" if handed else "")

    def references(self) -> list[Reference]:
        """Name the guest and its devices."""
        names = [Reference.use("guest", self.start.guest, "start", "guest")]
        for index, name in enumerate(self.start.assigns):
            names.append(Reference.use("device", name, "start", "assigns", index))
        return names

    def starts_guests(self) -> tuple[str, ...]:
        """The guest runs from here on."""
        return (self.start.guest,)

    def handovers(self) -> list[tuple[str, str]]:
        """The guest has its devices from here on."""
        return [(name, self.start.guest) for name in self.start.assigns]

    def exposes(self) -> tuple[str, ...]:
        """All that it hands over, or nothing."""
        return self.start.assigns if self.start.msix_exposed == "on" else ()

    def run(self, session: Session) -> None:
        """Start it, hand over its devices one after the other, and see which driver takes each."""
        if session.raw:
            return
        start_guest(session, self.start.guest)
        nested = session.nested[self.start.guest]
        session.record("guest", guest=nested.name, hello=nested.guest.hello, virtualization=nested.virtualization)
        for name in self.start.assigns:
            exposed = self.start.msix_exposed == "on"
            facts = hand_over(session, session.device(name), self.start.guest, msix_exposed=exposed)
            device = session.device(name)
            inner, mine = acting(session, device)
            inner.bind_kernel_driver(mine)
            session.record(
                "assigned",
                guest=self.start.guest,
                device=name,
                source_id=str(device.source),
                address=mine.address,
                driver=mine.kernel_driver,
                facts=facts,
            )

    def judge(self, evidence: StepEvidence) -> Judgement:
        """The guest answered, its own driver has each device, and nobody faulted meanwhile."""
        findings = []
        started = evidence.observation("guest")
        if started is None or started.data["guest"] != self.start.guest:
            text = f"guest '{self.start.guest}' was not started"
            findings.append(Finding(outcome=Outcome.ERROR, text=text, step=evidence.index))
        else:
            kernel, virtualization = started.data["hello"]["kernel"], started.data["virtualization"]
            text = f"guest '{self.start.guest}' runs Linux {kernel} under KVM with {virtualization}"
            findings.append(Finding(outcome=Outcome.PASS, text=text, step=evidence.index, refs=(started.ref,)))
        handed = {entry.data["device"]: entry for entry in evidence.observations("assigned")}
        for name in self.start.assigns:
            entry = handed.get(name)
            if entry is None or entry.data["guest"] != self.start.guest:
                text = f"'{name}' was not handed over"
                findings.append(Finding(outcome=Outcome.ERROR, text=text, step=evidence.index))
            else:
                text = f"the guest's own {entry.data['driver']} drives '{name}' at {entry.data['address']}"
                findings.append(Finding(outcome=Outcome.PASS, text=text, step=evidence.index, refs=(entry.ref,)))
        others = nobody_faulted(evidence)
        if others.verdict is not WitnessVerdict.CONFIRMS:
            findings.append(Finding(outcome=Outcome.FAIL, text=others.evidence, step=evidence.index, refs=others.refs))
        return Judgement(findings=tuple(findings), witnesses=(others,))
