"""assign: hand a device to user space in a protection domain, or prove that Linux refuses to."""

from __future__ import annotations

import errno
from typing import Annotated

from pydantic import Field

from harness.errors import OperationRefused
from harness.judgement import Judgement, StepEvidence, single
from harness.scenario.section import Section, Shorthand
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.vtd.registers import DEFAULT_BASE, GSTS, GlobalStatus


class AssignBody(Section):
    """Which device, and into which domain."""

    device: Name = Field(description="The device to assign.")
    domain: Name | None = Field(default=None, description="Its protection domain; one of its own if not given.")
    refused: str | None = Field(
        default=None,
        min_length=1,
        description="Linux must refuse (EPERM) because interrupts are not remapped, and say these words in its log.",
    )


class Assign(Step, keyword="assign"):
    """Bind a device to vfio-pci, put its group into a protection domain, and open it with a staging buffer mapped.

    In a counter-proof there is no domain to put it in, so it is driven without VFIO: by its registers in sysfs.

    With `refused` VFIO must not hand it out, because its interrupts would not be isolated: its answer, the kernel's log
    and the unit's status register (GSTS.IRES, read from outside) must agree on that. It is in no domain then.
    """

    assign: Annotated[AssignBody, Shorthand("device")]

    def summary(self) -> str:
        """Say in a line what is done."""
        if self.assign.refused is not None:
            return f"'{self.assign.device}' cannot be assigned"
        return f"assign '{self.assign.device}' to domain '{self.domain}'"

    @property
    def domain(self) -> str:
        """The domain's name."""
        return self.assign.domain or f"{self.assign.device}-domain"

    def references(self) -> list[Reference]:
        """Name the device and its domain, which comes into being with its first device."""
        device = Reference.use("device", self.assign.device, "assign", "device")
        if self.assign.refused is not None:
            return [device]
        return [device, Reference.define("domain", self.domain, "assign", "domain")]

    def assignments(self) -> list[tuple[str, str | None]]:
        """The device is in the domain from here on, unless that is refused."""
        return [] if self.assign.refused is not None else [(self.assign.device, self.domain)]

    @property
    def states_something(self) -> bool:
        """Only a refusal is judged: what could not be assigned otherwise ends the run."""
        return self.assign.refused is not None

    def run(self, session: Session) -> None:
        """Assign and open the device, or record what became of the attempt."""
        device = session.device(self.assign.device)
        if self.assign.refused is None:
            session.enter_domain(device, self.domain)
            return
        refusal: dict[str, object] | None = None
        try:
            session.call("domain_attach", domain=self.domain, bdf=device.address, within_s=30.0)
        except OperationRefused as error:
            refusal = {"errno": error.errno, "reason": error.reason}
        session.record("assignment", refusal=refusal, gsts=session.guest.machine.register(DEFAULT_BASE + GSTS))

    def judge(self, evidence: StepEvidence) -> Judgement | None:
        """Let answer, log and register each say what they saw of a refusal."""
        words = self.assign.refused
        if words is None:
            return None
        seen = evidence.observation("assignment")
        if seen is None:
            return single(Outcome.ERROR, "nobody tried to assign the device", evidence.index)
        refusal = seen.data["refusal"]
        enabled = GlobalStatus(seen.data["gsts"]).interrupt_remapping_enabled
        said = [entry.ref for entry in evidence.entries if entry.source == "kmsg" and words in str(entry.data["text"])]
        answer = "VFIO assigned the device" if refusal is None else f"VFIO refused: {refusal['reason']}"
        right = refusal is not None and refusal["errno"] == errno.EPERM
        quoted = f"{len(said)} lines say '{words}'"
        witnesses = (
            _witness("answer", evidence.index, answer, (seen.ref,), right=right),
            _witness("guest-log", evidence.index, quoted, tuple(said[:3]), right=bool(said)),
            _witness("register", evidence.index, f"GSTS.IRES={enabled:d}", (seen.ref,), right=not enabled),
        )
        denying = [witness for witness in witnesses if witness.verdict is not WitnessVerdict.CONFIRMS]
        # A refusal that is not explained, or explained by what is not so, is not known to be this one.
        outcome = Outcome.PASS if not denying else Outcome.FAIL if refusal is None else Outcome.ERROR
        text = "; ".join(witness.evidence for witness in denying or witnesses)
        finding = Finding(outcome=outcome, text=f"{self.summary()}: {text}", step=evidence.index, refs=(seen.ref,))
        return Judgement(findings=(finding,), witnesses=witnesses)


def _witness(name: str, index: int, text: str, refs: tuple[str, ...], *, right: bool) -> Witness:
    verdict = WitnessVerdict.CONFIRMS if right else WitnessVerdict.DENIES
    return Witness(name=name, step=index, verdict=verdict, evidence=text, refs=refs)
