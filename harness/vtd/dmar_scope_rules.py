"""What the device scopes of a DMAR table may name, by the structure that they stand in."""

from __future__ import annotations

from collections.abc import Iterator

from harness.vtd.dmar_diagnosis import Diagnosis
from harness.vtd.dmar_table import DeviceScope, DmarTable, RemappingStructure, ScopeType, StructureType

_CONTROLLERS = {ScopeType.IO_APIC: "an I/O APIC", ScopeType.HPET: "an HPET"}


def of_scopes(table: DmarTable) -> Iterator[Diagnosis]:
    """Tell what is wrong with the scopes of all structures."""
    numbers = {device.number for device in table.of(StructureType.ANDD) if device.whole}
    for structure in table.structures:
        for scope in structure.scopes:
            for text, section in _wrong(structure, scope):
                yield Diagnosis(structure.offset, text, section)
            if scope.kind == ScopeType.ACPI_DEVICE and scope.enumeration not in numbers:
                yield Diagnosis(structure.offset, f"no ANDD has the number {scope.enumeration}", "8.3.1")


def _wrong(structure: RemappingStructure, scope: DeviceScope) -> Iterator[tuple[str, str]]:
    if scope.flags and structure.kind != StructureType.SIDP:
        yield f"the scope of {scope.named} has flags ({scope.flags:#04x}), which only those of an SIDP have", "8.3.1"
    if scope.reserved:
        yield f"the reserved byte of the scope of {scope.named} is {scope.reserved:#04x}", "8.3.1"
    if structure.kind == StructureType.DRHD:
        return
    if structure.kind == StructureType.ATSR:
        if scope.kind != ScopeType.BRIDGE:  # the specification has all scopes there be of type 2
            yield f"ATS for {scope.named}, which is no root port", "8.5"
    elif scope.kind in _CONTROLLERS:
        what = StructureType(structure.kind).name
        yield f"an {what} names {scope.named}, and such a device issues no DMA", "8.3.1"
