"""Linux's DMAR and INTR-REMAP fault lines, every dialect from 3.x to 7.3, read into one shape.

Source: `dmar_fault_do_one` and `dmar_fault` in drivers/iommu/intel/dmar.c (drivers/iommu/dmar.c before 5.13). What
changed over the years, and is told apart here:

- up to 4.x the reason stands on a line of its own;
- up to 5.12 the reason is printed in decimal (`[fault reason 37]` is 0x25), since then as `0x25`;
- addresses have lost and regained their `0x`, device numbers had one for a while;
- PASIDs stand after the device (`PASID ffffffff` meaning none) or in the bracket (`NO_PASID`, `PASID 0x1`);
- since 7.3 the device carries its PCI segment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.vtd.faults import Access, Fault
from harness.vtd.source_id import SourceId

_NO_PASID = 0xFFFFFFFF

_REQUEST = re.compile(
    r"(?:DMAR|INTR-REMAP):\s*\[?(?P<kind>DMA Read|DMA Write|INTR-REMAP|)"
    r"(?:\s+(?:NO_PASID|PASID (?P<pasid_new>0x[0-9a-fA-F]+)))?\]?\s*"
    r"Request device \[+(?P<device>(?:[0-9a-fA-F]{4}:)?(?:0x)?[0-9a-fA-F]{1,2}:(?:0x)?[01]?[0-9a-fA-F]\.[0-7])\]\s+"
    r"(?:PASID (?P<pasid_old>[0-9a-fA-F]+)\s+)?"
    r"fault (?P<what>addr|index) (?:0x)?(?P<where>[0-9a-fA-F]+)"
)
_REASON = re.compile(r"\[fault reason (?:0x(?P<hex>[0-9a-fA-F]+)|(?P<decimal>[0-9]+))\]")
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


def logged_faults(lines: Iterable[LogLine]) -> Iterator[LoggedFault]:
    """Yield every fault in `lines`, in order; lines that are not about faults are passed over."""
    waiting: tuple[re.Match[str], str] | None = None
    for line in lines:
        request = _REQUEST.search(line.text)
        reason = _REASON.search(line.text)
        if request is not None:
            if waiting is not None:
                yield _fault(*waiting, None)
                waiting = None
            if reason is None:
                waiting = (request, line.ref)
            else:
                yield _fault(request, line.ref, _code(reason))
        elif reason is not None and waiting is not None:
            yield _fault(*waiting, _code(reason))
            waiting = None
    if waiting is not None:
        yield _fault(*waiting, None)


def unread(lines: Sequence[LogLine], *, limited: bool) -> list[str]:
    """Tell what in `lines` says that there was a fault which `logged_faults` did not find there in full.

    That is a request line of an unknown dialect, a lost reason, and, unless the log was `limited` by the kernel's rate
    limit, a handled fault status without its fault, or the kernel's word that it suppressed lines.
    """
    faults = list(logged_faults(lines))
    problems = [f"the reason of a fault by {fault.source} is missing" for fault in faults if fault.reason is None]
    requests = sum("Request device" in line.text for line in lines)
    if requests != len(faults):
        problems.append(f"{requests} fault lines in the guest's log, of which {len(faults)} could be read")
    if limited:
        return problems
    statuses = sum(_STATUS.search(line.text) is not None for line in lines)
    if statuses > len(faults):
        problems.append(f"the guest handled {statuses} faults, but its log tells {len(faults)}")
    problems += [f"the guest's log was limited: {line.text}" for line in lines if _SUPPRESSED.search(line.text)]
    return problems


def _code(reason: re.Match[str]) -> int:
    return int(reason["hex"], 16) if reason["hex"] else int(reason["decimal"])


def _fault(request: re.Match[str], ref: str, reason: int | None) -> LoggedFault:
    pasid_text = request["pasid_new"] or request["pasid_old"]
    pasid = int(pasid_text, 16) if pasid_text else None
    where = int(request["where"], 16)
    logged = LoggedFault(
        source=SourceId.parse(request["device"]),
        reason=reason,
        pasid=None if pasid == _NO_PASID else pasid,
        ref=ref,
    )
    if request["what"] == "index":
        return replace(logged, index=where)
    access = Access.WRITE if request["kind"] == "DMA Write" else Access.READ
    fault = Fault(
        source=logged.source, access=access, reason=-1 if reason is None else reason, first=where, last=where, ref=ref
    )
    return replace(logged, fault=fault)
