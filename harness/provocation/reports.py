"""What a phase reported, as register and trace agree on it: one fault, or none."""

from __future__ import annotations

from dataclasses import dataclass

from harness.conformance import Behaviour
from harness.judgement import StepEvidence
from harness.provocation.phases import Phase, Recorded, Registers
from harness.verdict import Witness, WitnessVerdict
from harness.vtd.faults import PAGE_SHIFT, Access, Fault, describe
from harness.vtd.source_id import SourceId

_CONFIRMS, _DENIES, _MISSING = WitnessVerdict.CONFIRMS, WitnessVerdict.DENIES, WitnessVerdict.MISSING


@dataclass(frozen=True, slots=True)
class Attack:
    """The request that was to be refused: whose, which way, where to, and how many bytes of it."""

    source: SourceId
    access: Access
    address: int
    length: int

    @property
    def pages(self) -> range:
        """The pages it touches; a fault record knows no more of an address."""
        return range(self.address >> PAGE_SHIFT, ((self.address + self.length - 1) >> PAGE_SHIFT) + 1)


@dataclass(frozen=True, slots=True)
class Reports:
    """The reports of a DMA of one phase: the fault record, what QEMU traced, and what it traced as recorded.

    `disabled` tells that QEMU traced why it did not report (FPD).
    """

    registers: Registers
    traced: tuple[Fault, ...]
    recorded: tuple[Recorded, ...]
    disabled: bool

    @classmethod
    def of(cls, phase: Phase) -> Reports:
        """Read those of `phase`; Untold if nobody read its registers."""
        return cls(phase.registers, phase.traced, phase.recorded, phase.disabled)

    @property
    def fault(self) -> Fault | None:
        """The DMA fault in the fault record; None if there is none, or that of an interrupt."""
        record = self.registers.record
        return record.as_fault() if record.fault and not record.is_interrupt else None

    @property
    def none(self) -> bool:
        """Whether nobody reported anything."""
        return not (self.registers.record.fault or self.registers.status.reports or self.traced or self.recorded)

    @property
    def contradiction(self) -> str:
        """How the witnesses disagree about what was reported; empty if they do not."""
        fault, status = self.fault, self.registers.status
        traced = "; ".join(map(str, self.traced)) or "nothing"
        if self.none:
            return ""
        if fault is None:
            return f"the fault record holds no refused DMA, the trace tells of {traced}"
        recorded = "; ".join(f"{one.source} {describe(one.reason)}" for one in self.recorded) or "nothing"
        rules = (
            (
                bool(status.overflow or status.queue_error),
                f"beside one fault, the fault status is {status.raw:#x}",
            ),
            (not status.pending, "the fault record holds a fault, but the fault status tells of none"),
            (
                not any(_alike(fault, one) for one in self.traced),
                f"the fault record holds a {fault}, the trace tells of {traced}",
            ),
            (
                [(one.source, one.reason) for one in self.recorded] != [(fault.source, fault.reason)],
                f"the fault record holds a {fault}, QEMU traced as recorded: {recorded}",
            ),
        )
        return next((text for applies, text in rules if applies), "")

    def differences(self, attack: Attack) -> str:
        """Tell how the reported fault is not that of `attack`, whatever its reason; empty if it is."""
        fault = self.fault
        if fault is None:
            return ""
        return difference(fault, attack) or next(
            (text for traced in self.traced if traced.source == attack.source and (text := difference(traced, attack))),
            "",
        )

    @property
    def behaviour(self) -> Behaviour:
        """What the reports alone say of a request that did not land."""
        fault = self.fault
        return Behaviour("silent") if fault is None else Behaviour("blocked", (fault.reason,))

    def witnesses(self, evidence: StepEvidence, attack: Attack, allowed: tuple[Behaviour, ...]) -> tuple[Witness, ...]:
        """Give the witnesses of the reports: `register`, `trace` and `recorded`, each held against what is allowed."""
        fault, record = self.fault, self.registers.record
        silent = any(behaviour.kind != "blocked" for behaviour in allowed)
        trace = tuple(fault for fault in self.traced if fault.source == attack.source) or self.traced
        held = {
            "register": ([fault] if fault else [], str(fault) if fault else f"the fault record holds {record.raw:#x}"),
            "trace": (list(trace[:1]), "; ".join(map(str, trace)) or "QEMU traced no fault"),
        }
        found = []
        for name, (faults, text) in held.items():
            if not faults:
                empty = name == "trace" or not record.fault
                verdict = _CONFIRMS if silent and empty else _MISSING if empty else _DENIES
            else:
                fits = not difference(faults[0], attack) and _reason_allowed(faults[0].reason, allowed)
                verdict = _CONFIRMS if fits else _DENIES
            refs = (self.registers.ref,) if name == "register" else tuple(one.ref for one in faults if one.ref)
            found.append(Witness(name=name, step=evidence.index, verdict=verdict, evidence=text, refs=refs))
        return (*found, self._recorded(evidence, fault, silent=silent))

    def _recorded(self, evidence: StepEvidence, fault: Fault | None, *, silent: bool) -> Witness:
        told = "; ".join(f"{one.source}, reason {describe(one.reason)}" for one in self.recorded)
        agrees = [(one.source, one.reason) for one in self.recorded] == (
            [(fault.source, fault.reason)] if fault else []
        )
        verdict = _DENIES if not agrees else _CONFIRMS if self.recorded or silent else _MISSING
        text = f"QEMU put into the fault record: {told}" if told else "QEMU put nothing into the fault record"
        refs = tuple(one.ref for one in self.recorded)
        return Witness(name="recorded", step=evidence.index, verdict=verdict, evidence=text, refs=refs)


def difference(fault: Fault, attack: Attack) -> str:
    """Tell how `fault` is not that of `attack`, whatever its reason; empty if it is."""
    if fault.source != attack.source:
        return f"it blames {fault.source}, not {attack.source}"
    if fault.access is not attack.access:
        return f"it tells of a {fault.access}, not of a {attack.access}"
    if fault.first >> PAGE_SHIFT not in attack.pages or fault.last >> PAGE_SHIFT not in attack.pages:
        return f"it tells of {fault.first:#x}, not of {attack.address:#x}"
    return ""


def _reason_allowed(reason: int, allowed: tuple[Behaviour, ...]) -> bool:
    return any(one.covers(Behaviour("blocked", (reason,))) for one in allowed)


def _alike(fault: Fault, traced: Fault) -> bool:
    """Whether a line of the trace is that of the recorded fault, which knows its page only."""
    page = fault.first >> PAGE_SHIFT
    return (fault.source, fault.access, fault.reason) == (traced.source, traced.access, traced.reason) and (
        traced.first >> PAGE_SHIFT <= page <= traced.last >> PAGE_SHIFT
    )
