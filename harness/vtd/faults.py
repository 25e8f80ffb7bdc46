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


class Mode(StrEnum):
    """Which requests a reason is reported for: DMA by legacy or by scalable-mode tables, or interrupts."""

    LEGACY = "legacy"
    SCALABLE = "scalable"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, slots=True)
class FaultReason:
    """One reason code: its number, the name scenarios use, and its meaning in a sentence.

    `kernel_text` is what Linux says of it (the tables of reasons in drivers/iommu/intel/dmar.c), "Unknown" for nothing.
    `qualified` is whether the FPD bit of a context, PASID directory, PASID or interrupt remapping entry silences it.
    """

    code: int
    name: str
    meaning: str
    kernel_text: str
    qualified: bool = True

    @property
    def mode(self) -> Mode:
        """Whose requests it is reported for; the specification groups the codes by their number."""
        if self.code < 0x20:
            return Mode.LEGACY
        return Mode.INTERRUPT if self.code < 0x30 else Mode.SCALABLE


def _unqualified(code: int, name: str, meaning: str, kernel_text: str) -> FaultReason:
    return FaultReason(code, name, meaning, kernel_text, qualified=False)


_LEGACY = (
    _unqualified(0x01, "root-not-present", "the root entry of the bus is not present",
                 "Present bit in root entry is clear"),
    FaultReason(0x02, "context-not-present", "the context entry of the function is not present",
                "Present bit in context entry is clear"),
    FaultReason(0x03, "context-invalid", "the context entry is programmed in a way the hardware does not offer",
                "Invalid context entry"),
    FaultReason(0x04, "address-beyond-mgaw", "the address is wider than the domain's or the unit's address width",
                "Access beyond MGAW"),
    FaultReason(0x05, "pte-write", "a second-stage entry does not permit the write", "PTE Write access is not set"),
    FaultReason(0x06, "pte-read", "a second-stage entry does not permit the read", "PTE Read access is not set"),
    FaultReason(0x07, "paging-entry-invalid", "the next page table could not be read",
                "Next page table ptr is invalid"),
    _unqualified(0x08, "root-table-invalid", "the root table could not be read", "Root table address invalid"),
    _unqualified(0x09, "context-table-invalid", "the context table could not be read", "Context table ptr is invalid"),
    _unqualified(0x0A, "root-entry-reserved", "reserved bits are set in the root entry",
                 "non-zero reserved fields in RTP"),
    FaultReason(0x0B, "context-entry-reserved", "reserved bits are set in the context entry",
                "non-zero reserved fields in CTP"),
    FaultReason(0x0C, "paging-entry-reserved", "reserved bits are set in a paging entry",
                "non-zero reserved fields in PTE"),
    FaultReason(0x0D, "context-translation-type", "the translation type of the context entry blocks the request",
                "PCE for translation request specifies blocking"),
    FaultReason(0x0E, "interrupt-address", "the translated address lies in the interrupt range", "Unknown"),
)  # fmt: skip

_INTERRUPT = (
    _unqualified(0x20, "ir-request-reserved", "reserved fields are set in a remappable interrupt request",
                 "Detected reserved fields in the decoded interrupt-remapped request"),
    _unqualified(0x21, "ir-index-over", "the interrupt index is beyond the remapping table",
                 "Interrupt index exceeded the interrupt-remapping table size"),
    FaultReason(0x22, "ir-entry-not-present", "the interrupt remapping entry is not present",
                "Present field in the IRTE entry is clear"),
    _unqualified(0x23, "ir-table-invalid", "the interrupt remapping table could not be read",
                 "Error accessing interrupt-remapping table pointed by IRTA_REG"),
    FaultReason(0x24, "ir-entry-reserved", "reserved bits are set in the interrupt remapping entry",
                "Detected reserved fields in the IRTE entry"),
    _unqualified(0x25, "ir-compatibility-blocked", "a compatibility-format interrupt was blocked",
                 "Blocked a compatibility format interrupt request"),
    FaultReason(0x26, "ir-source-id", "the requester is not the one the interrupt remapping entry names",
                "Blocked an interrupt request due to source-id verification failure"),
)  # fmt: skip

