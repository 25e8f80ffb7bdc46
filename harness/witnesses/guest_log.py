"""Linux's DMAR and INTR-REMAP fault lines, every dialect from 3.x to 7.3, read into one shape.

Source: `dmar_fault_do_one` and `dmar_fault` in drivers/iommu/intel/dmar.c (drivers/iommu/dmar.c before 5.13). What
changed over the years, and is told apart here:

- up to 4.x the reason stands on a line of its own;
- up to 5.12 the reason is printed in decimal (`[fault reason 37]` is 0x25), since then as `0x25`;
- addresses have lost and regained their `0x`, device numbers had one for a while;
- PASIDs stand after the device (`PASID ffffffff` meaning none) or in the bracket (`NO_PASID`, `PASID 0x1`);
- since 7.1.8, 7.2.4 and 7.3 the device carries its PCI segment.

A number that is the beginning of a longer word, a request without its kind, and a reason without its request are not
guessed at: `unread` tells them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.evidence import Entry
from harness.vtd.faults import Access, Fault
from harness.vtd.source_id import SourceId

_NO_PASID = 0xFFFFFFFF

_WORD_ENDS = r"(?![0-9A-Za-z_])"
_REQUEST = re.compile(
    r"(?:DMAR:\s*\[?(?P<kind>DMA Read|DMA Write|INTR-REMAP)"
    rf"(?:\s+(?:NO_PASID|PASID (?P<pasid_new>0x[0-9a-fA-F]+){_WORD_ENDS}))?\]?|INTR-REMAP:)\s*"
    r"Request device \[+(?P<device>(?:[0-9a-fA-F]{4,8}:)?(?:0x)?[0-9a-fA-F]{1,2}:(?:0x)?[01]?[0-9a-fA-F]\.[0-7])\]\s+"
    r"(?:PASID (?P<pasid_old>[0-9a-fA-F]+)\s+)?"
    rf"fault (?P<what>addr|index) (?:0x)?(?P<where>[0-9a-fA-F]+){_WORD_ENDS}"
)
_REASON = re.compile(
    r"(?:(?P<of>DMAR|INTR-REMAP):\s*)?\[fault reason (?:0x(?P<hex>[0-9a-fA-F]+)|(?P<decimal>[0-9]+))\]"
)
#: Fault status with a pending fault (PPF); 10 alone is an error of the invalidation queue.
_STATUS = re.compile(r"DRHD: handling fault status reg [0-9a-f]*[2367abef]\b")
_SUPPRESSED = re.compile(r"dmar_fault: \d+ callbacks suppressed")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedFault:
    """One fault as the guest's kernel logged it.

    `fault` holds a DMA fault; for an interrupt-remapping fault it is None and `index` is the refused table index.
    `reason` is the code, None where a two-line dialect lost its second line; `pasid` is None for requests without one.
    """

    source: SourceId
    reason: int | None
    fault: Fault | None = None
    index: int | None = None
    pasid: int | None = None
    ref: str = ""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the kernel log with the place it was recorded at."""

    text: str
    ref: str = ""


def by_kernel(entry: Entry) -> bool:
    """Tell whether a record of a kernel's log is the kernel's own: user space writes there too, but not as facility 0.

    Journals of earlier versions do not tell the facility; their records count as the kernel's.
    """
    return int(entry.data.get("facility", 0)) == 0


def kernel_lines(entries: Sequence[Entry], source: str) -> list[LogLine]:
    """Give the lines of `source`, a kernel's log or its console, that the kernel wrote.

    A console does not tell who wrote a line; what user space wrote into the log by the same words is none of the
    kernel's there either.
    """
    lines = [entry for entry in entries if entry.source == source and "text" in entry.data]
    if source != "console":
        return [LogLine(str(entry.data["text"]), entry.ref) for entry in lines if by_kernel(entry)]
    others = {str(e.data["text"]) for e in entries if e.source == "kmsg" and "text" in e.data and not by_kernel(e)}
    texts = [LogLine(str(entry.data["text"]), entry.ref) for entry in lines]
    return [line for line in texts if not any(other and line.text.endswith(other) for other in others)]


