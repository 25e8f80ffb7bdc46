"""storm: have a device issue refused DMAs as fast as it can, and prove that the guest lives and the blame is right."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from harness.blocking import judge_blocked
from harness.errors import HarnessError
from harness.judgement import Judgement, StepEvidence, single
from harness.observed_bytes import attempt_of, record_write
from harness.scenario.expectation import DEFAULT_REASON
from harness.scenario.section import Section, complaint
from harness.scenario.step import IssuedDma, Reference, Step
from harness.scenario.target import TargetField
from harness.scenario.values import Name, Size
from harness.session import Session
from harness.verdict import Finding, Outcome
from harness.vtd.faults import REASON_BY_NAME, Access


class StormBody(Section):
    """A number of refused writes, and how many fault reports QEMU's trace must show for them."""

    device: Name = Field(description="The device that issues them; it must be assigned.")
    dmas: Annotated[int, Field(ge=2, le=1000)] = Field(description="How many DMAs.")
    write: Size = Field(description="Bytes each of them writes.")
    to: TargetField = Field(description="Where they are aimed.")
    at_least: Annotated[int, Field(ge=1)] = Field(description="Fault reports that QEMU's trace must show.")

    @model_validator(mode="after")
    def _check_amount(self) -> Self:
        if self.write == 0:
            raise complaint("a write of no bytes provokes nothing", at=("write",))
        return self


class Storm(Step, keyword="storm"):
    """Issue many refused writes: the guest must answer in between, and QEMU must have counted every one of them.

    The guest's log is no counter: the kernel limits its rate, and QEMU folds faults while its one record is full.
    """

    storm: StormBody

    @property
    def expects_block(self) -> bool:
        """Every DMA of the storm must be refused."""
        return True

    @property
    def floods_log(self) -> bool:
        """That is what a storm is."""
        return True

    def summary(self) -> str:
        """Say in a line what is done."""
        body = self.storm
        return f"'{body.device}' writes {body.write} bytes to '{body.to}' {body.dmas} times"

    def references(self) -> list[Reference]:
        """Name the device and the target."""
        names = [Reference.use("device", self.storm.device, "storm", "device")]
        if self.storm.to.name is not None:
            names.append(Reference.use(("buffer", "canary"), self.storm.to.name, "storm", "to"))
        return names

    def dmas(self) -> list[IssuedDma]:
        """Give the DMA that is repeated."""
        return [IssuedDma(self.storm.device, self.storm.write, "write", self.storm.to, "to")]

    def needs_assigned(self) -> tuple[str, ...]:
        """Only who is assigned can be told to issue a DMA."""
        return (self.storm.device,)

    def run(self, session: Session) -> None:
        """Issue the writes one after the other, and ask the guest a question over SSH after each."""
        body = self.storm
        device = session.device(body.device)
        aimed = body.to.aim(session, device, body.write)
        with session.provoking(storm=True):
            for _ in range(body.dmas):
                record_write(session, device, aimed, blocked=True, paced=False)
                answer = session.guest.run(["cat", "/proc/uptime"], timeout_s=10.0)
                if answer.status != 0:
                    raise HarnessError(f"the guest answered with status {answer.status} during the storm")

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Hold it to the witnesses of a single blocked DMA, and count the reports in the trace."""
        seen = evidence.observations("dma")
        if len(seen) != self.storm.dmas:
            return single(Outcome.ERROR, f"{len(seen)} of {self.storm.dmas} DMAs were issued", evidence.index)
        try:
            attempts = [attempt_of(evidence, entry, dmas=self.storm.dmas) for entry in seen]
        except ValueError as problem:
            return single(Outcome.ERROR, str(problem), evidence.index)
        # One that got through decides for all of them.
        attempt = next((one for one in attempts if one.bytes_moved or not one.intact), attempts[-1])
        source = attempt.source
        judged = judge_blocked(evidence, attempt, [REASON_BY_NAME[DEFAULT_REASON[Access.WRITE]].code])
        counted = sum(fault.count for fault in evidence.traced if fault.source == source)
        enough = counted >= self.storm.at_least
        text = f"QEMU traced {counted} refusals of {self.storm.dmas} DMAs, expected at least {self.storm.at_least}"
        count = Finding(outcome=Outcome.PASS if enough else Outcome.FAIL, text=text, step=evidence.index)
        return Judgement(findings=(*judged.findings, count), witnesses=judged.witnesses, landed=judged.landed)
