"""From a variant's files to its verdict: a pure function, so that an old run can be judged again without QEMU."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.catalog import steps_of
from harness.evidence import VariantDirectory
from harness.judgement import Judgement, single
from harness.machine.argv import KERNEL_ARGS
from harness.plan import Plan, read_plan
from harness.process import StopRung
from harness.raw_record import disagreements
from harness.scenario.step import Step
from harness.testimony import Testimony, hear, holes
from harness.verdict import CounterProof, Finding, Outcome, Verdict, WitnessVerdict, worst


def judge_variant(directory: VariantDirectory) -> Verdict:
    """Judge one variant by its plan and journal, and by those of its counter-proofs where they were run."""
    plan = read_plan(directory.file("plan.json"))
    own = _judge_run(plan, directory)
    proofs: dict[str, CounterProof] = {}
    findings: list[Finding] = []
    for protection in plan.counter_proofs:
        path = directory.path / "counter" / protection
        if not (path / "plan.json").exists():
            proofs[protection] = CounterProof.NOT_RUN
            if plan.prove and plan.skip is None:
                text = f"the counter-proof {protection} was asked for, but there is no evidence of it"
                findings.append(Finding(outcome=Outcome.ERROR, text=text))
            continue
        proofs[protection], finding = _judge_counter_proof(protection, VariantDirectory(path))
        findings.append(finding)
    outcome = worst([own.outcome, *(finding.outcome for finding in findings)])
    if own.outcome is Outcome.SKIP:
        outcome = Outcome.SKIP
    reason = own.reason if outcome is own.outcome else next(f.text for f in findings if f.outcome is outcome)
    return Verdict(
        outcome=outcome,
        reason=reason,
        findings=(*own.findings, *findings),
        witnesses=own.witnesses,
        counter_proofs=proofs,
        provoked=own.provoked,
        charts=own.charts,
    )


def _judge_run(plan: Plan, directory: VariantDirectory) -> Verdict:
    if plan.skip is not None:
        return Verdict(outcome=Outcome.SKIP, reason=plan.skip)
    if plan.refused is not None:
        return _verdict([_refusal(plan.refused, hear(directory.entries()))], [])
    steps = steps_of(plan.definition)
    seen = _heard(plan, directory, steps)
    judgements = [_judge_step(index, step, seen) for index, step in enumerate(steps)]
    judged = [judgement for judgement in judgements if judgement is not None]
    findings = list(_infrastructure(plan, seen, directory, steps))
    if not judged and not findings:
        findings.append(Finding(outcome=Outcome.ERROR, text="no step of this scenario states what it expects"))
    return _verdict(findings, judged)


def _heard(plan: Plan, directory: VariantDirectory, steps: Sequence[Step]) -> Testimony:
    flooded_from = next((index for index, step in enumerate(steps) if step.floods_log), None)
    return hear(directory.entries(), flooded_from=flooded_from, kernel=plan.machine.kind == "linux")


def _verdict(findings: Sequence[Finding], judged: Sequence[Judgement]) -> Verdict:
    everything = [*findings, *(finding for judgement in judged for finding in judgement.findings)]
    outcome = worst(finding.outcome for finding in everything)
    decisive = [finding for finding in everything if finding.outcome is outcome]
    reason = decisive[0].text if outcome is not Outcome.PASS else _passed(everything)
    witnesses = tuple(witness for judgement in judged for witness in judgement.witnesses)
    return Verdict(
        outcome=outcome,
        reason=reason,
        findings=tuple(everything),
        witnesses=witnesses,
        provoked=tuple(provoked for judgement in judged for provoked in judgement.provoked),
        charts=tuple(chart for judgement in judged for chart in judgement.charts),
    )


def _passed(findings: Sequence[Finding]) -> str:
    count = len(findings)
    return findings[0].text if count == 1 else f"all {count} expectations proven"


def _judge_step(index: int, step: Step, seen: Testimony) -> Judgement | None:
    evidence = seen.steps.get(index)
    name = f"step {index + 1} ({step.keyword})"
    if evidence is None or not evidence.finished:
        return single(Outcome.ERROR, f"{name} did not finish, so nothing is known of it", index)
    if evidence.problems:
        return single(Outcome.ERROR, f"{name}: {evidence.problems[0]}", index)
    if evidence.disabled and not step.may_be_silent:
        text = f"{name}: a DMA was refused without a report, fault processing is disabled (FPD)"
        return single(Outcome.ERROR, text, index, *evidence.disabled[:3])
    return step.judge(evidence)


def _infrastructure(
    plan: Plan, seen: Testimony, directory: VariantDirectory, steps: Sequence[Step]
) -> Iterable[Finding]:
    """Find what makes the whole record untrustworthy, worst first: it explains what else is missing."""
    yield from _cut_short(seen, may_end=bool(steps) and steps[-1].ends_machine)
    if not seen.of("error"):
        for hole in (
            *holes(seen.entries, kernel=plan.machine.kind == "linux"),
            *disagreements(directory, seen.entries),
            *(_other_kernel(plan, seen) if plan.machine.kind == "linux" else ()),
        ):
            yield Finding(outcome=Outcome.ERROR, text=hole)
    for fault in seen.between:
        text = f"a fault outside of any step: {fault}"
        yield Finding(outcome=Outcome.FAIL, text=text, refs=(fault.ref,))


def _other_kernel(plan: Plan, seen: Testimony) -> Iterator[str]:
    """Tell where the guest's kernel does not run with the arguments of the plan: what was proven is not about those."""
    wanted = " ".join((*KERNEL_ARGS, *plan.machine.kernel_args))
    ready = seen.of("ready", "process")
    if not ready:
        yield "the guest never told which arguments its kernel has"
    for entry in ready:
        told = str(entry.data["hello"]["cmdline"])
        if told != wanted:
            yield f"{entry.ref}: the guest's kernel has the arguments '{told}', not '{wanted}'"


