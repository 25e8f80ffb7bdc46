"""All mappings of a domain: every leaf of its paging tables, in the order of the addresses that they translate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.vtd.faults import Access
from harness.vtd.tables import ContextEntry, FirstStageEntry, PasidEntry, PasidTranslationType, SecondStageEntry
from harness.vtd.walk.pages import LARGEST, PAGE_SHIFT, landing, offset_bits
from harness.vtd.walk.result import Read, Unreadable, Walk

#: Bytes of the smallest page.
PAGE = 1 << PAGE_SHIFT

_ENTRIES = 512
_RIGHTS = {
    SecondStageEntry: (SecondStageEntry.read.mask, SecondStageEntry.write.mask),
    FirstStageEntry: (FirstStageEntry.present.mask | FirstStageEntry.user.mask, FirstStageEntry.write.mask),
}
_Kind = type[SecondStageEntry] | type[FirstStageEntry]


@dataclass(frozen=True, slots=True)
class Mapping:
    """`size` bytes from bus address `start` on, which lead to `physical` and the bytes after it.

    `readable` and `writable` are the rights of all entries on the way together.
    """

    start: int
    size: int
    physical: int
    readable: bool
    writable: bool

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.start + self.size

    def permits(self, access: Access) -> bool:
        """Whether it lets a request through."""
        return self.writable if access is Access.WRITE else self.readable


def mappings(walked: Walk, read: Read) -> Iterator[Mapping]:
    """Give every page that the tables of the device map of which `walked` is a walk, whatever became of that one.

    Tables where there is no memory map nothing. LookupError where the walk came to no paging tables: it was refused
    before, or nothing is translated for the device.
    """
    kind, table, levels = _top(walked)
    reads, writes = _RIGHTS[kind]
    yield from _below(read, kind, table, level=levels, start=0, rights=reads | writes)


def _top(walked: Walk) -> tuple[_Kind, int, int]:
    """Give the paging tables that the last entry above them names: their kind, where they begin, their depth."""
    if any(step.table.startswith("level") for step in walked.steps):
        for step in reversed(walked.steps):
            entry = step.entry
            if isinstance(entry, PasidEntry):
                if entry.translation_type == PasidTranslationType.FIRST_STAGE:
                    return FirstStageEntry, entry.first_stage_table, 4 + entry.first_stage_mode
                return SecondStageEntry, entry.second_stage_table, 2 + entry.address_width
            if isinstance(entry, ContextEntry):
                return SecondStageEntry, entry.second_stage_table, 2 + entry.address_width
    raise LookupError(f"the walk came to no paging tables:\n{walked.explain()}")


def _below(read: Read, kind: _Kind, table: int, *, level: int, start: int, rights: int) -> Iterator[Mapping]:
    reads, writes = _RIGHTS[kind]
    try:
        entries = read(table, _ENTRIES * kind.SIZE)
    except Unreadable:
        return
    for number in range(_ENTRIES):
        entry = kind.decode(entries[number * kind.SIZE : (number + 1) * kind.SIZE])
        granted = rights & entry.raw
        readable, writable = granted & reads == reads, bool(granted & writes)
        if kind is FirstStageEntry:
            writable = writable and readable
        if not (readable or writable):
            continue
        address = start | number << offset_bits(level)
        if level == 1 or (entry.page_size and level <= LARGEST):
            physical, size = landing(entry.address, level, 0)
            yield Mapping(address, size, physical, readable, writable)
        elif level > 1:
            yield from _below(read, kind, entry.address, level=level - 1, start=address, rights=granted)
