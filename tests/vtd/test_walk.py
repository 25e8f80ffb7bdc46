"""The walk through random right tables, and through tables with one thing wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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
    pass_through=True,
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
    ("legacy", "context", {"second_stage_table": HOLE}, 0x07),
    ("legacy", "level-3", {"address": HOLE}, 0x07),
    ("legacy", "leaf", {"write": 0}, 0x05),
    ("legacy", "leaf", {"snoop": 1}, 0x0C),
    ("legacy", "leaf", {"address": 0xFEE0_0000}, 0x0E),
    ("second-stage", "root", {"lower_present": 0}, 0x39),
    ("second-stage", "root", {"lower_context_table": HOLE}, 0x40),
    ("second-stage", "context", {"present": 0}, 0x41),
    ("second-stage", "context", {"device_tlb_enable": 1}, 0x43),
    ("second-stage", "context", {"pasid_directory": HOLE}, 0x50),
    ("second-stage", "context", {"rid_pasid": 0xFFFFF}, 0x48),
    ("second-stage", "pasid-directory", {"present": 0}, 0x51),
    ("second-stage", "pasid-directory", {"pasid_table": HOLE}, 0x58),
    ("second-stage", "pasid", {"present": 0}, 0x59),
    ("second-stage", "pasid", {"translation_type": 0}, 0x5B),
    ("second-stage", "leaf", {"write": 0}, 0x79),
    ("second-stage", "leaf", {"address": 0xFEE0_0000}, 0x87),
    ("first-stage", "pasid", {"first_stage_table": HOLE}, 0x73),
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


def test_pass_through_translates_nothing():
    memory, root, _, unit = built("legacy")
    step = walk(unit, root, Request(SOURCE, 0, READ), memory.read).entry("context")
    memory.words[step.address] = step.entry.replaced(translation_type=2)
    seen = walk(unit, root, Request(SOURCE, 0x1234, READ), memory.read)
    assert (seen.address, seen.page) == (0x1234, 0)
    assert seen.explain().endswith("is not translated")


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


@pytest.mark.parametrize(
    ("habits", "kind", "table", "change", "code"),
    [
        (Habits(legacy_codes=True), "second-stage", "context", {"present": 0}, 0x02),
        (Habits(legacy_codes=True), "second-stage", "leaf", {"write": 0}, 0x05),
        (Habits(top_table_unreadable=0x03), "legacy", "context", {"second_stage_table": HOLE}, 0x03),
        (Habits(permission_before_reserved=True), "legacy", "leaf", {"write": 0, "snoop": 1}, 0x05),
        (SPECIFIED, "legacy", "leaf", {"write": 0, "snoop": 1}, 0x0C),
        (Habits(type_before_present=True), "second-stage", "pasid", {"present": 0, "translation_type": 0}, 0x5B),
        (SPECIFIED, "second-stage", "pasid", {"present": 0, "translation_type": 0}, 0x59),
    ],
)
def test_a_habit_changes_what_is_reported(habits, kind, table, change, code):
    memory, root, top, unit = built(kind)
    mapping(memory, top, 4, 0x5000, 0x9000, first=False)
    request = Request(SOURCE, 0x5000, WRITE)
    step = walk(unit, root, request, memory.read).entry(table)
    memory.words[step.address] = step.entry.replaced(**change)
    assert walk(unit, root, request, memory.read, habits).reason == code


IRTA = InterruptRemapTableAddress.of(table=0x1000, size=3)
GOOD = InterruptRemapEntry.of(
    present=1, vector=0x40, destination=0x200, source_id=SOURCE.value, source_validation=SourceValidation.SOURCE_ID
)


def interrupt(entry: InterruptRemapEntry, request: InterruptRequest, *, data: int = 0, irta=IRTA, source=SOURCE):
    def read(gpa: int, size: int) -> bytes:
        if gpa > 0x10000:
            raise Unreadable(gpa)
        return entry.encode() if gpa == 0x1000 + 16 * 5 else bytes(size)

    address, low = request.message()
    return walk_interrupt(irta, (address, data << 16 | low), source, read)


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
    assert walk_interrupt(IRTA, (0xFEE0_0000, 0x41), SOURCE, lambda _gpa, size: bytes(size)).reason == 0x25
