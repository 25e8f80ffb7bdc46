"""The walk by the tables of scalable mode, for requests without PASID (VT-d spec, section 3.4.3)."""

from __future__ import annotations

from harness.vtd.registers import RootTableAddress
from harness.vtd.tables import (
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    ScalableContextEntry,
    ScalableRootEntry,
)
from harness.vtd.unit import Unit
from harness.vtd.walk.habits import Habits
from harness.vtd.walk.paging import Paging, first_stage, second_stage
from harness.vtd.walk.result import Refused, Request, Way

#: Functions of the lower half of a bus; PASIDs of one directory entry; entries of the smallest directory.
_HALF, _PASIDS, _DIRECTORY = 0x80, 64, 128

_LEVELS_ABOVE_WIDTH, _FIRST_STAGE_LEVELS = 2, 4


def scalable(unit: Unit, rtaddr: RootTableAddress, request: Request, way: Way, habits: Habits) -> tuple[int, int]:
    """Walk by root, context, PASID directory and PASID entry; a page of 0 bytes means that nothing was translated."""
    context = _context(unit, rtaddr, request, way, habits)
    pasid = _pasid(unit, context, way, habits)
    match pasid.translation_type:
        case PasidTranslationType.PASS_THROUGH:
            return request.address, 0
        case PasidTranslationType.FIRST_STAGE:
            levels = _FIRST_STAGE_LEVELS + pasid.first_stage_mode
            return first_stage(unit, (pasid.first_stage_table, levels), request, way, habits)
    levels = pasid.address_width + _LEVELS_ABOVE_WIDTH
    paging = Paging(
        table=pasid.second_stage_table, levels=levels, beyond=0x84, unreadable=0x78, reserved=0x7A, permission=0x79
    )
    return second_stage(unit, paging, request, way, habits)


def _context(unit: Unit, rtaddr: RootTableAddress, request: Request, way: Way, habits: Habits) -> ScalableContextEntry:
    upper, function = divmod(request.source.devfn, _HALF)
    root_at = rtaddr.table + request.source.bus * ScalableRootEntry.SIZE
    root = way.fetch("root", ScalableRootEntry, root_at, unreadable=0x38)
    if not (root.upper_present if upper else root.lower_present):
        raise Refused(0x39)
    table = root.upper_context_table if upper else root.lower_context_table
    if root.reserved_set() or unit.beyond(root.lower_context_table) or unit.beyond(root.upper_context_table):
        raise Refused(0x3A)
    context_at = table + function * ScalableContextEntry.SIZE
    context = way.fetch("context", ScalableContextEntry, context_at, unreadable=0x40)
    way.reports_disabled = bool(context.fault_processing_disable)
    if not context.present:
        raise Refused(0x41)
    if context.reserved_set() or unit.beyond(context.pasid_directory):
        raise Refused(0x42)
    if context.device_tlb_enable and not unit.device_tlb and not habits.device_tlb_enable_ignored:
        raise Refused(0x43)
    return context


def _pasid(unit: Unit, context: ScalableContextEntry, way: Way, habits: Habits) -> PasidEntry:
    pasid = context.rid_pasid
    if pasid // _PASIDS >= _DIRECTORY << context.pasid_directory_size and not habits.directory_size_ignored:
        raise Refused(0x48)
    directory_at = context.pasid_directory + pasid // _PASIDS * PasidDirectoryEntry.SIZE
    directory = way.fetch("pasid-directory", PasidDirectoryEntry, directory_at, unreadable=0x50)
    honoured = not habits.invalid_entries_report
    way.reports_disabled |= honoured and bool(directory.fault_processing_disable)
    if not directory.present:
        raise Refused(0x51)
    if (directory.reserved_set() or unit.beyond(directory.pasid_table)) and not habits.directory_reserved_ignored:
        raise Refused(0x52)
    entry_at = directory.pasid_table + pasid % _PASIDS * PasidEntry.SIZE
    entry = way.fetch("pasid", PasidEntry, entry_at, unreadable=0x58)
    way.reports_disabled |= honoured and bool(entry.fault_processing_disable)
    valid = _valid(unit, entry)
    if habits.type_before_present and not valid:
        raise Refused(0x5B)
    if not entry.present:
        raise Refused(0x59)
    if not valid:
        raise Refused(0x5B)
    way.reports_disabled |= bool(directory.fault_processing_disable or entry.fault_processing_disable)
    return entry


def _valid(unit: Unit, entry: PasidEntry) -> bool:
    """Whether the entry is programmed in a way that the unit offers (section 9.6)."""
    match entry.translation_type:
        case PasidTranslationType.FIRST_STAGE:
            known = entry.first_stage_mode == 0 or (entry.first_stage_mode == 1 and unit.first_stage_5_levels)
            return unit.first_stage and known
        case PasidTranslationType.SECOND_STAGE:
            return unit.second_stage and entry.address_width + _LEVELS_ABOVE_WIDTH in unit.levels
        case PasidTranslationType.NESTED:
            return unit.nested
        case PasidTranslationType.PASS_THROUGH:
            return unit.pass_through
    return False
