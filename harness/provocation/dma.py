"""The judge of one provoked DMA fault: first every way not to know what happened, then what did, then what it means.

Seven witnesses tell of the attack: `announcement` (the device was told to issue it), `register` (the fault record),
`trace` (QEMU's report of the refusal), `recorded` (what QEMU put into the record), `bytes` (every place it could have
reached), `others` (nobody else faulted), and `healed` (with whole tables it lands again, as it did before).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.conformance import Behaviour, Expected
from harness.judgement import Judgement, StepEvidence, nobody_faulted, single
from harness.provocation.holding import Weighed, first_that_applies, held
from harness.provocation.moved import Moved
from harness.provocation.phases import Phase, Untold, phase, phases_of
from harness.provocation.reports import Attack, Reports
from harness.verdict import Conformance, Finding, Outcome, Provoked, Witness, WitnessVerdict
from harness.vtd.faults import Access
from harness.vtd.source_id import SourceId

_CONFIRMS, _DENIES, _MISSING = WitnessVerdict.CONFIRMS, WitnessVerdict.DENIES, WitnessVerdict.MISSING

#: Phases with whole tables: the DMA must land in them, and nobody may report anything.
WHOLE = ("control", "healed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a step was to provoke, in the words of its scenario; `address` is None for a page that the tables map.

    `cached` is whether the unit was to know the translation already: QEMU then refuses without a word in its trace
    (vtd_do_iommu_translate goes to `out` on a hit in the IOTLB).
    """

    device: str
    access: Access
    length: int
    address: int | None
    cached: bool
    text: str
    fault_processing_disabled: bool


def judge_provoked(evidence: StepEvidence, recipe: Recipe, expected: Expected) -> Judgement:
    """Judge one provoked fault: FAIL tells of the unit, ERROR that it is not known what happened."""
    try:
        seen = _seen(evidence, recipe)
    except (Untold, KeyError, TypeError, ValueError) as problem:
        return single(Outcome.ERROR, f"{recipe.text}: {_said(problem)}", evidence.index)
    outcome, text, conformance = _weigh(seen, expected)
    finding = Finding(outcome=outcome, text=f"{recipe.text}: {text}", step=evidence.index, refs=seen.attack.refs)
    witnesses = seen.witnesses(evidence, expected)
    provoked = (
        ()
        if conformance is None
        else (
            _provoked(
                evidence,
                recipe=recipe,
                seen=seen,
                expected=expected,
                conformance=conformance,
                witnesses=witnesses,
            ),
        )
    )
    return Judgement(findings=(finding,), witnesses=witnesses, landed=seen.moved.whole, provoked=provoked)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """All that is known of a provoked fault."""

    about: Mapping[str, Any]
    request: Attack
    attack: Phase
    cached: bool
    announced: str
    before: str
    reports: Reports
    moved: Moved
    whole: Mapping[str, str]
    strangers: Witness

    @property
    def behaviour(self) -> Behaviour:
        return Behaviour("landed") if self.moved.whole else self.reports.behaviour

    def witnesses(self, evidence: StepEvidence, expected: Expected) -> tuple[Witness, ...]:
        kinds = {behaviour.kind for behaviour in expected.allowed}
        return (
            _witness(evidence, "announcement", self.announced, "the device announced the DMA"),
            *self.reports.witnesses(evidence, self.request, expected.allowed),
            self.moved.witness(evidence, may_land="landed" in kinds, may_refuse=bool(kinds - {"landed"})),
            self.strangers,
            _witness(evidence, "healed", self.whole["healed"] or self.whole["control"], "landed before and afterwards"),
        )


def _witness(evidence: StepEvidence, name: str, problem: str, text: str) -> Witness:
    return Witness(name=name, step=evidence.index, verdict=_DENIES if problem else _CONFIRMS, evidence=problem or text)


def _seen(evidence: StepEvidence, recipe: Recipe) -> _Seen:
    phases = phases_of(evidence)
    about = phase(phases, "before").observation("recipe").data
    source = SourceId.parse(str(about["source_id"]))
    if evidence.devices.get(recipe.device) != source:
        raise Untold(f"'{recipe.device}' is not {source}, as the step says")
    wanted = about["home"] if recipe.address is None or about["unbroken"] else recipe.address
    if about["address"] != wanted:
        raise Untold(f"the DMA went to {about['address']:#x}, not to {wanted:#x}")
    request = Attack(source, recipe.access, int(about["address"]), recipe.length)
    attack = phase(phases, "attack")
    home = Attack(source, recipe.access, int(about["home"]), recipe.length)
    silent = attack.disabled
    return _Seen(
        about=about,
        request=request,
        attack=attack,
        cached=recipe.cached,
        announced=_announced(attack, about, request),
        before=_clear(phase(phases, "control")),
        reports=Reports.of(attack),
        moved=Moved.of(attack),
        whole={name: _landed(phase(phases, name), about, home) for name in WHOLE},
        strangers=nobody_faulted(evidence, but=source, silently=silent),
    )


