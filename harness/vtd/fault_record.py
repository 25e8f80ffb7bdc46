"""The fault recording register: what a remapping unit keeps of a request that it refused."""

from __future__ import annotations

from harness.vtd.faults import REASON_BY_CODE, Access, Fault, Mode
from harness.vtd.registers import Capability
from harness.vtd.source_id import SourceId
from harness.vtd.structure import Address, Bits, Structure

#: Where the index of a refused interrupt stands in the address.
_INDEX_SHIFT = 48


class FaultRecord(Structure):
    """FRCD: one recorded fault; `fault` is cleared by writing one to it, which frees the record.

    `read_request` tells a read from a write. `address` is the page of a refused DMA, or, for an interrupt, its index in
    bits 63:48.
    """

    SIZE = 16
    SPEC = "11.4.7.6"
    address = Address(63, 12)
    source_id = Bits(79, 64)
    type_low = Bits(92, 92)
    privilege = Bits(93, 93)
    execute = Bits(94, 94)
    pasid_present = Bits(95, 95)
    reason = Bits(103, 96)
    pasid = Bits(123, 104)
    address_type = Bits(125, 124)
    read_request = Bits(126, 126)
    fault = Bits(127, 127)

    @classmethod
    def from_halves(cls, low: int, high: int) -> FaultRecord:
        """Join the two 64-bit registers that hold it."""
        return cls(high << 64 | low)

    @property
    def source(self) -> SourceId:
        """Whose request it was."""
        return SourceId(self.source_id)

    @property
    def is_interrupt(self) -> bool:
        """Whether an interrupt request was refused."""
        known = REASON_BY_CODE.get(self.reason)
        return known is not None and known.mode is Mode.INTERRUPT

    @property
    def interrupt_index(self) -> int:
        """The index of a refused interrupt request."""
        return self.address >> _INDEX_SHIFT

    def as_fault(self) -> Fault:
        """Give the refused DMA; ValueError where nothing, or an interrupt, is recorded."""
        if not self.fault or self.is_interrupt:
            raise ValueError(f"no refused DMA is recorded in {self.raw:#034x}")
        access = Access.READ if self.read_request else Access.WRITE
        return Fault(source=self.source, access=access, reason=self.reason, first=self.address, last=self.address)


def record_offset(capability: Capability) -> int:
    """Where in the register page the first fault record is (CAP.FRO, in units of 16 bytes)."""
    return capability.fault_record_offset * FaultRecord.SIZE
