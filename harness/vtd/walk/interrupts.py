"""The way of an interrupt request through the interrupt remapping table (VT-d spec, section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.vtd.interrupts import InterruptRemapEntry, InterruptRequest, SourceValidation
from harness.vtd.registers import InterruptRemapTableAddress
from harness.vtd.source_id import SourceId
from harness.vtd.walk.habits import SPECIFIED, Habits
from harness.vtd.walk.result import Read, Unreadable

#: Bits of the requester ID that are compared, by the qualifier (section 9.10): all, or all but some of the function's.
_COMPARED = {0: 0xFFFF, 1: 0xFFFB, 2: 0xFFF9, 3: 0xFFF8}


@dataclass(frozen=True, slots=True)
class Remapped:
    """The interrupt that is delivered; a posted one is noted in memory instead."""

    vector: int
    destination: int
    posted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptWalk:
    """What became of an interrupt request: `remapped`, or refused for `reason`, then maybe `silent`.

    One that is neither went through as it was.

    `index` is the entry that it named, `address` where that is, `entry` what stood there; None where it got that far
    not.
    """

    index: int | None = None
    address: int | None = None
    entry: InterruptRemapEntry | None = None
    remapped: Remapped | None = None
    reason: int | None = None
    silent: bool = False


def walk_interrupt(
    irta: InterruptRemapTableAddress,
    message: tuple[int, int],
    source: SourceId,
    read: Read,
    habits: Habits = SPECIFIED,
) -> InterruptWalk:
    """Take the way of `message`, a write by `source` to an address of its data; ValueError for no interrupt request."""
    address, data = message
    request = InterruptRequest.read(address, data)
    if request is None:
        return InterruptWalk(reason=None if habits.compatibility_passes else 0x25)
    if request.index >= irta.entries:
        return InterruptWalk(index=request.index, reason=0x21)
    address = irta.table + request.index * InterruptRemapEntry.SIZE
    try:
        entry = InterruptRemapEntry.decode(read(address, InterruptRemapEntry.SIZE))
    except Unreadable:
        return InterruptWalk(index=request.index, address=address, reason=0x23)
    reason = _refused(entry, request, data, source, habits)
    if reason == 0x24 and habits.reserved_validation_is_source and not entry.reserved_set():
        reason = 0x26
    if reason is None:
        destination = entry.destination if irta.extended_mode else entry.destination >> 8 & 0xFF
        remapped = Remapped(entry.vector, destination, posted=bool(entry.posted))
        return InterruptWalk(index=request.index, address=address, entry=entry, remapped=remapped)
    silent = bool(entry.fault_processing_disable) and reason in (0x22, 0x24, 0x26) and reason not in habits.unqualified
    return InterruptWalk(index=request.index, address=address, entry=entry, reason=reason, silent=silent)


def _refused(
    entry: InterruptRemapEntry, request: InterruptRequest, data: int, source: SourceId, habits: Habits
) -> int | None:
    if not entry.present:
        return 0x22
    if entry.reserved_set() or entry.source_validation == SourceValidation.RESERVED:
        return 0x24
    if not _validated(entry, source, habits):
        return 0x26
    return 0x20 if request.subhandle is not None and data >> 16 else None


def _validated(entry: InterruptRemapEntry, source: SourceId, habits: Habits) -> bool:
    match entry.source_validation:
        case SourceValidation.SOURCE_ID:
            mask = _COMPARED[entry.source_qualifier]
            return entry.source_id & mask == source.value & mask
        case SourceValidation.BUS_RANGE:
            first, last = entry.source_id >> 8, entry.source_id & 0xFF
            return last <= source.bus <= first if habits.bus_range_reversed else first <= source.bus <= last
    return True
