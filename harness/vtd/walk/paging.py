"""The walk through paging tables: the second stage (VT-d spec, section 3.7), and the first (section 3.6)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.vtd.faults import Access
from harness.vtd.tables import FirstStageEntry, SecondStageEntry
from harness.vtd.unit import Unit
from harness.vtd.walk.habits import Habits
from harness.vtd.walk.result import Refused, Request, Way

_BITS, _PAGE_SHIFT = 9, 12

#: Codes of the legacy second stage by access; in scalable mode one code stands for both.
PERMISSION = {Access.WRITE: 0x05, Access.READ: 0x06}

#: The most levels of which a single entry maps a page: 1 GiB.
_LARGEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """The paging tables of a domain: the top one, their depth, and the codes by which they are refused.

    `permission` is the code for a missing right, None for one code for each access.
    """

    table: int
    levels: int
    beyond: int
    unreadable: int
    reserved: int
    permission: int | None = None

    @property
    def width(self) -> int:
        """Bits of an address that they translate."""
        return _PAGE_SHIFT + _BITS * self.levels


def second_stage(unit: Unit, paging: Paging, request: Request, way: Way, habits: Habits) -> tuple[int, int]:
    """Translate by second-stage tables; gives the address and the size of its page."""
    if request.address >> min(paging.width, unit.address_width):
        raise Refused(paging.beyond)
    table = paging.table
    for level in range(paging.levels, 0, -1):
        top = level == paging.levels
        unreadable = (habits.top_table_unreadable if top else None) or paging.unreadable
        entry_at = table + _index(request.address, level) * SecondStageEntry.SIZE
        entry = way.fetch(f"level-{level}", SecondStageEntry, entry_at, unreadable=unreadable)
        permitted = entry.write if request.access is Access.WRITE else entry.read
        reserved = bool(entry.raw & _reserved_second(unit, level, large=bool(entry.page_size)))
        present = bool(entry.read or entry.write)
        if reserved and present and not (habits.permission_before_reserved and not permitted):
            raise Refused(paging.reserved)
        if not permitted:
            raise Refused(PERMISSION[request.access] if paging.permission is None else paging.permission)
        if level == 1 or (entry.page_size and level <= _LARGEST):
            return _result(entry.address, level, request.address)
        table = entry.address
    raise AssertionError("tables have a level at least")


def first_stage(unit: Unit, paging: tuple[int, int], request: Request, way: Way, habits: Habits) -> tuple[int, int]:
    """Translate by first-stage tables, whose entries are those of a CPU; gives the address and the size of its page.

    `paging` is the top table and the number of levels.
    """
    table, levels = paging
    width = _PAGE_SHIFT + _BITS * levels
    upper = request.address >> width - 1
    if upper not in (0, (1 << 64 - width + 1) - 1):
        raise Refused(0x80)
    for level in range(levels, 0, -1):
        entry_at = table + _index(request.address, level) * FirstStageEntry.SIZE
        unreadable = 0x73 if level == levels else 0x70
        entry = way.fetch(f"level-{level}", FirstStageEntry, entry_at, unreadable=unreadable)
        if not entry.present:
            raise Refused(0x71)
        checks = [
            (bool(entry.raw & _reserved_first(unit, level, large=bool(entry.page_size))), 0x72),
            (not entry.user, 0x81),
            (request.access is Access.WRITE and not entry.write, 0x85),
        ]
        for wrong, code in (*checks[1:], checks[0]) if habits.permission_before_reserved else checks:
            if wrong:
                raise Refused(code)
        if level == 1 or (entry.page_size and level <= _LARGEST):
            return _result(entry.address, level, request.address)
        table = entry.address
    raise AssertionError("tables have a level at least")


def _index(address: int, level: int) -> int:
    return address >> _PAGE_SHIFT + _BITS * (level - 1) & (1 << _BITS) - 1


def _result(address: int, level: int, requested: int) -> tuple[int, int]:
    page = 1 << _PAGE_SHIFT + _BITS * (level - 1)
    return address & -page | requested & page - 1, page


def _reserved_second(unit: Unit, level: int, *, large: bool) -> int:
    """Bits that must be zero in a second-stage entry (section 9.8); bits 61:52 and 63 are ignored by hardware.

    They are the address bits that memory does not have, those below a large page, the page size bit where there are no
    pages of that size, snooping where that is not offered or no page is mapped, and the mark of a transient mapping
    where no device keeps translations.
    """
    mask = (1 << 52) - (1 << unit.host_address_width)
    if not ((unit.snoop_control or unit.scalable_mode) and (level == 1 or large)):
        mask |= SecondStageEntry.snoop.mask
    if not (unit.device_tlb and (level == 1 or large)):
        mask |= SecondStageEntry.transient_mapping.mask
    if level > 1 and level not in unit.large_levels:
        mask |= SecondStageEntry.page_size.mask
    elif large and level > 1:
        mask |= (1 << _PAGE_SHIFT + _BITS * (level - 1)) - (1 << _PAGE_SHIFT)
    return mask


def _reserved_first(unit: Unit, level: int, *, large: bool) -> int:
    mask = (1 << 52) - (1 << unit.host_address_width)
    if level > _LARGEST:
        mask |= FirstStageEntry.page_size.mask
    elif large and level > 1:
        # Bit 12 of a large page is its memory type.
        mask |= (1 << _PAGE_SHIFT + _BITS * (level - 1)) - (1 << _PAGE_SHIFT + 1)
    return mask
