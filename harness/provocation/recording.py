"""The judge of how faults are recorded: what the record holds after each of a series of actions, and what is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.conformance import Behaviour, Expected
from harness.judgement import Judgement, StepEvidence, single
from harness.provocation.moved import Moved
from harness.provocation.phases import Phase, Untold, phase, phases_of
from harness.verdict import Conformance, Finding, Outcome, Provoked, Witness, WitnessVerdict
from harness.vtd.faults import REASON_BY_CODE
from harness.vtd.source_id import SourceId

#: Trace events of the messages that QEMU sends for the unit.
_SENT = ("trace", "event")


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One action and what must hold after it.

    `fault` is the device that is refused a DMA, None for an action on the registers. `holds` is the device whose fault
    stands in the record (None: nothing), `overflow` whether FSTS.PFO is set, `sent` how many fault events were sent
    because of the action, `pending` whether one waits. `unlike_spec` is the cause where the specification asks for the
    opposite of `pending`.
    """

    text: str
    fault: str | None
    holds: str | None
    overflow: bool
    sent: int
    pending: bool
    unlike_spec: str = ""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What held after an action; `moved` tells what became of the DMA, if it was one."""

    holds: SourceId | None
    reason: int | None
    overflow: bool
    sent: int
    pending: bool
    refused: bool
    recorded: tuple[SourceId, ...]
    moved: Moved | None
    announced: bool
    ref: str

    @classmethod
    def of(cls, seen: Phase) -> _Seen:
        """Read one phase; Untold if its registers or bytes are missing."""
        registers = seen.registers
        dma = bool(seen.of("observation", "bytes"))
        return cls(
            holds=registers.record.source if registers.record.fault else None,
            reason=registers.record.reason if registers.record.fault else None,
            overflow=bool(registers.status.overflow),
            sent=len(seen.of(*_SENT)),
            pending=bool(registers.event.interrupt_pending),
            refused=bool(seen.traced),
            recorded=tuple(one.source for one in seen.recorded),
            moved=Moved.of(seen) if dma else None,
            announced=len(seen.announcements()) == 1,
            ref=registers.ref,
        )


def judge_recording(evidence: StepEvidence, actions: Sequence[Action], message: tuple[int, int]) -> Judgement:
    """Judge a series of actions; `message` is address and data of the fault event that was programmed."""
    try:
        phases = phases_of(evidence)
        seen = [_Seen.of(phase(phases, str(number))) for number in range(1, len(actions) + 1)]
        strays = [e.ref for e in evidence.entries if (e.source, e.kind) == _SENT and _message(e.data) != message]
        control = {name: Moved.of(one) for name, one in phases.items() if name.startswith("control")}
    except (Untold, KeyError, TypeError, ValueError) as problem:
        said = str(problem) if isinstance(problem, Untold) else f"its evidence cannot be read: {problem!r}"
        return single(Outcome.ERROR, said, evidence.index)
    faulting = [one for one, action in zip(seen, actions, strict=True) if action.fault is not None]
    landed = all(one.moved is not None and one.moved.whole for one in faulting)
    if len(control) < len({action.fault for action in actions if action.fault}) or not all(
        moved.whole for moved in control.values()
    ):
        return single(Outcome.ERROR, "not every device's DMA landed before anything was broken", evidence.index)
    findings, previous = [], None
    for number, (one, action) in enumerate(zip(seen, actions, strict=True), start=1):
        outcome, text = _weigh(evidence, one, previous, action)
        findings.append(
            Finding(outcome=outcome, text=f"{number}. {action.text}: {text}", step=evidence.index, refs=(one.ref,))
        )
        previous = one
    if strays:
        text = "a message was sent that is not the fault event"
        findings.append(Finding(outcome=Outcome.FAIL, text=text, step=evidence.index, refs=tuple(strays)))
    witnesses = _witnesses(evidence, seen, actions, findings)
    provoked = tuple(
        _provoked(evidence, one, action, finding)
        for one, action, finding in zip(seen, actions, findings, strict=False)
        if action.fault is not None and finding.outcome is not Outcome.ERROR
    )
    provoked += tuple(
        _deviating(evidence, one, action)
        for one, action, finding in zip(seen, actions, findings, strict=False)
        if action.unlike_spec and finding.outcome is Outcome.PASS
    )
    return Judgement(findings=tuple(findings), witnesses=witnesses, landed=landed, provoked=provoked)


def _message(data: dict[str, int]) -> tuple[int, int]:
    return int(data["address"]), int(data["data"])


def _weigh(evidence: StepEvidence, seen: _Seen, previous: _Seen | None, action: Action) -> tuple[Outcome, str]:
    """Weigh one action: first what keeps it from being known, then each thing that must hold."""
    unknown = _unknown(seen, previous, faulting=action.fault is not None)
    wrong = "; ".join(_unlike(evidence, seen, action))
    if unknown is not None:
        return unknown
    if wrong:
        return Outcome.FAIL, wrong
    if action.unlike_spec and seen.pending is action.pending:
        return Outcome.PASS, f"known deviation: a fault event {_waits(seen.pending)} ({action.unlike_spec})"
    overflow = ", overflow" if seen.overflow else ""
    sent = f", {seen.sent} sent" if seen.sent else ""
    pending = ", one pending" if seen.pending else ""
    return Outcome.PASS, f"the record holds {seen.holds or 'nothing'}{overflow}{sent}{pending}"


def _unknown(seen: _Seen, previous: _Seen | None, *, faulting: bool) -> tuple[Outcome, str] | None:
    """Tell why it is not known what happened, or that a DMA was not refused, or one that nobody issued was."""
    moved = seen.moved
    new = seen.holds if previous is None or seen.holds != previous.holds else None
    misrecorded = bool(set(seen.recorded) - {seen.holds}) or (new is not None and new not in seen.recorded)
    recorded = ", ".join(map(str, seen.recorded)) or "nothing"
    traced = "traced as refused" if seen.refused else "not traced as refused"
    arrived = moved is not None and not moved.nothing
    rules = (
        (faulting and (moved is None or not seen.announced), Outcome.ERROR, "the DMA is not proven to be issued"),
        (faulting and arrived and not seen.refused, Outcome.FAIL, f"not refused: {moved}"),
        (
            faulting and (arrived or not seen.refused),
            Outcome.ERROR,
            f"the witnesses disagree: {moved}, but it was {traced}",
        ),
        (not faulting and seen.refused, Outcome.FAIL, "a DMA was refused, although none was issued"),
        (
            misrecorded,
            Outcome.ERROR,
            f"the witnesses disagree: the record holds {seen.holds}, traced as recorded: {recorded}",
        ),
    )
    return next(((outcome, text) for applies, outcome, text in rules if applies), None)


def _unlike(evidence: StepEvidence, seen: _Seen, action: Action) -> list[str]:
    """Tell what is not as the action says; whether an event waits is left open where QEMU is known to differ."""
    holds = None if action.holds is None else evidence.devices[action.holds]
    rules = (
        (seen.holds == holds, f"the record holds {seen.holds or 'nothing'}, not {holds or 'nothing'}"),
        (seen.overflow is action.overflow, f"overflow is {_set(seen.overflow)}"),
        (seen.sent == action.sent, f"{seen.sent} fault events were sent, not {action.sent}"),
        (seen.pending is action.pending or bool(action.unlike_spec), f"a fault event {_waits(seen.pending)}"),
    )
    return [text for right, text in rules if not right]


def _waits(pending: object) -> str:
    return "is pending" if pending else "is not pending"


def _set(bit: object) -> str:
    return "set" if bit else "clear"


def _witnesses(
    evidence: StepEvidence, seen: Sequence[_Seen], actions: Sequence[Action], findings: Sequence[Finding]
) -> tuple[Witness, ...]:
    right = all(finding.outcome is Outcome.PASS for finding in findings)
    refused = sum(one.refused for one in seen)
    faults = sum(action.fault is not None for action in actions)
    told = {
        "register": ("; ".join(finding.text for finding in findings if finding.outcome is not Outcome.PASS), right),
        "trace": (f"QEMU traced {refused} refused DMAs of {faults}", refused == faults),
        "event": (f"{sum(one.sent for one in seen)} fault events were sent", right),
        "bytes": ("no place changed", all(one.moved is None or one.moved.nothing for one in seen)),
    }
    return tuple(
        Witness(
            name=name,
            step=evidence.index,
            verdict=WitnessVerdict.CONFIRMS if fits else WitnessVerdict.DENIES,
            evidence=text or "the record and the status are as expected after each action",
        )
        for name, (text, fits) in told.items()
    )


def _provoked(evidence: StepEvidence, seen: _Seen, action: Action, finding: Finding) -> Provoked:
    """Give one fault of the series: a spec of nothing means that it must not be recorded."""
    about = next(e for e in evidence.entries if (e.source, e.kind) == ("observation", "recipe")).data
    new = action.fault is not None and evidence.devices[action.fault] in seen.recorded
    reason = REASON_BY_CODE.get(seen.reason or 0)
    name = reason.name if reason else ""
    asked = Expected(spec=Behaviour("blocked"))
    as_spec = finding.outcome is Outcome.PASS
    return Provoked(
        step=evidence.index,
        table=str(about["translation"]),
        levels=int(about["levels"]),
        recipe=action.text,
        source=f"{about['models'][action.fault]} {evidence.devices[action.fault or '']}",
        access="write",
        spec=name if (new if as_spec else not new) else asked.spec.report,
        seen=name if new else "",
        fault_processing_disabled=False,
        conformance=Conformance.AS_SPEC if as_spec else Conformance.NEW_DEVIATION,
        witnesses=("register", "trace", "event", "bytes") if as_spec else (),
    )


def _deviating(evidence: StepEvidence, seen: _Seen, action: Action) -> Provoked:
    """Give an action on the registers after which QEMU is known to differ."""
    known = seen.pending is action.pending
    return Provoked(
        step=evidence.index,
        table="register",
        levels=0,
        recipe=action.text,
        source="software",
        access="write",
        spec=f"a fault event {_waits(not action.pending)}",
        seen=f"a fault event {_waits(seen.pending)}",
        fault_processing_disabled=False,
        conformance=Conformance.KNOWN_DEVIATION if known else Conformance.AS_SPEC,
        why=action.unlike_spec if known else "",
        witnesses=("register",),
    )