def logged_faults(lines: Iterable[LogLine]) -> Iterator[LoggedFault]:
    """Yield every fault in `lines`, in order, also where several stand on one line; other lines are passed over."""
    waiting: _Request | None = None
    for number, line in enumerate(lines):
        for match in _in_order(line.text):
            if match.re is _REQUEST:
                if waiting is not None:
                    yield _fault(waiting, None)
                waiting = _Request(match, number, line.ref)
            elif waiting is not None:
                yield _fault(waiting, _code(match) if waiting.is_told_by(match, number) else None)
                waiting = None
    if waiting is not None:
        yield _fault(waiting, None)


@dataclass(frozen=True, slots=True)
class _Request:
    """The line of a request, the `number`-th, whose reason is to come."""

    match: re.Match[str]
    number: int
    ref: str

    @property
    def interrupts(self) -> bool:
        """Whether it is an interrupt request."""
        return self.match["kind"] in (None, "INTR-REMAP")

    def is_told_by(self, reason: re.Match[str], number: int) -> bool:
        """Whether `reason` is its: on the same line, or on one that begins as those of its kind do."""
        return number == self.number or reason["of"] in (None, "INTR-REMAP" if self.interrupts else "DMAR")


def _in_order(text: str) -> list[re.Match[str]]:
    found = [match for pattern in (_REQUEST, _REASON) for match in pattern.finditer(text)]
    # An address is of an interrupt request, an index of a DMA: neither was printed by any kernel.
    whole = [m for m in found if m.re is _REASON or (m["what"] == "index") == (m["kind"] in (None, "INTR-REMAP"))]
    return sorted(whole, key=re.Match.start)


def unread(lines: Sequence[LogLine], *, limited: bool) -> list[str]:
    """Tell what in `lines` says that there was a fault which `logged_faults` did not find there in full.

    That is a request line of an unknown dialect, a lost reason, and, unless the log was `limited` by the kernel's rate
    limit, a handled fault status without its fault, or the kernel's word that it suppressed lines.
    """
    faults = list(logged_faults(lines))
    problems = [f"the reason of a fault by {fault.source} is missing" for fault in faults if fault.reason is None]
    requests = sum(line.text.count("Request device") for line in lines)
    if requests != len(faults):
        problems.append(f"{requests} fault lines in the guest's log, of which {len(faults)} could be read")
    reasons, told = sum(line.text.count("[fault reason") for line in lines), sum(f.reason is not None for f in faults)
    if reasons > told:
        problems.append(f"{reasons} reasons of faults in the guest's log, of which {told} belong to a request")
    if limited:
        return problems
    statuses = sum(_STATUS.search(line.text) is not None for line in lines)
    if statuses > len(faults):
        problems.append(f"the guest handled {statuses} faults, but its log tells {len(faults)}")
    problems += [f"the guest's log was limited: {line.text}" for line in lines if _SUPPRESSED.search(line.text)]
    return problems


def _code(reason: re.Match[str]) -> int:
    return int(reason["hex"], 16) if reason["hex"] else int(reason["decimal"])


def _fault(request: _Request, reason: int | None) -> LoggedFault:
    match, ref = request.match, request.ref
    pasid_text = match["pasid_new"] or match["pasid_old"]
    pasid = int(pasid_text, 16) if pasid_text else None
    where = int(match["where"], 16)
    logged = LoggedFault(
        source=SourceId.parse(match["device"]),
        reason=reason,
        pasid=None if pasid == _NO_PASID else pasid,
        ref=ref,
    )
    if request.interrupts:
        return replace(logged, index=where)
    access = Access.WRITE if match["kind"] == "DMA Write" else Access.READ
    fault = Fault(
        source=logged.source, access=access, reason=-1 if reason is None else reason, first=where, last=where, ref=ref
    )
    return replace(logged, fault=fault)
