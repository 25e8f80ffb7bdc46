"""The proof of an interrupt message that a NIC in a nested guest sends, its own or another's.

To what `harness.interruption` asks of any message come the counters: `counters` tells that all those of the message's
owner rose by what came, in the platform and in the guest that it is handed on to, and that no other rose.
"""

from __future__ import annotations

from dataclasses import replace

from harness.conformance import Expected
from harness.interruption import judge_message
from harness.judgement import Judgement, StepEvidence
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict

#: Where interrupts are counted, and whether the message's owner is: of the sender's own, and of one of another.
_OWN = {"in the platform": True, "in the guest": True}
_ANOTHERS = {"in the platform": False, "in the guest": False, "of the victim": True}


def judge_forgery(evidence: StepEvidence, expected: Expected) -> Judgement:
    """Judge the one message of a step, and what was counted of it; ERROR where the counters contradict each other."""
    judged = judge_message(evidence, expected)
    seen = evidence.observation("msi")
    if seen is None:
        return judged
    came = int(seen.data["after"]) - int(seen.data["before"])
    sent = [
        [entry.data.get("address"), entry.data.get("data")]
        for entry in evidence.entries
        if (entry.source, entry.kind) == ("agent", "msi") and entry.data["bdf"] == seen.data["function"]
    ]
    problems = []
    if sent != [[seen.data["address"], seen.data["data"]]]:
        problems.append(f"another message was sent than {seen.data['address']:#x}/{seen.data['data']:#x}")
    told = []
    counted = {str(counter["where"]): bool(counter["owner"]) for counter in seen.data["counters"]}
    if counted not in (_OWN, _ANOTHERS):
        problems.append(f"counted was {', '.join(counted) or 'nowhere'}")
    for counter in seen.data["counters"]:
        rose = int(counter["after"]) - int(counter["before"])
        told.append(f"{counter['where']} {counter['name']} by {rose}")
        if rose != (came if counter["owner"] else 0):
            problems.append(f"{counter['where']}, {counter['name']} rose by {rose}, and {came} came")
    verdict = WitnessVerdict.DENIES if problems else WitnessVerdict.CONFIRMS
    text = problems[0] if problems else f"rose: {', '.join(told)}"
    witness = Witness(name="counters", step=evidence.index, verdict=verdict, evidence=text, refs=(seen.ref,))
    findings = judged.findings
    if problems:
        finding = Finding(outcome=Outcome.ERROR, text=f"contradiction: {text}", step=evidence.index, refs=(seen.ref,))
        findings = (finding, *findings)
    return replace(judged, findings=findings, witnesses=(*judged.witnesses, witness))
