"""Where everything lies in the memory of a bare machine, and the whole tables that are laid there.

    0x00100000  root table, then one context table (two in scalable mode) for each bus in use
    0x00300000  interrupt remapping table, invalidation queue, status words of wait descriptors
    0x00400000  tables of each device: paging tables, PASID directory, PASID table
    0x01000000  the pages that devices' addresses are mapped to
    0x01800000  the page that the paging entries in ROM map, and pages that hold what a device is loaded with
    0x02000000  the addresses that are mapped: what lies there physically is reached by nobody

All entries are laid by `Layout.entries`; a walk of the unit takes the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.machine.bare import ROM_TARGET
from harness.machine.bare_argv import MEMORY
from harness.machine.spec import Translation
from harness.vtd.source_id import SourceId
from harness.vtd.structure import Structure
from harness.vtd.tables import (
    ContextEntry,
    FirstStageEntry,
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
    SecondStageEntry,
)

PAGE = 4096
ROOT = 0x10_0000
_CONTEXTS, _CONTEXT_STRIDE = 0x11_0000, 2 * PAGE
INTERRUPT_TABLE, QUEUE, STATUS = 0x30_0000, 0x31_0000, 0x32_0000
_TABLES, _TABLES_STRIDE = 0x40_0000, 0x1_0000
_TARGETS, _TARGETS_STRIDE = 0x100_0000, 0x1_0000
#: One page for each device, to load it with bytes and to look at what it holds.
STAGING = ROM_TARGET + PAGE
#: The first address that is mapped for each device. The page of the table that maps it maps nothing else.
_HOMES, _HOMES_STRIDE = 0x200_0000, 0x20_0000

#: How many pages are mapped for each device, from its first address on.
MAPPED_PAGES = 4

#: Domain IDs begin here; 0 means something else with caching mode.
_FIRST_DOMAIN = 7

_BITS = 9


@dataclass(frozen=True, slots=True)
class Laid:
    """One entry in memory: its name as scenarios call it, its guest-physical address, and what it is when whole."""

    name: str
    gpa: int
    whole: Structure


@dataclass(frozen=True, slots=True)
class Layout:
    """The whole tables of a machine: `sources` are the requester IDs of its devices by name.

    `levels` is the depth of the paging tables.
    """

    translation: Translation
    levels: int
    sources: Mapping[str, SourceId]

    @property
    def root(self) -> int:
        """Where the root table is."""
        return ROOT

    def mapped(self, device: str) -> int:
        """Give the first address that is mapped for `device`."""
        return _HOMES + self._slot(device) * _HOMES_STRIDE

    def target(self, address: int) -> int | None:
        """Give the guest-physical address that whole tables map `address` to for its device; None if none is mapped."""
        slot, offset = divmod(address - _HOMES, _HOMES_STRIDE)
        if not 0 <= slot < len(self.sources) or offset >= MAPPED_PAGES * PAGE:
            return None
        return _TARGETS + slot * _TARGETS_STRIDE + offset

    def staging(self, device: str) -> int:
        """Give the guest-physical address of the page that `device` is loaded from and looked at in."""
        return STAGING + self._slot(device) * PAGE

    def free(self, gpa: int, length: int) -> bool:
        """Whether bytes may be put and watched at `gpa`: there is memory, and nothing of the harness in it."""
        end = gpa + length
        if gpa < 0 or end > MEMORY or (gpa < ROOT and end > 0xA_0000):
            return False
        used = range(ROOT, _TABLES + len(self.sources) * _TABLES_STRIDE), range(STAGING, STAGING + 64 * PAGE)
        return all(end <= area.start or gpa >= area.stop for area in used)

    def entries(self, device: str) -> tuple[Laid, ...]:
        """Give the entries on the way of the address `mapped(device)`, from the root on; the last is the leaf."""
        return (*self._to_tables(device), *self._paging(device))

    def all_entries(self) -> Iterator[Laid]:
        """Give every entry of the whole tables."""
        for device in self.sources:
            *upper, leaf = self.entries(device)
            yield from upper
            for page in range(MAPPED_PAGES):
                whole = leaf.whole.replaced(address=self._page(device) + page * PAGE)
                yield Laid(leaf.name, leaf.gpa + page * leaf.whole.SIZE, whole)

    def areas(self) -> Iterator[range]:
        """Give the memory that holds nothing but tables."""
        yield range(ROOT, ROOT + PAGE)
        for number, _ in enumerate(self._buses()):
            start = _CONTEXTS + number * _CONTEXT_STRIDE
            yield range(start, start + _CONTEXT_STRIDE)
        for slot, _ in enumerate(self.sources):
            start = _TABLES + slot * _TABLES_STRIDE
            yield range(start, start + 6 * PAGE)

    def _to_tables(self, device: str) -> Iterator[Laid]:
        source, base = self.sources[device], self._base(device)
        context_table = _CONTEXTS + self._buses().index(source.bus) * _CONTEXT_STRIDE
        root = ROOT + source.bus * RootEntry.SIZE
        domain = _FIRST_DOMAIN + self._slot(device)
        width = self.levels - 2
        if self.translation == "legacy":
            yield Laid("root", root, RootEntry.of(present=1, context_table=context_table))
            entry = ContextEntry.of(
                present=1, second_stage_table=self._top(device), address_width=width, domain_id=domain
            )
            yield Laid("context", context_table + source.devfn * ContextEntry.SIZE, entry)
            return
        whole_root = ScalableRootEntry.of(
            lower_present=1,
            lower_context_table=context_table,
            upper_present=1,
            upper_context_table=context_table + PAGE,
        )
        yield Laid("root", root, whole_root)
        half, index = divmod(source.devfn, 0x80)
        context = context_table + half * PAGE + index * ScalableContextEntry.SIZE
        directory, table = base + 4 * PAGE, base + 5 * PAGE
        yield Laid("context", context, ScalableContextEntry.of(present=1, pasid_directory=directory))
        yield Laid("pasid-directory", directory, PasidDirectoryEntry.of(present=1, pasid_table=table))
        pasid = PasidEntry.of(present=1, address_width=width, domain_id=domain)
        if self.translation == "second-stage":
            kind = PasidTranslationType.SECOND_STAGE
            yield Laid("pasid", table, pasid.replaced(translation_type=kind, second_stage_table=self._top(device)))
        else:
            kind = PasidTranslationType.FIRST_STAGE
            yield Laid("pasid", table, pasid.replaced(translation_type=kind, first_stage_table=self._top(device)))

    def _paging(self, device: str) -> Iterator[Laid]:
        base, address = self._base(device), self.mapped(device)
        for level in range(self.levels, 0, -1):
            table = base + (level - 1) * PAGE
            index = address >> 12 + _BITS * (level - 1) & (1 << _BITS) - 1
            below = base + (level - 2) * PAGE if level > 1 else self._page(device)
            entry: Structure
            if self.translation == "first-stage":
                entry = FirstStageEntry.of(present=1, write=1, user=1, address=below)
            else:
                entry = SecondStageEntry.of(read=1, write=1, address=below)
            yield Laid(f"level-{level}", table + index * entry.SIZE, entry)

    def _top(self, device: str) -> int:
        return self._base(device) + (self.levels - 1) * PAGE

    def _base(self, device: str) -> int:
        return _TABLES + self._slot(device) * _TABLES_STRIDE

    def _page(self, device: str) -> int:
        return _TARGETS + self._slot(device) * _TARGETS_STRIDE

    def _slot(self, device: str) -> int:
        return list(self.sources).index(device)

    def _buses(self) -> Sequence[int]:
        return sorted({source.bus for source in self.sources.values()})
