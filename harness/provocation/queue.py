"""The judge of one provoked error of the invalidation queue.

The unit must stop with its head on the bad descriptor, report the error (FSTS.IQE) and raise the fault event, and go on
once the descriptor is mended. Three witnesses tell: `memory` (the descriptor stands there), `register` (head and
status), `event` (the fault event, pending because it is masked).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.conformance import Behaviour, Expected
from harness.evidence import Entry
from harness.judgement import Judgement, StepEvidence, nobody_faulted, single
from harness.provocation.holding import Weighed, first_that_applies, held
from harness.provocation.phases import Phase, Untold, phase, phases_of
from harness.verdict import Conformance, Finding, Outcome, Provoked, Witness, WitnessVerdict
from harness.vtd.registers import FaultEventControl, FaultStatus

_CONFIRMS, _DENIES = WitnessVerdict.CONFIRMS, WitnessVerdict.DENIES

#: What the atlas calls a queue error: QEMU gives no more detail (IQERCD reads 0).
QUEUE_ERROR = "invalidation-queue-error"


@dataclass(frozen=True, slots=True)
class _Submitted:
    """What became of one descriptor."""

    unproven: str
    status: FaultStatus
    event: FaultEventControl
    head: int
    offset: int
    following: int
    ref: str

    @property
    def taken(self) -> bool:
        return not self.status.queue_error and self.head == self.following

    @property
    def behaviour(self) -> Behaviour | None:
        """What was seen; None where the registers contradict each other."""
        if self.taken:
            return Behaviour("landed")
        if self.head != self.offset:
            return None
        return Behaviour("blocked" if self.status.queue_error else "silent")

    def __str__(self) -> str:
        error = "IQE is set" if self.status.queue_error else "IQE is clear"
        where = {self.offset: "on the descriptor", self.following: "behind the descriptor"}
        return f"{error}, the head stands {where.get(self.head, f'at {self.head:#x}')}"


def judge_queue(evidence: StepEvidence, text: str, expected: Expected, *, mended: bool = True) -> Judgement:
    """Judge one provoked queue error: FAIL tells of the unit, ERROR that it is not known what happened.

    `mended` is whether the queue was mended, so that it must have gone on.
    """
    try:
        phases = phases_of(evidence)
        about = phase(phases, "before").observation("recipe").data
        names = ("control", "attack", "healed") if mended else ("control", "attack")
        seen = {name: _submitted(phase(phases, name)) for name in names}
    except (Untold, KeyError, TypeError, ValueError) as problem:
        said = str(problem) if isinstance(problem, Untold) else f"its evidence cannot be read: {problem!r}"
        return single(Outcome.ERROR, f"{text}: {said}", evidence.index)
    attack = seen["attack"]
    strangers = nobody_faulted(evidence)
    outcome, told, conformance = _weigh(seen, strangers, expected)
    finding = Finding(outcome=outcome, text=f"{text}: {told}", step=evidence.index, refs=(attack.ref,))
    witnesses = _witnesses(evidence, seen, strangers, expected)
    provoked: tuple[Provoked, ...] = ()
    if conformance is not None and attack.behaviour is not None:
        provoked = (
            _provoked(
                evidence,
                text=text,
                about=about,
                behaviour=attack.behaviour,
                expected=expected,
                conformance=conformance,
                witnesses=witnesses,
            ),
        )
    return Judgement(findings=(finding,), witnesses=witnesses, landed=attack.taken, provoked=provoked)


def _submitted(seen: Phase) -> _Submitted:
    """Read one phase; Untold if the registers were not read."""
    told = seen.observation("submitted")
    readings = seen.of("register", "queue")
    if not readings:
        raise Untold(f"the queue's registers were not read in the phase '{seen.name}'")
    data = readings[-1].data
    return _Submitted(
        unproven=_unproven(seen, told),
        status=FaultStatus(int(data["fsts"])),
        event=seen.registers.event,
        head=int(data["head"]),
        offset=int(told.data["offset"]),
        following=int(told.data["following"]),
        ref=readings[-1].ref,
    )


def _unproven(seen: Phase, told: Entry) -> str:
    """Tell why it is not proven that the unit was given this descriptor; empty if it is."""
    digest = told.data["sha256"]
    descriptor = str(told.data.get("descriptor", ""))
    if digest is not None and descriptor and hashlib.sha256(bytes.fromhex(descriptor)).hexdigest() != digest:
        return f"the descriptor is not the one of that digest: {descriptor}"
    if digest is None:  # the queue lies where there is no memory
        return ""
    read = [entry for entry in seen.of("memory", "read") if entry.data["sha256"] == digest]
    if any(entry.data["gpa"] == told.data["gpa"] for entry in read):
        return ""
    return f"the descriptor was not read back from {told.data['gpa']:#x}"


def _weigh(seen: Mapping[str, _Submitted], strangers: Witness, expected: Expected) -> Weighed:
    attack = seen["attack"]
    stuck = {
        name: one.unproven or ("" if one.taken else f"a good descriptor: {one}")
        for name, one in seen.items()
        if name != "attack"
    }
    rules = (
        (bool(attack.unproven), Outcome.ERROR, f"not proven to be submitted: {attack.unproven}"),
        (bool(stuck["control"]), Outcome.ERROR, f"before: {stuck['control']}"),
        (strangers.verdict is not _CONFIRMS, Outcome.FAIL, strangers.evidence),
        (attack.behaviour is None, Outcome.FAIL, f"neither taken nor refused: {attack}"),
        (
            bool(attack.status.queue_error) is not bool(attack.event.interrupt_pending),
            Outcome.ERROR,
            f"the witnesses disagree: {attack}, FECTL is {attack.event.raw:#x}",
        ),
        (bool(stuck.get("healed")), Outcome.FAIL, f"the queue does not go on once mended: {stuck.get('healed')}"),
    )
    return first_that_applies(rules) or held(expected, attack.behaviour or Behaviour("silent"), str(attack))


def _witnesses(
    evidence: StepEvidence, seen: Mapping[str, _Submitted], strangers: Witness, expected: Expected
) -> tuple[Witness, ...]:
    attack = seen["attack"]
    allowed = attack.behaviour is not None and any(one.covers(attack.behaviour) for one in expected.allowed)
    agrees = bool(attack.status.queue_error) is bool(attack.event.interrupt_pending)
    going = all(one.taken for name, one in seen.items() if name != "attack")

    def witness(name: str, text: str, *, fits: bool) -> Witness:
        return Witness(name=name, step=evidence.index, verdict=_CONFIRMS if fits else _DENIES, evidence=text)

    when = "before and afterwards" if "healed" in seen else "before"
    event = "a fault event is pending" if attack.event.interrupt_pending else "no fault event is pending"
    return (
        witness("memory", attack.unproven or "the descriptor stands in the queue", fits=not attack.unproven),
        witness("register", str(attack), fits=allowed),
        witness("event", event, fits=agrees),
        strangers,
        witness("healed", f"the queue takes good descriptors {when}" if going else "stuck", fits=going),
    )


def _provoked(
    evidence: StepEvidence,
    *,
    text: str,
    about: Mapping[str, Any],
    behaviour: Behaviour,
    expected: Expected,
    conformance: Conformance,
    witnesses: tuple[Witness, ...],
) -> Provoked:
    return Provoked(
        step=evidence.index,
        table="queue",
        levels=0,
        recipe=text,
        source=f"{about['bits']}-bit descriptors",
        access="",
        spec=QUEUE_ERROR if expected.spec.kind == "blocked" else "",
        seen=QUEUE_ERROR if behaviour.kind == "blocked" else "",
        fault_processing_disabled=False,
        conformance=conformance,
        why=expected.why if conformance is Conformance.KNOWN_DEVIATION else "",
        witnesses=tuple(witness.name for witness in witnesses if witness.verdict is _CONFIRMS),
    )
