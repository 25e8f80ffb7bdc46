"""stray: a receive descriptor of a NIC's kernel driver gets a wrong address, and the NIC uses it for a frame."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from harness.judgement import Judgement, StepEvidence
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
from harness.scenario.values import Name, OnOff
from harness.session import Session
from harness.straying.judging import Asked, judge_stray
from harness.straying.ring import QUEUES
from harness.straying.stray import record_stray
from harness.vtd.faults import Access

#: The shortest frame that a NIC does not fill up, and the longest.
SHORTEST, LONGEST = 60, 1514


class StrayBody(Section):
    """Which NIC, what arrives, and where its descriptor leads."""

    device: Name = Field(description="An e1000e or igb under its kernel driver, whose interface is up.")
    receive: Annotated[int, Field(ge=SHORTEST, le=LONGEST)] = Field(
        default=256, description="Bytes of the frame that arrives."
    )
    to: TargetField | None = Field(
        default=None,
        description="The canary whose physical address is put into the descriptor; as the driver made it if not given.",
    )
    unmapped: OnOff = Field(
        default="off",
        description="Whether its domain maps the driver's buffer no longer, as if that had been unmapped too early.",
    )

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if self.to is not None and self.unmapped == "on":
            raise complaint(
                "what is unmapped is the driver's own buffer", at=("unmapped",), suggestion="leave out 'to'"
            )
        return self


class Stray(Step, keyword="stray"):
    """Put a wrong bus address into a receive descriptor of a kernel driver, from outside, as a bug of it would.

    The NIC uses it for a frame that arrives. Without `to` the descriptor stays as it is: the frame must lie in the
    driver's buffer then, which is the positive control. What was missed is told with the finding.
    """

    stray: StrayBody
    expect: Expectation = Field(description=EXPECTATION)

    @model_validator(mode="after")
    def _check_expectation(self) -> Self:
        refuse_other_direction(self.expect, Access.WRITE)
        for where, behaviour in behaviours(self.expect):
            if behaviour == "silent" or where:
                text = "a stray address is refused and reported, or it lands"
                raise complaint(text, at=("expect",), suggestion="write landed or {blocked: {reason: pte-write}}")
        if self.stray.to is not None and self.stray.to.name is None:
            text = "a stray address is that of a canary"
            raise complaint(text, at=("stray", "to"), suggestion="plant one and write its name")
        if self.stray.to is None and self.stray.unmapped == "off" and self.expects_block:
            text = "a descriptor that leads where the driver has mapped a buffer is not refused"
            raise complaint(text, at=("expect",), suggestion="write landed, 'to' or unmapped: on")
        return self

    @property
    def expects_block(self) -> bool:
        """Whether the unit must refuse it."""
        return expects_block(self.expect)

    @property
    def is_control(self) -> bool:
        """Whether it must land."""
        return self.expect == "landed"

    @property
    def acts_from_outside(self) -> bool:
        """It writes into the driver's ring."""
        return True

    @property
    def _target(self) -> Target | None:
        return self.stray.to

    def summary(self) -> str:
        """Say in a line what is done."""
        where = "the buffer of its driver" if self._target is None else f"'{self._target}', put into its descriptor"
        if self.stray.unmapped == "on":
            where = "a buffer that is unmapped too early"
        return f"a frame of {self.stray.receive} bytes for '{self.stray.device}' goes to {where}"

    def references(self) -> list[Reference]:
        """Name the NIC and the canary."""
        names = [Reference.use("device", self.stray.device, "stray", "device")]
        if self._target is not None and self._target.name is not None:
            names.append(Reference.use("canary", self._target.name, "stray", "to"))
        return names

    def dmas(self) -> list[IssuedDma]:
        """Give the one that goes to a canary."""
        if self._target is None:
            return []
        return [IssuedDma(self.stray.device, self.stray.receive, "receive", self._target, "to")]

    def needs_kernel_driver(self) -> tuple[str, ...]:
        """It is the driver's ring."""
        return (self.stray.device,)

    def needs_models(self) -> list[tuple[str, tuple[str, ...]]]:
        """Their rings are known."""
        return [(self.stray.device, tuple(QUEUES))]

    def run(self, session: Session) -> None:
        """Have the descriptor used, and look at ring and target from outside before and after."""
        device = session.device(self.stray.device)
        aimed = None if self._target is None else self._target.aim(session, device, self.stray.receive)
        unmapped = self.stray.unmapped == "on"
        record_stray(session, device, self.stray.receive, aimed, unmapped=unmapped, blocked=self.expects_block)

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Weigh the witnesses of the one frame."""
        body = self.stray
        target = None if body.to is None else str(body.to)
        asked = Asked(body.device, body.receive, target, unmapped=body.unmapped == "on")
        return judge_stray(evidence, asked, expected(self.expect, Access.WRITE, evidence.qemu).spec)
