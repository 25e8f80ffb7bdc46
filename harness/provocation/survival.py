"""The judge of a poke that ends some versions of QEMU: its end is the finding, with its exit status and its words."""

from __future__ import annotations

from harness.judgement import Judgement, StepEvidence, single
from harness.verdict import Conformance, Finding, Outcome, Provoked, Witness, WitnessVerdict


def judge_survival(evidence: StepEvidence, text: str, *, words: str | None, known: bool, why: str) -> Judgement:
    """Judge whether QEMU outlived what `text` tells of.

    `words` are those that QEMU dies with where it does, None if no version is known to; `known` is whether this one is.
    """
    told = {entry.data["when"]: entry for entry in evidence.observations("alive")}
    if set(told) != {"before", "after"} or told["before"].data["version"] is None:
        return single(Outcome.ERROR, f"{text}: it was not recorded whether QEMU lived before and after", evidence.index)
    after = told["after"]
    status, said = after.data["exit_status"], str(after.data["stderr"])
    alive = after.data["version"] is not None
    if alive is not (status is None):
        seen = f"its register reads {after.data['version']}, its exit status is {status}"
        return single(Outcome.ERROR, f"{text}: the witnesses disagree: {seen}", evidence.index, after.ref)
    outcome, finding, conformance = _weigh(alive=alive, status=status, said=said, words=words, known=known)
    witnesses = (
        Witness(
            name="register",
            step=evidence.index,
            verdict=WitnessVerdict.CONFIRMS if alive or known else WitnessVerdict.DENIES,
            evidence=f"the version register reads {after.data['version']:#x}" if alive else "no register answers",
            refs=(after.ref,),
        ),
        Witness(
            name="process",
            step=evidence.index,
            verdict=WitnessVerdict.CONFIRMS if alive or known else WitnessVerdict.DENIES,
            evidence="QEMU runs" if alive else f"QEMU ended with status {status}: {_last(said)}",
            refs=(after.ref,),
        ),
    )
    provoked = Provoked(
        step=evidence.index,
        table="queue" if "descriptor" in text else "register",
        levels=0,
        recipe=text,
        source="software",
        access="",
        spec="",
        seen="" if alive else "abort",
        fault_processing_disabled=False,
        conformance=conformance,
        why=why if conformance is Conformance.KNOWN_DEVIATION else "",
        witnesses=("register", "process"),
    )
    judged = Finding(outcome=outcome, text=f"{text}: {finding}", step=evidence.index, refs=(after.ref,))
    return Judgement(findings=(judged,), witnesses=witnesses, provoked=(provoked,))


def _weigh(
    *, alive: bool, status: int | None, said: str, words: str | None, known: bool
) -> tuple[Outcome, str, Conformance]:
    if alive:
        return Outcome.PASS, "QEMU survives and answers", Conformance.AS_SPEC
    end = f"QEMU ended with status {status}: {_last(said)}"
    if known and words is not None and words in said:
        return Outcome.PASS, f"known deviation: {end}", Conformance.KNOWN_DEVIATION
    if known:
        return Outcome.FAIL, f"{end}; it is known for: {words}", Conformance.NEW_DEVIATION
    return Outcome.FAIL, f"{end}; it must survive", Conformance.NEW_DEVIATION


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "no words"
