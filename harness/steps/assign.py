"""assign: hand a device to user space in a protection domain, or prove that Linux refuses to."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from harness.admission import attempt, judge_admission
from harness.judgement import Judgement, StepEvidence
from harness.scenario.admission import ADMISSION, Admission, Refusal
from harness.scenario.section import Section, Shorthand, complaint
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session
from harness.unsafe_interrupts import attempt_unsafe, judge_unsafe


class AssignBody(Section):
    """Which device, and into which domain."""

    device: Name = Field(description="The device to assign.")
    domain: Name | None = Field(default=None, description="Its protection domain; one of its own if not given.")


class Assign(Step, keyword="assign"):
    """Bind a device to vfio-pci, put its group into a protection domain, and open it with a staging buffer mapped.

    In a counter-proof there is no domain to put it in, so it is driven without VFIO: by its registers in sysfs. Where
    it must be refused because of others, those are given to their kernel drivers first; where it must be refused
    because interrupts are not remapped, VFIO's answer, the kernel's log and the unit's status register must agree on
    that. It is in no domain then.
    """

    assign: Annotated[AssignBody, Shorthand("device")]
    expect: Admission | None = Field(default=None, description=ADMISSION)

    @model_validator(mode="after")
    def _check_siblings(self) -> Self:
        """Refuse a device that stands in its own way."""
        for index, name in enumerate(self.because_of):
            if name == self.assign.device:
                at = ("expect", "refused", "because_of", index)
                raise complaint("{written} is what is assigned; name another of its group", value=name, at=at)
        return self

    def summary(self) -> str:
        """Say in a line what is done."""
        if self.refused:
            return f"'{self.assign.device}' cannot be assigned"
        return f"assign '{self.assign.device}' to domain '{self.domain}'"

    @property
    def domain(self) -> str:
        """The domain's name."""
        return self.assign.domain or f"{self.assign.device}-domain"

    @property
    def refused(self) -> bool:
        """Whether VFIO must refuse it."""
        return isinstance(self.expect, Refusal)

    @property
    def because_of(self) -> tuple[str, ...]:
        """The devices because of which it must be refused, none where it must not, or for another reason."""
        return self.expect.refused.because_of if isinstance(self.expect, Refusal) else ()

    @property
    def words(self) -> str | None:
        """What the kernel says where interrupts are not remapped, None where that is not why it must be refused."""
        return self.expect.refused.words if isinstance(self.expect, Refusal) else None

    @property
    def states_something(self) -> bool:
        """Whether it says what must come of it."""
        return self.expect is not None

    def references(self) -> list[Reference]:
        """Name the device and its domain, which comes into being with its first device."""
        device = Reference.use("device", self.assign.device, "assign", "device")
        if self.refused:
            way = ("expect", "refused", "because_of")
            return [device, *(Reference.use("device", name, *way, i) for i, name in enumerate(self.because_of))]
        return [device, Reference.define("domain", self.domain, "assign", "domain")]

    def assignments(self) -> list[tuple[str, str | None]]:
        """The device is in the domain from here on, unless that is refused."""
        return [] if self.refused else [(self.assign.device, self.domain)]

    def needs_kernel_driver(self) -> tuple[str, ...]:
        """Only a device that its kernel driver holds is in the way of another."""
        return self.because_of

    def run(self, session: Session) -> None:
        """Assign and open the device, or try to."""
        device = session.device(self.assign.device)
        if session.raw and self.refused:
            return  # without a unit there is nobody to refuse it
        for name in self.because_of:
            session.bind_kernel_driver(session.device(name))
        if self.words is not None:
            attempt_unsafe(session, device, self.domain)
        elif self.expect is None or session.raw:
            session.enter_domain(device, self.domain)
        else:
            attempt(session, device, self.domain)

    def judge(self, evidence: StepEvidence) -> Judgement | None:
        """Hold what became of it to what was expected; unless that was said, it only prepares."""
        if self.words is not None:
            return judge_unsafe(evidence, self.words)
        return None if self.expect is None else judge_admission(evidence, self.because_of)
