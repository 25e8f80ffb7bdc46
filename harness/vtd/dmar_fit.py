"""Whether a DMAR table fits the machine it describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.vtd.dmar_rules import Diagnosis
from harness.vtd.dmar_table import DeviceScope, DmarTable, ScopeType, StructureType
from harness.vtd.source_id import SourceId


def misfits(
    table: DmarTable, bridges: Mapping[SourceId, bool], memory: Sequence[range], io_apics: Sequence[int]
) -> tuple[Diagnosis, ...]:
    """Tell where the table does not fit the machine: its PCI functions, its usable memory, its I/O APICs.

    `bridges` are the functions on the root bus, and whether they are PCI-to-PCI bridges.
    """
    return tuple(_misfits(table, bridges, memory, frozenset(io_apics)))


def _misfits(
    table: DmarTable, bridges: Mapping[SourceId, bool], memory: Sequence[range], io_apics: frozenset[int]
) -> Iterator[Diagnosis]:
    for structure in table.structures:
        overlaps = any(structure.base < area.stop and structure.limit >= area.start for area in memory)
        if structure.kind == StructureType.RMRR and overlaps:
            text = f"reserved memory {structure.base:#x}..{structure.limit:#x} lies in memory that is used as RAM"
            yield Diagnosis(structure.offset, text, "8.4")
        for scope in structure.scopes:
            for text, section in _wrong(scope, bridges, io_apics):
                yield Diagnosis(structure.offset, text, section)


def _wrong(scope: DeviceScope, bridges: Mapping[SourceId, bool], io_apics: frozenset[int]) -> Iterator[tuple[str, str]]:
    if scope.kind == ScopeType.IO_APIC and scope.enumeration not in io_apics:
        yield f"a scope names I/O APIC {scope.enumeration}, which the MADT does not list", "8.3.1.1"
    named = scope.function if scope.kind in (ScopeType.ENDPOINT, ScopeType.BRIDGE) else None
    if named is None or named.bus:
        return
    if named not in bridges:
        yield f"a scope names {named}, where no device is", "8.3.1"
    elif bridges[named] != (scope.kind == ScopeType.BRIDGE):
        yield f"a scope names {named} as {'an endpoint' if bridges[named] else 'a bridge'}, which it is not", "8.3.1"
