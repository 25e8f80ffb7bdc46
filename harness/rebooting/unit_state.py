"""The registers of the remapping unit that a reset clears, read from outside of a machine."""

from __future__ import annotations

from harness.session import Session
from harness.vtd.fault_record import FaultRecord
from harness.vtd.registers import (
    CAP,
    DEFAULT_BASE,
    FECTL,
    FSTS,
    GSTS,
    IQA,
    IRTA,
    RTADDR,
    Capability,
    FaultEventControl,
    FaultStatus,
    GlobalStatus,
)

_WORDS = {
    "gsts": (GSTS, 4),
    "rtaddr": (RTADDR, 8),
    "irta": (IRTA, 8),
    "iqa": (IQA, 8),
    "fsts": (FSTS, 4),
    "fectl": (FECTL, 4),
}

#: Bytes of the registers of QEMU's unit, the fault record among them (DMAR_REG_SIZE in intel_iommu_internal.h).
_SIZE = 0x230

#: The values after a reset (VT-d spec 11.4, the default column of each register): all is off, no table is set, nothing
#: is reported, and fault events are masked.
AFTER_RESET = {
    "gsts": 0,
    "rtaddr": 0,
    "irta": 0,
    "iqa": 0,
    "fsts": 0,
    "fectl": FaultEventControl.interrupt_mask.mask,
    "fault": 0,
}


def unit_state(session: Session, when: str) -> dict[str, int]:
    """Read them, journalled with `when`; `fault` is the first fault record's own bit."""
    data = session.read_physical(DEFAULT_BASE, _SIZE, label=f"the unit {when}")

    def word(offset: int, size: int) -> int:
        return int.from_bytes(data[offset : offset + size], "little")

    record = Capability(word(CAP, 8)).fault_record_offset * FaultRecord.SIZE
    found = {name: word(*place) for name, place in _WORDS.items()}
    return found | {"fault": FaultRecord(word(record, FaultRecord.SIZE)).fault}


def translates(state: dict[str, int]) -> bool:
    """Whether the unit translated then."""
    return GlobalStatus(state["gsts"]).translation_enabled


def works(state: dict[str, int]) -> bool:
    """Whether all of the unit was on then, and it reported nothing."""
    status = GlobalStatus(state["gsts"])
    on = status.translation_enabled and status.interrupt_remapping_enabled and bool(status.queued_invalidation)
    return on and not FaultStatus(state["fsts"]).reports and not state["fault"]
