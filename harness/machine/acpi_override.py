"""Malformed DMAR tables in place of QEMU's, brought to a Linux guest in front of its initial RAM disk.

The kernel takes a table out of an uncompressed cpio archive there, if signature and OEM are those of a table it knows
and the revision is newer (acpi_table_upgrade in drivers/acpi/tables.c, Documentation/admin-guide/acpi).
"""

from __future__ import annotations

import struct
from typing import Literal

from harness.vtd.acpi_table import TableHeader
from harness.vtd.dmar_table import SIGNATURE, DeviceScope, DmarTable, RemappingStructure, ScopeType, StructureType
from harness.vtd.registers import DEFAULT_BASE

#: What is wrong with a table that replaces QEMU's.
Malformation = Literal["wrong-checksum", "empty-structure", "absent-io-apic", "rmrr-over-ram"]

_NAME = b"kernel/firmware/acpi/DMAR.aml\0"

#: QEMU's OEM (hw/i386/acpi-build.c), and a revision newer than its 1.
_HEADER = TableHeader(signature=SIGNATURE, revision=1, oem=b"BOCHS ", oem_table=b"BXPC    ", oem_revision=2)

_INCLUDE_ALL = 1
_IO_APIC_BUS = 0xFF

#: A megabyte that every guest has as RAM.
_IN_RAM = 0x100_0000


def archive(what: Malformation) -> bytes:
    """Give the cpio archive with a table that is wrong in this way; another archive may follow it."""
    return _file(_NAME, table(what)) + _file(b"TRAILER!!!\0", b"")


def table(what: Malformation) -> bytes:
    """Give the table: one unit for all devices, and what is wrong."""
    match what:
        case "wrong-checksum":
            good = bytearray(_table(_unit(io_apic=0)).encode())
            good[9] ^= 0x55
            return bytes(good)
        case "empty-structure":
            header = _table(_unit(io_apic=0)).encode()
            empty = struct.pack("<HH", StructureType.DRHD, 0)
            return _HEADER.encode(header[TableHeader.SIZE : TableHeader.SIZE + 12] + empty)
        case "absent-io-apic":
            return _table(_unit(io_apic=7)).encode()
        case "rmrr-over-ram":
            scope = DeviceScope(ScopeType.ENDPOINT, 0, ((1, 0),))
            reserved = RemappingStructure(StructureType.RMRR, base=_IN_RAM, limit=_IN_RAM + 0xFFFFF, scopes=(scope,))
            return _table(_unit(io_apic=0), reserved).encode()


def _table(*structures: RemappingStructure) -> DmarTable:
    return DmarTable(48, 1, structures, _HEADER)


def _unit(*, io_apic: int) -> RemappingStructure:
    scope = DeviceScope(ScopeType.IO_APIC, _IO_APIC_BUS, ((0, 0),), io_apic)
    return RemappingStructure(StructureType.DRHD, _INCLUDE_ALL, base=DEFAULT_BASE, scopes=(scope,))


def _file(name: bytes, data: bytes) -> bytes:
    """One member of a `newc` archive (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    mode = 0o100644 if data else 0
    fields = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
