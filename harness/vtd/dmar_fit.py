"""Whether a DMAR table fits the machine it describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.vtd.dmar_diagnosis import Diagnosis
from harness.vtd.dmar_table import (
    INCLUDE_ALL,
    DeviceScope,
    DmarTable,
    RemappingStructure,
    ScopeType,
    StructureType,
)
from harness.vtd.source_id import SourceId


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the table must fit.

    `bridges` are the functions on the root bus, and whether they are PCI-to-PCI bridges; `memory` the ranges that are
    used as RAM, `reserved` those that the firmware keeps to itself (None where that is not known), `io_apics` the IDs
    in the MADT.
    """

    bridges: Mapping[SourceId, bool]
    memory: Sequence[range]
    io_apics: Sequence[int]
    reserved: Sequence[range] | None = None


def misfits(table: DmarTable, machine: Machine) -> Iterator[Diagnosis]:
    """Tell where the table does not fit the machine: its functions, its memory, its I/O APICs."""
    for structure in table.structures:
        if structure.kind == StructureType.RMRR:
            for text in _misplaced(structure, machine):
                yield Diagnosis(structure.offset, text, "8.4")
        for scope in structure.scopes:
            for text, section in _wrong(scope, structure.segment, machine):
                yield Diagnosis(structure.offset, text, section)


def left_out(table: DmarTable, machine: Machine) -> Iterator[str]:
    """Tell what no scope of a unit names, and yet is there: functions of the root bus, and I/O APICs.

    Those must be named where the platform offers interrupt remapping, as their interrupts could not be told apart.
    """
    units = table.of(StructureType.DRHD)
    named = {_function(scope, unit.segment) for unit in units for scope in unit.scopes}
    if not any(unit.flags & INCLUDE_ALL for unit in units):
        yield from (f"no scope names {function}" for function in machine.bridges if function not in named)
    if table.interrupt_remapping:
        scopes = [scope for unit in units for scope in unit.scopes if scope.kind == ScopeType.IO_APIC]
        known = {scope.enumeration for scope in scopes}
        yield from (f"no scope names I/O APIC {number}" for number in machine.io_apics if number not in known)


def _misplaced(area: RemappingStructure, machine: Machine) -> Iterator[str]:
    """Tell why reserved memory is where it must not be: in RAM, or where the memory map does not reserve it.

    One range must cover it, as for Linux (arch_rmrr_sanity_check in arch/x86/include/asm/iommu.h).
    """
    said = f"reserved memory {area.base:#x}..{area.limit:#x}"
    if any(area.base < ram.stop and area.limit >= ram.start for ram in machine.memory):
        yield f"{said} lies in memory that is used as RAM"
        return
    reserved = machine.reserved
    if reserved is not None and not any(kept.start <= area.base and area.limit < kept.stop for kept in reserved):
        yield f"{said} is not reserved in the memory map"


def _function(scope: DeviceScope, segment: int) -> SourceId | None:
    named = scope.function if scope.kind in (ScopeType.ENDPOINT, ScopeType.BRIDGE) else None
    return None if named is None else replace(named, segment=segment)


def _wrong(scope: DeviceScope, segment: int, machine: Machine) -> Iterator[tuple[str, str]]:
    if scope.kind == ScopeType.IO_APIC and scope.enumeration not in machine.io_apics:
        yield f"a scope names I/O APIC {scope.enumeration}, which the MADT does not list", "8.3.1.1"
    named, bridges = _function(scope, segment), machine.bridges
    if named is None or named.bus:
        return
    if named not in bridges:
        yield f"a scope names {named}, where no device is", "8.3.1"
    elif bridges[named] != (scope.kind == ScopeType.BRIDGE):
        yield f"a scope names {named} as {'an endpoint' if bridges[named] else 'a bridge'}, which it is not", "8.3.1"
