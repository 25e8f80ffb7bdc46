"""The walk through second-stage paging tables (VT-d spec, section 3.7), which both modes have."""

from __future__ import annotations

from dataclasses import dataclass

from harness.vtd.faults import Access
from harness.vtd.tables import SecondStageEntry
from harness.vtd.unit import Unit
from harness.vtd.walk.habits import Habits
from harness.vtd.walk.pages import LARGEST, PAGE_SHIFT, beyond_memory, index, landing, offset_bits, width
from harness.vtd.walk.result import Refused, Request, Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """The codes of a mode: for an address too wide, tables that cannot be read (the first, or one below), and entries.

    `nothing` is that for entries that together permit neither reading nor writing, None where `write` and `read` stand
    for that too.
    """

    beyond: int
    top_unreadable: int
    unreadable: int
    reserved: int
    write: int
    read: int
    nothing: int | None = None


LEGACY = Codes(beyond=0x04, top_unreadable=0x03, unreadable=0x07, reserved=0x0C, write=0x05, read=0x06)
SCALABLE = Codes(beyond=0x84, top_unreadable=0x7B, unreadable=0x78, reserved=0x7A, write=0x85, read=0x86, nothing=0x79)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """The paging tables of a domain: the top one, their depth, and the codes by which they are refused."""

    table: int
    levels: int
    codes: Codes


def second_stage(unit: Unit, paging: Paging, request: Request, way: Way, habits: Habits) -> tuple[int, int]:
    """Translate by second-stage tables; gives the address and the size of its page."""
    codes = paging.codes
    if request.address >> min(width(paging.levels), unit.address_width):
        raise Refused(codes.beyond)
    table, rights = paging.table, SecondStageEntry.read.mask | SecondStageEntry.write.mask
    for level in range(paging.levels, 0, -1):
        unreadable = codes.top_unreadable if level == paging.levels else codes.unreadable
        entry_at = table + index(request.address, level) * SecondStageEntry.SIZE
        entry = way.fetch_paging(level, SecondStageEntry, entry_at, unreadable=unreadable)
        rights &= entry.raw
        if habits.rights_at_each_entry or not (entry.read or entry.write):
            _require(rights, request.access, codes)
        if entry.raw & _reserved(unit, level, habits, large=bool(entry.page_size)):
            raise Refused(codes.reserved)
        if level == 1 or (entry.page_size and level <= LARGEST):
            _require(rights, request.access, codes)
            return landing(entry.address, level, request.address)
        table = entry.address
    raise AssertionError("tables have a level at least")


def _require(rights: int, access: Access, codes: Codes) -> None:
    """Refuse what all entries so far do not permit together (section 3.7.1)."""
    needed = SecondStageEntry.write if access is Access.WRITE else SecondStageEntry.read
    if rights & needed.mask:
        return
    if not rights and codes.nothing is not None:
        raise Refused(codes.nothing)
    raise Refused(codes.write if access is Access.WRITE else codes.read)


def _reserved(unit: Unit, level: int, habits: Habits, *, large: bool) -> int:
    """Bits that must be zero in a second-stage entry (section 9.8).

    They are the address bits that memory does not have, those below a large page, the page size bit where there are no
    pages of that size, snooping where that is not offered or no page is mapped, and bit 62, which marked transient
    mappings in older revisions. Others are ignored.
    """
    leaf = level == 1 or (large and level <= LARGEST)
    mask = beyond_memory(unit) | SecondStageEntry.transient_mapping.mask
    snoop = unit.snoop_control or (habits.snoop_with_scalable_mode and unit.scalable_mode)
    if not (snoop and leaf):
        mask |= SecondStageEntry.snoop.mask
    if level > 1 and level not in unit.large_levels:
        mask |= SecondStageEntry.page_size.mask
    elif leaf and level > 1:
        mask |= (1 << offset_bits(level)) - (1 << PAGE_SHIFT)
    return mask
