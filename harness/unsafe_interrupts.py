"""Whether VFIO refuses a device because its interrupts would not be isolated, and says so.

Without interrupt remapping a device could send any interrupt by a write to the interrupt range, so Linux hands none to
user space (vfio_iommu_type1_attach_group in drivers/vfio/vfio_iommu_type1.c). Witnesses are VFIO's answer, the kernel's
log, and the unit's own status, read from outside.
"""

from __future__ import annotations

import errno

from harness.errors import OperationRefused
from harness.judgement import Judgement, StepEvidence, single
from harness.session import AttachedDevice, Session
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.vtd.registers import DEFAULT_BASE, GSTS, GlobalStatus
from harness.witnesses.guest_log import kernel_lines


def attempt_unsafe(session: Session, device: AttachedDevice, domain: str) -> None:
    """Try to put `device` into `domain`, and record what became of it and whether the unit remaps interrupts."""
    refusal: dict[str, object] | None = None
    try:
        session.call("domain_attach", domain=domain, bdf=device.address, within_s=30.0)
    except OperationRefused as error:
        refusal = {"errno": error.errno, "reason": error.reason}
    gsts = session.guest.machine.register(DEFAULT_BASE + GSTS)
    session.record("assignment", device=device.name, refusal=refusal, gsts=gsts)


def judge_unsafe(evidence: StepEvidence, words: str) -> Judgement:
    """Let answer, log and register each say what they saw of a refusal that the kernel explains with `words`."""
    seen = evidence.observation("assignment")
    if seen is None:
        return single(Outcome.ERROR, "nobody tried to assign the device", evidence.index)
    refusal = seen.data["refusal"]
    enabled = GlobalStatus(seen.data["gsts"]).interrupt_remapping_enabled
    said = [line.ref for line in kernel_lines(evidence.entries, "kmsg") if words in line.text]
    answer = "VFIO assigned the device" if refusal is None else f"VFIO refused: {refusal['reason']}"
    right = refusal is not None and refusal["errno"] == errno.EPERM
    quoted = f"{len(said)} lines say '{words}'"
    witnesses = (
        _witness("answer", evidence.index, answer, (seen.ref,), right=right),
        _witness("guest-log", evidence.index, quoted, tuple(said[:3]), right=bool(said)),
        _witness("register", evidence.index, f"GSTS.IRES={enabled:d}", (seen.ref,), right=not enabled),
    )
    denying = [witness for witness in witnesses if witness.verdict is not WitnessVerdict.CONFIRMS]
    # A refusal that is not explained, or explained by what is not so, is not known to be this one; nor is it known what
    # became of an assignment that the log says was refused.
    assigned = refusal is None and not said
    outcome = Outcome.PASS if not denying else Outcome.FAIL if assigned else Outcome.ERROR
    told = "; ".join(witness.evidence for witness in denying or witnesses)
    text = f"'{seen.data['device']}' cannot be assigned: {told}"
    finding = Finding(outcome=outcome, text=text, step=evidence.index, refs=(seen.ref,))
    return Judgement(findings=(finding,), witnesses=witnesses)


def _witness(name: str, index: int, text: str, refs: tuple[str, ...], *, right: bool) -> Witness:
    verdict = WitnessVerdict.CONFIRMS if right else WitnessVerdict.DENIES
    return Witness(name=name, step=index, verdict=verdict, evidence=text, refs=refs)
