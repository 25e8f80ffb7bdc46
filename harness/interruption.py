"""The proof of an interrupt message under Linux, refused or delivered: pure functions over the evidence of a step.

Six witnesses tell of it: `announcement` (the device was told to send it), `guest-log` and `console` (the INTR-REMAP
line of the guest's kernel), `host-trace` (what QEMU put into the fault record), `count` (how many interrupts the kernel
has handed on), and `others` (nothing else was refused).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.conformance import Behaviour, Expected
from harness.evidence import Entry
from harness.judgement import Judgement, StepEvidence, single
from harness.provocation.holding import Weighed, first_that_applies, held
from harness.verdict import Conformance, Finding, Outcome, Provoked, Witness, WitnessVerdict
from harness.vtd.fault_record import FaultRecord
from harness.vtd.faults import describe
from harness.vtd.source_id import SourceId
from harness.witnesses.guest_log import kernel_lines, logged_faults

#: What a fault record names where the request came without its requester ID, as QEMU's DMA to the interrupt range does
#: (MEMTXATTRS_UNSPECIFIED; vtd_mem_ir_write in hw/i386/intel_iommu.c). Linux shows it as ff:1f.7.
NOBODY = SourceId(0xFFFF)

#: Bytes of an interrupt request (VT-d spec 3.14).
_MESSAGE_BYTES = 4

_RECORD = re.compile(r"high 0x([0-9a-f]+) low 0x([0-9a-f]+)")
_CONFIRMS, _DENIES, _MISSING = WitnessVerdict.CONFIRMS, WitnessVerdict.DENIES, WitnessVerdict.MISSING


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused interrupt as one witness tells it."""

    source: SourceId
    reason: int
    index: int

    def __str__(self) -> str:
        return f"interrupt {self.index:#x} of {self.source}, reason {describe(self.reason)}"


def judge_message(evidence: StepEvidence, expected: Expected) -> Judgement:
    """Judge the one interrupt message of a step; FAIL tells of the unit, ERROR that it is not known what happened."""
    observed = evidence.observation("msi")
    if observed is None:
        return single(Outcome.ERROR, "the interrupt message was never sent", evidence.index)
    seen = _Seen.of(evidence, observed)
    if evidence.devices.get(str(seen.about["device"])) != seen.source:
        text = f"'{seen.about['device']}' is not {seen.source}, as the step says"
        return single(Outcome.ERROR, text, evidence.index, observed.ref)
    outcome, text, conformance = _weigh(seen, expected)
    said = f"the interrupt of '{seen.about['device']}'{' by DMA' if seen.by_dma else ''}"
    finding = Finding(outcome=outcome, text=f"{said}: {text}", step=evidence.index, refs=(observed.ref,))
    witnesses = seen.witnesses(evidence, expected)
    landed = seen.came == 1
    if conformance is None:
        return Judgement(findings=(finding,), witnesses=witnesses, landed=landed)
    provoked = (_provoked(evidence, seen, expected, conformance, witnesses),) if seen.about["attack"] else ()
    return Judgement(findings=(finding,), witnesses=witnesses, landed=landed, provoked=provoked)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """All that is known of the message: what was told of it, and the entries that tell so."""

    about: Mapping[str, Any]
    announced: tuple[Entry, ...]
    logged: tuple[Refusal, ...]
    lines: tuple[Entry, ...]
    shown: tuple[Refusal, ...]
    traced: tuple[Refusal, ...]
    trace_refs: tuple[str, ...]
    dma_faults: tuple[str, ...]

    @classmethod
    def of(cls, evidence: StepEvidence, observed: Entry) -> _Seen:
        about = observed.data
        logged, lines = _lines(evidence, "kmsg")
        recorded = [entry for entry in evidence.entries if (entry.source, entry.kind) == ("trace", "recorded")]
        interrupts = [(record, entry) for entry in recorded if (record := _record(entry)).is_interrupt]
        return cls(
            about=about,
            announced=_announced(evidence, about),
            logged=logged,
            lines=lines,
            shown=_lines(evidence, "console")[0],
            traced=tuple(Refusal(record.source, record.reason, record.interrupt_index) for record, _ in interrupts),
            trace_refs=tuple(entry.ref for _, entry in interrupts),
            dma_faults=tuple(str(fault) for fault in (*evidence.logged, *evidence.traced)),
        )

    @property
    def by_dma(self) -> bool:
        return bool(self.about["by"] == "dma")

    @property
    def source(self) -> SourceId:
        return SourceId.parse(str(self.about["source_id"]))

    @property
    def came(self) -> int:
        """How many interrupts the guest's kernel handed on during the step."""
        return int(self.about["after"]) - int(self.about["before"])

    @property
    def refused(self) -> Refusal | None:
        return self.logged[0] if self.logged else None

    @property
    def behaviour(self) -> Behaviour:
        if self.came:
            return Behaviour("landed")
        if self.refused is None:
            return Behaviour("silent")
        return Behaviour("blocked", (self.refused.reason,), nobody=self.refused.source == NOBODY)

    @property
    def stranger(self) -> str:
        """What else was refused during the step; empty if nothing was."""
        others = [str(one) for one in (*self.logged, *self.traced) if one.index != self.about["index"]]
        return next(iter((*self.dma_faults, *others)), "")

    def witnesses(self, evidence: StepEvidence, expected: Expected) -> tuple[Witness, ...]:
        may_land = any(one.kind == "landed" for one in expected.allowed)
        must_report = all(one.kind == "blocked" for one in expected.allowed)
        wanted = 1 if may_land and not self.refused else 0

        def reported(name: str, told: tuple[Refusal, ...], refs: tuple[str, ...]) -> Witness:
            if not told:
                return _witness(evidence, name, _MISSING if must_report else _CONFIRMS, "no refused interrupt")
            behaviour = Behaviour("blocked", (told[0].reason,), nobody=told[0].source == NOBODY)
            fits = any(one.covers(behaviour) for one in expected.allowed)
            return _witness(evidence, name, _CONFIRMS if fits else _DENIES, str(told[0]), refs)

        sent = "the device was told to send it" if self.announced else "the device did not announce it"
        count = f"{self.came} interrupts came" if self.came != 1 else "one interrupt came"
        return (
            _witness(evidence, "announcement", _CONFIRMS if self.announced else _MISSING, sent, _refs(self.announced)),
            reported("guest-log", self.logged, _refs(self.lines)),
            _witness(
                evidence,
                "console",
                _CONFIRMS if self.shown == self.logged else _DENIES,
                f"{len(self.shown)} refused interrupts on the console, {len(self.logged)} in the log",
            ),
            reported("host-trace", self.traced, self.trace_refs),
            _witness(evidence, "count", _CONFIRMS if self.came == wanted else _DENIES, count),
            _witness(evidence, "others", _DENIES if self.stranger else _CONFIRMS, self.stranger or "nothing else"),
        )


