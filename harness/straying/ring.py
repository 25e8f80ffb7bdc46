"""The receive ring of an Intel NIC under its kernel driver, read and changed from outside of the guest.

Queue 0 has its registers at 0x2800 in the 82574 (data sheet 10.2.5) and at 0xC000 in the 82576 (8.10), in one order.
A descriptor begins with the bus address of its buffer until the NIC has used it: what it writes back lies over that.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import InfraError
from harness.nesting import translate
from harness.session import AttachedDevice, Session
from harness.vtd.faults import Access

#: Where the registers of queue 0 begin, by model.
QUEUES = {"e1000e": 0x2800, "igb": 0xC000}

_LOW, _HIGH, _LENGTH, _HEAD, _TAIL = 0x00, 0x04, 0x08, 0x10, 0x18

#: Bytes of a descriptor, and of the address that it begins with.
DESCRIPTOR, ADDRESS = 16, 8


@dataclass(frozen=True, slots=True)
class ReceiveRing:
    """One look at the ring: the bus address of its `count` descriptors, and where NIC (head) and driver (tail) are."""

    base: int
    count: int
    head: int
    tail: int

    @property
    def ready(self) -> int:
        """How many descriptors the NIC may use."""
        return (self.tail - self.head) % self.count

    def ahead(self, distance: int) -> int:
        """Give the number of the descriptor `distance` behind the next; InfraError where the driver has none there."""
        if distance >= self.ready:
            raise InfraError(f"the driver has {self.ready} buffers ready, and {distance + 1} are needed: {self}")
        return (self.head + distance) % self.count


def buffer_name(index: int) -> str:
    """Name the buffer that the driver laid into a descriptor."""
    return f"buffer {index} of the driver"


def registers_of(session: Session, device: AttachedDevice) -> int:
    """Give the guest-physical address where the guest's kernel has placed the NIC's registers."""
    resources = session.call("pci", bdf=device.address)["resources"]
    place = next((resource["start"] for resource in resources if resource["index"] == 0), None)
    if place is None:
        raise InfraError(f"the guest's kernel tells no place of the registers of '{device.name}'")
    return int(place)


def look(session: Session, device: AttachedDevice, registers: int) -> ReceiveRing:
    """Read the ring; InfraError where there is none."""

    def read(offset: int) -> int:
        return session.guest.machine.register(registers + QUEUES[device.model] + offset)

    count = read(_LENGTH) // DESCRIPTOR
    if not count:
        raise InfraError(f"the driver of '{device.name}' has laid no receive ring; is its interface up?")
    return ReceiveRing(read(_HIGH) << 32 | read(_LOW), count, read(_HEAD), read(_TAIL))


def reached(session: Session, device: AttachedDevice, address: int) -> int | None:
    """Where a write of the NIC to a bus address leads, None for nowhere; without a unit, there itself."""
    return address if session.raw else translate(session, device, address, Access.WRITE).address


def driver_reached(session: Session, device: AttachedDevice, address: int) -> int:
    """Where an address leads that the driver has given the NIC; InfraError for nowhere."""
    physical = reached(session, device, address)
    if physical is None:
        raise InfraError(f"the tables of '{device.name}' lead nowhere from {address:#x}, which its driver has given it")
    return physical
