"""The proof of a blocked DMA, and of one that landed: pure functions over the evidence of a step.

A block is proven when six witnesses agree: the device announced the DMA, the guest's kernel logged the fault, the
serial console shows the same line, QEMU traced it, the bytes it was aimed at did not move (or the secret did not
leave), and nobody else faulted. Anything missing or contradictory is an ERROR: it is not known what happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.judgement import Judgement, StepEvidence, nobody_faulted
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.vtd.faults import PAGE_SHIFT, Access, Fault, describe
from harness.vtd.source_id import SourceId

_CONFIRMS, _DENIES, _MISSING = WitnessVerdict.CONFIRMS, WitnessVerdict.DENIES, WitnessVerdict.MISSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One DMA as the host observed it.

    `function` is the device that issued it, `source` the requester ID it must be blamed on (a bridge's, for a
    conventional device). `bytes_moved` tells whether the payload arrived (write) or the secret came out of the device
    (read), `intact` whether the target is exactly what it was (write) or no word of the secret came out (read); both
    are false when only a part got through. `bystanders` are the names of watched buffers that changed although they
    should not have. `at_host` is the requester ID on the lab host, of a NIC that this has handed out.
    """

    device: str
    function: SourceId
    source: SourceId
    access: Access
    address: int
    length: int
    bytes_moved: bool
    intact: bool
    target: str
    refs: tuple[str, ...] = ()
    bystanders: tuple[str, ...] = ()
    dmas: int = 1
    at_host: SourceId | None = None

    @property
    def said(self) -> str:
        """The attempt in words."""
        preposition = "to" if self.access is Access.WRITE else "of"
        where = f"'{self.target}' at {self.address:#x}"
        return f"{self.access} of {self.length} bytes {preposition} {where} by '{self.device}'"


def judge_blocked(
    evidence: StepEvidence, attempt: Attempt, reasons: Sequence[int], announcement: Witness | None = None
) -> Judgement:
    """Judge an attempt that the remapping unit must refuse for one of `reasons`.

    Who has issued it is witnessed by `announcement`, or else by what the guest's agent said.
    """
    witnesses = _Witnesses(
        announcement=announcement or announced(evidence, attempt),
        log=reported("guest-log", evidence, evidence.logged, attempt, reasons),
        console=_console_agrees(evidence),
        trace=reported("host-trace", evidence, evidence.traced, attempt, reasons),
        kept=bytes_kept(evidence, attempt),
        others=nobody_faulted(evidence, but=attempt.source),
        same_fault=_traced_as_logged(evidence),
    )
    outcome, text = _blocked_outcome(f"the {attempt.said}", witnesses)
    finding = Finding(outcome=outcome, text=text, step=evidence.index, refs=attempt.refs)
    return Judgement(findings=(finding,), witnesses=witnesses.all, landed=attempt.bytes_moved)


