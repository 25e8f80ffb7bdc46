"""traffic: move random data through a NIC under its kernel driver, both ways, and compare it at both ends."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

from pydantic import Field

from harness.bounce_buffers import judge_bounces, watching_bounces
from harness.judgement import Judgement, StepEvidence, single
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name, OnOff
from harness.session import Session
from harness.traffic import Load, counting_translations, exchange, judge_exchanges
from harness.verdict import Outcome


class TrafficBody(Section):
    """How much, and through which NIC."""

    device: Name = Field(description="A NIC under its kernel driver.")
    frames: Annotated[int, Field(ge=1, le=1000)] = Field(default=32, description="Frames each way.")
    size: Annotated[int, Field(ge=46, le=1500)] = Field(default=1200, description="Bytes of payload per frame.")
    translated: OnOff = Field(
        default="on", description="Whether its DMA must go through the remapping unit, or around."
    )
    bounced: OnOff | None = Field(
        default=None,
        description="Whether the kernel must copy its DMA through bounce buffers (swiotlb), or must not although it "
        "goes to memory above 4 GiB; not looked at if not given.",
    )


class Traffic(Step, keyword="traffic"):
    """Send frames of random payload each way: every byte arrives, DMA is translated, and nobody faults meanwhile."""

    traffic: TrafficBody

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"{self.traffic.frames} frames of {self.traffic.size} bytes each way over '{self.traffic.device}'"

    def references(self) -> list[Reference]:
        """Name the NIC."""
        return [Reference.use("device", self.traffic.device, "traffic", "device")]

    def needs_kernel_driver(self) -> tuple[str, ...]:
        """The kernel's driver moves the frames."""
        return (self.traffic.device,)

    def run(self, session: Session) -> None:
        """Exchange the frames, and have QEMU count the translations meanwhile."""
        device = session.device(self.traffic.device)
        watched = nullcontext() if self.traffic.bounced is None else watching_bounces(session, device)
        with counting_translations(session), watched:
            exchange(session, device, Load(self.traffic.frames, self.traffic.size))

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Compare the hashes at both ends."""
        if not evidence.observations("traffic"):
            return single(Outcome.ERROR, "the exchange did not come to its end", evidence.index)
        moved = judge_exchanges(evidence, translated=self.traffic.translated == "on")
        if self.traffic.bounced is None:
            return moved
        copied = judge_bounces(evidence, 2 * self.traffic.frames, bounced=self.traffic.bounced == "on")
        return Judgement(findings=(*moved.findings, *copied.findings), witnesses=(*moved.witnesses, *copied.witnesses))
