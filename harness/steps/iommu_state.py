"""iommu_state: prove whether the remapping unit is on, by its registers, sysfs and the guest's boot log."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from harness.judgement import Judgement, StepEvidence, single
from harness.scenario.section import Section
from harness.scenario.step import Step
from harness.scenario.values import OnOff
from harness.session import Session
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.vtd.registers import DEFAULT_BASE, GSTS, GlobalStatus
from harness.witnesses.kernel_log import said

#: What the kernel says once remapping of DMA is on (intel_iommu_init in drivers/iommu/intel/iommu.c).
ENABLED_LINE = "DMAR: Intel(R) Virtualization Technology for Directed I/O"


class StateBody(Section):
    """The effective state."""

    translation: OnOff = Field(description="Whether DMA is translated (GSTS.TES).")
    domains: Literal["DMA", "DMA-FQ", "identity", "none"] = Field(
        description="The type of every IOMMU group's domain, as sysfs tells it; `none` where there are no groups."
    )
    interrupt_remapping: OnOff | None = Field(default=None, description="Whether interrupts are remapped (GSTS.IRES).")


class IommuState(Step, keyword="iommu_state"):
    """Hold the unit's own status register (read from outside), the guest's sysfs and its boot log to one statement."""

    iommu_state: StateBody

    def summary(self) -> str:
        """Say in a line what is done."""
        body = self.iommu_state
        return f"translation is {body.translation}, domains are {body.domains}"

    def run(self, session: Session) -> None:
        """Read the register from the host and the rest from the guest."""
        status = session.guest.machine.register(DEFAULT_BASE + GSTS)
        boot = [text for text in said(session.boot_log) if ENABLED_LINE in text]
        session.record("state", gsts=status, sysfs=session.call("iommu_state"), announced=bool(boot))

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Let register, sysfs and log each say what they saw; they must agree with the statement and each other."""
        seen = evidence.observation("state")
        if seen is None:
            return single(Outcome.ERROR, "the state was never read", evidence.index)
        witnesses = (
            self._register(evidence.index, GlobalStatus(seen.data["gsts"]), seen.ref),
            self._sysfs(evidence.index, seen.data["sysfs"], seen.ref),
            self._log(evidence.index, announced=seen.data["announced"], ref=seen.ref),
        )
        denying = [witness for witness in witnesses if witness.verdict is not WitnessVerdict.CONFIRMS]
        if not denying:
            outcome, text = Outcome.PASS, f"{self.summary()}: register, sysfs and log agree"
        else:
            outcome, text = Outcome.FAIL, "; ".join(f"{witness.name}: {witness.evidence}" for witness in denying)
        finding = Finding(outcome=outcome, text=text, step=evidence.index, refs=(seen.ref,))
        return Judgement(findings=(finding,), witnesses=witnesses)

    def _register(self, index: int, status: GlobalStatus, ref: str) -> Witness:
        wanted = self.iommu_state
        right = status.translation_enabled == (wanted.translation == "on")
        if wanted.interrupt_remapping is not None:
            right = right and status.interrupt_remapping_enabled == (wanted.interrupt_remapping == "on")
        flags = f"TES={status.translation_enabled:d} IRES={status.interrupt_remapping_enabled:d}"
        return _witness("register", index, f"GSTS is {status.raw:#010x} ({flags})", ref, right=right)

    def _sysfs(self, index: int, state: dict[str, Any], ref: str) -> Witness:
        types = sorted({str(group["type"]) for group in state["groups"].values()})
        expected = [] if self.iommu_state.domains == "none" else [self.iommu_state.domains]
        text = f"{len(state['groups'])} groups of type {', '.join(types)}" if types else "no IOMMU groups"
        return _witness("sysfs", index, text, ref, right=types == expected)

    def _log(self, index: int, *, announced: bool, ref: str) -> Witness:
        text = "the kernel announced DMA remapping" if announced else "the kernel did not announce DMA remapping"
        return _witness("guest-log", index, text, ref, right=announced == (self.iommu_state.translation == "on"))


def _witness(name: str, index: int, text: str, ref: str, *, right: bool) -> Witness:
    verdict = WitnessVerdict.CONFIRMS if right else WitnessVerdict.DENIES
    return Witness(name=name, step=index, verdict=verdict, evidence=text, refs=(ref,))
