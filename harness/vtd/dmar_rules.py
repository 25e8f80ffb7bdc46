"""What the structures of a DMAR table must be, alone and beside each other, whatever machine it describes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from harness.vtd.dmar_table import (
    ALL_PORTS,
    BODIES,
    INCLUDE_ALL,
    DmarTable,
    RemappingStructure,
    ScopeType,
    StructureType,
    TableFlags,
)

_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Something wrong with a table: the offset of the culprit in bytes, what it is, and the section that says so."""

    offset: int
    text: str
    section: str

    def __str__(self) -> str:
        return f"at {self.offset:#x}: {self.text} (section {self.section})"


def broken(table: DmarTable) -> Iterator[Diagnosis]:
    """Tell which rules the structures break."""
    flags = TableFlags(table.flags)
    if flags.x2apic_opt_out and not flags.interrupt_remapping:
        yield Diagnosis(37, "it opts out of x2APIC, but has no interrupt remapping", "8.1")
    if not table.of(StructureType.DRHD):
        yield Diagnosis(48, "there is no remapping unit (DRHD)", "8.3")
    yield from _order(table)
    yield from _units(table)
    for structure in table.structures:
        if structure.whole:
            yield from _alone(structure)
    yield from _references(table)


def _order(table: DmarTable) -> Iterator[Diagnosis]:
    known = [structure for structure in table.structures if structure.kind in BODIES]
    for before, structure in itertools.pairwise(known):
        if structure.kind < before.kind:
            text = f"a structure of type {structure.kind} follows one of type {before.kind}"
            yield Diagnosis(structure.offset, text, "8.2")


def _units(table: DmarTable) -> Iterator[Diagnosis]:
    """Hold the units of each segment to one for all other devices, the last of them."""
    catch_all: set[int] = set()
    bases: set[int] = set()
    for unit in (each for each in table.of(StructureType.DRHD) if each.whole):
        if unit.segment in catch_all:
            text = f"a unit follows the one for all other devices of segment {unit.segment}"
            yield Diagnosis(unit.offset, text, "8.3")
        if unit.flags & INCLUDE_ALL:
            catch_all.add(unit.segment)
        elif not unit.scopes:
            yield Diagnosis(unit.offset, "a unit for no device at all", "8.3")
        if unit.base in bases:
            yield Diagnosis(unit.offset, f"two units have their registers at {unit.base:#x}", "8.3")
        bases.add(unit.base)


def _alone(structure: RemappingStructure) -> Iterator[Diagnosis]:
    at, base, limit = structure.offset, structure.base, structure.limit
    match structure.kind:
        case StructureType.DRHD if not base or base % _PAGE:
            yield Diagnosis(at + 8, f"registers at {base:#x}, which is no page", "8.3")
        case StructureType.RMRR:
            if base % _PAGE or (limit + 1) % _PAGE or limit < base:
                yield Diagnosis(at + 8, f"reserved memory {base:#x}..{limit:#x} is no range of pages", "8.4")
            if not structure.scopes:
                yield Diagnosis(at, f"reserved memory {base:#x}..{limit:#x} for no device", "8.4")
        case StructureType.ATSR if not structure.flags & ALL_PORTS and not structure.scopes:
            yield Diagnosis(at, "ATS for no root port", "8.5")
        case StructureType.RHSA if structure.rest:
            yield Diagnosis(at, f"{len(structure.rest)} bytes are left over", "8.6")
        case StructureType.ANDD if b"\0" not in structure.rest:
            yield Diagnosis(at, f"the name {structure.rest!r} is not ended by a zero", "8.7")


def _references(table: DmarTable) -> Iterator[Diagnosis]:
    """Tell which structures and scopes name one that is not in the table."""
    bases = {unit.base for unit in table.of(StructureType.DRHD)}
    numbers = {device.number for device in table.of(StructureType.ANDD)}
    for affinity in table.of(StructureType.RHSA):
        if affinity.whole and affinity.base not in bases:
            yield Diagnosis(affinity.offset, f"no unit has its registers at {affinity.base:#x}", "8.6")
    for structure in table.structures:
        for scope in structure.scopes:
            if scope.kind == ScopeType.ACPI_DEVICE and scope.enumeration not in numbers:
                yield Diagnosis(structure.offset, f"no ANDD has the number {scope.enumeration}", "8.3.1")
