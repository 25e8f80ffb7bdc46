"""The descriptor queues of an 82576 (igb), read from outside of the guest through the NIC's own registers."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import HarnessError, InfraError
from harness.session import AttachedDevice, Session

#: The first registers of receive queue 0 and their distance (82576 datasheet 8.10; hw/net/igb_regs.h), as offsets from
#: which base, head, tail and control go.
_RECEIVE, _STRIDE = 0xC000, 0x40
_LOW, _HIGH, _HEAD, _TAIL, _CONTROL = 0x00, 0x04, 0x10, 0x18, 0x28

#: In a queue's control register: it is on. A reset of the function clears it (igb_core_vf_reset in hw/net/igb_core.c).
ENABLED = 1 << 25

#: Bytes of a descriptor.
DESCRIPTOR = 16


@dataclass(frozen=True, slots=True)
class ReceiveQueue:
    """One receive queue: the bus address of its descriptors, the next that the NIC takes, and where those end."""

    base: int
    head: int
    tail: int
    enabled: bool


@dataclass(frozen=True, slots=True)
class SharedNic:
    """A NIC with virtual functions, whose registers begin at the guest-physical address `registers`.

    `functions` are the names of its virtual functions, in the order of their numbers. Function n has the queues n and
    n + 8, and the NIC itself begins with the first that is left (igb_cache_ring_register in Linux' igb_main.c).
    """

    name: str
    registers: int
    functions: tuple[str, ...]

    @classmethod
    def of(cls, session: Session, device: AttachedDevice) -> SharedNic:
        """Learn of the NIC `device` where the guest's kernel has placed its registers."""
        functions = tuple(name for name, other in session.devices.items() if other.physical == device.name)
        resources = session.call("pci", bdf=device.address)["resources"]
        place = next((resource["start"] for resource in resources if resource["index"] == 0), None)
        if place is None:
            raise InfraError(f"the guest's kernel tells no place of the registers of '{device.name}'")
        return cls(device.name, place, functions)

    def number(self, function: AttachedDevice) -> int:
        """Give the number of a virtual function."""
        if function.name not in self.functions:
            raise HarnessError(f"'{function.name}' is no virtual function of '{self.name}'")
        return self.functions.index(function.name)

    def control(self, queue: int) -> int:
        """Give the address of the control register of a receive queue."""
        return self._register(queue, _CONTROL)

    def receive_queue(self, session: Session, queue: int) -> ReceiveQueue:
        """Read a receive queue."""
        low, high, head, tail, control = (
            session.guest.machine.register(self._register(queue, offset))
            for offset in (_LOW, _HIGH, _HEAD, _TAIL, _CONTROL)
        )
        return ReceiveQueue(high << 32 | low, head, tail, bool(control & ENABLED))

    def _register(self, queue: int, offset: int) -> int:
        return self.registers + _RECEIVE + queue * _STRIDE + offset
