"""The header of every ACPI table (ACPI spec 5.2.6), and the I/O interrupt controllers of the MADT (5.2.12)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

_HEADER = struct.Struct("<4sIBB6s8sI4sI")
_MADT_FIXED, _IO_APIC = 8, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TableHeader:
    """The header of a table; length and checksum follow from the rest when it is encoded."""

    signature: bytes
    revision: int
    oem: bytes = b"VTD   "
    oem_table: bytes = b"HARNESS "
    oem_revision: int = 1
    creator: bytes = b"VTD "
    creator_revision: int = 1

    SIZE = _HEADER.size

    @classmethod
    def decode(cls, data: bytes) -> tuple[Self, int]:
        """Read the header and the length that it states; ValueError for fewer bytes than a header has."""
        if len(data) < _HEADER.size:
            raise ValueError(f"an ACPI table has {_HEADER.size} bytes at least, not {len(data)}")
        signature, length, revision, _, *rest = _HEADER.unpack_from(data)
        oem, oem_table, oem_revision, creator, creator_revision = rest
        header = cls(
            signature=signature,
            revision=revision,
            oem=oem,
            oem_table=oem_table,
            oem_revision=oem_revision,
            creator=creator,
            creator_revision=creator_revision,
        )
        return header, length

    def encode(self, body: bytes) -> bytes:
        """Give the whole table: this header with the right length and checksum, and `body`."""
        length = _HEADER.size + len(body)
        fields = self.oem, self.oem_table, self.oem_revision, self.creator, self.creator_revision
        table = bytearray(_HEADER.pack(self.signature, length, self.revision, 0, *fields) + body)
        table[9] = -sum(table) & 0xFF
        return bytes(table)


def checksum(table: bytes) -> int:
    """Give the sum of all bytes, which is 0 for a table whose checksum is right."""
    return sum(table) & 0xFF


def io_apic_ids(madt: bytes) -> tuple[int, ...]:
    """Give the IDs of the I/O APICs that the MADT lists; ValueError for what is no MADT."""
    header, length = TableHeader.decode(madt)
    if header.signature != b"APIC" or length != len(madt) or checksum(madt):
        raise ValueError("not a MADT, or a damaged one")
    found: list[int] = []
    at = _HEADER.size + _MADT_FIXED
    while at + 2 <= len(madt):
        kind, size = madt[at], madt[at + 1]
        if size < 2 or at + size > len(madt):
            raise ValueError(f"the MADT has an entry of {size} bytes at {at}")
        if kind == _IO_APIC:
            found.append(madt[at + 2])
        at += size
    return tuple(found)
