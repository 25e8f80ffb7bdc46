"""What each phase of a step left in the journal: announcements, readings of the fault registers, and trace lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.evidence import Entry
from harness.judgement import StepEvidence
from harness.testimony import fault_from_data
from harness.vtd.fault_record import FaultRecord
from harness.vtd.faults import Fault
from harness.vtd.registers import FaultEventControl, FaultStatus
from harness.vtd.source_id import SourceId


class Untold(ValueError):
    """The journal does not tell what a judgement needs; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A fault that QEMU traced as put into the fault record (`vtd_frr_new`)."""

    source: SourceId
    reason: int
    ref: str


@dataclass(frozen=True, slots=True)
class Registers:
    """One reading of the fault status, the fault record, and whether a fault event waits to be sent."""

    status: FaultStatus
    record: FaultRecord
    event: FaultEventControl
    ref: str


@dataclass(frozen=True, slots=True)
class Phase:
    """The entries of one phase, in order."""

    name: str
    entries: tuple[Entry, ...]

    def of(self, source: str, kind: str) -> tuple[Entry, ...]:
        """Give its entries of one source and kind."""
        return tuple(entry for entry in self.entries if (entry.source, entry.kind) == (source, kind))

    def observation(self, kind: str) -> Entry:
        """Give its last observation of `kind`; Untold if there is none."""
        found = self.of("observation", kind)
        if not found:
            raise Untold(f"there is no observation '{kind}' of the phase '{self.name}'")
        return found[-1]

    def announcements(self, kind: str = "dma") -> tuple[Entry, ...]:
        """Give what the device announced, without what only stages bytes for another request."""
        return tuple(e for e in self.of("agent", kind) if e.data.get("purpose") in ("attack", "control"))

    @property
    def registers(self) -> Registers:
        """The reading at the end of the phase; Untold if nobody read them."""
        readings = self.readings
        if not readings:
            raise Untold(f"the fault registers were not read in the phase '{self.name}'")
        return readings[-1]

    @property
    def readings(self) -> tuple[Registers, ...]:
        """All readings of the fault registers, in order."""
        return tuple(_registers(entry) for entry in self.of("register", "fault"))

    @property
    def traced(self) -> tuple[Fault, ...]:
        """The refused DMAs of QEMU's trace."""
        return tuple(fault_from_data(entry.data) for entry in self.of("trace", "fault"))

    @property
    def recorded(self) -> tuple[Recorded, ...]:
        """What QEMU traced as put into the fault record."""
        return tuple(
            Recorded(SourceId.parse(str(entry.data["source_id"])), int(entry.data["reason"]), entry.ref)
            for entry in self.of("trace", "recorded")
        )

    @property
    def disabled(self) -> bool:
        """Whether QEMU traced that fault processing is disabled (FPD)."""
        return bool(self.of("trace", "disabled"))

    @property
    def refs(self) -> tuple[str, ...]:
        """Where its registers were read."""
        return tuple(entry.ref for entry in self.of("register", "fault")[-1:])


def phases_of(evidence: StepEvidence) -> Mapping[str, Phase]:
    """Split the entries of a step at its `phase` marks; what comes before the first is the phase `before`.

    Untold if a phase has no end: the step broke off, or its trace was not collected.
    """
    found: dict[str, Phase] = {}
    name = "before"
    entries: list[Entry] = []
    for entry in evidence.entries:
        if (entry.source, entry.kind) == ("observation", "phase"):
            found[name] = Phase(name, tuple(entries))
            name, entries = str(entry.data["name"]), []
            if name in found:
                raise Untold(f"the phase '{name}' began twice")
        entries.append(entry)
    found[name] = Phase(name, tuple(entries))
    for each in found.values():
        ends = [entry.data["name"] for entry in each.of("observation", "phase-end")]
        if each.name != "before" and ends != [each.name]:
            raise Untold(f"the phase '{each.name}' has no end, so its witnesses were not heard out")
    return found


def phase(phases: Mapping[str, Phase], name: str) -> Phase:
    """Give the phase called `name`; Untold if the step never came to it."""
    if name not in phases:
        raise Untold(f"the step never came to the phase '{name}'")
    return phases[name]


def _registers(entry: Entry) -> Registers:
    data = entry.data
    record = FaultRecord.from_halves(int(data["low"]), int(data["high"]))
    return Registers(FaultStatus(int(data["fsts"])), record, FaultEventControl(int(data["fectl"])), entry.ref)
