"""Linux's DMAR and INTR-REMAP fault lines, every dialect from 3.x to 7.3, read into one shape.

Source: `dmar_fault_do_one` and `dmar_fault` in drivers/iommu/intel/dmar.c (drivers/iommu/dmar.c before 5.13). What
changed over the years, and is told apart here:

- up to 4.x the reason stands on a line of its own, with the same first word as the line before it;
- up to 5.12 the reason is printed in decimal (`[fault reason 37]` is 0x25), since then as `0x25`;
- addresses have lost and regained their `0x`, device numbers had one for a while;
- PASIDs stand after the device (`PASID ffffffff` meaning none) or in the bracket (`NO_PASID`, `PASID 0x1`);
- 7.3, and 7.1.8 and 7.2.4 before it, print the device's PCI segment; others leave it out, which is read as segment 0.

A line is read whole or not at all: a number that goes on as another word, or a request that does not say whether it
was a read or a write, is no fault of which anything is known. `unread` tells of those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.vtd.faults import Access, Fault
from harness.vtd.source_id import SourceId

_NO_PASID = 0xFFFFFFFF

_DEVICE = r"(?P<{}>(?:[0-9a-fA-F]{{4}}:)?(?:0x)?[0-9a-fA-F]{{1,2}}:(?:0x)?[01]?[0-9a-fA-F]\.[0-7])"
_REASON = r"\[fault reason (?:0x(?P<hex>[0-9a-fA-F]{1,2})|(?P<decimal>[01]?[0-9]{1,2}|2[0-4][0-9]|25[0-5]))\]"
_REQUEST = re.compile(
    r"(?:DMAR:\s*\[(?P<access>DMA Read|DMA Write)(?:\s+(?:NO_PASID|PASID (?P<pasid_new>0x[0-9a-fA-F]{1,8})))?\]\s*"
    rf"Request device \[{_DEVICE.format('device')}\]\s+"
    r"(?:PASID (?P<pasid_old>[0-9a-fA-F]{1,8})\s+)?"
    r"fault addr (?:0x)?(?P<address>[0-9a-fA-F]{1,16})"
    r"|(?:DMAR:\s*\[INTR-REMAP\]|INTR-REMAP:)\s*"
    rf"Request device \[{{1,2}}{_DEVICE.format('interrupter')}\]\s+"
    r"fault index (?:0x)?(?P<index>[0-9a-fA-F]{1,4}))"
    rf"\s*(?:{_REASON}|$)"
)
_SECOND_LINE = re.compile(rf"(?P<word>DMAR|INTR-REMAP):\s*{_REASON}")
#: What a line has that tells of a fault, or of one that is being handled.
_ABOUT_A_FAULT = re.compile(
    r"Request device|DMAR: ?\[(?:DMA|INTR-REMAP)|INTR-REMAP:|(?:DMAR|INTR-REMAP).*fault (?:addr|index|reason)"
)
_HANDLING = re.compile(r"DRHD: handling fault status reg (?P<status>[0-9a-f]+)\s*$")
#: A pending fault in the fault status (PPF); without it, the unit tells of an error of the invalidation queue.
_PENDING = 1 << 1
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


def logged_faults(lines: Iterable[LogLine]) -> Iterator[LoggedFault]:
    """Yield every fault in `lines`, in order; lines that are not about faults are passed over."""
    for item in _read(lines):
        if isinstance(item, LoggedFault):
            yield item


def unread(lines: Sequence[LogLine], *, limited: bool) -> list[str]:
    """Tell what in `lines` says that there was a fault which `logged_faults` did not find there in full.

    That is a line about a fault which could not be read whole, a lost reason, and, unless the log was `limited` by the
    kernel's rate limit, a handled fault status without its fault, or the kernel's word that it suppressed lines.
    """
    read = list(_read(lines))
    faults = [item for item in read if isinstance(item, LoggedFault)]
    left = [item for item in read if isinstance(item, LogLine)]
    problems = [f"the reason of a fault by {fault.source} is missing" for fault in faults if fault.reason is None]
    if left:
        more = f", and {len(left) - 1} more" if len(left) > 1 else ""
        problems.append(f"{left[0].ref}: a line about a fault that could not be read whole{more}: {left[0].text}")
    if limited:
        return problems
    handled = [found for line in lines for part in line.text.split("\n") if (found := _HANDLING.search(part))]
    statuses = sum(bool(int(found["status"], 16) & _PENDING) for found in handled)
    if statuses > len(faults):
        problems.append(f"the guest handled {statuses} faults, but its log tells {len(faults)}")
    problems += [f"the guest's log was limited: {line.text}" for line in lines if _SUPPRESSED.search(line.text)]
    return problems


def _read(lines: Iterable[LogLine]) -> Iterator[LoggedFault | LogLine]:
    """Give the faults, and the lines that are about one and could not be read whole, in order.

    A record may have several lines: of dialects with two of them, both are in one.
    """
    waiting: LoggedFault | None = None
    for line in (LogLine(part, record.ref) for record in lines for part in record.text.split("\n")):
        second = _SECOND_LINE.search(line.text)
        if waiting is not None and second is not None and (second["word"] == "DMAR") == (waiting.fault is not None):
            yield _with_reason(waiting, _code(second))
            waiting, rest = None, _without(line.text, second)
        else:
            rest = line.text
        requests = list(_REQUEST.finditer(rest))
        for request in requests:
            if waiting is not None:
                yield waiting
                waiting = None
            fault, reason = _fault(request, line.ref), _code(request)
            if reason is None:
                waiting = fault
            else:
                yield _with_reason(fault, reason)
        if _left_over(_without(rest, *requests)):
            yield line
    if waiting is not None:
        yield waiting


def _without(text: str, *matches: re.Match[str]) -> str:
    for match in reversed(matches):
        text = text[: match.start()] + text[match.end() :]
    return text


def _left_over(text: str) -> bool:
    """Whether what is left of a line, without what was read of it, is about a fault."""
    return bool(_ABOUT_A_FAULT.search(text) or ("handling fault" in text and not _HANDLING.search(text)))


def _code(found: re.Match[str]) -> int | None:
    if found["hex"]:
        return int(found["hex"], 16)
    return int(found["decimal"]) if found["decimal"] else None


def _with_reason(logged: LoggedFault, reason: int | None) -> LoggedFault:
    known = -1 if reason is None else reason
    fault = None if logged.fault is None else replace(logged.fault, reason=known)
    return replace(logged, reason=reason, fault=fault)


def _fault(request: re.Match[str], ref: str) -> LoggedFault:
    """Give the fault, its reason not known yet."""
    if request["index"]:
        source = SourceId.parse(request["interrupter"])
        return LoggedFault(source=source, reason=None, index=int(request["index"], 16), ref=ref)
    source, where = SourceId.parse(request["device"]), int(request["address"], 16)
    access = Access.WRITE if request["access"] == "DMA Write" else Access.READ
    fault = Fault(source=source, access=access, reason=-1, first=where, last=where, ref=ref)
    pasid_text = request["pasid_new"] or request["pasid_old"]
    pasid = int(pasid_text, 16) if pasid_text else None
    return LoggedFault(source=source, reason=None, fault=fault, pasid=None if pasid == _NO_PASID else pasid, ref=ref)
