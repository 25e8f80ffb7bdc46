"""The proof that a canary lies in memory of a NIC's own domain: a pure function over the evidence of a step.

The NIC wrote the bytes there itself (they were read from outside, and are those that were sent to it), its tables lead
there, and those of none of its virtual functions do.
"""

from __future__ import annotations

import hashlib
from typing import Any

from harness.judgement import Judgement, StepEvidence, nobody_faulted, single
from harness.traffic import path_taken
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict

_CONFIRMS, _DENIES, _MISSING = WitnessVerdict.CONFIRMS, WitnessVerdict.DENIES, WitnessVerdict.MISSING


def judge_received(evidence: StepEvidence, canary: str, device: str) -> Judgement:
    """Judge that `device` wrote the canary, and that its virtual functions have no translation to it."""
    received = evidence.observation("received")
    if received is None or (received.data["canary"], received.data["device"]) != (canary, device):
        return single(Outcome.ERROR, f"'{canary}' was not put into memory of '{device}'", evidence.index)
    data, ref = received.data, received.ref
    for when in ("before", "after"):
        if not _read_from_outside(evidence, data, data[when]):
            text = f"the bytes of '{canary}' {when} are not those that were read from outside of the guest"
            return single(Outcome.ERROR, text, evidence.index, ref)
    landed = data["after"] == hashlib.sha256(bytes.fromhex(data["sent"])).hexdigest()
    bytes_, walk = _bytes(evidence, data, ref, landed=landed), _walk(evidence, data, ref)
    through, others = path_taken(evidence, {str(data["source_id"])}, 1, translated=True), nobody_faulted(evidence)
    witnesses = (bytes_, walk, through, others)
    findings = [
        Finding(
            outcome=Outcome.FAIL if witness.verdict is _DENIES else Outcome.ERROR,
            text=witness.evidence,
            step=evidence.index,
            refs=witness.refs,
        )
        for witness in witnesses
        if witness.verdict is not _CONFIRMS
    ]
    if not findings:
        text = f"'{device}' itself wrote '{canary}': {walk.evidence}"
        findings = [Finding(outcome=Outcome.PASS, text=text, step=evidence.index, refs=(ref,))]
    return Judgement(findings=tuple(findings), witnesses=witnesses, landed=landed)


def _read_from_outside(evidence: StepEvidence, data: dict[str, Any], digest: str) -> bool:
    return any(
        entry.source == "memory" and (entry.data["gpa"], entry.data["sha256"]) == (data["physical"], digest)
        for entry in evidence.entries
    )


def _bytes(evidence: StepEvidence, data: dict[str, Any], ref: str, *, landed: bool) -> Witness:
    """Witness that what was sent to the NIC stands there, and did not before."""
    name, verdict = data["canary"], _CONFIRMS
    text = f"the bytes that came by the wire of '{data['device']}' stand in '{name}'"
    if not landed:
        verdict, text = _DENIES, f"the bytes that came by the wire of '{data['device']}' are not in '{name}'"
    elif data["before"] == data["after"]:
        verdict, text = _MISSING, f"the bytes stood in '{name}' before they were sent"
    return Witness(name="bytes", step=evidence.index, verdict=verdict, evidence=text, refs=(ref,))


def _walk(evidence: StepEvidence, data: dict[str, Any], ref: str) -> Witness:
    """Witness that the tables lead the NIC to the canary, and none of its functions anywhere from that address."""
    name, iova, physical = data["device"], data["iova"], data["physical"]
    reached = [function for function, end in data["others"].items() if end is not None]
    verdict, text = _CONFIRMS, f"{iova:#x} leads '{name}' to {physical:#x}, and none of its functions anywhere"
    if data["led"] is None or not data["others"]:
        verdict, text = _MISSING, f"the tables of '{name}' or of its functions were not walked, or do not lead there"
    elif data["led"] != physical:
        verdict, text = _DENIES, f"{iova:#x} leads '{name}' to {data['led']:#x}, not to {physical:#x}"
    elif reached:
        verdict, text = _DENIES, f"{iova:#x} leads '{reached[0]}' somewhere too"
    return Witness(name="walk", step=evidence.index, verdict=verdict, evidence=text, refs=(ref,))
