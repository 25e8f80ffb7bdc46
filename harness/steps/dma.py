"""dma: make a device under test issue one DMA, and prove that it landed or that it was blocked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from pydantic import Field, model_validator

from harness.blocking import Attempt
from harness.conformance import Behaviour, Expected
from harness.deviations import judge_expected
from harness.errors import HarnessError
from harness.judgement import Judgement, StepEvidence, single
from harness.observed_bytes import attempt_of, record_read, record_write
from harness.scenario.expectation import (
    EXPECTATION,
    Expectation,
    behaviours,
    expected,
    expects_block,
    refuse_other_direction,
)
from harness.scenario.section import Section, complaint
from harness.scenario.step import IssuedDma, Reference, Step
from harness.scenario.target import Target, TargetField
from harness.scenario.values import Name, Size
from harness.session import Session
from harness.verdict import Conformance, Outcome, Provoked, WitnessVerdict
from harness.vtd.faults import Access

#: Fewer random bytes could be equal by chance, and a witness of bytes must not be.
SHORTEST = 16


class DmaBody(Section):
    """One DMA: who, how much, and where to or from."""

    device: Name = Field(description="The device that issues it; it must be assigned.")
    write: Size | None = Field(
        default=None, description="Bytes the device writes into memory, a multiple of 4 from 16 on."
    )
    read: Size | None = Field(
        default=None, description="Bytes the device reads out of memory, a multiple of 4 from 16 on."
    )
    to: TargetField | None = Field(default=None, description="Where a write is aimed.")
    from_: TargetField | None = Field(default=None, alias="from", description="Where a read is aimed.")
    leaves: tuple[Name, ...] = Field(default=(), description="Buffers and canaries that must not change meanwhile.")

    @model_validator(mode="after")
    def _check_direction(self) -> Self:
        if (self.write is None) == (self.read is None):
            raise complaint("a DMA needs either 'write' or 'read'", on_key=True)
        if self.length < SHORTEST or self.length % 4:
            hint = f"take a multiple of 4 from {SHORTEST} on"
            where = (self.access.value,)
            raise complaint("a DMA cannot be {written} bytes long", value=self.length, at=where, suggestion=hint)
        if self.write is not None and (self.to is None or self.from_ is not None):
            raise complaint("a write goes 'to' a place", on_key=True)
        if self.read is not None and (self.from_ is None or self.to is not None):
            raise complaint("a read comes 'from' a place", on_key=True)
        return self

    @property
    def access(self) -> Access:
        """The direction as the remapping unit sees it."""
        return Access.WRITE if self.write is not None else Access.READ

    @property
    def place(self) -> Target:
        """Where it is aimed, whichever the direction."""
        place = self.to if self.to is not None else self.from_
        if place is None:
            raise HarnessError("a DMA without a target passed validation")
        return place

    @property
    def length(self) -> int:
        """Bytes to move."""
        return self.write or self.read or 0


class Dma(Step, keyword="dma"):
    """Make a device issue one DMA. `expect: landed` is the positive control, `expect: {blocked: ...}` the attack."""

    dma: DmaBody
    expect: Expectation = Field(description=EXPECTATION)

    @model_validator(mode="after")
    def _check_reason(self) -> Self:
        """Refuse a reason that cannot be."""
        refuse_other_direction(self.expect, self.dma.access)
        return self

    @property
    def expects_block(self) -> bool:
        """Whether the unit must refuse it."""
        return expects_block(self.expect)

    @property
    def may_be_silent(self) -> bool:
        """Whether it is expected anywhere that a refusal goes unreported."""
        return any(behaviour == "silent" for _, behaviour in behaviours(self.expect))

    @property
    def is_control(self) -> bool:
        """Whether it must land."""
        return self.expect == "landed"

    def summary(self) -> str:
        """Say in a line what is done."""
        preposition = "to" if self.dma.access is Access.WRITE else "from"
        return f"'{self.dma.device}' {self.dma.access}s {self.dma.length} bytes {preposition} '{self.dma.place}'"

    def references(self) -> list[Reference]:
        """Name the device and every buffer or canary."""
        names = [Reference.use("device", self.dma.device, "dma", "device")]
        if self.dma.place.name is not None:
            key = "to" if self.dma.access is Access.WRITE else "from"
            names.append(Reference.use(("buffer", "canary"), self.dma.place.name, "dma", key))
        for index, name in enumerate(self.dma.leaves):
            names.append(Reference.use(("buffer", "canary"), name, "dma", "leaves", index))
        return names

    def dmas(self) -> list[IssuedDma]:
        """Give the one DMA."""
        body = self.dma
        place_key = "to" if body.access is Access.WRITE else "from"
        return [IssuedDma(body.device, body.length, body.access.value, body.place, place_key)]

    def needs_assigned(self) -> tuple[str, ...]:
        """Only who is assigned can be told to issue a DMA."""
        return (self.dma.device,)

    def run(self, session: Session) -> None:
        """Issue the DMA and look at the target, and at every bystander, from outside before and after."""
        device = session.device(self.dma.device)
        aimed = self.dma.place.aim(session, device, self.dma.length)
        record = record_write if self.dma.access is Access.WRITE else record_read
        paced = self.expect != "silent"  # nothing is logged then
        record(session, device, aimed, blocked=self.expects_block, leaves=self.dma.leaves, paced=paced)

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Weigh the witnesses of the one DMA."""
        seen = evidence.observation("dma")
        if seen is None:
            return single(Outcome.ERROR, "the DMA was never issued", evidence.index)
        if set(seen.data["bystanders"]) != set(self.dma.leaves):
            text = f"watched were {sorted(seen.data['bystanders'])}, not {sorted(self.dma.leaves)}"
            return single(Outcome.ERROR, text, evidence.index, seen.ref)
        try:
            attempt = attempt_of(evidence, seen)
        except ValueError as problem:
            return single(Outcome.ERROR, str(problem), evidence.index, seen.ref)
        asked = expected(self.expect, attempt.access, evidence.qemu)
        judged, conformance = judge_expected(evidence, attempt, asked)
        broken = seen.data.get("broken")
        if broken is None or judged.outcome is Outcome.ERROR:
            return judged
        return replace(
            judged,
            provoked=(
                _provoked(
                    evidence, judged=judged, attempt=attempt, asked=asked, broken=broken, conformance=conformance
                ),
            ),
        )


