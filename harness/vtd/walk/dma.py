"""The walk of a DMA request, from the root table to the page (VT-d spec, chapter 3; its faults: section 7.1.3)."""

from __future__ import annotations

from collections.abc import Callable

from harness.vtd.faults import REASON_BY_CODE, Mode
from harness.vtd.interrupts import INTERRUPT_RANGE
from harness.vtd.registers import RootTableAddress, TableMode
from harness.vtd.tables import ContextEntry, RootEntry, TranslationType
from harness.vtd.unit import Unit
from harness.vtd.walk.habits import SPECIFIED, Habits
from harness.vtd.walk.result import Read, Refused, Request, Walk, Way
from harness.vtd.walk.scalable import scalable
from harness.vtd.walk.second_stage import LEGACY, Paging, second_stage

#: Reasons of the root and context tables of scalable mode, and those of legacy mode for the same.
_LEGACY_CODES = {0x38: 0x08, 0x39: 0x01, 0x3A: 0x0A, 0x40: 0x09, 0x41: 0x02, 0x42: 0x0B, 0x43: 0x03}

#: Levels of the tables that the address width field of an entry names (section 9.3).
_LEVELS_ABOVE_WIDTH = 2


def _everywhere(_address: int) -> bool:
    return True


def walk(
    unit: Unit,
    rtaddr: RootTableAddress,
    request: Request,
    read: Read,
    habits: Habits = SPECIFIED,
    *,
    writable: Callable[[int], bool] = _everywhere,
) -> Walk:
    """Take the way of `request` through the tables that `rtaddr` names.

    `writable` tells whether an entry at an address can be marked as accessed or dirty; nothing is marked here. Requests
    to the interrupt range are no DMA, and are not walked (section 3.14).
    """
    if request.address in INTERRUPT_RANGE:
        return Walk(request=request, steps=(), interrupt=True)
    way = Way(read, writable, habits.all_ones_unreadable)
    try:
        mode = _mode(unit, rtaddr, habits)
        root_table = rtaddr.table & (1 << unit.host_address_width) - 1
        tables = scalable if mode is TableMode.SCALABLE else _legacy
        address, page = tables(unit, root_table, request, way, habits)
        if page and _touches_interrupts(address, page):
            of_scalable = unit.scalable_mode if habits.interrupt_code_of_unit else mode is TableMode.SCALABLE
            raise Refused(0x87 if of_scalable else 0x0E)
    except Refused as refused:
        known = REASON_BY_CODE.get(refused.code)
        qualified = known is not None and known.qualified and known.mode is not Mode.INTERRUPT
        code = _LEGACY_CODES.get(refused.code, refused.code) if habits.legacy_codes else refused.code
        silent = way.reports_disabled and qualified and code not in habits.unqualified
        return Walk(request=request, steps=tuple(way.steps), reason=code, silent=silent)
    return Walk(request=request, steps=tuple(way.steps), address=address, page=page)


def _mode(unit: Unit, rtaddr: RootTableAddress, habits: Habits) -> TableMode:
    """Give the mode of the tables; Refused for one that the unit does not have (section 11.4.6)."""
    if habits.mode_bit_only:
        return TableMode.SCALABLE if unit.scalable_mode and rtaddr.mode & TableMode.SCALABLE else TableMode.LEGACY
    if rtaddr.mode == TableMode.ABORT_DMA and unit.abort_dma:
        raise Refused(0x33)
    if rtaddr.mode == TableMode.LEGACY:
        return TableMode.LEGACY
    if rtaddr.mode == TableMode.SCALABLE and unit.scalable_mode:
        return TableMode.SCALABLE
    raise Refused(0x30)


def _legacy(unit: Unit, root_table: int, request: Request, way: Way, habits: Habits) -> tuple[int, int]:
    """Walk by root and context entry (section 3.4.2); a page of 0 bytes means that nothing was translated."""
    root_at = root_table + request.source.bus * RootEntry.SIZE
    root = way.fetch("root", RootEntry, root_at, unreadable=0x08)
    if not root.present:
        raise Refused(0x01)
    if root.reserved_set() or unit.beyond(root.context_table):
        raise Refused(0x0A)
    context_at = root.context_table + request.source.devfn * ContextEntry.SIZE
    context = way.fetch("context", ContextEntry, context_at, unreadable=0x09)
    way.reports_disabled = bool(context.fault_processing_disable)
    if not context.present:
        raise Refused(0x02)
    passes = context.translation_type == TranslationType.PASS_THROUGH
    pointed = not passes or habits.unused_table_checked
    if context.reserved_set() or (pointed and unit.beyond(context.second_stage_table)):
        raise Refused(0x0B)
    levels = context.address_width + _LEVELS_ABOVE_WIDTH
    if levels not in unit.levels or not _offered(unit, context.translation_type):
        raise Refused(0x03)
    if passes:
        if unit.beyond(request.address) and not habits.pass_through_unlimited:
            raise Refused(0x04)
        return request.address, 0
    paging = Paging(table=context.second_stage_table, levels=levels, codes=LEGACY)
    return second_stage(unit, paging, request, way, habits)


def _offered(unit: Unit, translation_type: int) -> bool:
    match translation_type:
        case TranslationType.SECOND_STAGE:
            return True
        case TranslationType.WITH_DEVICE_TLB:
            return unit.device_tlb
        case TranslationType.PASS_THROUGH:
            return unit.pass_through
    return False


def _touches_interrupts(address: int, page: int) -> bool:
    start = address & -page
    return start < INTERRUPT_RANGE.stop and start + page > INTERRUPT_RANGE.start
