"""The judge of one provoked interrupt fault: announced, reported or not, and delivered to the processor or not.

Delivery is what the local APIC tells: of the vectors that wait there, those that did not before the request. Refused
interrupts are put into the fault record and traced as recorded; QEMU has no other trace of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.conformance import Behaviour, Expected
from harness.judgement import Judgement, StepEvidence, single
from harness.provocation.holding import Weighed, first_that_applies, held
from harness.provocation.phases import Phase, Untold, phase, phases_of
from harness.verdict import Conformance, Finding, Outcome, Provoked, Witness, WitnessVerdict
from harness.vtd.faults import describe
from harness.vtd.source_id import SourceId

_CONFIRMS, _DENIES = WitnessVerdict.CONFIRMS, WitnessVerdict.DENIES

#: The requester ID of a DMA write to the interrupt range in QEMU: its memory transaction names nobody
#: (MEMTXATTRS_UNSPECIFIED; vtd_mem_ir_write in hw/i386/intel_iommu.c).
NOBODY = SourceId(0xFFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptRecipe:
    """What a step was to provoke: the device, how it requests the interrupt, and the words for it."""

    device: str
    text: str
    fault_processing_disabled: bool


@dataclass(frozen=True, slots=True)
class _Request:
    """What became of one request, with the reasons not to know it or to be sure of it."""

    unproven: str
    vectors: frozenset[int]
    wanted: int
    reported: Behaviour | None
    index: int | None
    blamed: SourceId | None
    contradiction: str

    @property
    def delivered(self) -> bool:
        return self.wanted in self.vectors

    @property
    def strays(self) -> frozenset[int]:
        return self.vectors - {self.wanted}

    @property
    def behaviour(self) -> Behaviour:
        if self.delivered:
            return Behaviour("landed")
        return self.reported or Behaviour("silent")


def judge_interrupt(evidence: StepEvidence, recipe: InterruptRecipe, expected: Expected) -> Judgement:
    """Judge one provoked interrupt fault: FAIL tells of the unit, ERROR that it is not known what happened."""
    try:
        phases = phases_of(evidence)
        about = phase(phases, "before").observation("recipe").data
        source = SourceId.parse(str(about["source_id"]))
        if evidence.devices.get(recipe.device) != source:
            raise Untold(f"'{recipe.device}' is not {source}, as the step says")
        requests = {name: _request(phase(phases, name), about) for name in ("control", "attack", "healed")}
    except (Untold, KeyError, TypeError, ValueError) as problem:
        said = str(problem) if isinstance(problem, Untold) else f"its evidence cannot be read: {problem!r}"
        return single(Outcome.ERROR, f"{recipe.text}: {said}", evidence.index)
    attack = requests["attack"]
    outcome, text, conformance = _weigh(requests, source, expected, evidence)
    finding = Finding(outcome=outcome, text=f"{recipe.text}: {text}", step=evidence.index)
    witnesses = _witnesses(evidence, requests, expected)
    provoked: tuple[Provoked, ...] = ()
    if conformance is not None:
        provoked = (
            _provoked(
                evidence,
                recipe=recipe,
                about=about,
                attack=attack,
                expected=expected,
                conformance=conformance,
                witnesses=witnesses,
            ),
        )
    return Judgement(findings=(finding,), witnesses=witnesses, landed=attack.delivered, provoked=provoked)


def _request(seen: Phase, about: Mapping[str, Any]) -> _Request:
    pending = seen.observation("pending")
    wanted = int(pending.data["vector"])
    before, after = (frozenset(map(int, pending.data[name])) for name in ("before", "after"))
    if not before <= after:
        raise Untold(f"{pending.ref}: a vector that waited is gone, although nobody took it: {sorted(before - after)}")
    if wanted in before:
        raise Untold(f"{pending.ref}: vector {wanted} waited before the request of the phase '{seen.name}'")
    if about["by"] == "dma":  # what is written is loaded before, and not announced
        told = [(e.data["bdf"], e.data["address"], e.data["length"]) for e in seen.announcements()]
        message = (about["function"], pending.data["address"], 4)
    else:
        told = [(e.data["bdf"], e.data["address"], e.data["message"]) for e in seen.announcements("interrupt")]
        message = (about["function"], pending.data["address"], pending.data["data"])
    unproven = "" if told == [message] else f"announced was {told or 'nothing'}, not one {message}"
    record, status = seen.registers.record, seen.registers.status
    reported = index = blamed = None
    contradiction = ""
    recorded = [(one.source, one.reason) for one in seen.recorded]
    if record.fault and not record.is_interrupt:
        contradiction = f"the fault record holds a refused DMA: {record.as_fault()}"
    elif record.fault:
        index, blamed = record.interrupt_index, record.source
        told_index = None if index == int(about["index"]) else index
        reported = Behaviour("blocked", (record.reason,), nobody=blamed == NOBODY, index=told_index)
        if recorded != [(blamed, record.reason)] or not status.pending:
            contradiction = (
                f"the fault record holds {describe(record.reason)} by {blamed}, the trace tells of {recorded}"
            )
    elif recorded or status.reports:
        contradiction = f"the fault record is empty, the trace tells of {recorded}, FSTS is {status.raw:#x}"
    if seen.traced:
        contradiction = f"a DMA was refused: {seen.traced[0]}"
    return _Request(unproven, after - before, wanted, reported, index, blamed, contradiction)


def _weigh(requests: Mapping[str, _Request], source: SourceId, expected: Expected, evidence: StepEvidence) -> Weighed:
    attack = requests["attack"]
    whole = {name: _undelivered(requests[name]) for name in ("control", "healed")}
    blamed = evidence.name_of(attack.blamed) if attack.blamed is not None else ""
    rules = (
        (bool(attack.unproven), Outcome.ERROR, f"not proven to be issued: {attack.unproven}"),
        (bool(whole["control"]), Outcome.ERROR, f"before: {whole['control']}"),
        (bool(attack.contradiction), Outcome.ERROR, f"the witnesses disagree: {attack.contradiction}"),
        (
            attack.delivered and attack.reported is not None,
            Outcome.ERROR,
            f"contradiction: vector {attack.wanted} was delivered, and yet it was reported: {attack.reported}",
        ),
        (bool(attack.strays), Outcome.FAIL, f"other vectors were delivered: {sorted(attack.strays)}"),
        (
            attack.blamed is not None and attack.blamed not in (source, NOBODY),
            Outcome.FAIL,
            f"{attack.reported}, but it blames {blamed}",
        ),
        (bool(whole["healed"]), Outcome.ERROR, f"healed: {whole['healed']}"),
    )
    return first_that_applies(rules) or held(expected, attack.behaviour, str(attack.behaviour))


def _undelivered(request: _Request) -> str:
    """Tell how a request through whole entries was not delivered; empty if it was."""
    if request.unproven:
        return request.unproven
    if request.contradiction:
        return request.contradiction
    if request.vectors != {request.wanted} or request.reported is not None:
        return f"with whole entries, vectors {sorted(request.vectors)} were delivered, not {request.wanted}"
    return ""


def _witnesses(evidence: StepEvidence, requests: Mapping[str, _Request], expected: Expected) -> tuple[Witness, ...]:
    attack, healed = requests["attack"], _undelivered(requests["control"]) or _undelivered(requests["healed"])
    report = attack.reported or Behaviour("silent")
    kinds = {behaviour.kind for behaviour in expected.allowed}
    reported_well = any(one.covers(report) for one in expected.allowed) or (
        report.kind == "silent" and "landed" in kinds
    )
    vectors = ", ".join(map(str, sorted(attack.vectors))) or "none"

    def witness(name: str, text: str, *, fits: bool) -> Witness:
        return Witness(name=name, step=evidence.index, verdict=_CONFIRMS if fits else _DENIES, evidence=text)

    said = (
        f"{attack.reported}, index {attack.index}, {attack.blamed}" if attack.reported else "the fault record is empty"
    )
    return (
        witness("announcement", attack.unproven or "the device announced the request", fits=not attack.unproven),
        witness("register", said, fits=reported_well),
        witness("recorded", attack.contradiction or "QEMU's trace agrees", fits=not attack.contradiction),
        witness(
            "delivered",
            f"vectors that now wait: {vectors}",
            fits=not attack.strays and ("landed" in kinds if attack.delivered else bool(kinds - {"landed"})),
        ),
        witness("healed", healed or "delivered before and afterwards", fits=not healed),
    )


def _provoked(
    evidence: StepEvidence,
    *,
    recipe: InterruptRecipe,
    about: Mapping[str, Any],
    attack: _Request,
    expected: Expected,
    conformance: Conformance,
    witnesses: tuple[Witness, ...],
) -> Provoked:
    return Provoked(
        step=evidence.index,
        table="interrupt",
        levels=0,
        recipe=recipe.text,
        source=f"{about['model']} {about['source_id']}",
        access="write",
        spec=expected.spec.report,
        seen=attack.behaviour.report,
        fault_processing_disabled=recipe.fault_processing_disabled,
        conformance=conformance,
        why=expected.why if conformance is Conformance.KNOWN_DEVIATION else "",
        witnesses=tuple(witness.name for witness in witnesses if witness.verdict is _CONFIRMS),
    )
