"""The tables of the remapping unit as a machine has them in its memory, walked from outside of the guest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from harness.memory import GuestMemory
from harness.vtd.registers import CAP, DEFAULT_BASE, ECAP, RTADDR, Capability, ExtendedCapability, RootTableAddress
from harness.vtd.unit import Unit
from harness.vtd.walk import Request, Unreadable, Walk, walk


class HasMemory(Protocol):
    """A machine whose memory can be read from outside."""

    memory: GuestMemory


def as_it_stands(_address: int, data: bytes) -> bytes:
    """Give what was read."""
    return data


def walk_tables(machine: HasMemory, request: Request, original: Callable[[int, bytes], bytes] = as_it_stands) -> Walk:
    """Take the way of `request` through the tables of `machine`, by its unit's registers and its memory.

    `original` is given each piece that was read, with its address, and may put back what was changed behind the
    guest's back.
    """

    def read(place: int, size: int) -> bytes:
        if not machine.memory.holds(place, size):
            raise Unreadable(place)
        return original(place, machine.memory.read(place, size))

    def register(offset: int) -> int:
        return int.from_bytes(original(DEFAULT_BASE + offset, machine.memory.read(DEFAULT_BASE + offset, 8)), "little")

    unit = Unit.from_registers(Capability(register(CAP)), ExtendedCapability(register(ECAP)))
    return walk(unit, RootTableAddress(register(RTADDR)), request, read)