def _weigh(seen: _Seen, expected: Expected) -> Weighed:
    """Weigh the witnesses: the first rule that applies decides, otherwise what was asked for."""
    told = "; ".join(map(str, (*seen.logged, *seen.traced))) or "nothing"
    rules = (
        (not seen.announced, Outcome.ERROR, "not proven to be sent: the device did not announce it once"),
        (seen.shown != seen.logged, Outcome.ERROR, "log and console disagree"),
        (bool(seen.stranger), Outcome.FAIL, f"something else was refused: {seen.stranger}"),
        (seen.came not in (0, 1), Outcome.FAIL, f"it came {seen.came} times"),
        (bool(seen.logged) != bool(seen.traced), Outcome.ERROR, f"one witness is silent; told was: {told}"),
        (set(seen.logged) != set(seen.traced), Outcome.ERROR, f"the witnesses disagree; told was: {told}"),
        (len(seen.logged) > 1, Outcome.FAIL, f"it was refused {len(seen.logged)} times; told was: {told}"),
        (bool(seen.came and seen.logged), Outcome.ERROR, f"contradiction: it came, and yet was refused: {told}"),
        (not seen.came and not seen.logged, Outcome.ERROR, "it did not come, and nobody reported why"),
        (
            seen.refused is not None and seen.refused.source not in (seen.source, NOBODY),
            Outcome.FAIL,
            f"refused, but not blamed on {seen.source}: {told}",
        ),
    )
    what = str(seen.behaviour) if seen.refused else "delivered"
    return first_that_applies(rules) or held(expected, seen.behaviour, what)


def _provoked(
    evidence: StepEvidence,
    seen: _Seen,
    expected: Expected,
    conformance: Conformance,
    witnesses: tuple[Witness, ...],
) -> Provoked:
    return Provoked(
        step=evidence.index,
        table="interrupt",
        levels=0,
        recipe=str(seen.about["recipe"]),
        source=f"{seen.about['model']} {seen.source}",
        access="write",
        spec=expected.spec.report,
        seen=seen.behaviour.report,
        fault_processing_disabled=bool(seen.about["fault_processing_disabled"]),
        conformance=conformance,
        why=expected.why if conformance is Conformance.KNOWN_DEVIATION else "",
        kernel_line=str(seen.lines[0].data["text"]) if seen.lines else "",
        witnesses=tuple(witness.name for witness in witnesses if witness.verdict is _CONFIRMS),
    )


def _announced(evidence: StepEvidence, about: Mapping[str, Any]) -> tuple[Entry, ...]:
    """Find where the device said that it was told to send this message: as one, or as a DMA to its address."""
    kind = "dma" if about["by"] == "dma" else "msi"
    written = [about["address"], _MESSAGE_BYTES, "to-memory"]
    found = [
        entry
        for entry in evidence.entries
        if (entry.source, entry.kind) == ("agent", kind)
        and entry.data["bdf"] == about["function"]
        and entry.data["purpose"] == ("attack" if about["attack"] else "control")
        and entry.data.get("device", about["device"]) == about["device"]
        and (kind == "msi" or [entry.data[key] for key in ("address", "length", "direction")] == written)
    ]
    return tuple(found) if len(found) == 1 else ()


def _record(entry: Entry) -> FaultRecord:
    high, low = (int(number, 16) for number in _RECORD.findall(str(entry.data["text"]))[0])
    return FaultRecord.from_halves(low, high)


def _lines(evidence: StepEvidence, source: str) -> tuple[tuple[Refusal, ...], tuple[Entry, ...]]:
    """Find the refused interrupts that a log tells of, and the lines that do."""
    entries = {entry.ref: entry for entry in evidence.entries if entry.source == source and "text" in entry.data}
    found = [one for one in logged_faults(kernel_lines(evidence.entries, source)) if one.index is not None]
    told = tuple(Refusal(one.source, -1 if one.reason is None else one.reason, one.index or 0) for one in found)
    return told, tuple(entries[one.ref] for one in found)


def _refs(entries: tuple[Entry, ...]) -> tuple[str, ...]:
    return tuple(entry.ref for entry in entries[:3])


def _witness(
    evidence: StepEvidence, name: str, verdict: WitnessVerdict, text: str, refs: tuple[str, ...] = ()
) -> Witness:
    return Witness(name=name, step=evidence.index, verdict=verdict, evidence=text, refs=refs)
