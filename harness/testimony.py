"""From a journal to the evidence of each step: whose fault was reported by whom, and where the record has holes.

Pure: reads entries, starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.evidence import Entry
from harness.forms.check import readable
from harness.judgement import InterruptFault, StepEvidence
from harness.vtd.faults import Access, Fault
from harness.vtd.source_id import SourceId
from harness.witnesses import lab_host
from harness.witnesses.guest_log import by_kernel, kernel_lines, logged_faults, unread
from harness.witnesses.host_trace import EVENT_SENT, WATCHED
from harness.witnesses.panic import panic_title

#: How the guest agent's `mark` begins its lines in the guest's log.
_MARK = "vtd-harness: "

#: add_vmfork_randomness in Linux' drivers/char/random.c, called by its vmgenid driver.
_RESEEDED = "crng reseeded due to virtual machine fork"


@dataclass(frozen=True, slots=True)
class Testimony:
    """A journal, ordered for judging. `steps` go by index; `between` is what faulted outside of any step.

    `damaged` says of each entry outside of any step why it cannot be read; a step is told so by its own `problems`.
    """

    steps: Mapping[int, StepEvidence]
    between: tuple[Fault | InterruptFault, ...]
    entries: tuple[Entry, ...]
    damaged: tuple[str, ...] = ()

    def of(self, kind: str, source: str = "runner") -> list[Entry]:
        """Give the entries of one kind and source."""
        return [entry for entry in self.entries if entry.source == source and entry.kind == kind]


def hear(entries: Sequence[Entry], *, flooded_from: int | None = None, kernel: bool = True) -> Testimony:
    """Order `entries` by step and read the faults out of the guest's log, its console and QEMU's trace.

    Without a `kernel` there is no log that could hold the markers of a step. From step `flooded_from` on, the kernel's
    rate limit may have kept lines out of its log. An entry that has not the form of its kind is not heard, and told.
    """
    entries, damaged = readable(entries)
    begun = [entry.step for entry in entries if entry.source == "runner" and entry.kind == "step-begin"]
    steps = {
        index: step_evidence(
            index,
            entries,
            [problem for entry, problem in damaged if entry.step == index],
            flooded_from=flooded_from,
            kernel=kernel,
        )
        for index in begun
        if index is not None
    }
    outside = [entry for entry in entries if entry.step is None]
    handed = lab_host.handed(entries)  # between steps, other devices of a lab host are no business of this run
    there = [fault for fault in _logged(outside, lab_host.LOG) if fault.source in handed]
    between: tuple[Fault | InterruptFault, ...] = (
        *_logged(outside, "kmsg"),
        *_traced(outside),
        *there,
        *_interrupts(outside),
    )
    # A damaged entry may say anything for its step.
    nowhere = tuple(problem for entry, problem in damaged if type(entry.step) is not int or entry.step not in steps)
    return Testimony(steps, between, tuple(entries), nowhere)


def agreed(evidence: StepEvidence) -> bool:
    """Whether the guest's log, its console and QEMU's trace tell of the same refused DMAs of a step."""
    traced = {(fault.source, fault.access, fault.reason) for fault in evidence.traced}
    logged = [(fault.source, fault.access, fault.reason) for fault in evidence.logged]
    shown = [(fault.source, fault.access, fault.reason) for fault in evidence.on_console]
    return logged == shown and (set(logged) == traced or (evidence.limited and set(logged) <= traced))


def agreed_between(entries: Sequence[Entry]) -> bool:
    """Whether the guest's log and QEMU's trace agree on a fault outside of any step."""
    outside = [entry for entry in entries if entry.step is None]
    traced = {(fault.source, fault.access, fault.reason) for fault in _traced(outside)}
    return any((fault.source, fault.access, fault.reason) in traced for fault in _logged(outside, "kmsg"))


def holes(entries: Sequence[Entry], *, kernel: bool = True, whole: bool = True) -> list[str]:
    """Tell why a whole record cannot be relied on: gaps, a panic, witnesses that were not watching or not heard out.

    `entries` that are not the `whole` of a record end with a step, and what comes after the last one is not missed.
    """
    problems = [*_log_gaps(entries), *_resets(entries), *_panics(entries), *_stale(entries)] if kernel else []
    problems += [*_nested(entries), *lab_host.problems(entries, whole=whole)] if kernel else []
    outside = [entry for entry in entries if entry.step is None]
    problems += _misread(outside, limited=True)
    problems += [f"{e.ref}: fault reports were switched off (FPD)" for e in _of(outside, "trace", "disabled")]
    watched = {event for entry in _of(outside, "trace", "watching") for event in entry.data["events"]}
    if not watched.issuperset(WATCHED if kernel else (*WATCHED, EVENT_SENT)):
        problems.append("QEMU's trace of faults was never switched on")
    if whole and not _of(entries, "runner", "collected"):
        problems.append("the witnesses were not heard out after the last step")
    return problems


def _of(entries: Sequence[Entry], source: str, kind: str) -> list[Entry]:
    return [entry for entry in entries if entry.source == source and entry.kind == kind]


def _nested(entries: Sequence[Entry]) -> list[str]:
    """Tell what is wrong with the logs of nested guests, which are held to the same as that of the guest around them.

    Each marker must stand in its guest's log, which was read, is that of a guest which answered, and has no gaps; no
    kernel may have panicked.
    """
    problems: list[str] = []
    ready = [entry for entry in entries if entry.source.endswith("/process") and entry.kind == "ready"]
    logs = {entry.source for entry in entries if entry.source.endswith("/kmsg")}
    for source in sorted(logs | {entry.source.removesuffix("process") + "kmsg" for entry in ready}):
        guest = source.removesuffix("/kmsg")
        lives = [
            place for place, entry in enumerate(entries) if (entry.source, entry.kind) == (f"{guest}/process", "ready")
        ]
        if not lives:
            problems.append(f"nested guest '{guest}': its log was read, but it never answered")
        asked = {
            str(entry.data["args"].get("text"))
            for entry in _of(entries, "agent", "call")
            if (entry.data["op"], entry.data.get("guest")) == ("mark", guest) and "ok" in entry.data
        }
        marked = {entry.data["marker"] for entry in _of(entries, source, "mark")}
        if asked - marked:
            problems.append(f"nested guest '{guest}': it was not recorded that its log was marked: {asked - marked}")
        for begin, end in zip([0, *lives[1:]], [*lives[1:], len(entries)], strict=True):
            life = entries[begin:end]
            own = [replace(entry, source="kmsg") for entry in life if entry.source == source]
            told = [*_log_gaps([entry for entry in own if entry.kind != "mark"]), *_panics(own)]
            texts = {str(entry.data.get("text")) for entry in own}
            told += [
                f"{entry.ref}: its log does not hold the marker '{entry.data['marker']}'"
                for entry in _of(own, "kmsg", "mark")
                if f"{_MARK}{entry.data['marker']}" not in texts
            ]
            problems += [f"nested guest '{guest}': {problem}" for problem in told]
    return problems


def _log_gaps(entries: Sequence[Entry]) -> list[str]:
    """Tell where the guest's log has holes: records that /dev/kmsg had already dropped, or numbers that are missing.

    After a reset that was asked for, and only then, it begins anew.
    """
    gaps: list[str] = []
    expected = 0
    for entry in entries:
        if (entry.source, entry.kind) == ("process", "reset"):
            expected = 0
        if entry.source != "kmsg":
            continue
        if entry.kind == "lost":
            gaps.append(f"{entry.ref}: the guest's log was overwritten before it was read")
            continue
        number = int(entry.data["seq"])
        if number != expected:
            gaps.append(f"{entry.ref}: record {number} of the guest's log follows record {expected - 1}")
        expected = number + 1
    if expected == 0:
        gaps.append("not one record of the guest's log was read")
    return gaps


def _resets(entries: Sequence[Entry]) -> list[str]:
    """Tell of resets of the machine that nobody asked for; each that was asked for is recorded once it was seen."""
    asked = 0
    problems: list[str] = []
    for entry in reversed(entries):
        if (entry.source, entry.kind) == ("process", "reset"):
            asked += 1
        elif (entry.source, entry.kind, entry.data.get("name")) == ("qmp", "event", "RESET"):
            asked -= 1
            if asked < 0:
                problems.append(f"{entry.ref}: the machine was reset, and nobody had asked for that")
                asked = 0
    return problems


def _panics(entries: Sequence[Entry]) -> list[str]:
    return [
        f"{entry.ref}: the guest's kernel says: {title}"
        for entry in entries
        if (entry.source == "console" or (entry.source == "kmsg" and by_kernel(entry)))
        and (title := panic_title(str(entry.data.get("text")))) is not None
    ]


def _stale(entries: Sequence[Entry]) -> list[str]:
    """Tell of a restored guest that draws the random numbers that every other guest of its template draws."""
    reseeded = any(_RESEEDED in line.text for line in kernel_lines(entries, "kmsg"))
    if _of(entries, "process", "restored") and not reseeded:
        return ["the restored guest's log does not tell that its random numbers were renewed"]
    return []


def step_evidence(
    index: int,
    entries: Sequence[Entry],
    damaged: Sequence[str] = (),
    *,
    flooded_from: int | None = None,
    kernel: bool = True,
) -> StepEvidence:
    """Give the evidence of one step: what `entries`, which have their forms, say of it. The rest is as for `hear`."""
    limited = flooded_from is not None and index >= flooded_from
    mine = tuple(entry for entry in entries if entry.step == index)
    handed, on_host = lab_host.handed(entries), _logged(mine, lab_host.LOG)
    # It may be the NIC's DMA under a wrong name, or have nothing to do with it.
    strangers = [
        f"{fault.ref}: another device of the lab host faulted during the step: {fault}"
        for fault in on_host
        if fault.source not in handed
    ]
    return StepEvidence(
        index=index,
        entries=mine,
        logged=_logged(mine, "kmsg"),
        on_console=_logged(mine, "console"),
        traced=_traced(mine),
        on_host=tuple(fault for fault in on_host if fault.source in handed),
        interrupts=_interrupts(mine),
        devices=_devices(index, entries),
        limited=limited,
        finished=bool(_of(mine, "runner", "step-end")),
        problems=(
            *damaged,
            *_strangers(mine, _devices(index, entries)),
            *(_unmarked(mine) if kernel else ()),
            *_misread(mine, limited=limited),
            *strangers,
        ),
        disabled=tuple(entry.ref for entry in _of(mine, "trace", "disabled")),
        qemu=next((str(entry.data["version"]) for entry in _of(entries, "process", "qemu")), ""),
    )


def _unmarked(entries: Sequence[Entry]) -> list[str]:
    """Tell whether the guest's log lacks a marker of the step, or has faults on the wrong side of one.

    A line of the kernel may stand between the last reading of the log and the marker; a fault there is nobody's.
    """
    log = [entry for entry in entries if entry.source == "kmsg"]
    texts, theirs = [str(entry.data.get("text")) for entry in log], [by_kernel(entry) for entry in log]
    places = []
    for kind, word in (("step-begin", "begin"), ("step-end", "end")):
        for entry in _of(entries, "runner", kind):
            marker = f"{_MARK}{entry.data.get('marker')}"
            if marker not in texts:
                return [f"the guest's log does not hold the {word} of the step ({entry.data.get('marker')})"]
            places.append(texts.index(marker))
    inside = range(places[0], (places[-1] if len(places) > 1 else len(texts)) + 1)
    strays = [
        text for place, text in enumerate(texts) if place not in inside and "Request device" in text and theirs[place]
    ]
    return [f"a fault between this step and its neighbour: {text}" for text in strays]


def _misread(entries: Sequence[Entry], *, limited: bool) -> list[str]:
    """Tell what the guest's log and QEMU's trace say in words that could not be read."""
    problems = unread(kernel_lines(entries, "kmsg"), limited=limited)
    problems += [
        f"the lab host's log: {problem}" for problem in unread(kernel_lines(entries, lab_host.LOG), limited=limited)
    ]
    problems += [f"{e.ref}: a trace line of an unknown form: {e.data['text']}" for e in _of(entries, "trace", "unread")]
    return problems


def _strangers(entries: Sequence[Entry], devices: Mapping[str, SourceId]) -> list[str]:
    """Tell which observation is about a device under test that has another source ID, or about none.

    A NIC that QEMU gives a nested guest is none; its traffic goes by the source ID of the device that it goes through.
    """
    problems = []
    for entry in entries:
        name, told = entry.data.get("device"), entry.data.get("source_id")
        if entry.source != "observation" or name is None or told is None:
            continue
        source = SourceId.parse(told)
        found = devices.get(name, source if entry.kind == "traffic" else None)
        if found != source or source not in devices.values():
            problems.append(f"{entry.ref}: '{name}' is not {source}, as the step says")
    return problems


def _devices(index: int, entries: Sequence[Entry]) -> dict[str, SourceId]:
    known: dict[str, SourceId] = {}
    for entry in _of(entries, "runner", "device"):
        if entry.step is None or entry.step <= index:
            known[str(entry.data["name"])] = SourceId.parse(str(entry.data["source_id"]))
    return known


def _logged(entries: Sequence[Entry], source: str) -> tuple[Fault, ...]:
    return tuple(found.fault for found in logged_faults(kernel_lines(entries, source)) if found.fault is not None)


def _traced(entries: Sequence[Entry]) -> tuple[Fault, ...]:
    return tuple(replace(fault_from_data(entry.data), ref=entry.ref) for entry in _of(entries, "trace", "fault"))


def _interrupts(entries: Sequence[Entry]) -> tuple[InterruptFault, ...]:
    """Find the refused interrupts: in the guest's log, and in QEMU's fault record without a refused DMA beside it."""
    logged = [
        InterruptFault(found.source, found.reason or 0, found.ref)
        for found in logged_faults(kernel_lines(entries, "kmsg"))
        if found.index is not None
    ]
    refused = {(fault.source, fault.reason) for fault in _traced(entries)}
    recorded = [
        InterruptFault(SourceId.parse(entry.data["source_id"]), int(entry.data["reason"]), entry.ref)
        for entry in _of(entries, "trace", "recorded")
    ]
    return (*logged, *(found for found in recorded if (found.source, found.reason) not in refused))


def fault_data(fault: Fault) -> dict[str, object]:
    """Give a traced fault as the journal keeps it."""
    return {
        "source_id": str(fault.source),
        "access": fault.access.value,
        "reason": fault.reason,
        "first": fault.first,
        "last": fault.last,
        "count": fault.count,
    }


def fault_from_data(data: Mapping[str, Any]) -> Fault:
    """Read back what `fault_data` gave."""
    return Fault(
        source=SourceId.parse(data["source_id"]),
        access=Access(data["access"]),
        reason=data["reason"],
        first=data["first"],
        last=data["last"],
        count=data["count"],
    )
