"""traffic: move random data through a NIC under its kernel driver, both ways, and compare it at both ends."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Annotated, Self

from pydantic import Field, model_validator

from harness.bounce_buffers import judge_bounces, watching_bounces
from harness.judgement import Judgement, StepEvidence, single
from harness.scenario.section import Section, complaint
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name, OnOff
from harness.session import Session
from harness.table_edit import domain_id_of
from harness.traffic import Load, counting_translations, exchange, judge_exchanges, unlike
from harness.unmapping import Policy, judge_policy
from harness.verdict import Finding, Outcome, WitnessVerdict
from harness.witnesses.host_trace import DESCRIPTOR_TAKEN


class TrafficBody(Section):
    """How much, and through which NIC."""

    device: Name = Field(description="A NIC under its kernel driver.")
    frames: Annotated[int, Field(ge=1, le=1000)] = Field(default=32, description="Frames each way.")
    size: Annotated[int, Field(ge=46, le=1500)] = Field(default=1200, description="Bytes of payload per frame.")
    translated: OnOff = Field(
        default="on", description="Whether its DMA must go through the remapping unit, or around."
    )
    invalidation: Policy | None = Field(
        default=None,
        description="How the unit must learn of the buffers that the driver unmaps, one for each frame that is sent: "
        "`strict` of each at once, `lazy` of many together. Not looked at if not given.",
    )
    bounced: OnOff | None = Field(
        default=None,
        description="Whether the kernel must copy its DMA through bounce buffers (swiotlb), or must not although it "
        "goes to memory above 4 GiB; not looked at if not given.",
    )

    @model_validator(mode="after")
    def _check_path(self) -> Self:
        if self.invalidation is not None and self.translated == "off":
            raise complaint("what goes around the unit is not invalidated in it", at=("invalidation",), on_key=True)
        return self


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
        descriptors = nullcontext() if self.traffic.invalidation is None else session.watching(DESCRIPTOR_TAKEN)
        bounces = nullcontext() if self.traffic.bounced is None else watching_bounces(session, device)
        with descriptors, counting_translations(session), bounces:
            exchange(session, device, Load(self.traffic.frames, self.traffic.size))
        if self.traffic.invalidation is not None:
            session.record("domain", id=domain_id_of(session, device))

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Compare the hashes at both ends."""
        if not evidence.observations("traffic"):
            return single(Outcome.ERROR, "the exchange did not come to its end", evidence.index)
        wrong = unlike(evidence, self.traffic.device, Load(self.traffic.frames, self.traffic.size))
        if wrong is not None:
            return single(Outcome.ERROR, wrong, evidence.index)
        judged = judge_exchanges(evidence, translated=self.traffic.translated == "on")
        for more in (self._judge_bounces(evidence), self._judge_invalidation(evidence)):
            if more is not None:
                findings, witnesses = (*judged.findings, *more.findings), (*judged.witnesses, *more.witnesses)
                judged = replace(judged, findings=findings, witnesses=witnesses)
        return judged

    def _judge_bounces(self, evidence: StepEvidence) -> Judgement | None:
        if self.traffic.bounced is None:
            return None
        return judge_bounces(evidence, 2 * self.traffic.frames, bounced=self.traffic.bounced == "on")

    def _judge_invalidation(self, evidence: StepEvidence) -> Judgement | None:
        if self.traffic.invalidation is None:
            return None
        domain = evidence.observation("domain")
        if domain is None:
            return single(Outcome.ERROR, "the domain of the NIC was never looked up", evidence.index)
        told = judge_policy(
            evidence, self.traffic.invalidation, domain_id=domain.data["id"], unmapped=self.traffic.frames
        )
        outcome = {WitnessVerdict.CONFIRMS: Outcome.PASS, WitnessVerdict.DENIES: Outcome.FAIL}.get(told.verdict)
        text = f"{self.traffic.invalidation} invalidation: {told.evidence}"
        finding = Finding(outcome=outcome or Outcome.ERROR, text=text, step=evidence.index, refs=told.refs)
        return Judgement(findings=(finding,), witnesses=(told,))
