"""Fault reason codes of VT-d (VT-d spec, "Fault Conditions"), and what a fault report says whoever reports it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.vtd.source_id import SourceId

PAGE_SHIFT = 12


class Access(StrEnum):
    """The direction of the refused request, as the device saw it."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class FaultReason:
    """One reason code: its number, the name scenarios use, and its meaning in a sentence."""

    code: int
    name: str
    meaning: str


_REASONS = (
    FaultReason(0x01, "root-not-present", "the root entry of the bus is not present"),
    FaultReason(0x02, "context-not-present", "the context entry of the function is not present"),
    FaultReason(0x03, "context-invalid", "the context entry is programmed in a way the hardware does not offer"),
    FaultReason(0x04, "address-beyond-mgaw", "the address is wider than the domain's or the unit's address width"),
    FaultReason(0x05, "pte-write", "a second-stage entry does not permit the write"),
    FaultReason(0x06, "pte-read", "a second-stage entry does not permit the read"),
    FaultReason(0x07, "paging-entry-invalid", "the next page table could not be read"),
    FaultReason(0x08, "root-table-invalid", "the root table could not be read"),
    FaultReason(0x09, "context-table-invalid", "the context table could not be read"),
    FaultReason(0x0A, "root-entry-reserved", "reserved bits are set in the root entry"),
    FaultReason(0x0B, "context-entry-reserved", "reserved bits are set in the context entry"),
    FaultReason(0x0C, "paging-entry-reserved", "reserved bits are set in a paging entry"),
    FaultReason(0x0D, "context-translation-type", "the translation type of the context entry blocks the request"),
    FaultReason(0x0E, "interrupt-address", "the translated address lies in the interrupt range"),
    FaultReason(0x20, "ir-request-reserved", "reserved fields are set in a remappable interrupt request"),
    FaultReason(0x21, "ir-index-over", "the interrupt index is beyond the remapping table"),
    FaultReason(0x22, "ir-entry-not-present", "the interrupt remapping entry is not present"),
    FaultReason(0x23, "ir-table-invalid", "the interrupt remapping table could not be read"),
    FaultReason(0x24, "ir-entry-reserved", "reserved bits are set in the interrupt remapping entry"),
    FaultReason(0x25, "ir-compatibility-blocked", "a compatibility-format interrupt was blocked"),
    FaultReason(0x26, "ir-source-id", "the requester is not the one the interrupt remapping entry names"),
    FaultReason(0x50, "pasid-directory-access", "the PASID directory could not be read"),
    FaultReason(0x51, "pasid-directory-not-present", "the PASID directory entry is not present"),
    FaultReason(0x58, "pasid-table-access", "the PASID table could not be read"),
    FaultReason(0x59, "pasid-entry-not-present", "the PASID entry is not present"),
    FaultReason(0x5B, "pasid-entry-invalid", "the PASID entry is programmed in a way the hardware does not offer"),
    FaultReason(0x70, "first-stage-access", "a first-stage paging entry could not be read"),
    FaultReason(0x71, "first-stage-not-present", "a first-stage paging entry is not present"),
    FaultReason(0x72, "first-stage-reserved", "reserved bits are set in a first-stage paging entry"),
    FaultReason(0x73, "first-stage-pointer", "the first-stage table named by the PASID entry could not be read"),
    FaultReason(0x80, "first-stage-non-canonical", "the address is not canonical"),
    FaultReason(0x81, "first-stage-privilege", "a first-stage entry does not permit user access"),
    FaultReason(0x85, "first-stage-write", "a first-stage entry does not permit the write"),
    FaultReason(0x87, "sm-interrupt-address", "scalable mode: the address lies in the interrupt range"),
    FaultReason(0x91, "first-stage-bit-update", "the accessed or dirty bit could not be written"),
)

REASON_BY_CODE = {reason.code: reason for reason in _REASONS}
REASON_BY_NAME = {reason.name: reason for reason in _REASONS}


def describe(code: int) -> str:
    """Give number and name of a reason code: `0x05 pte-write`; an unlisted code is `0x99 unlisted`."""
    reason = REASON_BY_CODE.get(code)
    return f"{code:#04x} {reason.name if reason else 'unlisted'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One reported DMA fault.

    `first` and `last` are the lowest and highest reported addresses in bytes (a log line or a fault record knows only
    the page; QEMU's trace knows the bytes), `count` how many reports were folded into this one, `ref` the place of the
    evidence.
    """

    source: SourceId
    access: Access
    reason: int
    first: int
    last: int
    count: int = 1
    ref: str = ""

    def __str__(self) -> str:
        where = f"{self.first:#x}" if self.first == self.last else f"{self.first:#x}..{self.last:#x}"
        times = f", {self.count} reports" if self.count > 1 else ""
        return f"{self.access} by {self.source} at {where}, reason {describe(self.reason)}{times}"
