"""The walk through a machine's tables from outside, against tables laid word by word after the specification."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.machine.outside import walk_tables
from harness.vtd.faults import Access
from harness.vtd.source_id import SourceId
from harness.vtd.walk import Request

RAM = 4 << 20
REGISTERS = 0xFED9_0000
CAP, ECAP, RTADDR = 0x08, 0x10, 0x20

#: QEMU's with aw-bits=48: SAGAW offers 3 and 4 levels (bits 9 and 10), MGAW 47, SLLPS 2 MiB and 1 GiB (bits 34, 35).
CAP_48 = 1 << 9 | 1 << 10 | 47 << 16 | 1 << 34 | 1 << 35
READ, WRITE = 1, 2


@dataclass
class Laid:
    """A machine with 4 MiB of memory and a unit; tables take pages of it in random order."""

    seed: int
    levels: int = 4
    ram: bytearray = field(default_factory=lambda: bytearray(RAM))
    taken: set[int] = field(default_factory=set)
    read_sizes: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311 - places, not secrets
        self.root = self.page()
        self.contexts: dict[int, int] = {}
        self.memory = self

    def page(self) -> int:
        while (at := self.random.randrange(RAM >> 12) << 12) in self.taken:
            pass
        self.taken.add(at)
        return at

    # -- what a machine is to the walk --

    def holds(self, gpa: int, size: int) -> bool:
        return 0 <= gpa <= RAM - size

    def read(self, gpa: int, size: int) -> bytes:
        self.read_sizes.append((gpa, size))
        registers = {CAP: CAP_48, ECAP: 0, RTADDR: self.root}
        if gpa >= REGISTERS:
            return struct.pack("<Q", registers[gpa - REGISTERS])
        assert self.holds(gpa, size), "read where there is no memory"
        return bytes(self.ram[gpa : gpa + size])

    # -- laying --

    def word(self, at: int) -> int:
        return int(struct.unpack_from("<Q", self.ram, at)[0])

    def put(self, at: int, *words: int) -> None:
        struct.pack_into(f"<{len(words)}Q", self.ram, at, *words)

    def function(self, bus: int, devfn: int) -> int:
        """Give a function a second-stage table of its own; where that is."""
        if bus not in self.contexts:
            self.contexts[bus] = self.page()
            self.put(self.root + 16 * bus, self.contexts[bus] | 1, 0)
        top = self.page()
        self.put(self.contexts[bus] + 16 * devfn, top | 1, self.levels - 2 | 7 << 8)  # present; width, domain 7
        return top

    def map(self, top: int, iova: int, target: int, rights: int, *, level: int = 1) -> bool:
        """Map one page, of 4 KiB or by an entry of a higher `level`; False where something is mapped already."""
        table = top
        for depth in range(self.levels, level, -1):
            at = table + 8 * (iova >> 12 + 9 * (depth - 1) & 511)
            if not self.word(at):
                self.put(at, self.page() | READ | WRITE)
            if self.word(at) & 1 << 7:
                return False
            table = self.word(at) & ~0xFFF
        at = table + 8 * (iova >> 12 + 9 * (level - 1) & 511)
        if self.word(at):
            return False
        self.put(at, target | rights | (1 << 7 if level > 1 else 0))
        return True

    def goes(self, source: str, iova: int, rights: int):
        access = {READ: Access.READ, WRITE: Access.WRITE}[rights]
        return walk_tables(self, Request(SourceId.parse(source), iova, access))


@dataclass(frozen=True)
class Page:
    number: int
    target: int
    rights: int
    level: int

    @property
    def size(self) -> int:
        return 1 << 12 + 9 * (self.level - 1)


#: Page numbers that share tables now and then, and targets below the gigabyte that has the interrupt range.
_NUMBERS = st.one_of(st.integers(0, (1 << 27) - 1), st.integers(0, 2000), st.just((1 << 27) - 1))
_PAGES = st.lists(
    st.builds(Page, _NUMBERS, st.integers(1, 0xB_FFFF), st.sampled_from([1, 2, 3]), st.sampled_from([1, 1, 1, 2, 3])),
    min_size=1,
    max_size=12,
)


@given(st.integers(0, 2**32), st.sampled_from([3, 4]), _PAGES, st.integers(0, 4095))
def test_a_walk_leads_where_the_tables_were_laid_to_lead(seed, levels, pages, offset):
    laid = Laid(seed, levels)
    top = laid.function(2, 0x18)
    mapped: dict[int, tuple[int, int, Page]] = {}
    for page in pages:
        shift = 9 * (page.level - 1)
        first, target = page.number >> shift << shift, page.target >> shift << 12 + shift
        if laid.map(top, first << 12, target, page.rights, level=page.level):
            mapped[first] = target, page.rights, page
    edges = {first + (1 << 9 * (page.level - 1)) - 1 for first, (_, _, page) in mapped.items()}
    beside = {number for first in mapped for number in (first - 1, first + 1)} | {number + 1 for number in edges}
    for number in {*mapped, *edges, *beside}:
        if not 0 <= number < 1 << 27:
            continue
        found = [
            (target + ((number - first) << 12) + offset, rights, page)
            for first, (target, rights, page) in mapped.items()
            if first <= number < first + (page.size >> 12)
        ]
        for right in (READ, WRITE):
            seen = laid.goes("02:03.0", number << 12 | offset, right)
            if found and found[0][1] & right:
                assert (seen.address, seen.page, seen.reason) == (found[0][0], found[0][2].size, None), seen.explain()
            else:
                assert seen.address is None, seen.explain()
                assert seen.reason == {READ: 6, WRITE: 5}[right], seen.explain()


@given(st.integers(0, 2**32), st.integers(0, 255), st.integers(0, 255))
def test_a_walk_begins_at_the_function_that_asks(seed, bus, devfn):
    laid = Laid(seed)
    mine, others = laid.function(bus, devfn), laid.function(bus ^ 1, devfn)
    laid.map(mine, 0x5000, 0x9000, READ | WRITE)
    laid.map(others, 0x5000, 0xA000, READ)

    def goes(bus: int, devfn: int, right: int = READ):
        return laid.goes(f"{bus:02x}:{devfn >> 3:02x}.{devfn & 7:x}", 0x5008, right)

    assert goes(bus, devfn).address == 0x9008
    assert goes(bus ^ 1, devfn).address == 0xA008
    assert goes(bus ^ 1, devfn, WRITE).reason == 5
    assert goes(bus ^ 2, devfn).reason == 1
    assert goes(bus, devfn ^ 1).reason == 2


def broken(seed: int, change):
    """Tables of one page, one of whose entries is changed; how the walk then goes, and the walk before."""
    laid = Laid(seed)
    laid.map(laid.function(0, 8), 0x5000, 0x9000, READ | WRITE)
    whole = laid.goes("00:01.0", 0x5000, WRITE)
    change(laid, {step.table: step.address for step in whole.steps})
    return laid, whole


def as_laid(_laid: Laid, _at: dict[str, int]) -> None:
    """Change nothing."""


@pytest.mark.parametrize(
    ("table", "word", "reason"),
    [
        ("root", 0x7000_0000 | 1, 9),
        ("context", 0x7000_0000 | 1, 3),
        ("level-4", 0x7000_0000 | 3, 7),
        ("level-2", 0x7000_0000 | 3, 7),
        ("root", 0, 1),
        ("context", 0, 2),
        ("level-3", 1, 5),
        ("level-1", 0x9001, 5),
    ],
)
def test_tables_that_lead_out_of_memory_or_say_no_have_their_reason_and_nothing_is_read_there(table, word, reason):
    laid, whole = broken(3, lambda laid, at: laid.put(at[table], word))
    assert whole.address == 0x9000
    seen = laid.goes("00:01.0", 0x5000, WRITE)

    assert (seen.address, seen.reason) == (None, reason)
    assert max(gpa for gpa, _ in laid.read_sizes if gpa < REGISTERS) < RAM


@pytest.mark.parametrize("table", ["root", "context", "level-4", "level-3", "level-2", "level-1"])
def test_what_was_changed_behind_the_guests_back_can_be_put_back(table):
    before: dict[int, bytes] = {}

    def change(laid, at):
        before[at[table]] = bytes(laid.ram[at[table] : at[table] + 8])
        laid.put(at[table], 0)

    def original(address: int, data: bytes) -> bytes:
        return before[address] + data[8:] if address in before else data

    laid, _ = broken(4, change)
    request = Request(SourceId.parse("00:01.0"), 0x5000, Access.WRITE)
    assert walk_tables(laid, request).address is None
    assert walk_tables(laid, request, original).address == 0x9000


def test_a_root_register_that_was_changed_can_be_put_back_too():
    laid, _ = broken(5, as_laid)
    root, laid.root = laid.root, laid.page()
    request = Request(SourceId.parse("00:01.0"), 0x5000, Access.WRITE)

    def original(address: int, data: bytes) -> bytes:
        return struct.pack("<Q", root) if address == REGISTERS + RTADDR else data

    assert walk_tables(laid, request).reason == 1
    assert walk_tables(laid, request, original).address == 0x9000


def test_any_machine_with_memory_will_do():
    laid, _ = broken(6, as_laid)
    machine = SimpleNamespace(memory=laid)
    assert walk_tables(machine, Request(SourceId.parse("00:01.0"), 0x5FFF, Access.READ)).address == 0x9FFF
