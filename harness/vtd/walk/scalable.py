"""The walk by the tables of scalable mode, for requests without PASID (VT-d spec, section 3.4.3)."""

from __future__ import annotations

from harness.vtd.structure import Bits
from harness.vtd.tables import (
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    ScalableContextEntry,
    ScalableRootEntry,
)
from harness.vtd.unit import Unit
from harness.vtd.walk.first_stage import first_stage
from harness.vtd.walk.habits import Habits
from harness.vtd.walk.result import Refused, Request, Way
from harness.vtd.walk.second_stage import LEGACY, SCALABLE, Paging, second_stage

#: Functions of the lower half of a bus; PASIDs of one directory entry; entries of the smallest directory.
_HALF, _PASIDS, _DIRECTORY = 0x80, 64, 128

_LEVELS_ABOVE_WIDTH = 2

#: The lower half of a root entry, and the upper one.
_LOWER, _UPPER = Bits(63, 0), Bits(127, 64)


def scalable(unit: Unit, root_table: int, request: Request, way: Way, habits: Habits) -> tuple[int, int]:
    """Walk by root, context, PASID directory and PASID entry; a page of 0 bytes means that nothing was translated."""
    context = _context(unit, root_table, request, way, habits)
    pasid = _pasid(unit, context, way, habits)
    match pasid.translation_type:
        case PasidTranslationType.PASS_THROUGH:
            if unit.beyond(request.address) and not habits.pass_through_unlimited:
                raise Refused(0x83)
            return request.address, 0
        case PasidTranslationType.FIRST_STAGE:
            return first_stage(unit, pasid, request, way, habits)
    levels = pasid.address_width + _LEVELS_ABOVE_WIDTH
    codes = LEGACY if habits.legacy_codes else SCALABLE
    return second_stage(unit, Paging(table=pasid.second_stage_table, levels=levels, codes=codes), request, way, habits)


def _context(unit: Unit, root_table: int, request: Request, way: Way, habits: Habits) -> ScalableContextEntry:
    upper, function = divmod(request.source.devfn, _HALF)
    root_at = root_table + request.source.bus * ScalableRootEntry.SIZE
    root = way.fetch("root", ScalableRootEntry, root_at, unreadable=0x38)
    if not (root.upper_present if upper else root.lower_present):
        raise Refused(0x39)
    if _root_reserved(unit, root, habits):
        raise Refused(0x3A)
    table = root.upper_context_table if upper else root.lower_context_table
    context_at = table + function * ScalableContextEntry.SIZE
    context = way.fetch("context", ScalableContextEntry, context_at, unreadable=0x40)
    way.reports_disabled = bool(context.fault_processing_disable)
    if not context.present:
        raise Refused(0x41)
    if context.reserved_set() or unit.beyond(context.pasid_directory):
        raise Refused(0x42)
    if _enables_unoffered(unit, context) and not habits.context_features_ignored:
        raise Refused(0x43)
    return context


def _root_reserved(unit: Unit, root: ScalableRootEntry, habits: Habits) -> bool:
    """Whether reserved bits are set in a half that is present, or in any if the unit looks at both."""
    checked = 0
    for half, present in ((_LOWER, root.lower_present), (_UPPER, root.upper_present)):
        if present or habits.both_root_halves_checked:
            checked |= half.mask
    half_root = ScalableRootEntry(root.raw & checked)
    tables = half_root.lower_context_table, half_root.upper_context_table
    return bool(half_root.reserved_set() or any(unit.beyond(table) for table in tables))


def _enables_unoffered(unit: Unit, context: ScalableContextEntry) -> bool:
    """Whether the entry enables ATS requests, requests with PASID or page requests where there are none (9.4)."""
    return bool(
        (context.device_tlb_enable and not unit.device_tlb)
        or (context.pasid_enable and not unit.pasid)
        or (context.page_request_enable and not unit.page_requests)
    )


def _pasid(unit: Unit, context: ScalableContextEntry, way: Way, habits: Habits) -> PasidEntry:
    pasid = context.rid_pasid if unit.rid_pasid or habits.rid_pasid_unoffered else 0
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
    if _pasid_reserved(unit, entry) and not habits.pasid_reserved_ignored:
        raise Refused(0x5A)
    if not valid:
        raise Refused(0x5B)
    way.reports_disabled |= bool(directory.fault_processing_disable or entry.fault_processing_disable)
    return entry


def _pasid_reserved(unit: Unit, entry: PasidEntry) -> bool:
    """Whether reserved bits are set, those of pointers to tables of the stages that translate among them."""
    kind = entry.translation_type
    stages = (
        (entry.first_stage_table, (PasidTranslationType.FIRST_STAGE, PasidTranslationType.NESTED)),
        (entry.second_stage_table, (PasidTranslationType.SECOND_STAGE, PasidTranslationType.NESTED)),
    )
    return bool(entry.reserved_set() or any(kind in kinds and unit.beyond(table) for table, kinds in stages))


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
