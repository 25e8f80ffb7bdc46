"""The proof that a lab host blocked the DMA of a NIC that it had handed to a guest: pure, over the evidence of a step.

The request goes through the host's remapping unit and not through QEMU's, so the host's kernel reports it, with the
NIC's requester ID there, and neither the guest nor QEMU may know of a fault. The address is the guest's own: QEMU maps
for the NIC, in the host's tables, at the addresses that the guest maps it at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.blocking import Attempt, announced, bytes_kept, reported
from harness.judgement import Judgement, StepEvidence, nobody_faulted
from harness.verdict import Finding, Outcome, WitnessVerdict
from harness.vtd.source_id import SourceId

_CONFIRMS, _DENIES, _MISSING = WitnessVerdict.CONFIRMS, WitnessVerdict.DENIES, WitnessVerdict.MISSING


def judge_blocked_by_host(
    evidence: StepEvidence, attempt: Attempt, at_host: SourceId, reasons: Sequence[int]
) -> Judgement:
    """Judge an attempt that the host's remapping unit must refuse for one of `reasons`; `at_host` is the NIC there."""
    announcement, kept = announced(evidence, attempt), bytes_kept(evidence, attempt)
    log = reported("host-log", evidence, evidence.on_host, replace(attempt, source=at_host), reasons)
    others = nobody_faulted(evidence, but_there=at_host)
    moved = kept.verdict is _DENIES
    rules = (
        (announcement.verdict is not _CONFIRMS, Outcome.ERROR, f"not proven to be issued: {announcement.evidence}"),
        (others.verdict is not _CONFIRMS, Outcome.FAIL, others.evidence),
        (moved and log.verdict is _MISSING, Outcome.FAIL, f"not blocked: {kept.evidence}"),
        (moved, Outcome.ERROR, f"contradiction: {kept.evidence}, and yet the host reported {log.evidence}"),
        (log.verdict is _MISSING, Outcome.ERROR, f"the bytes are intact, but the host's log has {log.evidence}"),
        (log.verdict is _DENIES, Outcome.FAIL, f"refused, but not as expected; {log.evidence}"),
    )
    outcome, text = next(
        ((outcome, text) for applies, outcome, text in rules if applies),
        (Outcome.PASS, f"blocked by the lab host: {log.evidence}"),
    )
    finding = Finding(outcome=outcome, text=f"the {attempt.said}: {text}", step=evidence.index, refs=attempt.refs)
    return Judgement(findings=(finding,), witnesses=(announcement, log, kept, others), landed=attempt.bytes_moved)
