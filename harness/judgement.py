"""What a step is judged by: the evidence of one step, read back from the journal, and the shape of the answer.

Nothing here knows QEMU, SSH or a running guest, so that a run can be judged again years later from its files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.evidence import Entry
from harness.verdict import Chart, Finding, Outcome, Provoked, Witness, WitnessVerdict, worst
from harness.vtd.faults import Fault, describe
from harness.vtd.source_id import SourceId


@dataclass(frozen=True, slots=True)
class InterruptFault:
    """A refused interrupt request: whose, the reason code, and the place of the evidence."""

    source: SourceId
    reason: int
    ref: str

    def __str__(self) -> str:
        return f"an interrupt of {self.source}, reason {describe(self.reason)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvidence:
    """Everything recorded between the two markers of one step.

    `logged` are the DMA faults of the guest's log, `on_console` the same lines as the serial console carried them,
    `traced` those of QEMU's trace (folded), `on_host` those that a lab host's log tells of NICs that it handed out,
    `interrupts` refused interrupts, `devices` the source IDs of the devices under test by name. `problems` tell why the
    record of the step cannot be relied on; it is not judged then. `disabled` are the places where QEMU traced that
    fault processing is disabled (FPD), so that a refusal goes unreported, `qemu` is QEMU's version, empty if it was not
    recorded, `limited` whether the kernel's rate limit may have kept lines out of its log.
    """

    index: int
    entries: tuple[Entry, ...]
    logged: tuple[Fault, ...]
    on_console: tuple[Fault, ...]
    traced: tuple[Fault, ...]
    interrupts: tuple[InterruptFault, ...]
    devices: Mapping[str, SourceId]
    finished: bool
    problems: tuple[str, ...]
    disabled: tuple[str, ...] = ()
    qemu: str = ""
    on_host: tuple[Fault, ...] = ()
    limited: bool = False

    def observation(self, kind: str) -> Entry | None:
        """Give the last observation of `kind`, None if the step recorded none."""
        found = self.observations(kind)
        return found[-1] if found else None

    def observations(self, kind: str) -> list[Entry]:
        """Give all observations of `kind`, in order."""
        return [entry for entry in self.entries if entry.source == "observation" and entry.kind == kind]

    def announcements(self) -> list[Entry]:
        """Give the DMAs that the guest announced, in order, without those that only stage bytes for another."""
        return [
            entry
            for entry in self.entries
            if entry.source == "agent" and entry.kind == "dma" and entry.data.get("purpose") in ("attack", "control")
        ]

    def name_of(self, source: SourceId) -> str:
        """Give the name of a device under test, or its address where it is none."""
        for name, known in self.devices.items():
            if known == source:
                return f"'{name}' ({source})"
        return str(source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The judgement of one step: findings, the witnesses they rest on, and whether an attack's bytes got through.

    `landed` is None for a step that issues no DMA. `provoked` are the faults it provoked, for the atlas, `charts` what
    it measured.
    """

    findings: tuple[Finding, ...]
    witnesses: tuple[Witness, ...] = ()
    landed: bool | None = None
    provoked: tuple[Provoked, ...] = ()
    charts: tuple[Chart, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The worst of the findings."""
        return worst(finding.outcome for finding in self.findings)


def nobody_faulted(
    evidence: StepEvidence, *, but: SourceId | None = None, but_there: SourceId | None = None, silently: bool = False
) -> Witness:
    """Witness that no device, other than `but`, was reported by the guest's log or QEMU's trace during the step.

    Nor may a lab host have reported any other NIC that it handed out than `but_there`.

    QEMU does not tell whose unreported refusal it was, so one denies this too, unless the step was to be refused
    `silently`.
    """
    dmas = [fault for fault in (*evidence.logged, *evidence.traced) if fault.source != but]
    dmas += [fault for fault in evidence.on_host if fault.source != but_there]
    strangers: list[Fault | InterruptFault] = [*dmas, *evidence.interrupts]
    if strangers:
        return Witness(
            name="others",
            step=evidence.index,
            verdict=WitnessVerdict.DENIES,
            evidence=f"{evidence.name_of(strangers[0].source)} faulted: {strangers[0]}",
            refs=tuple(fault.ref for fault in strangers[:3]),
        )
    if evidence.disabled and not silently:
        return Witness(
            name="others",
            step=evidence.index,
            verdict=WitnessVerdict.DENIES,
            evidence="a DMA was refused without a report (fault processing is disabled, FPD)",
            refs=evidence.disabled[:3],
        )
    who = "nobody" if but is None and but_there is None else "nobody else"
    return Witness(name="others", step=evidence.index, verdict=WitnessVerdict.CONFIRMS, evidence=f"{who} faulted")


def single(outcome: Outcome, text: str, index: int, *refs: str) -> Judgement:
    """Make a judgement of one finding."""
    return Judgement(findings=(Finding(outcome=outcome, text=text, step=index, refs=refs),))
