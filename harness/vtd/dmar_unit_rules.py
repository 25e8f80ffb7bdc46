"""What the remapping units of a DMAR table must be beside each other: their registers, and the devices they take."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator

from harness.vtd.dmar_diagnosis import Diagnosis
from harness.vtd.dmar_table import (
    INCLUDE_ALL,
    PAGE,
    DeviceScope,
    DmarTable,
    RemappingStructure,
    ScopeType,
    StructureType,
)


def of_units(table: DmarTable) -> Iterator[Diagnosis]:
    """Tell what is wrong with the units; what is too short for its fields has its diagnosis already."""
    units = [unit for unit in table.of(StructureType.DRHD) if unit.whole]
    yield from _catch_all(units)
    yield from _registers(units, table.address_width)
    yield from _taken_twice(units)


def _catch_all(units: list[RemappingStructure]) -> Iterator[Diagnosis]:
    """Hold the units of each segment to one for all other devices, the last of them."""
    catch_all: set[int] = set()
    for unit in units:
        if unit.segment in catch_all:
            text = f"a unit follows the one for all other devices of segment {unit.segment}"
            yield Diagnosis(unit.offset, text, "8.3")
        if unit.flags & INCLUDE_ALL:
            catch_all.add(unit.segment)
            # It may name I/O APICs and HPETs, which are no PCI devices of the segment.
            named = [scope for scope in unit.scopes if scope.kind in (ScopeType.ENDPOINT, ScopeType.BRIDGE)]
            for scope in named:
                text = (
                    f"the unit for all other devices of segment {unit.segment} names {scope.place}, which it has anyway"
                )
                yield Diagnosis(unit.offset, text, "8.3", remark=True)
        elif not unit.scopes:
            yield Diagnosis(unit.offset, "a unit for no device at all", "8.3")


def _registers(units: list[RemappingStructure], address_width: int) -> Iterator[Diagnosis]:
    for unit in units:
        if not unit.base or unit.base % PAGE:
            yield Diagnosis(unit.offset + 8, f"registers at {unit.base:#x}, which is no page", "8.3")
        elif unit.registers[-1] >> address_width:
            text = f"registers at {unit.base:#x} lie beyond the host address width of {address_width} bits"
            yield Diagnosis(unit.offset + 8, text, "8.3")
    for before, unit in itertools.combinations(units, 2):
        if before.base == unit.base:
            yield Diagnosis(unit.offset, f"two units have their registers at {unit.base:#x}", "8.3")
        elif before.registers.start < unit.registers.stop and unit.registers.start < before.registers.stop:
            text = f"the registers at {unit.base:#x} overlap those of the unit at {before.base:#x}"
            yield Diagnosis(unit.offset, text, "8.3")


def _taken_twice(units: list[RemappingStructure]) -> Iterator[Diagnosis]:
    """Tell of devices that two units take, or that one names twice."""
    taken: dict[Hashable, RemappingStructure] = {}
    for unit in units:
        own: set[Hashable] = set()
        for scope in unit.scopes:
            who = _identity(unit, scope)
            before = taken.setdefault(who, unit)
            if who in own:
                yield Diagnosis(unit.offset, f"{scope.named} is named twice by one unit", "8.3.1", remark=True)
            elif before is not unit:
                text = f"{scope.named} is in the scope of the unit at {unit.base:#x} and of that at {before.base:#x}"
                yield Diagnosis(unit.offset, text, "8.3.1")
            own.add(who)


def _identity(unit: RemappingStructure, scope: DeviceScope) -> Hashable:
    """Give what a scope names: a function of the unit's segment, or a controller or device by its number."""
    if scope.kind in (ScopeType.ENDPOINT, ScopeType.BRIDGE):
        return unit.segment, scope.bus, scope.path
    if scope.kind == ScopeType.HPET:  # each of its comparators may be a requester of its own
        return scope.kind, scope.enumeration, scope.bus, scope.path
    return scope.kind, scope.enumeration
