"""What the reserved memory (RMRR) of a DMAR table must be, alone and beside units and other reserved memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from harness.vtd.dmar_diagnosis import Diagnosis
from harness.vtd.dmar_table import PAGE, DmarTable, RemappingStructure, StructureType


def of_memory(table: DmarTable) -> Iterator[Diagnosis]:
    """Tell what is wrong with the reserved memory; what is too short for its fields has its diagnosis already."""
    areas = [area for area in table.of(StructureType.RMRR) if area.whole]
    units = [unit for unit in table.of(StructureType.DRHD) if unit.whole]
    for area in areas:
        yield from _alone(area, table.address_width)
        for unit in units:
            if area.base < unit.registers.stop and unit.registers.start <= area.limit:
                text = f"{_said(area)} lies over the registers of the unit at {unit.base:#x}"
                yield Diagnosis(area.offset + 8, text, "8.4")
    for before, area in itertools.combinations(areas, 2):
        if (before.base, before.limit) == (area.base, area.limit):
            yield Diagnosis(area.offset + 8, f"{_said(area)} is told of twice", "8.4", remark=True)
        elif before.base <= area.limit and area.base <= before.limit:
            yield Diagnosis(area.offset + 8, f"{_said(area)} overlaps {_said(before)}", "8.4", remark=True)


def _alone(area: RemappingStructure, address_width: int) -> Iterator[Diagnosis]:
    if area.base % PAGE or (area.limit + 1) % PAGE or area.limit < area.base:
        yield Diagnosis(area.offset + 8, f"{_said(area)} is no range of pages", "8.4")
    elif area.limit >> address_width:
        text = f"{_said(area)} lies beyond the host address width of {address_width} bits"
        yield Diagnosis(area.offset + 8, text, "8.4")
    if not area.scopes:
        yield Diagnosis(area.offset, f"{_said(area)} for no device", "8.4")


def _said(area: RemappingStructure) -> str:
    return f"reserved memory {area.base:#x}..{area.limit:#x}"