def _said(problem: Exception) -> str:
    return str(problem) if isinstance(problem, Untold) else f"its evidence cannot be read: {problem!r}"


def _announced(seen: Phase, about: Mapping[str, Any], request: Attack) -> str:
    """Tell why it is not proven that the device was told to issue exactly this DMA once; empty if it is."""
    wanted = (about["function"], _direction(request.access), request.address, request.length)
    told = [tuple(e.data[key] for key in ("bdf", "direction", "address", "length")) for e in seen.announcements()]
    if told == [wanted]:
        return ""
    return f"announced was {told or 'nothing'}, not one {wanted} in the phase '{seen.name}'"


def _direction(access: Access) -> str:
    return "to-memory" if access is Access.WRITE else "from-memory"


def _clear(seen: Phase) -> str:
    """Tell why the fault registers were not clear when the attack began; empty if they were."""
    registers = seen.registers
    if registers.record.fault or registers.status.reports:
        return f"the fault registers were not clear before: {registers.record.raw:#x}"
    return ""


def _landed(seen: Phase, about: Mapping[str, Any], home: Attack) -> str:
    """Tell how a DMA through whole tables did not land; empty if it did."""
    unproven = _announced(seen, about, home)
    if unproven:
        return unproven
    moved, reports = Moved.of(seen), Reports.of(seen)
    if not reports.none:
        return f"with whole tables it was refused: {reports.fault or 'a fault that is no refused DMA'}"
    if moved.whole and not moved.elsewhere and not seen.disabled:
        return ""
    return f"with whole tables it did not land: {moved}"


def _weigh(seen: _Seen, expected: Expected) -> Weighed:
    """Weigh the witnesses: the first rule that applies decides; what none forbids is compared with what was asked."""
    reports, moved = seen.reports, seen.moved
    arrived = moved.whole or moved.partly
    differs = reports.differences(seen.request)
    rules = (
        (bool(seen.announced), Outcome.ERROR, f"not proven to be issued: {seen.announced}"),
        (bool(seen.whole["control"]), Outcome.ERROR, f"before: {seen.whole['control']}"),
        (bool(seen.before), Outcome.ERROR, seen.before),
        (bool(moved.elsewhere), Outcome.FAIL, f"it reached what no table maps: {moved}"),
        (seen.strangers.verdict is not _CONFIRMS, Outcome.FAIL, seen.strangers.evidence),
        (bool(reports.contradiction), Outcome.ERROR, f"the witnesses disagree: {reports.contradiction}"),
        (arrived and not reports.none, Outcome.ERROR, f"contradiction: {moved}, and yet: {reports.fault}"),
        (arrived and reports.disabled, Outcome.ERROR, f"contradiction: {moved}, and yet it was silently refused"),
        (
            moved.nothing and reports.none and not (reports.disabled or seen.cached),
            Outcome.ERROR,
            "no byte moved, but nothing tells that it was refused",
        ),
        (moved.partly, Outcome.FAIL, f"neither refused nor done: {moved}"),
        (bool(differs), Outcome.FAIL, f"refused, but {differs}: {reports.fault}"),
        (bool(seen.whole["healed"]), Outcome.ERROR, f"healed: {seen.whole['healed']}"),
    )
    return first_that_applies(rules) or held(expected, seen.behaviour, f"{seen.behaviour}; {moved}")


def _provoked(
    evidence: StepEvidence,
    *,
    recipe: Recipe,
    seen: _Seen,
    expected: Expected,
    conformance: Conformance,
    witnesses: tuple[Witness, ...],
) -> Provoked:
    return Provoked(
        step=evidence.index,
        table=str(seen.about["translation"]),
        levels=int(seen.about["levels"]),
        recipe=recipe.text,
        source=f"{seen.about['model']} {seen.request.source}",
        access=str(recipe.access),
        spec=expected.spec.report,
        seen=seen.behaviour.report,
        fault_processing_disabled=recipe.fault_processing_disabled,
        conformance=conformance,
        why=expected.why if conformance is Conformance.KNOWN_DEVIATION else "",
        witnesses=tuple(witness.name for witness in witnesses if witness.verdict is _CONFIRMS),
    )
