"""All mappings of laid tables, and which of them an address missed, held against the plain way to find out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.vtd.faults import Access
from harness.vtd.miss import missed
from harness.vtd.walk import Request, Unreadable, walk
from harness.vtd.walk.mappings import Mapping, mappings
from tests.vtd.test_walk import KINDS, SOURCE, Memory, built, mapping

PAGE = 0x1000
_PAGES = st.dictionaries(st.integers(0, (1 << 26) - 1), st.integers(1, (1 << 26) - 1), max_size=8)


def tables(memory: Memory):
    def read(address: int, size: int) -> bytes:
        if size <= 64:
            return memory.read(address, size)
        if not 0 <= address < memory.next_page + PAGE:
            raise Unreadable(address)
        return b"".join(memory.read(at, 8) for at in range(address, address + size, 8))

    return read


@given(st.sampled_from(KINDS), _PAGES)
def test_all_mappings_are_found_and_no_other(kind, pages):
    memory, rtaddr, top, unit = built(*kind)
    for page, frame in pages.items():
        mapping(memory, top, kind[1], page * PAGE, frame * PAGE, first=kind[0] == "first-stage")
    walked = walk(unit, rtaddr, Request(SOURCE, 0, Access.WRITE), memory.read)
    found = list(mappings(walked, tables(memory)))
    assert found == [
        Mapping(page * PAGE, PAGE, pages[page] * PAGE, readable=True, writable=True) for page in sorted(pages)
    ]
    for each in found:
        assert walk(unit, rtaddr, Request(SOURCE, each.start, Access.WRITE), memory.read).address == each.physical


def test_a_large_page_is_one_mapping():
    memory, rtaddr, top, unit = built("legacy")
    mapping(memory, top, 4, 0x40_0000, 0x80_0000, first=False, last_level=2)
    walked = walk(unit, rtaddr, Request(SOURCE, 0, Access.READ), memory.read)
    assert list(mappings(walked, tables(memory))) == [Mapping(0x40_0000, 0x20_0000, 0x80_0000, True, True)]


def test_a_walk_that_came_to_no_paging_tables_has_no_mappings_to_tell():
    memory, rtaddr, _, unit = built("legacy")
    memory.words.clear()
    walked = walk(unit, rtaddr, Request(SOURCE, 0, Access.READ), memory.read)
    with pytest.raises(LookupError, match="no paging tables"):
        list(mappings(walked, tables(memory)))


_RIGHTS = st.sampled_from([(True, True), (True, False), (False, True)])


@given(
    st.dictionaries(st.integers(0, 40), _RIGHTS),
    st.integers(0, 42 * PAGE),
    st.sampled_from(list(Access)),
)
def test_the_nearest_is_what_a_look_at_every_page_finds(pages, address, access):
    every = [Mapping(page * PAGE, PAGE, (page + 1000) * PAGE, *pages[page]) for page in sorted(pages)]
    miss = missed(every, address, access)
    allowed = {each.start // PAGE for each in every if each.permits(access)}
    here = address // PAGE
    assert (miss.within is not None) == (here in allowed)
    if miss.within is not None:
        return
    assert (miss.denies is not None) == (here in pages)
    low = max((page for page in allowed if page < here), default=None)
    high = min((page for page in allowed if page > here), default=None)
    assert miss.beyond == (None if low is None else address - (low + 1) * PAGE)
    assert miss.short == (None if high is None else high * PAGE - address)
    for span, edge, step in ((miss.below, low, -1), (miss.above, high, 1)):
        if edge is None:
            assert span is None
            continue
        far = edge
        while far + step in allowed:
            far += step
        assert span == range(min(edge, far) * PAGE, (max(edge, far) + 1) * PAGE)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (0x7000_3000, "0x70003000 is 0 bytes beyond the end of the mapping 0x70001000-0x70002fff"),
        (0x7000_4000, "0x70004000 is 4096 bytes (1 page) beyond the end of the mapping 0x70001000-0x70002fff"),
        (0x7000_0FFF, "0x70000fff is 1 byte before the beginning of the mapping 0x70001000-0x70002fff"),
        (
            0x5010,
            (
                "0x5010 is near no mapping that permits a write: the nearest, 0x70001000-0x70002fff, is 1879031792 "
                "bytes away, and is the physical address of memory whose bus address is 0x70001010"
            ),
        ),
    ],
)
def test_what_was_missed_is_told(address, told):
    pages = [Mapping(0x7000_1000, PAGE, 0x5000, True, True), Mapping(0x7000_2000, PAGE, 0x9000, True, True)]
    assert str(missed(pages, address, Access.WRITE)) == told


def test_a_domain_without_any_mapping_is_told():
    assert str(missed([], 0x5000, Access.READ)) == "0x5000 is near no mapping that permits a read: there is none"


def test_a_mapping_that_denies_is_told():
    only = [Mapping(0x1000, PAGE, 0x5000, readable=True, writable=False)]
    assert str(missed(only, 0x1010, Access.WRITE)) == "0x1010 is mapped, but not for a write"


@pytest.mark.parametrize(("kind", "lost"), [("legacy", {"write": 0}), ("first-stage", {"user": 0})])
def test_a_right_that_an_entry_above_withholds_is_no_right(kind, lost):
    memory, rtaddr, top, unit = built(kind)
    mapping(memory, top, 4, 0x1000, 0x5000, first=kind == "first-stage")
    memory.words[top] = memory.words[top].replaced(**lost)
    walked = walk(unit, rtaddr, Request(SOURCE, 0, Access.READ), memory.read)
    found = list(mappings(walked, tables(memory)))
    expected = [Mapping(0x1000, PAGE, 0x5000, readable=True, writable=False)] if kind == "legacy" else []
    assert found == expected
