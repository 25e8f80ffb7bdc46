"""From a variant's files to its verdict: a pure function, so that an old run can be judged again without QEMU.

What is decisive is what came first. A failure whose evidence is whole up to the end of its step stands (`standing`):
nothing that is missing or contradictory later can take it back. A hole before it, or in it, leaves nothing known.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.catalog import steps_of
from harness.errors import HarnessError
from harness.evidence import Entry, VariantDirectory
from harness.forms.check import readable
from harness.judgement import Judgement, StepEvidence, single
from harness.likely_cause import explained
from harness.machine.argv import KERNEL_ARGS
from harness.plan import Plan, read_plan
from harness.process import StopRung
from harness.raw_record import disagreements
from harness.run_record import flaws
from harness.scenario.step import Step
from harness.standing import Standing, standing
from harness.testimony import Testimony, agreed, agreed_between, hear, holes, step_evidence
from harness.verdict import CounterProof, Finding, Outcome, Verdict, WitnessVerdict, worst


def judge_variant(directory: VariantDirectory) -> Verdict:
    """Judge one variant by its plan and journal, and by those of its counter-proofs where they were run.

    A damaged file is an ERROR that names it, and the line of a journal. HarnessError if there is no plan to judge by.
    """
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
        proofs[protection], finding = _read_counter_proof(protection, VariantDirectory(path))
        findings.append(finding)
    outcome = _overall(own.outcome, [finding.outcome for finding in findings])
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


def _overall(own: Outcome, proofs: Sequence[Outcome]) -> Outcome:
    """Weigh the variant's own outcome and those of its counter-proofs, each of which has a machine and a record apart.

    So what one of them does not know takes nothing back that another has shown: the variant's own failure, or, where
    that passed, a vacuous counter-proof.
    """
    if own in (Outcome.SKIP, Outcome.FAIL):
        return own
    if own is Outcome.PASS and Outcome.FAIL in proofs:
        return Outcome.FAIL
    return worst([own, *proofs])


def _judge_run(plan: Plan, directory: VariantDirectory) -> Verdict:
    if plan.skip is not None:
        return Verdict(outcome=Outcome.SKIP, reason=plan.skip)
    entries, damaged = directory.undamaged()
    if plan.refused is not None:
        return _verdict([*_damage(damaged), _refusal(plan, plan.refused, hear(entries))], [])
    steps = _steps(plan)
    stands = _standing(plan, directory, steps, entries)
    findings: list[Finding] = [*_damage(damaged)]
    judgements: dict[int, Judgement | None] = {}
    try:
        seen = _heard(plan, entries, steps)
        findings += _infrastructure(plan, seen, directory, steps)
        judgements = {index: _judge_step(index, step, seen) for index, step in enumerate(steps)}
    except UNREADABLE as problem:
        findings.append(Finding(outcome=Outcome.ERROR, text=f"the record cannot be read: {problem!r}"))
    if stands is not None:
        judgements |= stands.judgements
    judged = [judgements[index] for index in sorted(judgements)]
    told = [explained(judgement, steps, plan.steps) for judgement in judged if judgement is not None]
    if not told and not findings:
        findings.append(Finding(outcome=Outcome.ERROR, text="no step of this scenario states what it expects"))
    return _verdict(findings, told, stands)


def _steps(plan: Plan) -> tuple[Step, ...]:
    """Give the steps of a plan; HarnessError where what it keeps of its scenario is damaged."""
    try:
        return steps_of(plan.definition)
    except (ValueError, TypeError, KeyError) as problem:
        text = f"the plan of {plan.id} does not hold the steps of a scenario: {problem}"
        raise HarnessError(text, hint="its plan.json was changed, or is of another version of the harness") from None


def _damage(told: str | None) -> Iterator[Finding]:
    if told is not None:
        yield Finding(outcome=Outcome.ERROR, text=f"{told}, so nothing is known from there on")


def _standing(
    plan: Plan, directory: VariantDirectory, steps: Sequence[Step], entries: Sequence[Entry]
) -> Standing | None:
    """Find the failure that stands, whatever comes after it."""
    fine, damaged = readable(entries)

    def judge(index: int, before: Sequence[Entry]) -> Judgement | None:
        problem = next((problem for entry, problem in damaged if entry.line <= before[-1].line), None)
        if problem is not None:
            return single(Outcome.ERROR, problem, index)
        return _judge_step_within(plan, index, steps, before)

    return standing(
        steps,
        fine,
        judge=judge,
        strays=_strayed,
        holes=lambda before: _holes_before(plan, directory, before),
    )


def _flooded_from(steps: Sequence[Step]) -> int | None:
    return next((index for index, step in enumerate(steps) if step.floods_log), None)


def _heard(plan: Plan, entries: Sequence[Entry], steps: Sequence[Step]) -> Testimony:
    return hear(entries, flooded_from=_flooded_from(steps), kernel=plan.machine.kind == "linux")


def _judge_step_within(plan: Plan, index: int, steps: Sequence[Step], entries: Sequence[Entry]) -> Judgement | None:
    """Judge a step by `entries` alone, which end with it."""
    kernel = plan.machine.kind == "linux"
    try:
        evidence = step_evidence(index, entries, flooded_from=_flooded_from(steps), kernel=kernel)
        judgement = _judge_step(index, steps[index], Testimony({index: evidence}, (), tuple(entries)))
        if judgement is None or judgement.outcome is not Outcome.FAIL or not kernel or agreed(evidence):
            return judgement
        return single(Outcome.ERROR, f"step {index + 1}: log, console and trace do not tell the same", index)
    except UNREADABLE as problem:
        return single(Outcome.ERROR, f"step {index + 1} cannot be read: {problem!r}", index)


def _strayed(entries: Sequence[Entry]) -> bool:
    """Tell whether a fault between steps is proven by `entries`; one that cannot be read is none."""
    try:
        return agreed_between(entries)
    except UNREADABLE:
        return False


def _holes_before(plan: Plan, directory: VariantDirectory, entries: Sequence[Entry]) -> list[str]:
    """Tell what keeps `entries`, which end with a step, from being relied on, whatever comes after them."""
    seen = Testimony({}, (), tuple(entries))
    kernel = plan.machine.kind == "linux"
    # The trace of a machine on a lab host is stamped by another clock than the journal.
    until = entries[-1].t if plan.lab is None else None
    try:
        return [
            *(str(entry.data["message"]) for entry in seen.of("error")),
            *flaws(plan, entries, whole=False),
            *holes(entries, kernel=kernel, whole=False),
            *disagreements(directory, entries, kernel=kernel, until=until),
            *(_other_kernel(plan, seen) if kernel else ()),
        ]
    except UNREADABLE as problem:
        return [repr(problem)]


def _verdict(findings: Sequence[Finding], judged: Sequence[Judgement], stands: Standing | None = None) -> Verdict:
    everything = [*findings, *(finding for judgement in judged for finding in judgement.findings)]
    outcome = worst(finding.outcome for finding in everything)
    if stands is not None:
        outcome = Outcome.FAIL
    first = None if stands is None else stands.step
    decisive = [f for f in everything if f.outcome is outcome and (stands is None or f.step == first)]
    if not decisive:  # what stands between two steps may be unreadable with what comes later
        decisive = [Finding(outcome=outcome, text="a fault outside of any step")]
        everything += decisive
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
    try:
        return step.judge(evidence)
    except UNREADABLE as problem:
        return single(Outcome.ERROR, f"{name}: {_unweighed(evidence, problem)}", index)


#: What a judge trips over in entries that have their form, each, but do not fit each other.
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def _unweighed(evidence: StepEvidence, problem: Exception) -> str:
    first, last = evidence.entries[0].ref, evidence.entries[-1].ref
    return f"its evidence ({first} to {last}) does not fit together: {type(problem).__name__}: {problem}"


def _infrastructure(
    plan: Plan, seen: Testimony, directory: VariantDirectory, steps: Sequence[Step]
) -> Iterable[Finding]:
    """Find what makes the whole record untrustworthy, worst first: it explains what else is missing."""
    yield from _cut_short(seen, may_end=bool(steps) and steps[-1].ends_machine)
    for problem in seen.damaged:
        yield Finding(outcome=Outcome.ERROR, text=problem)
    if not seen.of("error"):
        for hole in (
            *flaws(plan, seen.entries),
            *holes(seen.entries, kernel=plan.machine.kind == "linux"),
            *disagreements(directory, seen.entries, kernel=plan.machine.kind == "linux"),
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


def _refusal(plan: Plan, words: str, seen: Testimony) -> Finding:
    damaged = (Finding(outcome=Outcome.ERROR, text=problem) for problem in (*seen.damaged, *flaws(plan, seen.entries)))
    for finding in (*_cut_short(seen), *damaged):
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


def _read_counter_proof(protection: str, directory: VariantDirectory) -> tuple[CounterProof, Finding]:
    """Judge a run without `protection`; one whose record cannot be read says nothing."""
    try:
        return _judge_counter_proof(protection, directory)
    except (HarnessError, *UNREADABLE) as problem:
        text = f"without protection ({protection}): its record cannot be read: {problem!r}"
        refs = (str(Path("counter") / protection),)
        return CounterProof.NOT_RUN, Finding(outcome=Outcome.ERROR, text=text, refs=refs)


def _judge_counter_proof(protection: str, directory: VariantDirectory) -> tuple[CounterProof, Finding]:
    """Judge a run without `protection`: every DMA must now reach its target, those that must be blocked included."""
    plan = read_plan(directory.file("plan.json"))
    steps = _steps(plan)
    entries, damaged = directory.undamaged()
    seen = _heard(plan, entries, steps)
    where = f"without protection ({protection})"
    if plan.protection_removed != protection:
        text = f"{where}: what was run there is without {plan.protection_removed or 'nothing'}"
        return CounterProof.NOT_RUN, Finding(outcome=Outcome.ERROR, text=text)
    infrastructure = (*_damage(damaged), *_infrastructure(plan, seen, directory, steps))
    unknown = [finding.text for finding in infrastructure if finding.outcome is Outcome.ERROR]
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
    try:
        judgement = step.judge(evidence)
    except UNREADABLE as problem:
        raise ValueError(_unweighed(evidence, problem)) from None
    if judgement is None or judgement.landed is None:
        return None
    for witness in judgement.witnesses:
        if witness.name == "announcement" and witness.verdict is not WitnessVerdict.CONFIRMS:
            raise ValueError(witness.evidence)
    return judgement.landed
