"""The walk of a DMA request, from the root table to the page (VT-d spec, chapter 3)."""

from __future__ import annotations

from harness.vtd.faults import REASON_BY_CODE, Access, Mode
from harness.vtd.interrupts import INTERRUPT_RANGE
from harness.vtd.registers import RootTableAddress, TableMode
from harness.vtd.tables import ContextEntry, RootEntry, TranslationType
from harness.vtd.unit import Unit
from harness.vtd.walk.habits import SPECIFIED, Habits
from harness.vtd.walk.paging import PERMISSION, Paging, second_stage
from harness.vtd.walk.result import Read, Refused, Request, Walk, Way
from harness.vtd.walk.scalable import scalable

#: Reasons of scalable mode and those of legacy mode for the same.
_LEGACY_CODES = {
    0x38: 0x08,
    0x39: 0x01,
    0x3A: 0x0A,
    0x40: 0x09,
    0x41: 0x02,
    0x42: 0x0B,
    0x43: 0x03,
    0x78: 0x07,
    0x7A: 0x0C,
    0x84: 0x04,
}
_SCALABLE_PERMISSION = 0x79

#: Levels of the tables that the address width field of an entry names (section 9.3).
_LEVELS_ABOVE_WIDTH = 2


def walk(unit: Unit, rtaddr: RootTableAddress, request: Request, read: Read, habits: Habits = SPECIFIED) -> Walk:
    """Take the way of `request` through the tables that `rtaddr` names."""
    way = Way(read)
    tables = scalable if rtaddr.mode == TableMode.SCALABLE else _legacy
    try:
        address, page = tables(unit, rtaddr, request, way, habits)
        if page and _touches_interrupts(address, page):
            raise Refused(0x87 if rtaddr.mode == TableMode.SCALABLE else 0x0E)
    except Refused as refused:
        known = REASON_BY_CODE.get(refused.code)
        qualified = known is not None and known.qualified and known.mode is not Mode.INTERRUPT
        code = _legacy_code(refused.code, request.access) if habits.legacy_codes else refused.code
        silent = way.reports_disabled and qualified and code not in habits.unqualified
        return Walk(request=request, steps=tuple(way.steps), reason=code, silent=silent)
    return Walk(request=request, steps=tuple(way.steps), address=address, page=page)


def _legacy(unit: Unit, rtaddr: RootTableAddress, request: Request, way: Way, habits: Habits) -> tuple[int, int]:
    """Walk by root and context entry (section 3.4.2); a page of 0 bytes means that nothing was translated."""
    root_at = rtaddr.table + request.source.bus * RootEntry.SIZE
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
    if context.reserved_set() or unit.beyond(context.second_stage_table):
        raise Refused(0x0B)
    levels = context.address_width + _LEVELS_ABOVE_WIDTH
    if levels not in unit.levels or not _offered(unit, context.translation_type):
        raise Refused(0x03)
    if context.translation_type == TranslationType.PASS_THROUGH:
        return request.address, 0
    paging = Paging(table=context.second_stage_table, levels=levels, beyond=0x04, unreadable=0x07, reserved=0x0C)
    return second_stage(unit, paging, request, way, habits)


def _legacy_code(code: int, access: Access) -> int:
    return PERMISSION[access] if code == _SCALABLE_PERMISSION else _LEGACY_CODES.get(code, code)


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