def _cut_short(seen: Testimony, *, may_end: bool = False) -> Iterator[Finding]:
    """Find what kept the run from coming to its end: an error, else an end of it or of QEMU that no step noticed.

    QEMU `may_end` where the last step is there to see whether it does.
    """
    errors = seen.of("error")
    for entry in errors:
        yield Finding(outcome=Outcome.ERROR, text=str(entry.data["message"]), step=entry.step, refs=(entry.ref,))
    if errors:
        return
    if not seen.of("end"):
        yield Finding(outcome=Outcome.ERROR, text="the run was cut off: its journal has no end")
    for entry in () if may_end else seen.of("stop", "process"):
        rung, status = entry.data["rung"], entry.data["exit_status"]
        if rung == StopRung.ALREADY_GONE or (rung == StopRung.QUIT and status != 0):
            text = f"QEMU ended on its own with exit status {status}, when all steps were done"
            yield Finding(outcome=Outcome.ERROR, text=text, refs=(entry.ref,))


def _refusal(words: str, seen: Testimony) -> Finding:
    for finding in _cut_short(seen):
        return finding
    refused = seen.of("refused")
    if not refused and seen.of("started"):
        return Finding(outcome=Outcome.FAIL, text=f"QEMU started, although it should have said: {words}")
    if not refused:
        return Finding(outcome=Outcome.ERROR, text="it was not recorded whether QEMU started or refused")
    said, status = str(refused[-1].data["stderr"]).strip(), refused[-1].data["exit_status"]
    if status in (None, -signal.SIGKILL):
        text = "QEMU did not start in time" if status is None else "QEMU was killed before it could refuse anything"
        return Finding(outcome=Outcome.ERROR, text=text, refs=(refused[-1].ref,))
    if words in said and status > 0:
        text = f"QEMU refused it after {refused[-1].data['after_s']} s: {words}"
        return Finding(outcome=Outcome.PASS, text=text, refs=(refused[-1].ref,))
    return Finding(outcome=Outcome.FAIL, text=f"QEMU ended with other words: {said or 'none'}", refs=(refused[-1].ref,))


def _judge_counter_proof(protection: str, directory: VariantDirectory) -> tuple[CounterProof, Finding]:
    """Judge a run without `protection`: every DMA must now reach its target, those that must be blocked included."""
    plan = read_plan(directory.file("plan.json"))
    steps = steps_of(plan.definition)
    seen = _heard(plan, directory, steps)
    where = f"without protection ({protection})"
    unknown = [
        finding.text for finding in _infrastructure(plan, seen, directory, steps) if finding.outcome is Outcome.ERROR
    ]
    attacks: dict[str, bool] = {}
    for index, step in enumerate(steps):
        name = f"step {index + 1} ({step.keyword})"
        try:
            landed = _landed(index, step, seen)
        except ValueError as problem:
            unknown.append(f"{name}: {problem}")
            continue
        if step.expects_block and landed is not None:
            attacks[name] = landed
        elif landed is False:
            unknown.append(f"the positive control in {name} did not land")
    harmless = [name for name, landed in attacks.items() if not landed]
    if unknown:
        proof, outcome, text = CounterProof.NOT_RUN, Outcome.ERROR, f"{where}: {unknown[0]}"
    elif harmless:
        text = f"vacuous: {where}, {harmless[0]} is still harmless, so its block proves nothing"
        proof, outcome = CounterProof.VACUOUS, Outcome.FAIL
    elif not attacks:
        text = f"vacuous: {where} there is no DMA that must be blocked otherwise"
        proof, outcome = CounterProof.VACUOUS, Outcome.FAIL
    else:
        text = f"red as it must be: {where} all that must be blocked reached its target ({len(attacks)})"
        proof, outcome = CounterProof.RED, Outcome.PASS
    return proof, Finding(outcome=outcome, text=text, refs=(str(Path("counter") / protection),))


def _landed(index: int, step: Step, seen: Testimony) -> bool | None:
    """Whether the DMA of a step reached its target, None for a step without one; ValueError says why it is unknown."""
    evidence = seen.steps.get(index)
    if evidence is None or not evidence.finished:
        raise ValueError("did not finish")
    if evidence.problems:
        raise ValueError(evidence.problems[0])
    judgement = step.judge(evidence)
    if judgement is None or judgement.landed is None:
        return None
    for witness in judgement.witnesses:
        if witness.name == "announcement" and witness.verdict is not WitnessVerdict.CONFIRMS:
            raise ValueError(witness.evidence)
    return judgement.landed
