"""Whether a DMAR table fits the machine it describes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.vtd.dmar_table import Diagnosis, DmarTable, ScopeType, StructureType
from harness.vtd.source_id import SourceId


def misfits(
    table: DmarTable, functions: Sequence[SourceId], memory: Sequence[range], io_apics: Sequence[int]
) -> tuple[Diagnosis, ...]:
    """Tell where the table does not fit the machine: its PCI functions, its usable memory, its I/O APICs.

    `functions` are those on the root bus.
    """
    return tuple(_misfits(table, frozenset(functions), memory, frozenset(io_apics)))


def _misfits(
    table: DmarTable, functions: frozenset[SourceId], memory: Sequence[range], io_apics: frozenset[int]
) -> Iterator[Diagnosis]:
    bases = [unit.base for unit in table.of(StructureType.DRHD)]
    for structure in table.structures:
        if structure.kind == StructureType.DRHD and bases.count(structure.base) > 1:
            yield Diagnosis(structure.offset, f"two units have their registers at {structure.base:#x}", "8.3")
        overlaps = any(structure.base < area.stop and structure.limit >= area.start for area in memory)
        if structure.kind == StructureType.RMRR and overlaps:
            text = f"reserved memory {structure.base:#x}..{structure.limit:#x} lies in memory that is used as RAM"
            yield Diagnosis(structure.offset, text, "8.4")
        for scope in structure.scopes:
            if scope.kind == ScopeType.IO_APIC and scope.enumeration not in io_apics:
                text = f"a scope names I/O APIC {scope.enumeration}, which the MADT does not list"
                yield Diagnosis(structure.offset, text, "8.3.1.1")
            named = scope.function if scope.kind in (ScopeType.ENDPOINT, ScopeType.BRIDGE) else None
            if named is not None and not named.bus and named not in functions:
                yield Diagnosis(structure.offset, f"a scope names {named}, where no device is", "8.3.1")
