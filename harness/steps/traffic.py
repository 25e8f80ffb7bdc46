"""traffic: move random data through a NIC under its kernel driver, both ways, and compare it at both ends."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

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
        with counting_translations(session):
            exchange(session, session.device(self.traffic.device), Load(self.traffic.frames, self.traffic.size))

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Compare the hashes at both ends."""
        if not evidence.observations("traffic"):
            return single(Outcome.ERROR, "the exchange did not come to its end", evidence.index)
        return judge_exchanges(evidence, translated=self.traffic.translated == "on")
