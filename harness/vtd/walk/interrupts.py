"""The way of an interrupt request through the interrupt remapping table (VT-d spec, section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.vtd.interrupts import InterruptRemapEntry, InterruptRequest, PostedInterruptEntry, SourceValidation
from harness.vtd.registers import InterruptRemapTableAddress
from harness.vtd.source_id import SourceId
from harness.vtd.unit import Unit
from harness.vtd.walk.habits import SPECIFIED, Habits
from harness.vtd.walk.result import Read, Unreadable

#: Bits of the requester ID that are compared, by the qualifier (section 9.10): all, or all but some of the function's.
_COMPARED = {0: 0xFFFF, 1: 0xFFFB, 2: 0xFFF9, 3: 0xFFF8}

#: Where an 8-bit destination stands in the field for 32-bit ones; the bits around it are reserved then.
_SHORT_DESTINATION = 0xFF00

#: Reasons that the entry's FPD keeps from being reported.
_QUALIFIED = (0x22, 0x24, 0x26)


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
    unit: Unit,
    irta: InterruptRemapTableAddress,
    message: tuple[int, int],
    source: SourceId,
    read: Read,
    *,
    habits: Habits = SPECIFIED,
) -> InterruptWalk:
    """Take the way of `message`, a write by `source` to an address of its data; ValueError for no interrupt request."""
    address, data = message
    request = InterruptRequest.read(address, data)
    if request is None:
        return InterruptWalk(reason=None if habits.compatibility_passes else 0x25)
    wrong_request = request.subhandle is not None and bool(data >> 16)
    if wrong_request and not habits.request_checked_last:
        return InterruptWalk(reason=0x20)
    index = request.index & 0xFFFF if habits.index_wraps else request.index
    if index >= irta.entries:
        return InterruptWalk(index=index, reason=0x21)
    address = irta.table + index * InterruptRemapEntry.SIZE
    try:
        entry = InterruptRemapEntry.decode(read(address, InterruptRemapEntry.SIZE))
    except Unreadable:
        return InterruptWalk(index=index, address=address, reason=0x23)
    reason = _refused(unit, irta, entry, source, habits) or (0x20 if wrong_request else None)
    if reason is None:
        destination = entry.destination if irta.extended_mode else (entry.destination & _SHORT_DESTINATION) >> 8
        remapped = Remapped(entry.vector, destination, posted=_posted(unit, entry))
        return InterruptWalk(index=index, address=address, entry=entry, remapped=remapped)
    silent = bool(entry.fault_processing_disable) and reason in _QUALIFIED and reason not in habits.unqualified
    return InterruptWalk(index=index, address=address, entry=entry, reason=reason, silent=silent)


def _refused(
    unit: Unit, irta: InterruptRemapTableAddress, entry: InterruptRemapEntry, source: SourceId, habits: Habits
) -> int | None:
    if not entry.present:
        return 0x22
    of_source = _source_refused(entry, source, habits)
    of_entry = 0x24 if _reserved(unit, irta, entry, habits) else None
    return of_entry or of_source if habits.entry_reserved_before_source else of_source or of_entry


def _posted(unit: Unit, entry: InterruptRemapEntry) -> bool:
    return bool(entry.posted and unit.posted_interrupts)


def _reserved(unit: Unit, irta: InterruptRemapTableAddress, entry: InterruptRemapEntry, habits: Habits) -> bool:
    """Whether reserved bits of the entry are set, in the format that it has for this unit (sections 9.10 and 9.11)."""
    if _posted(unit, entry):
        return bool(PostedInterruptEntry(entry.raw).reserved_set())
    unoffered = entry.posted and not habits.posted_is_remapped
    short = not irta.extended_mode and not habits.destination_reserved_ignored
    return bool(entry.reserved_set() or unoffered or (short and entry.destination & ~_SHORT_DESTINATION))


def _source_refused(entry: InterruptRemapEntry, source: SourceId, habits: Habits) -> int | None:
    if entry.source_validation == SourceValidation.RESERVED:
        return 0x26 if habits.reserved_validation_is_source else 0x24
    return None if _validated(entry, source, habits) else 0x26


def _validated(entry: InterruptRemapEntry, source: SourceId, habits: Habits) -> bool:
    match entry.source_validation:
        case SourceValidation.SOURCE_ID:
            mask = _COMPARED[entry.source_qualifier]
            return entry.source_id & mask == source.value & mask
        case SourceValidation.BUS_RANGE:
            first, last = entry.source_id >> 8, entry.source_id & 0xFF
            return last <= source.bus <= first if habits.bus_range_reversed else first <= source.bus <= last
    return True