def _provoked(
    evidence: StepEvidence,
    *,
    judged: Judgement,
    attempt: Attempt,
    asked: Expected,
    broken: Mapping[str, Any],
    conformance: Conformance,
) -> Provoked:
    """Give what a DMA through broken tables provoked, for the atlas."""
    faults = [fault for fault in evidence.logged if fault.source == attempt.source]
    lines = [e for e in evidence.entries if e.source == "kmsg" and faults and e.ref == faults[0].ref]
    return Provoked(
        step=evidence.index,
        table=str(broken["translation"]),
        levels=int(broken["levels"]),
        recipe=str(broken["recipe"]),
        source=f"{broken['model']} {attempt.source}",
        access=str(attempt.access),
        spec=asked.spec.report,
        seen=_seen(attempt, [fault.reason for fault in faults]).report,
        fault_processing_disabled=bool(broken["fault_processing_disabled"]),
        conformance=conformance,
        why=asked.why if conformance is Conformance.KNOWN_DEVIATION else "",
        kernel_line=str(lines[0].data["text"]) if lines else "",
        witnesses=tuple(w.name for w in judged.witnesses if w.verdict is WitnessVerdict.CONFIRMS),
    )


def _seen(attempt: Attempt, reasons: Sequence[int]) -> Behaviour:
    if attempt.bytes_moved:
        return Behaviour("landed")
    return Behaviour("blocked", (reasons[0],)) if reasons else Behaviour("silent")
