"""Interrupt remapping: the requests of devices, and the entries by which they are remapped (VT-d spec, chapter 5).

An interrupt request is a write of 4 bytes to the interrupt address range. In the remappable format its address names an
entry of the interrupt remapping table; in the compatibility format it names destination and vector by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from harness.vtd.structure import Bits, Structure

#: Writes of 4 bytes below this base plus 1 MiB are interrupt requests, and are never translated (section 3.14).
INTERRUPT_RANGE = range(0xFEE0_0000, 0xFEF0_0000)


class SourceValidation(IntEnum):
    """What of the requester's source ID an entry checks (SVT)."""

    NONE = 0
    SOURCE_ID = 1
    BUS_RANGE = 2
    RESERVED = 3


class InterruptRemapEntry(Structure):
    """IRTE in the remapped format: the interrupt that is delivered, and who may request it.

    `destination` is that of extended mode (x2APIC); otherwise the destination is bits 15:8 of it.
    """

    SIZE = 16
    SPEC = "9.10"
    present = Bits(0, 0)
    fault_processing_disable = Bits(1, 1)
    destination_mode = Bits(2, 2)
    redirection_hint = Bits(3, 3)
    trigger_mode = Bits(4, 4)
    delivery_mode = Bits(7, 5)
    available = Bits(11, 8)
    posted = Bits(15, 15)
    vector = Bits(23, 16)
    destination = Bits(63, 32)
    source_id = Bits(79, 64)
    source_qualifier = Bits(81, 80)
    source_validation = Bits(83, 82)
    RESERVED = (Bits(14, 12), Bits(31, 24), Bits(127, 84))


class PostedInterruptEntry(Structure):
    """IRTE in the posted format: the interrupt is noted in a descriptor in memory."""

    SIZE = 16
    SPEC = "9.11"
    present = Bits(0, 0)
    fault_processing_disable = Bits(1, 1)
    available = Bits(11, 8)
    urgent = Bits(14, 14)
    posted = Bits(15, 15)
    vector = Bits(23, 16)
    descriptor_low = Bits(63, 38, 6)
    source_id = Bits(79, 64)
    source_qualifier = Bits(81, 80)
    source_validation = Bits(83, 82)
    descriptor_high = Bits(127, 96)
    RESERVED = (Bits(7, 2), Bits(13, 12), Bits(31, 24), Bits(37, 32), Bits(95, 84))


class InterruptAddress(Structure):
    """The address of an interrupt request, in the remappable format where `remappable` is set (section 5.1.2)."""

    SIZE = 4
    SPEC = "5.1.2.2"
    handle_high = Bits(2, 2)
    subhandle_valid = Bits(3, 3)
    remappable = Bits(4, 4)
    handle_low = Bits(19, 5)
    fixed = Bits(31, 20)

    @property
    def handle(self) -> int:
        """The 16-bit handle."""
        return self.handle_high << 15 | self.handle_low


#: What the `fixed` bits of every interrupt address hold.
FIXED = INTERRUPT_RANGE.start >> 20


@dataclass(frozen=True, slots=True)
class InterruptRequest:
    """An interrupt request in the remappable format: the handle, and a subhandle that is added to it where given."""

    handle: int
    subhandle: int | None = None

    @property
    def index(self) -> int:
        """The entry of the interrupt remapping table that it names."""
        return self.handle + (self.subhandle or 0)

    def message(self) -> tuple[int, int]:
        """Give the address and the data of the write."""
        address = InterruptAddress.of(
            fixed=FIXED,
            remappable=1,
            subhandle_valid=int(self.subhandle is not None),
            handle_low=self.handle & 0x7FFF,
            handle_high=self.handle >> 15,
        )
        return address.raw, self.subhandle or 0

    @classmethod
    def read(cls, address: int, data: int) -> InterruptRequest | None:
        """Read a write to the interrupt range (ValueError for another); None for the compatibility format."""
        if address not in INTERRUPT_RANGE:
            raise ValueError(f"{address:#x} is not in the interrupt range")
        fields = InterruptAddress(address)
        if not fields.remappable:
            return None
        return cls(fields.handle, data & 0xFFFF if fields.subhandle_valid else None)