_SCALABLE_TABLES = (
    _unqualified(0x30, "sm-root-table-invalid", "the root table address register is programmed in a wrong way",
                 "SM: Invalid Root Table Address"),
    _unqualified(0x31, "sm-mode-forbids-pasid", "a request with PASID came while the tables are those of legacy mode",
                 "SM: TTM 0 for request with PASID"),
    _unqualified(0x38, "sm-root-access", "the root entry could not be read",
                 "SM: Error attempting to access Root Entry"),
    _unqualified(0x39, "sm-root-not-present", "the half of the root entry for the function is not present",
                 "SM: Present bit in Root Entry is clear"),
    _unqualified(0x3A, "sm-root-reserved", "reserved bits are set in the root entry",
                 "SM: Non-zero reserved field set in Root Entry"),
    _unqualified(0x40, "sm-context-access", "the context entry could not be read",
                 "SM: Error attempting to access Context Entry"),
    FaultReason(0x41, "sm-context-not-present", "the context entry of the function is not present",
                "SM: Present bit in Context Entry is clear"),
    FaultReason(0x42, "sm-context-reserved", "reserved bits are set in the context entry",
                "SM: Non-zero reserved field set in the Context Entry"),
    FaultReason(0x43, "sm-context-invalid", "the context entry is programmed in a way the hardware does not offer",
                "SM: Invalid Context Entry"),
    FaultReason(0x44, "sm-device-tlb-disabled", "an ATS request came, but the context entry does not allow them",
                "SM: DTE field in Context Entry is clear"),
    FaultReason(0x45, "sm-pasid-disabled", "a request with PASID came, but the context entry does not allow them",
                "SM: PASID Enable field in Context Entry is clear"),
    FaultReason(0x46, "sm-pasid-too-large", "the PASID is beyond the directory of the function",
                "SM: PASID is larger than the max in Context Entry"),
    FaultReason(0x47, "sm-page-requests-disabled", "a page request came, but the context entry does not allow them",
                "SM: PRE field in Context-Entry is clear"),
    FaultReason(0x48, "sm-rid-pasid", "the PASID for requests without one is wrong in the context entry",
                "SM: RID_PASID field error in Context-Entry"),
    FaultReason(0x50, "pasid-directory-access", "the PASID directory could not be read",
                "SM: Error attempting to access the PASID Directory Entry"),
    FaultReason(0x51, "pasid-directory-not-present", "the PASID directory entry is not present",
                "SM: Present bit in Directory Entry is clear"),
    FaultReason(0x52, "pasid-directory-reserved", "reserved bits are set in the PASID directory entry",
                "SM: Non-zero reserved field set in PASID Directory Entry"),
    FaultReason(0x58, "pasid-table-access", "the PASID table could not be read",
                "SM: Error attempting to access PASID Table Entry"),
    FaultReason(0x59, "pasid-entry-not-present", "the PASID entry is not present",
                "SM: Present bit in PASID Table Entry is clear"),
    FaultReason(0x5A, "pasid-entry-reserved", "reserved bits are set in the PASID entry",
                "SM: Non-zero reserved field set in PASID Table Entry"),
    FaultReason(0x5B, "pasid-entry-invalid", "the PASID entry is programmed in a way the hardware does not offer",
                "SM: Invalid Scalable-Mode PASID Table Entry"),
    FaultReason(0x5C, "pasid-execute-disabled", "an execute request came, but the PASID entry does not allow them",
                "SM: ERE field is clear in PASID Table Entry"),
    FaultReason(0x5D, "pasid-supervisor-disabled", "a privileged request came, but the PASID entry does not allow them",
                "SM: SRE field is clear in PASID Table Entry"),
)  # fmt: skip

_SCALABLE_PAGING = (
    FaultReason(0x70, "first-stage-access", "a first-stage paging entry could not be read",
                "SM: Error attempting to access first-level paging entry"),
    FaultReason(0x71, "first-stage-not-present", "a first-stage paging entry is not present",
                "SM: Present bit in first-level paging entry is clear"),
    FaultReason(0x72, "first-stage-reserved", "reserved bits are set in a first-stage paging entry",
                "SM: Non-zero reserved field set in first-level paging entry"),
    FaultReason(0x73, "first-stage-pointer", "the first-stage table named by the PASID entry could not be read",
                "SM: Error attempting to access FL-PML4 entry"),
    FaultReason(0x78, "sm-second-stage-access", "a second-stage paging entry could not be read",
                "SM: Error attempting to access second-level paging entry"),
    FaultReason(0x79, "sm-second-stage-permission", "a second-stage entry does not permit the access",
                "SM: Read/Write permission error in second-level paging entry"),
    FaultReason(0x7A, "sm-second-stage-reserved", "reserved bits are set in a second-stage paging entry",
                "SM: Non-zero reserved field set in second-level paging entry"),
    FaultReason(0x7B, "sm-second-stage-pointer", "the second-stage table named by the PASID entry could not be read",
                "SM: Invalid second-level page table pointer"),
    FaultReason(0x80, "first-stage-non-canonical", "the address is not canonical",
                "SM: Address in first-level translation is not canonical"),
    FaultReason(0x81, "first-stage-privilege", "a first-stage entry does not permit user access",
                "SM: U/S set 0 for first-level translation with user privilege"),
    FaultReason(0x82, "first-stage-execute", "a first-stage entry does not permit execution",
                "SM: No execute permission for request with PASID and ER=1"),
    FaultReason(0x83, "sm-address-beyond-width", "the address is wider than the unit takes",
                "SM: Address beyond the DMA hardware max"),
    FaultReason(0x84, "sm-second-stage-beyond-width", "the address is wider than the second stage's tables",
                "SM: Second-level entry address beyond the max"),
    FaultReason(0x85, "first-stage-write", "an entry does not permit the write",
                "SM: No write permission for Write/AtomicOp request"),
    FaultReason(0x86, "sm-read", "an entry does not permit the read",
                "SM: No read permission for Read/AtomicOp request"),
    FaultReason(0x87, "sm-interrupt-address", "the address lies in the interrupt range",
                "SM: Invalid address-interrupt address"),
    FaultReason(0x90, "first-stage-no-snoop", "an accessed or dirty bit must be set in memory that is not snooped",
                "SM: A/D bit update needed in first-level entry when set up in no snoop"),
    FaultReason(0x91, "first-stage-bit-update", "the accessed or dirty bit could not be written", "Unknown"),
)  # fmt: skip

REASONS = (*_LEGACY, *_INTERRUPT, *_SCALABLE_TABLES, *_SCALABLE_PAGING)

REASON_BY_CODE = {reason.code: reason for reason in REASONS}
REASON_BY_NAME = {reason.name: reason for reason in REASONS}


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
