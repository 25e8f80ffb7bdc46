"""The walk through first-stage paging tables, whose entries are those of a CPU (VT-d spec, section 3.6)."""

from __future__ import annotations

from harness.vtd.faults import Access
from harness.vtd.tables import FirstStageEntry, PasidEntry
from harness.vtd.unit import Unit
from harness.vtd.walk.habits import Habits
from harness.vtd.walk.pages import LARGEST, PAGE_SHIFT, beyond_memory, index, landing, offset_bits, width
from harness.vtd.walk.result import Refused, Request, Way

_FEWEST_LEVELS = 4

#: Bits of an address that second-stage tables translate, for a width field of 0; each more is a level.
_SMALLEST_WIDTH, _LEVEL_WIDTH = 30, 9


def first_stage(unit: Unit, pasid: PasidEntry, request: Request, way: Way, habits: Habits) -> tuple[int, int]:
    """Translate by the first-stage tables of `pasid`; gives the address and the size of its page."""
    levels = _FEWEST_LEVELS + pasid.first_stage_mode
    if not _canonical(request.address, _width(unit, pasid, levels, habits)):
        raise Refused(0x80)
    table, rights = pasid.first_stage_table, FirstStageEntry.user.mask | FirstStageEntry.write.mask
    for level in range(levels, 0, -1):
        entry_at = table + index(request.address, level) * FirstStageEntry.SIZE
        unreadable = 0x73 if level == levels else 0x70
        entry = way.fetch_paging(level, FirstStageEntry, entry_at, unreadable=unreadable)
        if not entry.present:
            raise Refused(0x71)
        rights &= entry.raw
        if habits.rights_at_each_entry:
            _require(rights, request.access)
        large = bool(entry.page_size)
        if entry.raw & _reserved(unit, level, habits, large=large):
            raise Refused(0x72)
        leaf = level == 1 or (large and level <= LARGEST)
        if leaf:
            _require(rights, request.access)
        _mark(entry, entry_at, way, habits, dirty=leaf and request.access is Access.WRITE)
        if leaf:
            return landing(entry.address, level, request.address)
        table = entry.address
    raise AssertionError("tables have a level at least")


def _width(unit: Unit, pasid: PasidEntry, levels: int, habits: Habits) -> int:
    if habits.first_stage_width_from_second:
        return min(_SMALLEST_WIDTH + _LEVEL_WIDTH * pasid.address_width, unit.address_width)
    return width(levels)


def _canonical(address: int, bits: int) -> bool:
    """Whether all bits above `bits` are as the highest of those."""
    upper = address >> bits - 1
    return upper in (0, (1 << 64 - bits + 1) - 1)


def _require(rights: int, access: Access) -> None:
    """Refuse what all entries so far do not permit a user together (section 3.6.1)."""
    if not rights & FirstStageEntry.user.mask:
        raise Refused(0x81)
    if access is Access.WRITE and not rights & FirstStageEntry.write.mask:
        raise Refused(0x85)


def _mark(entry: FirstStageEntry, entry_at: int, way: Way, habits: Habits, *, dirty: bool) -> None:
    """Refuse where the entry cannot be marked as accessed, or as dirty, and is not yet (section 3.6.2)."""
    if habits.one_mark_suffices:
        marked = entry.accessed or (dirty and entry.dirty)
    else:
        marked = entry.accessed and (entry.dirty or not dirty)
    if not marked and not way.writable(entry_at):
        raise Refused(0x91)


def _reserved(unit: Unit, level: int, habits: Habits, *, large: bool) -> int:
    """Bits that must be zero in a first-stage entry (section 9.7)."""
    mask = beyond_memory(unit)
    gigabytes = unit.first_stage_1gib_pages or habits.gigabyte_pages_unoffered
    if level > LARGEST or (level == LARGEST and not gigabytes):
        mask |= FirstStageEntry.page_size.mask
    elif large and level > 1:
        # Bit 12 of a large page is its memory type.
        mask |= (1 << offset_bits(level)) - (1 << PAGE_SHIFT + 1)
    return mask
