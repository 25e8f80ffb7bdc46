"""What the structures of a DMAR table must be, alone and beside each other, whatever machine it describes.

Rules about units, reserved memory, and scopes with the devices that they name, have modules of their own.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

from harness.vtd.dmar_diagnosis import Diagnosis
from harness.vtd.dmar_memory_rules import of_memory
from harness.vtd.dmar_scope_rules import of_scopes
from harness.vtd.dmar_table import ALL_PORTS, BODIES, DmarTable, RemappingStructure, StructureType, TableFlags
from harness.vtd.dmar_unit_rules import of_units


def broken(table: DmarTable) -> Iterator[Diagnosis]:
    """Tell which rules the structures break, and what is odd about them."""
    flags = TableFlags(table.flags)
    if flags.x2apic_opt_out and not flags.interrupt_remapping:
        # The specification calls the bit valid only where INTR_REMAP is set, so it is not looked at.
        text = "it opts out of x2APIC, which has no meaning without interrupt remapping"
        yield Diagnosis(37, text, "8.1", remark=True)
    if not table.of(StructureType.DRHD):
        yield Diagnosis(48, "there is no remapping unit (DRHD)", "8.3")
    yield from _order(table)
    yield from of_units(table)
    yield from of_memory(table)
    for structure in table.structures:
        if structure.whole:
            yield from _alone(structure)
    yield from _segments(table)
    yield from _affinities(table)
    yield from _named_devices(table)
    yield from of_scopes(table)


def _order(table: DmarTable) -> Iterator[Diagnosis]:
    known = [structure for structure in table.structures if structure.kind in BODIES]
    for before, structure in itertools.pairwise(known):
        if structure.kind < before.kind:
            text = f"a structure of type {structure.kind} follows one of type {before.kind}"
            yield Diagnosis(structure.offset, text, "8.2")


def _alone(structure: RemappingStructure) -> Iterator[Diagnosis]:
    at, name, zero = structure.offset, *structure.rest.partition(b"\0")[:2]
    match structure.kind:
        case StructureType.ATSR if structure.flags & ALL_PORTS and structure.scopes:
            yield Diagnosis(at, "ATS for all root ports, and some of them named", "8.5", remark=True)
        case StructureType.ATSR if not structure.flags & ALL_PORTS and not structure.scopes:
            yield Diagnosis(at, "ATS for no root port", "8.5")
        case StructureType.RHSA if structure.rest:
            yield Diagnosis(at, f"{len(structure.rest)} bytes are left over", "8.6")
        case StructureType.ANDD if not zero:
            yield Diagnosis(at, f"the name {structure.rest!r} is not ended by a zero", "8.7")
        case StructureType.ANDD if not name:
            yield Diagnosis(at, "the name of a device is empty", "8.7")
        case StructureType.ANDD if left := len(structure.rest) - len(name) - 1:
            yield Diagnosis(at, f"{left} bytes follow the name {name!r} and its zero", "8.7", remark=True)
        case StructureType.SATC if not structure.scopes:
            yield Diagnosis(at, "a translation cache of no device", "8.8")
        case StructureType.SIDP if not structure.scopes:
            yield Diagnosis(at, "properties of no device", "8.9")


#: The structures that have a segment besides units, and their sections.
_IN_A_SEGMENT = {
    StructureType.RMRR: "8.4",
    StructureType.ATSR: "8.5",
    StructureType.SATC: "8.8",
    StructureType.SIDP: "8.9",
}


def _segments(table: DmarTable) -> Iterator[Diagnosis]:
    """Tell what is of a PCI segment that no unit is for."""
    units = {unit.segment for unit in table.of(StructureType.DRHD) if unit.whole}
    for kind, section in _IN_A_SEGMENT.items():
        for structure in table.of(kind):
            if structure.whole and structure.segment not in units:
                text = f"no unit is of segment {structure.segment}, of which this {kind.name} is"
                yield Diagnosis(structure.offset, text, section)


def _affinities(table: DmarTable) -> Iterator[Diagnosis]:
    bases = {unit.base for unit in table.of(StructureType.DRHD)}
    domains: dict[int, int] = {}
    for affinity in (each for each in table.of(StructureType.RHSA) if each.whole):
        if affinity.base not in bases:
            yield Diagnosis(affinity.offset, f"no unit has its registers at {affinity.base:#x}", "8.6")
        elif affinity.base in domains:
            same = affinity.domain == domains[affinity.base]
            where = f"once more in domain {affinity.domain}" if same else f"in domain {domains[affinity.base]} before"
            text = f"the unit at {affinity.base:#x} is near domain {affinity.domain}, and {where}"
            yield Diagnosis(affinity.offset, text, "8.6", remark=same)
        domains.setdefault(affinity.base, affinity.domain)


def _named_devices(table: DmarTable) -> Iterator[Diagnosis]:
    by_number = defaultdict(list)
    for device in (each for each in table.of(StructureType.ANDD) if each.whole):
        by_number[device.number].append(device)
    for number, devices in by_number.items():
        for device in devices[1:]:
            yield Diagnosis(device.offset, f"another device of the namespace has the number {number}, too", "8.7")
