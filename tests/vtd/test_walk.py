"""The walk through random right tables, and through tables with one thing wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.vtd.faults import Access
from harness.vtd.interrupts import InterruptRemapEntry, InterruptRequest, SourceValidation
from harness.vtd.registers import InterruptRemapTableAddress, RootTableAddress, TableMode
from harness.vtd.source_id import SourceId
from harness.vtd.structure import Structure
from harness.vtd.tables import (
    ContextEntry,
    FirstStageEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
    SecondStageEntry,
)
from harness.vtd.unit import Unit
from harness.vtd.walk import SPECIFIED, Habits, Request, Unreadable, walk, walk_interrupt

UNIT = Unit(
    levels=frozenset({3, 4}),
    address_width=48,
    host_address_width=48,
    large_levels=frozenset({2, 3}),
    scalable_mode=True,
    first_stage=True,
    first_stage_1gib_pages=True,
    pass_through=True,
    rid_pasid=True,
)
LEGACY = replace(UNIT, scalable_mode=False, first_stage=False)
SOURCE = SourceId.parse("01:02.3")
READ, WRITE = Access.READ, Access.WRITE
HOLE = 0x7000_0000_0000


@dataclass
class Memory:
    """Tables in a dictionary, and a bump allocator for pages."""

    words: dict[int, Structure] = field(default_factory=dict)
    next_page: int = 0x10_0000

    def page(self) -> int:
        self.next_page += 0x1000
        return self.next_page

    def read(self, gpa: int, size: int) -> bytes:
        if not 0 <= gpa < self.next_page + 0x1000:
            raise Unreadable(gpa)
        found = self.words.get(gpa)
        return bytes(size) if found is None else found.encode()


def mapping(
    memory: Memory, top: int, levels: int, address: int, target: int, *, first: bool, last_level: int = 1
) -> None:
    """Map the page of `address` to `target`, making tables where there are none."""
    table = top
    for level in range(levels, last_level, -1):
        at = table + (address >> 12 + 9 * (level - 1) & 511) * 8
        if at not in memory.words:
            below = memory.page()
            memory.words[at] = entry(below, first=first)
        table = memory.words[at].address
    at = table + (address >> 12 + 9 * (last_level - 1) & 511) * 8
    memory.words[at] = entry(target, first=first, page_size=int(last_level > 1))


def entry(address: int, *, first: bool, **more: int) -> Structure:
    if first:
        return FirstStageEntry.of(present=1, write=1, user=1, address=address, **more)
    return SecondStageEntry.of(read=1, write=1, address=address, **more)


def built(kind: str, levels: int = 4) -> tuple[Memory, RootTableAddress, int, Unit]:
    """Whole tables of one kind without any page mapped: memory, root register, top paging table, unit."""
    memory = Memory()
    root, contexts, top = memory.page(), memory.page(), memory.page()
    if kind == "legacy":
        memory.words[root + SOURCE.bus * 16] = RootEntry.of(present=1, context_table=contexts)
        memory.words[contexts + SOURCE.devfn * 16] = ContextEntry.of(
            present=1, second_stage_table=top, address_width=levels - 2
        )
        return memory, RootTableAddress.of(table=root), top, LEGACY
    directory, pasids = memory.page(), memory.page()
    memory.words[root + SOURCE.bus * 16] = ScalableRootEntry.of(lower_present=1, lower_context_table=contexts)
    memory.words[contexts + SOURCE.devfn * 32] = ScalableContextEntry.of(present=1, pasid_directory=directory)
    memory.words[directory] = PasidDirectoryEntry.of(present=1, pasid_table=pasids)
    which = {"translation_type": 1, "first_stage_table": top} if kind == "first-stage" else {
        "translation_type": 2, "second_stage_table": top,
    }  # fmt: skip
    memory.words[pasids] = PasidEntry.of(present=1, address_width=levels - 2, **which)
    return memory, RootTableAddress.of(table=root, mode=TableMode.SCALABLE), top, UNIT


KINDS = [("legacy", 3), ("legacy", 4), ("second-stage", 3), ("second-stage", 4), ("first-stage", 4)]
_PAGES = st.dictionaries(st.integers(0, (1 << 26) - 1), st.integers(1, (1 << 36) - 1), min_size=1, max_size=8)


@given(st.sampled_from(KINDS), _PAGES, st.integers(0, 4095), st.sampled_from(list(Access)))
def test_every_mapped_page_is_found_and_no_other(kind, pages, offset, access):
    memory, root, top, unit = built(*kind)
    mapped = {page: target << 12 for page, target in pages.items() if not 0xFEE00 <= target < 0xFEF00}
    for page, target in mapped.items():
        mapping(memory, top, kind[1], page << 12, target, first=kind[0] == "first-stage")
    for page in {*mapped, *(page ^ 1 for page in mapped)}:
        seen = walk(unit, root, Request(SOURCE, page << 12 | offset, access), memory.read)
        if page in mapped:
            assert (seen.address, seen.page, seen.reason) == (mapped[page] | offset, 4096, None)
            assert [step.table for step in seen.steps][-1] == "level-1"
            assert seen.entry("leaf").entry.address == mapped[page]
        else:
            assert seen.address is None
            assert seen.reason is not None


@pytest.mark.parametrize(("level", "size"), [(2, 1 << 21), (3, 1 << 30)])
@pytest.mark.parametrize("kind", ["legacy", "second-stage", "first-stage"])
def test_a_large_page_ends_the_walk(kind, level, size):
    memory, root, top, unit = built(kind)
    mapping(memory, top, 4, 0, 5 * size, first=kind == "first-stage", last_level=level)
    seen = walk(unit, root, Request(SOURCE, size - 8, WRITE), memory.read)
    assert (seen.address, seen.page) == (6 * size - 8, size)


BREAKS = [
    ("legacy", "root", {"present": 0}, 0x01),
    ("legacy", "root", {"context_table": HOLE}, 0x09),
    ("legacy", "context", {"present": 0}, 0x02),
    ("legacy", "context", {"address_width": 3}, 0x03),
    ("legacy", "context", {"translation_type": 1}, 0x03),
    ("legacy", "context", {"second_stage_table": HOLE}, 0x03),
    ("legacy", "context", {"second_stage_table": 1 << 48}, 0x0B),
    ("legacy", "level-3", {"address": HOLE}, 0x07),
    ("legacy", "leaf", {"write": 0}, 0x05),
    ("legacy", "level-3", {"write": 0}, 0x05),
    ("legacy", "leaf", {"snoop": 1}, 0x0C),
    ("legacy", "leaf", {"transient_mapping": 1}, 0x0C),
    ("legacy", "level-4", {"page_size": 1}, 0x0C),
    ("legacy", "leaf", {"address": 0xFEE0_0000}, 0x0E),
    ("second-stage", "root", {"lower_present": 0}, 0x39),
    ("second-stage", "root", {"lower_context_table": HOLE}, 0x40),
    ("second-stage", "context", {"present": 0}, 0x41),
    ("second-stage", "context", {"device_tlb_enable": 1}, 0x43),
    ("second-stage", "context", {"pasid_enable": 1}, 0x43),
    ("second-stage", "context", {"page_request_enable": 1}, 0x43),
    ("second-stage", "context", {"pasid_directory": HOLE}, 0x50),
    ("second-stage", "context", {"rid_pasid": 0xFFFFF}, 0x48),
    ("second-stage", "pasid-directory", {"present": 0}, 0x51),
    ("second-stage", "pasid-directory", {"pasid_table": HOLE}, 0x58),
    ("second-stage", "pasid-directory", {"pasid_table": 1 << 48}, 0x52),
    ("second-stage", "pasid", {"second_stage_table": 1 << 48}, 0x5A),
    ("second-stage", "pasid", {"present": 0}, 0x59),
    ("second-stage", "pasid", {"translation_type": 0}, 0x5B),
    ("second-stage", "pasid", {"second_stage_table": HOLE}, 0x7B),
    ("second-stage", "level-3", {"address": HOLE}, 0x78),
    ("second-stage", "level-3", {"read": 0, "write": 0}, 0x79),
    ("second-stage", "leaf", {"write": 0}, 0x85),
    ("second-stage", "leaf", {"snoop": 1}, 0x7A),
    ("second-stage", "leaf", {"address": 0xFEE0_0000}, 0x87),
    ("first-stage", "pasid", {"first_stage_table": HOLE}, 0x73),
    ("first-stage", "pasid", {"first_stage_table": 1 << 48}, 0x5A),
    ("first-stage", "level-2", {"address": HOLE}, 0x70),
    ("first-stage", "leaf", {"present": 0}, 0x71),
    ("first-stage", "level-4", {"page_size": 1}, 0x72),
    ("first-stage", "leaf", {"user": 0}, 0x81),
    ("first-stage", "leaf", {"write": 0}, 0x85),
]


@pytest.mark.parametrize(("kind", "table", "change", "code"), BREAKS)
@pytest.mark.parametrize("disabled", [False, True])
def test_one_thing_wrong_has_its_code(kind, table, change, code, disabled):
    memory, root, top, unit = built(kind)
    mapping(memory, top, 4, 0x5000, 0x9000, first=kind == "first-stage")
    request = Request(SOURCE, 0x5010, WRITE)
    whole = walk(unit, root, request, memory.read)
    assert whole.address == 0x9010
    if disabled:
        context = whole.entry("context")
        memory.words[context.address] = context.entry.replaced(fault_processing_disable=1)
    step = whole.entry(table)
    memory.words[step.address] = memory.words[step.address].replaced(**change)
    seen = walk(unit, root, request, memory.read)
    assert (seen.reason, seen.address) == (code, None)
    assert seen.silent is (disabled and table != "root")
    assert hex(code) in seen.explain() or f"{code:#04x}" in seen.explain()


@pytest.mark.parametrize(
    ("kind", "address", "code"),
    [
        ("legacy", 1 << 48, 0x04),
        ("second-stage", 1 << 48, 0x84),
        ("first-stage", 1 << 47, 0x80),
        ("first-stage", 1 << 63, 0x80),
    ],
)
def test_an_address_that_is_too_wide_has_its_code(kind, address, code):
    memory, root, _, unit = built(kind)
    assert walk(unit, root, Request(SOURCE, address, READ), memory.read).reason == code


def test_a_root_table_that_cannot_be_read_has_its_code():
    memory, _, _, unit = built("legacy")
    assert walk(unit, RootTableAddress.of(table=HOLE), Request(SOURCE, 0, READ), memory.read).reason == 0x08


@pytest.mark.parametrize(
    ("kind", "table", "kind_of", "code"), [("legacy", "context", 2, 0x04), ("second-stage", "pasid", 4, 0x83)]
)
def test_pass_through_translates_nothing(kind, table, kind_of, code):
    memory, root, _, unit = built(kind)
    step = walk(unit, root, Request(SOURCE, 0, READ), memory.read).entry(table)
    memory.words[step.address] = step.entry.replaced(translation_type=kind_of)
    seen = walk(unit, root, Request(SOURCE, 0x1234, READ), memory.read)
    assert (seen.address, seen.page) == (0x1234, 0)
    assert seen.explain().endswith("is not translated")
    assert walk(unit, root, Request(SOURCE, 1 << 48, READ), memory.read).reason == code


@pytest.mark.parametrize(
    ("mode", "offers", "code"),
    [
        (TableMode.SCALABLE, {"scalable_mode": False}, 0x30),
        (2, {}, 0x30),
        (TableMode.ABORT_DMA, {}, 0x30),
        (TableMode.ABORT_DMA, {"abort_dma": True}, 0x33),
    ],
)
def test_a_mode_that_translates_nothing_has_its_code(mode, offers, code):
    memory, root, _, unit = built("second-stage")
    seen = walk(replace(unit, **offers), root.replaced(mode=mode), Request(SOURCE, 0, READ), memory.read)
    assert (seen.reason, seen.steps) == (code, ())


def test_a_unit_without_a_pasid_for_requests_without_one_takes_pasid_0():
    memory, root, top, unit = built("second-stage")
    mapping(memory, top, 4, 0x5000, 0x9000, first=False)
    request = Request(SOURCE, 0x5000, READ)
    step = walk(unit, root, request, memory.read).entry("context")
    memory.words[step.address] = step.entry.replaced(rid_pasid=1)
    assert walk(unit, root, request, memory.read).reason == 0x59
    assert walk(replace(unit, rid_pasid=False), root, request, memory.read).address == 0x9000


def test_reserved_bits_of_a_pasid_entry_have_their_code():
    memory, root, _, unit = built("second-stage")
    step = walk(unit, root, Request(SOURCE, 0, READ), memory.read).entry("pasid")
    memory.words[step.address] = PasidEntry(step.entry.raw | 1 << 300)
    assert walk(unit, root, Request(SOURCE, 0, READ), memory.read).reason == 0x5A


def test_a_request_to_the_interrupt_range_is_not_walked():
    memory, root, _, unit = built("legacy")
    seen = walk(unit, root, Request(SOURCE, 0xFEE0_0000, WRITE), memory.read)
    assert (seen.interrupt, seen.steps, seen.reason, seen.address) == (True, (), None, None)
    assert seen.explain().endswith("is an interrupt request")


@pytest.mark.parametrize(
    ("level", "marks", "access", "refused"),
    [
        (1, {}, READ, True),
        (1, {"accessed": 1}, READ, False),
        (1, {"dirty": 1}, READ, True),
        (1, {"accessed": 1}, WRITE, True),
        (1, {"dirty": 1}, WRITE, True),
        (1, {"accessed": 1, "dirty": 1}, WRITE, False),
        (3, {"accessed": 1}, WRITE, False),
        (3, {"dirty": 1}, WRITE, True),
    ],
)
def test_an_entry_that_cannot_be_marked_must_be_marked_already(level, marks, access, refused):
    memory, root, top, unit = built("first-stage")
    mapping(memory, top, 4, 0x5000, 0x9000, first=True)
    request = Request(SOURCE, 0x5000, access)
    step = walk(unit, root, request, memory.read).entry(f"level-{level}")
    memory.words[step.address] = step.entry.replaced(**marks)
    seen = walk(unit, root, request, memory.read, writable=lambda gpa: gpa != step.address)
    assert seen.reason == (0x91 if refused else None)


def test_a_walk_is_explained_entry_by_entry():
    memory, root, top, unit = built("legacy")
    mapping(memory, top, 4, 0x5000, 0x9000, first=False)
    told = walk(unit, root, Request(SOURCE, 0x5010, READ), memory.read).explain().splitlines()
    assert told[0] == "read by 01:02.3 at 0x5010"
    assert [line.split()[0] for line in told[1:-1]] == ["root", "context", "level-4", "level-3", "level-2", "level-1"]
    assert told[-1] == "  goes to 0x9010 (a page of 4 KiB)"


def test_an_entry_that_was_not_reached_is_not_there():
    memory, root, _, unit = built("legacy")
    with pytest.raises(KeyError):
        walk(unit, root, Request(SOURCE, 0, READ), memory.read).entry("pasid")


LANDED = None


@dataclass(frozen=True)
class Case:
    """What is otherwise than in whole tables, and the codes of the specification and of the habit; None for landed."""

    specified: int | None
    habitual: int | None
    kind: str = "legacy"
    table: str = "leaf"
    change: dict[str, int] = field(default_factory=dict)
    offers: dict[str, object] = field(default_factory=dict)
    mode: int | None = None
    address: int = 0x5000
    last_level: int = 1
    locked: bool = False
    ones: bool = False


HABITS = {
    "legacy_codes": [
        Case(0x41, 0x02, "second-stage", "context", {"present": 0}),
        Case(0x85, 0x05, "second-stage", "leaf", {"write": 0}),
    ],
    "interrupt_code_of_unit": [Case(0x0E, 0x87, change={"address": 0xFEE0_0000}, offers={"scalable_mode": True})],
    "mode_bit_only": [Case(0x30, LANDED, mode=1), Case(0x30, LANDED, mode=2)],
    "both_root_halves_checked": [Case(LANDED, 0x3A, "second-stage", "root", {"upper_context_table": 1 << 52})],
    "unused_table_checked": [
        Case(LANDED, 0x0B, table="context", change={"translation_type": 2, "second_stage_table": 1 << 52})
    ],
    "pass_through_unlimited": [Case(0x04, LANDED, table="context", change={"translation_type": 2}, address=1 << 50)],
    "context_features_ignored": [Case(0x43, LANDED, "second-stage", "context", {"page_request_enable": 1})],
    "rid_pasid_unoffered": [
        Case(LANDED, 0x59, "second-stage", "context", {"rid_pasid": 1}, offers={"rid_pasid": False})
    ],
    "directory_size_ignored": [Case(0x48, 0x51, "second-stage", "context", {"rid_pasid": 0x2000})],
    "directory_reserved_ignored": [Case(0x52, 0x58, "second-stage", "pasid-directory", {"pasid_table": 1 << 52})],
    "pasid_reserved_ignored": [Case(0x5A, 0x7B, "second-stage", "pasid", {"second_stage_table": 1 << 52})],
    "type_before_present": [Case(0x59, 0x5B, "second-stage", "pasid", {"present": 0, "translation_type": 0})],
    "rights_at_each_entry": [
        Case(0x0C, 0x05, change={"write": 0, "snoop": 1}),
        Case(0x72, 0x85, "first-stage", "level-2", {"write": 0, "address": 1 << 50}),
    ],
    "all_ones_unreadable": [
        Case(0x0C, 0x07, table="level-2", ones=True),
        Case(0x72, 0x73, "first-stage", "level-4", ones=True),
    ],
    "snoop_with_scalable_mode": [Case(0x7A, LANDED, "second-stage", "leaf", {"snoop": 1})],
    "gigabyte_pages_unoffered": [
        Case(0x72, LANDED, "first-stage", "leaf", {}, {"first_stage_1gib_pages": False}, last_level=3)
    ],
    "first_stage_width_from_second": [Case(0x71, 0x80, "first-stage", "pasid", {"address_width": 1}, address=1 << 40)],
    "one_mark_suffices": [Case(0x91, LANDED, "first-stage", "leaf", {"accessed": 1}, locked=True)],
}


@pytest.mark.parametrize(("habit", "case"), [(habit, case) for habit, cases in HABITS.items() for case in cases])
def test_a_habit_changes_what_becomes_of_a_request(habit, case):
    memory, root, top, unit = built(case.kind)
    unit = replace(unit, **case.offers)
    mapping(memory, top, 4, 0x5000, 0, first=case.kind == "first-stage", last_level=case.last_level)
    whole = walk(replace(unit, first_stage_1gib_pages=True), root, Request(SOURCE, 0x5000, WRITE), memory.read)
    step = whole.entry(case.table)
    ones = type(step.entry)((1 << 8 * step.entry.SIZE) - 1)
    memory.words[step.address] = ones if case.ones else step.entry.replaced(**case.change)
    if case.mode is not None:
        root = root.replaced(mode=case.mode)
    request, place = Request(SOURCE, case.address, WRITE), step.address if case.locked else None
    for habits, code in ((SPECIFIED, case.specified), (Habits(**{habit: True}), case.habitual)):
        seen = walk(unit, root, request, memory.read, habits, writable=lambda gpa: gpa != place)
        assert (seen.reason, seen.address is None) == (code, code is not None)


@pytest.mark.parametrize(
    ("habits", "table", "change"),
    [
        (Habits(unqualified=frozenset({0x50})), "context", {"pasid_directory": HOLE, "fault_processing_disable": 1}),
        (Habits(invalid_entries_report=True), "pasid", {"present": 0, "fault_processing_disable": 1}),
    ],
)
def test_a_habit_changes_whether_it_is_reported(habits, table, change):
    memory, root, _, unit = built("second-stage")
    request = Request(SOURCE, 0x5000, WRITE)
    step = walk(unit, root, request, memory.read).entry(table)
    memory.words[step.address] = step.entry.replaced(**change)
    assert walk(unit, root, request, memory.read).silent
    assert not walk(unit, root, request, memory.read, habits).silent


IRTA = InterruptRemapTableAddress.of(table=0x1000, size=3)
GOOD = InterruptRemapEntry.of(
    present=1, vector=0x40, destination=0x200, source_id=SOURCE.value, source_validation=SourceValidation.SOURCE_ID
)


def interrupt(
    entry: InterruptRemapEntry,
    request: InterruptRequest,
    *,
    data: int = 0,
    irta=IRTA,
    source=SOURCE,
    unit=UNIT,
    habits=SPECIFIED,
):
    def read(gpa: int, size: int) -> bytes:
        if gpa > 0x10000:
            raise Unreadable(gpa)
        return entry.encode() if gpa == 0x1000 + 16 * 5 else bytes(size)

    address, low = request.message()
    return walk_interrupt(unit, irta, (address, data << 16 | low), source, read, habits=habits)


def test_an_interrupt_is_remapped():
    seen = interrupt(GOOD, InterruptRequest(4, 1))
    assert (seen.index, seen.address, seen.entry, seen.reason) == (5, 0x1050, GOOD, None)
    assert (seen.remapped.vector, seen.remapped.destination, seen.remapped.posted) == (0x40, 2, False)
    extended = InterruptRemapTableAddress.of(table=0x1000, size=3, extended_mode=1)
    assert interrupt(GOOD, InterruptRequest(5), irta=extended).remapped.destination == 0x200


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"present": 0}, 0x22),
        ({"source_id": 0x99}, 0x26),
        ({"source_validation": 3}, 0x24),
        ({"source_validation": 2, "source_id": 0x0203}, 0x26),
    ],
)
def test_a_wrong_entry_has_its_code_and_can_be_silent(change, code):
    seen = interrupt(GOOD.replaced(**change), InterruptRequest(5))
    assert (seen.reason, seen.silent, seen.remapped) == (code, False, None)
    assert interrupt(GOOD.replaced(fault_processing_disable=1, **change), InterruptRequest(5)).silent


def test_reserved_bits_of_an_entry_have_their_code():
    assert interrupt(InterruptRemapEntry(GOOD.raw | 1 << 12), InterruptRequest(5)).reason == 0x24


@pytest.mark.parametrize(
    ("qualifier", "function", "accepted"), [(0, 3, True), (0, 7, False), (1, 7, True), (3, 0, True)]
)
def test_the_qualifier_leaves_bits_of_the_function_out(qualifier, function, accepted):
    source = SourceId(SOURCE.value & ~7 | function)
    seen = interrupt(GOOD.replaced(source_qualifier=qualifier), InterruptRequest(5), source=source)
    assert (seen.reason is None) is accepted


def test_requests_that_lead_nowhere_have_their_codes():
    assert interrupt(GOOD, InterruptRequest(16)).reason == 0x21
    assert interrupt(GOOD, InterruptRequest(5), irta=InterruptRemapTableAddress.of(table=HOLE, size=3)).reason == 0x23
    assert interrupt(GOOD, InterruptRequest(5, 0), data=1).reason == 0x20
    compatible = UNIT, IRTA, (0xFEE0_0000, 0x41), SOURCE, lambda _gpa, size: bytes(size)
    assert walk_interrupt(*compatible).reason == 0x25
    assert walk_interrupt(*compatible, habits=Habits(compatibility_passes=True)).reason is None


INTERRUPT_HABITS = {
    "request_checked_last": (0x20, 0x22, {"present": 0}, InterruptRequest(5, 0), 1),
    "index_wraps": (0x21, None, {}, InterruptRequest(0xFFFA, 11), 0),
    "entry_reserved_before_source": (0x26, 0x24, {"source_id": 0x99, "destination": 1}, InterruptRequest(5), 0),
    "reserved_validation_is_source": (0x24, 0x26, {"source_validation": 3}, InterruptRequest(5), 0),
    "bus_range_reversed": (None, 0x26, {"source_validation": 2, "source_id": 0x0003}, InterruptRequest(5), 0),
    "posted_is_remapped": (0x24, None, {"posted": 1}, InterruptRequest(5), 0),
    "destination_reserved_ignored": (0x24, None, {"destination": 0x10000}, InterruptRequest(5), 0),
}


@pytest.mark.parametrize("habit", INTERRUPT_HABITS)
def test_a_habit_changes_what_becomes_of_an_interrupt(habit):
    specified, habitual, change, request, data = INTERRUPT_HABITS[habit]
    entry = GOOD.replaced(**change)
    assert interrupt(entry, request, data=data).reason == specified
    assert interrupt(entry, request, data=data, habits=Habits(**{habit: True})).reason == habitual


def test_a_posted_interrupt_is_noted_where_the_unit_offers_that():
    unit, posted = replace(UNIT, posted_interrupts=True), GOOD.replaced(posted=1, destination=0)
    assert interrupt(posted, InterruptRequest(5), unit=unit).remapped.posted
    assert interrupt(InterruptRemapEntry(posted.raw | 1 << 2), InterruptRequest(5), unit=unit).reason == 0x24


def test_every_habit_changes_something():
    of_reports = {"unqualified", "invalid_entries_report"}
    tested = {*HABITS, *of_reports, "compatibility_passes", *INTERRUPT_HABITS}
    assert tested == {each.name for each in fields(Habits)}
