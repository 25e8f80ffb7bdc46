"""ats: prove whether a device may ask the unit for translations, by its own registers, the unit's and the tables."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from harness.judgement import Judgement, StepEvidence, single
from harness.pci_config import ats_enabled
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name, OnOff
from harness.session import Session
from harness.table_edit import context_of
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.vtd.registers import DEFAULT_BASE, ECAP, ExtendedCapability
from harness.vtd.tables import TranslationType

#: What the device's capability is like, in words.
_CAPABILITY = {None: "the device has no ATS capability", False: "its ATS is not enabled", True: "its ATS is enabled"}


class AtsBody(Section):
    """Whose ATS, and what the guest made of it."""

    device: Name = Field(description="The device; the guest must have made a context entry for it.")
    enabled: OnOff = Field(description="Whether it may ask for translations, and keep them.")


class Ats(Step, keyword="ats"):
    """Hold the device's ATS capability, its context entry and the unit to one statement; all are read from outside.

    Enabled means that the guest set the enable bit of the device's capability, that the context entry lets translation
    requests through (translation type 01b), and that the unit offers device-TLBs (ECAP.DT).
    """

    ats: AtsBody

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"ATS of '{self.ats.device}' is {self.ats.enabled}"

    def references(self) -> list[Reference]:
        """Name the device."""
        return [Reference.use("device", self.ats.device, "ats", "device")]

    def run(self, session: Session) -> None:
        """Read the capability, the unit's and the context entry."""
        device = session.device(self.ats.device)
        session.record(
            "ats",
            enabled=ats_enabled(session, device),
            translation_type=context_of(session, device).translation_type,
            ecap=session.guest.machine.register(DEFAULT_BASE + ECAP, 8),
        )

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Let each of the three say what it saw; they must agree with the statement."""
        seen = evidence.observation("ats")
        if seen is None:
            return single(Outcome.ERROR, "the state of ATS was never read", evidence.index)
        witnesses = self._witnesses(evidence.index, seen.data, seen.ref)
        denying = [witness for witness in witnesses if witness.verdict is not WitnessVerdict.CONFIRMS]
        outcome = Outcome.FAIL if denying else Outcome.PASS
        said = "; ".join(witness.evidence for witness in denying or witnesses)
        finding = Finding(outcome=outcome, text=f"{self.summary()}: {said}", step=evidence.index, refs=(seen.ref,))
        return Judgement(findings=(finding,), witnesses=witnesses)

    def _witnesses(self, index: int, seen: dict[str, Any], ref: str) -> tuple[Witness, ...]:
        wanted = self.ats.enabled == "on"
        offered = bool(ExtendedCapability(seen["ecap"]).device_tlb)
        kind = seen["translation_type"]

        def witness(name: str, text: str, *, right: bool) -> Witness:
            verdict = WitnessVerdict.CONFIRMS if right else WitnessVerdict.DENIES
            return Witness(name=name, step=index, verdict=verdict, evidence=text, refs=(ref,))

        return (
            witness("config", _CAPABILITY[seen["enabled"]], right=bool(seen["enabled"]) == wanted),
            witness(
                "context",
                f"the translation type of its context entry is {kind:02b}",
                right=kind == (TranslationType.WITH_DEVICE_TLB if wanted else TranslationType.SECOND_STAGE),
            ),
            # A unit may offer what no device uses, so it denies only that which it cannot do.
            witness("register", f"ECAP.DT={offered:d}", right=offered or not wanted),
        )