def judge_landed(evidence: StepEvidence, attempt: Attempt, announcement: Witness | None = None) -> Judgement:
    """Judge an attempt that must go through: the positive control, without which a block proves nothing."""
    announcement = announcement or announced(evidence, attempt)
    arrived = _bytes_moved(evidence, attempt)
    others = nobody_faulted(evidence)
    witnesses = (announcement, arrived, others)
    finding = _landed_finding(evidence, attempt, announcement, arrived, others)
    return Judgement(findings=(finding,), witnesses=witnesses, landed=attempt.bytes_moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Witnesses:
    announcement: Witness
    log: Witness
    console: Witness
    trace: Witness
    kept: Witness
    others: Witness
    same_fault: bool

    @property
    def all(self) -> tuple[Witness, ...]:
        return (self.announcement, self.log, self.console, self.trace, self.kept, self.others)


def _blocked_outcome(said: str, seen: _Witnesses) -> tuple[Outcome, str]:
    """Weigh the witnesses: the first rule that applies decides, and only agreement of all is left for a PASS."""
    reports = (seen.log, seen.trace)
    silent = [witness for witness in reports if witness.verdict is _MISSING]
    denying = [witness for witness in reports if witness.verdict is _DENIES]
    moved = seen.kept.verdict is _DENIES
    told = "; ".join(f"{witness.name}: {witness.evidence}" for witness in reports)
    rules = (
        (
            seen.announcement.verdict is not _CONFIRMS,
            Outcome.ERROR,
            f"not proven to be issued: {seen.announcement.evidence}",
        ),
        (seen.console.verdict is not _CONFIRMS, Outcome.ERROR, f"log and console disagree: {seen.console.evidence}"),
        (seen.others.verdict is not _CONFIRMS, Outcome.FAIL, seen.others.evidence),
        (moved and len(silent) == len(reports), Outcome.FAIL, f"not blocked: {seen.kept.evidence}"),
        (moved, Outcome.ERROR, f"contradiction: {seen.kept.evidence}, and yet it was reported as refused; {told}"),
        (len(silent) == len(reports), Outcome.ERROR, "the bytes are intact, but nobody reported a fault"),
        (bool(silent), Outcome.ERROR, f"one witness is silent; {told}"),
        (len(denying) == len(reports), Outcome.FAIL, f"refused, but not as expected; {told}"),
        (bool(denying) or not seen.same_fault, Outcome.ERROR, f"the witnesses disagree; {told}"),
    )
    for applies, outcome, text in rules:
        if applies:
            return outcome, f"{said}: {text}"
    return Outcome.PASS, f"{said} was blocked: {seen.log.evidence}"


def _landed_finding(
    evidence: StepEvidence, attempt: Attempt, announcement: Witness, arrived: Witness, others: Witness
) -> Finding:
    if announcement.verdict is not _CONFIRMS:
        outcome, text = Outcome.ERROR, f"the {attempt.said} was not proven to be issued: {announcement.evidence}"
    elif arrived.verdict is _CONFIRMS and others.verdict is _CONFIRMS:
        outcome, text = Outcome.PASS, f"the {attempt.said} landed"
    elif arrived.verdict is _CONFIRMS:
        outcome, text = Outcome.FAIL, f"the {attempt.said} landed, but {others.evidence}"
    elif refusals := _refusals(evidence, attempt):
        outcome, text = Outcome.FAIL, f"the {attempt.said} should have landed, but was refused: {refusals[0]}"
    else:
        told = "no fault tells why" if others.verdict is _CONFIRMS else f"no fault of its tells why; {others.evidence}"
        outcome, text = Outcome.ERROR, f"the {attempt.said} should have landed: {arrived.evidence}, and {told}"
    return Finding(outcome=outcome, text=text, step=evidence.index, refs=attempt.refs)


def _refusals(evidence: StepEvidence, attempt: Attempt) -> list[Fault]:
    """Give the faults of the attempt's own device: of the lab host's log, or of the guest's where QEMU traced them."""
    there = [fault for fault in evidence.on_host if fault.source == attempt.at_host]
    traced = {(fault.access, fault.reason) for fault in evidence.traced if fault.source == attempt.source}
    mine = [fault for fault in evidence.logged if fault.source == attempt.source]
    return there or [fault for fault in mine if (fault.access, fault.reason) in traced]


def _as_long(told: int, attempt: Attempt) -> bool:
    """Tell whether a DMA of `told` bytes is the attempt's; a receive descriptor has room for more than one frame."""
    return told == attempt.length or (attempt.access is Access.WRITE and told > attempt.length)


def announced(evidence: StepEvidence, attempt: Attempt) -> Witness:
    """Witness that the device was told to issue this DMA."""
    direction = "to-memory" if attempt.access is Access.WRITE else "from-memory"
    matching = [
        entry
        for entry in evidence.announcements()
        if SourceId.parse(str(entry.data["bdf"])) == attempt.function
        and entry.data.get("device") == attempt.device  # two nested guests have devices at one address
        and entry.data["address"] == attempt.address
        and _as_long(entry.data["length"], attempt)
        and entry.data["direction"] == direction
    ]
    refs = tuple(entry.ref for entry in matching[:3])
    others = [entry for entry in evidence.announcements() if entry not in matching]
    if others:
        told = f"{others[0].data['length']} bytes at {others[0].data['address']:#x}"
        text = f"another DMA was announced too: {told} by {others[0].data['bdf']}"
        return _witness(evidence, "announcement", _MISSING, text, (others[0].ref,))
    if len(matching) != attempt.dmas:
        seen = f"{len(matching)} of {attempt.dmas} DMAs were announced as asked for"
        return _witness(evidence, "announcement", _MISSING, seen, refs)
    times = "" if attempt.dmas == 1 else f"{attempt.dmas} times "
    verb = "write" if attempt.access is Access.WRITE else "read"
    text = f"the device was told {times}to {verb} {attempt.length} bytes at {attempt.address:#x}"
    return _witness(evidence, "announcement", _CONFIRMS, text, refs)


def reported(
    name: str, evidence: StepEvidence, faults: Sequence[Fault], attempt: Attempt, reasons: Sequence[int]
) -> Witness:
    """Witness that `faults`, as `name` tells them, blame the attempt on its source, and tell of nothing else of it."""
    mine = [fault for fault in faults if fault.source == attempt.source]
    refs = tuple(fault.ref for fault in mine[:3])
    if not mine:
        return _witness(evidence, name, _MISSING, f"no fault of '{attempt.device}' ({attempt.source})")
    for fault in mine:
        wrong = _differs(fault, attempt, reasons)
        if wrong:
            return _witness(evidence, name, _DENIES, f"{fault}: {wrong}", refs)
    return _witness(evidence, name, _CONFIRMS, str(mine[0]), refs)


def _differs(fault: Fault, attempt: Attempt, reasons: Sequence[int]) -> str:
    if fault.access is not attempt.access:
        return f"expected a {attempt.access}"
    if fault.reason not in reasons:
        return "expected reason " + " or ".join(describe(reason) for reason in reasons)
    # The log knows pages only, so pages are what both witnesses can be held to.
    pages = range(attempt.address >> PAGE_SHIFT, ((attempt.address + attempt.length - 1) >> PAGE_SHIFT) + 1)
    if fault.first >> PAGE_SHIFT not in pages or fault.last >> PAGE_SHIFT not in pages:
        return f"expected an address in {attempt.address:#x}..{attempt.address + attempt.length - 1:#x}"
    return ""


def _console_agrees(evidence: StepEvidence) -> Witness:
    logged = [(fault.source, fault.access, fault.reason, fault.first) for fault in evidence.logged]
    shown = [(fault.source, fault.access, fault.reason, fault.first) for fault in evidence.on_console]
    if logged == shown:
        return _witness(evidence, "console", _CONFIRMS, f"the console shows the same faults ({len(shown)})")
    text = f"{len(logged)} in the log, {len(shown)} on the console"
    return _witness(evidence, "console", _DENIES, text)


def _traced_as_logged(evidence: StepEvidence) -> bool:
    """Whether QEMU traced every fault that the guest logged: the same device, access, reason and page."""
    return all(
        any(
            (traced.source, traced.access, traced.reason) == (logged.source, logged.access, logged.reason)
            and traced.first >> PAGE_SHIFT <= logged.first >> PAGE_SHIFT <= traced.last >> PAGE_SHIFT
            for traced in evidence.traced
        )
        for logged in evidence.logged
    )


def bytes_kept(evidence: StepEvidence, attempt: Attempt) -> Witness:
    """Witness that the target did not change, or did not leave."""
    write = attempt.access is Access.WRITE
    if attempt.bytes_moved:
        text = f"the payload stands in '{attempt.target}'" if write else f"the device holds '{attempt.target}'"
        return _bytes(evidence, attempt, text, kept=False)
    if not attempt.intact:
        text = f"'{attempt.target}' changed" if write else f"part of '{attempt.target}' left"
        return _bytes(evidence, attempt, text, kept=False)
    text = f"'{attempt.target}' is unchanged" if write else f"'{attempt.target}' did not leave"
    return _bytes(evidence, attempt, text, kept=True)


def _bytes_moved(evidence: StepEvidence, attempt: Attempt) -> Witness:
    write = attempt.access is Access.WRITE
    if attempt.bytes_moved:
        text = f"the payload stands in '{attempt.target}'" if write else f"the device holds '{attempt.target}'"
    else:
        text = f"the payload is not in '{attempt.target}'" if write else f"the device does not hold '{attempt.target}'"
    return _bytes(evidence, attempt, text, kept=attempt.bytes_moved)


def _bytes(evidence: StepEvidence, attempt: Attempt, text: str, *, kept: bool) -> Witness:
    """Make the bytes' witness: `kept` is whether the target is as expected; a bystander that changed denies it."""
    if attempt.bystanders:
        changed = ", ".join(f"'{name}'" for name in attempt.bystanders)
        return _witness(evidence, "bytes", _DENIES, f"these changed as well: {changed}", attempt.refs)
    return _witness(evidence, "bytes", _CONFIRMS if kept else _DENIES, text, attempt.refs)


def _witness(
    evidence: StepEvidence, name: str, verdict: WitnessVerdict, text: str, refs: tuple[str, ...] = ()
) -> Witness:
    return Witness(name=name, step=evidence.index, verdict=verdict, evidence=text, refs=refs)
