"""A DMA under a kernel held against the specification, and against what QEMU is known to do instead.

Each behaviour is proven by witnesses of its own; a known deviation is one only where they agree on it.
"""

from __future__ import annotations

from dataclasses import replace

from harness.blocked_by_host import judge_blocked_by_host
from harness.blocking import Attempt, announced, bytes_kept, judge_blocked, judge_landed
from harness.conformance import Behaviour, Expected
from harness.judgement import Judgement, StepEvidence, nobody_faulted
from harness.verdict import Conformance, Finding, Outcome, Witness, WitnessVerdict

_CONFIRMS, _DENIES = WitnessVerdict.CONFIRMS, WitnessVerdict.DENIES


def judge_silent(evidence: StepEvidence, attempt: Attempt) -> Judgement:
    """Judge an attempt that must be refused without a report, because fault processing is disabled (FPD).

    QEMU traces that it did not report; without that nothing tells a silent refusal from a device that did nothing.
    """
    announcement, kept = announced(evidence, attempt), bytes_kept(evidence, attempt)
    others = nobody_faulted(evidence, silently=True)
    disabled = Witness(
        name="host-trace",
        step=evidence.index,
        verdict=_CONFIRMS if evidence.disabled else WitnessVerdict.MISSING,
        evidence="QEMU traced that fault processing is disabled" if evidence.disabled else "QEMU traced no refusal",
        refs=evidence.disabled[:3],
    )
    said = f"the {attempt.said}"
    rules = (
        (announcement.verdict is not _CONFIRMS, Outcome.ERROR, f"not proven to be issued: {announcement.evidence}"),
        (others.verdict is not _CONFIRMS, Outcome.FAIL, f"should have been refused silently, but {others.evidence}"),
        (kept.verdict is _DENIES and not evidence.disabled, Outcome.FAIL, f"not blocked: {kept.evidence}"),
        (kept.verdict is _DENIES, Outcome.ERROR, f"contradiction: {kept.evidence}, and yet {disabled.evidence}"),
        (not evidence.disabled, Outcome.ERROR, "the bytes are intact, but nothing tells that it was refused"),
    )
    outcome, text = next(
        ((outcome, f"{said}: {text}") for applies, outcome, text in rules if applies),
        (Outcome.PASS, f"{said} was refused without a report"),
    )
    finding = Finding(outcome=outcome, text=text, step=evidence.index, refs=attempt.refs)
    witnesses = (announcement, disabled, kept, others)
    return Judgement(findings=(finding,), witnesses=witnesses, landed=attempt.bytes_moved)


def judge_behaviour(evidence: StepEvidence, attempt: Attempt, behaviour: Behaviour) -> Judgement:
    """Judge an attempt that must land, be blocked for a reason, or be refused silently."""
    match behaviour.kind:
        case "landed":
            return judge_landed(evidence, attempt)
        case "blocked" if attempt.at_host is not None:
            return judge_blocked_by_host(evidence, attempt, attempt.at_host, behaviour.reasons)
        case "blocked":
            return judge_blocked(evidence, attempt, behaviour.reasons)
        case "silent":
            return judge_silent(evidence, attempt)


def judge_expected(evidence: StepEvidence, attempt: Attempt, expected: Expected) -> tuple[Judgement, Conformance]:
    """Judge an attempt by what the specification asks for, and else by what this QEMU is known to do instead."""
    by_spec = judge_behaviour(evidence, attempt, expected.spec)
    if by_spec.outcome is Outcome.PASS:
        return by_spec, Conformance.AS_SPEC
    if expected.qemu is not None and expected.known:
        as_known = judge_behaviour(evidence, attempt, expected.qemu)
        if as_known.outcome is Outcome.PASS:
            text = f"known deviation: {as_known.findings[0].text}, where the specification asks for: {expected.spec}"
            finding = replace(as_known.findings[0], text=text)
            return replace(as_known, findings=(finding,)), Conformance.KNOWN_DEVIATION
    return by_spec, Conformance.NEW_DEVIATION
