"""The raw files beside a journal: what QEMU and the console wrote themselves, held against what was read of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from harness.evidence import Entry, VariantDirectory
from harness.vtd.invalidation import Descriptor, DescriptorType
from harness.witnesses.host_trace import (
    FAULT_DISABLED,
    TraceLine,
    config_write,
    descriptor,
    dmar_fault,
    function_reset,
    read_trace,
    recorded_fault,
    remapped_message,
    sent_event,
    translation,
)

TRACE, CONSOLE = "trace.log", "console.log"

#: What the recorder keeps of a console.
FAULT_LINE = re.compile(r"DMAR|INTR-REMAP|dmar_fault")

#: What one trace line or entry tells, so that both can be counted and compared.
_Told = tuple[object, ...]


def disagreements(
    directory: VariantDirectory, entries: Sequence[Entry], *, kernel: bool = True, until: float | None = None
) -> list[str]:
    """Tell where `trace.log` and `console.log` do not say what the journal says they do, or are not there.

    Without a `kernel` there is no console, and other events of the trace are recorded. Only the trace that was written
    `until` then (seconds since the epoch) is held against `entries`.
    """
    problems = [*_trace(directory.file(TRACE), entries, kernel=kernel, until=until)]
    if kernel:
        problems += _console(directory.file(CONSOLE), entries)
        problems += _log(entries)
    return problems


def _trace(path: Path, entries: Sequence[Entry], *, kernel: bool, until: float | None) -> Iterator[str]:
    """Hold every trace entry against the lines: none is missing, none is more than there, and each says the same."""
    if not path.exists():
        yield f"{TRACE} is missing"
        return
    lines, unread = read_trace(path.read_text(encoding="utf-8", errors="replace").splitlines())
    lines = [line for line in lines if until is None or line.t <= until]
    mine = [entry for entry in entries if entry.source == "trace"]
    yield from _faults(lines, [entry for entry in mine if entry.kind == "fault"])
    if until is None and len(unread) != sum(entry.kind == "unread" for entry in mine):
        yield f"{TRACE} holds {len(unread)} lines of an unknown form, the journal tells of others"
    disabled = sum(line.event == FAULT_DISABLED for line in lines)
    told = sum(int(entry.data.get("count", 1)) for entry in mine if entry.kind == "disabled")
    if disabled != told:
        yield f"{TRACE} tells {disabled} times that fault processing is disabled, the journal {told} times"
    kinds = (
        ("recorded", "descriptor", "remapped", "config-write", "function-reset") if kernel else ("recorded", "event")
    )
    for kind in kinds:
        yield from _differences(
            kind,
            Counter(filter(None, map(_OF_LINE[kind], lines))),
            [(entry, _OF_ENTRY[kind](entry)) for entry in mine if entry.kind == kind],
        )
    if kernel:
        yield from _translations(lines, [entry for entry in mine if entry.kind == "translated"])


def _differences(kind: str, raw: Counter[_Told], told: Iterable[tuple[Entry, _Told]]) -> Iterator[str]:
    left = raw.copy()
    for entry, one in told:
        left[one] -= 1
        if left[one] < 0:
            yield f"{entry.ref}: {TRACE} holds no such line ({kind})"
    missing = sum(number for number in left.values() if number > 0)
    if missing:
        yield f"{TRACE} holds {missing} lines ({kind}) that the journal does not tell of"


def _faults(lines: Iterable[TraceLine], told: Sequence[Entry]) -> Iterator[str]:
    """Runs of alike faults are folded into one entry, which has the moment of the first and the range of all."""
    raw: dict[_Told, list[tuple[float, int]]] = {}
    for line in lines:
        fault = dmar_fault(line)
        if fault is not None:
            key = (str(fault.source), fault.access.value, fault.reason)
            raw.setdefault(key, []).append((round(line.t, 6), fault.first))
    counted: Counter[_Told] = Counter()
    for entry in told:
        data = entry.data
        key = (data["source_id"], data["access"], data["reason"])
        found = raw.get(key, [])
        addresses = {address for _, address in found}
        if not {data["first"], data["last"]} <= addresses or round(entry.t, 6) not in {moment for moment, _ in found}:
            yield f"{entry.ref}: {TRACE} holds no such fault"
        counted[key] += data["count"]
    holds, tells = sum(map(len, raw.values())), sum(counted.values())
    if holds != tells:
        yield f"{TRACE} holds {holds} faults, the journal tells {tells}"
    elif any(len(found) != counted[key] for key, found in raw.items()):
        yield f"{TRACE} holds other faults than the journal tells"


def _translations(lines: Iterable[TraceLine], told: Sequence[Entry]) -> Iterator[str]:
    """Translations are counted by source at each reading."""
    seen = [*filter(None, map(translation, lines))]
    raw = Counter(str(one.source) for one in seen), Counter(str(one.source) for one in seen if one.lifted)
    for number, key in enumerate(("count", "lifted")):
        counted: Counter[str] = Counter()
        for entry in told:
            counted[entry.data["source_id"]] += int(entry.data.get(key, 0))
        if +counted != raw[number]:
            yield f"{TRACE} holds {raw[number].total()} translations ({key}), the journal tells {counted.total()}"


def _taken(line: TraceLine) -> _Told | None:
    raw = descriptor(line)
    if raw is None or Descriptor(raw).type == DescriptorType.WAIT:
        return None
    return round(line.t, 6), f"{raw:#x}"


def _remapped(line: TraceLine) -> _Told | None:
    found = remapped_message(line)
    return None if found is None else (round(line.t, 6), *found)


def _recorded(line: TraceLine) -> _Told | None:
    found = recorded_fault(line)
    return None if found is None else (round(line.t, 6), str(found[0]), found[1], line.text)


def _event(line: TraceLine) -> _Told | None:
    found = sent_event(line)
    return None if found is None else (round(line.t, 6), *found)


def _written(line: TraceLine) -> _Told | None:
    found = config_write(line)
    return None if found is None else (round(line.t, 6), str(found.function), found.offset, found.value)


def _function(line: TraceLine) -> _Told | None:
    found = function_reset(line)
    return None if found is None else (round(line.t, 6), found)


#: What a line tells, None for one of another event, and what an entry tells that was made of such a line.
_OF_LINE: Mapping[str, Callable[[TraceLine], _Told | None]] = {
    "recorded": _recorded,
    "descriptor": _taken,
    "remapped": _remapped,
    "event": _event,
    "config-write": _written,
    "function-reset": _function,
}
_OF_ENTRY: Mapping[str, Callable[[Entry], _Told]] = {
    "recorded": lambda e: (round(e.t, 6), e.data["source_id"], e.data["reason"], e.data["text"]),
    "descriptor": lambda e: (round(e.t, 6), e.data["raw"]),
    "remapped": lambda e: (round(e.t, 6), tuple(e.data["request"]), tuple(e.data["message"])),
    "event": lambda e: (round(e.t, 6), e.data["address"], e.data["data"]),
    "config-write": lambda e: (round(e.t, 6), e.data["source_id"], e.data["offset"], e.data["value"]),
    "function-reset": lambda e: (round(e.t, 6), e.data["number"]),
}


def _console(path: Path, entries: Sequence[Entry]) -> Iterator[str]:
    """Each fault line up to the end of the last step must be told, and no other; those after it nobody has read."""
    if not path.exists():
        yield f"{CONSOLE} is missing"
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    shown = {number: line for number, line in enumerate(lines, start=1) if FAULT_LINE.search(line)}
    told = [entry for entry in entries if (entry.source, entry.kind) == ("console", "line")]
    texts = set(shown.values())
    for entry in told:
        number = entry.data.get("number")
        if entry.data["text"] not in texts or (number is not None and shown.get(number) != entry.data["text"]):
            yield f"{entry.ref}: {CONSOLE} has no such line: {entry.data['text']}"
    ends = [str(entry.data["marker"]) for entry in entries if (entry.source, entry.kind) == ("runner", "step-end")]
    last = next((number for number, line in enumerate(lines, start=1) if ends and ends[-1] in line), 0)
    read = {entry.data.get("number") for entry in told}
    for number in sorted(shown.keys() - read):
        if number < last:
            yield f"{CONSOLE} has a line that the journal does not tell of: {shown[number]}"


def _log(entries: Sequence[Entry]) -> Iterator[str]:
    """The records of each guest's log stand in the journal twice: as the agent answered, and one by one."""
    answered: dict[str, list[object]] = {}
    told: dict[str, list[tuple[object, str]]] = {}
    for entry in entries:
        if (entry.source, entry.kind) == ("agent", "call") and entry.data["op"] == "kmsg" and "ok" in entry.data:
            guest = entry.data.get("guest")
            answered.setdefault(f"{guest}/kmsg" if guest else "kmsg", []).extend(entry.data["ok"]["entries"])
        elif entry.source.rpartition("/")[2] == "kmsg" and entry.kind == "line":
            told.setdefault(entry.source, []).append((entry.data, entry.ref))
    for source, records in answered.items():
        lines = told.get(source, [])
        for record, (line, ref) in zip(records, lines, strict=False):
            if record != line:
                yield f"{ref}: the guest's agent gave another record of the log ({source}): {record}"
                break
        if len(records) != len(lines):
            yield f"the guest's agent gave {len(records)} records of the log ({source}), the journal tells {len(lines)}"
