"""replug: plug a device in and out over QMP, with traffic each time if it is a NIC."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.judgement import Judgement, StepEvidence, single
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session
from harness.traffic import Load, counting_translations, exchange, judge_exchanges, unlike
from harness.verdict import Finding, Outcome


class ReplugBody(Section):
    """Which NIC, how often, and how much goes over it each time."""

    device: Name = Field(description="A NIC that is declared with `plugged: false`.")
    times: Annotated[int, Field(ge=1, le=100)] = Field(description="How often it is plugged in and out.")
    frames: Annotated[int, Field(ge=1, le=1000)] = Field(default=8, description="Frames each way, each time.")
    size: Annotated[int, Field(ge=46, le=1500)] = Field(default=600, description="Bytes of payload per frame.")


class Replug(Step, keyword="replug"):
    """Plug a NIC, wait for the guest to drive it, move data over it, unplug it and see it gone; again and again."""

    replug: ReplugBody

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"plug and unplug '{self.replug.device}' {self.replug.times} times with traffic"

    def references(self) -> list[Reference]:
        """Name the NIC."""
        return [Reference.use("device", self.replug.device, "replug", "device")]

    def needs_kernel_driver(self) -> tuple[str, ...]:
        """The kernel's driver moves the frames."""
        return (self.replug.device,)

    def needs_unplugged(self) -> tuple[str, ...]:
        """What is plugged in must not be there before."""
        return (self.replug.device,)

    def run(self, session: Session) -> None:
        """Go round; what the device leaves behind is counted at the end."""
        body = self.replug
        groups_before = session.call("iommu_state")["groups"]
        for _ in range(body.times):
            device = session.plug(session.device(body.device))
            session.bind_kernel_driver(device)
            with counting_translations(session):
                exchange(session, device, Load(body.frames, body.size))
            session.unplug(device)
        session.record("unplugged", groups_before=groups_before, groups_after=session.call("iommu_state")["groups"])

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Every exchange must have worked, and no IOMMU group may be left over."""
        last = evidence.observation("unplugged")
        count = len(evidence.observations("traffic"))
        if last is None or count != self.replug.times:
            return single(Outcome.ERROR, f"{count} of {self.replug.times} rounds came to their end", evidence.index)
        wrong = unlike(evidence, self.replug.device, *[Load(self.replug.frames, self.replug.size)] * count)
        if wrong is not None:
            return single(Outcome.ERROR, wrong, evidence.index, last.ref)
        judged = judge_exchanges(evidence)
        same = last.data["groups_before"] == last.data["groups_after"]
        text = "no IOMMU group is left over" if same else "the IOMMU groups differ from before the first plug"
        left = Finding(outcome=Outcome.PASS if same else Outcome.FAIL, text=text, step=evidence.index, refs=(last.ref,))
        return Judgement(findings=(*judged.findings, left), witnesses=judged.witnesses)
