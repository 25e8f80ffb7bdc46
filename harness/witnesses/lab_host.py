"""What the journal has of a lab host: whether its log was heard without a gap, and whether its NIC came back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.evidence import Entry
from harness.vtd.source_id import SourceId

#: The source of the records of the host's kernel log.
LOG = "host-kmsg"

#: How a mark begins in a kernel log.
_MARK = "vtd-harness: "


def handed(entries: Sequence[Entry]) -> tuple[SourceId, ...]:
    """Give the requester IDs, on the host, of the NICs that it handed out."""
    lent = [entry for entry in entries if (entry.source, entry.kind) == ("lab", "lent")]
    return tuple(SourceId.parse(str(entry.data["address"])) for entry in lent)


def problems(entries: Sequence[Entry], *, whole: bool = True) -> Iterator[str]:
    """Tell why a record with a NIC of a lab host is not reliable: a gap in its log, a NIC that did not come back.

    That it came back stands at the end of a `whole` record only.
    """
    lent = [entry for entry in entries if (entry.source, entry.kind) == ("lab", "lent")]
    if not lent:
        return
    back = {
        str(entry.data["address"]): entry
        for entry in entries
        if (entry.source, entry.kind) == ("lab", "returned") and not entry.data["kept"]
    }
    for entry in lent if whole else ():
        address, driver = str(entry.data["address"]), entry.data["driver"]
        found = back.get(address)
        if found is None:
            yield f"{entry.ref}: the lab host's NIC {address} did not come back from the run"
        elif found.data["driver"] != driver:
            yield f"{found.ref}: the lab host's NIC {address} had {driver}, and came back to {found.data['driver']}"
    yield from _log_gaps(entries)


def _log_gaps(entries: Sequence[Entry]) -> Iterator[str]:
    log = [entry for entry in entries if entry.source == LOG]
    marked = {entry.step for entry in log if entry.kind == "mark"}
    for begin in (e for e in entries if (e.source, e.kind) == ("runner", "step-begin")):
        if begin.step not in marked:
            yield f"{begin.ref}: the lab host's log was not heard at the end of this step"
    texts = {str(entry.data["text"]) for entry in log if entry.kind == "line"}
    expected: int | None = None
    for entry in log:
        if entry.kind == "lost":
            yield f"{entry.ref}: the lab host's log was overwritten before it was read"
        elif entry.kind == "mark":
            if f"{_MARK}{entry.data['marker']}" not in texts:
                yield f"{entry.ref}: the lab host's log does not hold the marker '{entry.data['marker']}'"
        elif entry.kind == "line":
            number = int(entry.data["seq"])
            if expected is not None and number != expected:
                yield f"{entry.ref}: record {number} of the lab host's log follows record {expected - 1}"
            expected = number + 1
