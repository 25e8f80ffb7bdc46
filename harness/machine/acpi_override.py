"""Malformed DMAR tables in place of QEMU's, brought to a Linux guest in front of its initial RAM disk.

The kernel takes a table out of an uncompressed cpio archive there, if signature and OEM are those of a table it knows
and the revision is newer (acpi_table_upgrade in drivers/acpi/tables.c, Documentation/admin-guide/acpi).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from harness.vtd.acpi_table import TableHeader
from harness.vtd.dmar_table import (
    INCLUDE_ALL,
    SIGNATURE,
    SUB_HEADER,
    DeviceScope,
    DmarTable,
    RemappingStructure,
    ScopeType,
    StructureType,
)
from harness.vtd.registers import DEFAULT_BASE

#: What is wrong with a table that replaces QEMU's.
Malformation = Literal[
    "wrong-checksum",
    "empty-structure",
    "absent-io-apic",
    "absent-device",
    "endpoint-for-bridge",
    "unit-at-zero",
    "unit-all-ones",
    "rmrr-over-ram",
    "rmrr-unreserved",
]

_NAME = b"kernel/firmware/acpi/DMAR.aml\0"

#: QEMU's OEM (hw/i386/acpi-build.c), and a revision newer than its 1.
_HEADER = TableHeader(signature=SIGNATURE, revision=1, oem=b"BOCHS ", oem_table=b"BXPC    ", oem_revision=2)

_IO_APIC_BUS = 0xFF

#: On the root bus (harness.machine.argv): a place without a device, the management NIC, the first root port.
_NOWHERE, _MANAGEMENT, _ROOT_PORT = (0x0A, 0), (1, 0), (2, 0)

#: A megabyte that every guest has as RAM.
_IN_RAM = range(0x100_0000, 0x110_0000)

#: Between the registers of the unit and those of the local APICs, where SeaBIOS reserves nothing (src/fw/pciinit.c).
_UNRESERVED = range(0xFEDA_0000, 0xFEDB_0000)

#: The page of a function that is not there in the enhanced configuration area (harness.pci_config): it reads as ones
#: (pcie_mmcfg_data_read in QEMU's hw/pci/pcie_host.c), as registers do on a machine which left its unit switched off.
_ALL_ONES = 0xB000_0000 | _NOWHERE[0] << 15 | _NOWHERE[1] << 12


def archive(what: Malformation) -> bytes:
    """Give the cpio archive with a table that is wrong in this way; another archive may follow it."""
    return _file(_NAME, table(what)) + _file(b"TRAILER!!!\0", b"")


def table(what: Malformation) -> bytes:
    """Give the table: one unit, and what is wrong."""
    if what == "wrong-checksum":
        good = bytearray(_table(_unit()).encode())
        good[9] ^= 0x55
        return bytes(good)
    if what == "empty-structure":
        return _HEADER.encode(_table().encode()[TableHeader.SIZE :] + SUB_HEADER.pack(StructureType.DRHD, 0))
    return _table(*_structures(what)).encode()


def _structures(what: Malformation) -> tuple[RemappingStructure, ...]:
    return {
        "absent-io-apic": (_unit(io_apic=7),),
        "absent-device": (_unit(only=_NOWHERE),),
        "endpoint-for-bridge": (_unit(only=_ROOT_PORT),),
        "unit-at-zero": (replace(_unit(), base=0),),
        "unit-all-ones": (replace(_unit(), base=_ALL_ONES),),
        "rmrr-over-ram": (_unit(), _reserved(_IN_RAM)),
        "rmrr-unreserved": (_unit(), _reserved(_UNRESERVED)),
    }[what]


def _reserved(memory: range) -> RemappingStructure:
    """Give an RMRR of the management NIC."""
    scope = DeviceScope(ScopeType.ENDPOINT, 0, (_MANAGEMENT,))
    return RemappingStructure(StructureType.RMRR, base=memory.start, limit=memory[-1], scopes=(scope,))


def _table(*structures: RemappingStructure) -> DmarTable:
    return DmarTable(48, 1, structures, _HEADER)


def _unit(*, io_apic: int = 0, only: tuple[int, int] | None = None) -> RemappingStructure:
    """A unit for all devices, or for `only` one endpoint of the root bus."""
    scopes: tuple[DeviceScope, ...] = (DeviceScope(ScopeType.IO_APIC, _IO_APIC_BUS, ((0, 0),), io_apic),)
    if only is not None:
        scopes += (DeviceScope(ScopeType.ENDPOINT, 0, (only,)),)
    flags = INCLUDE_ALL if only is None else 0
    return RemappingStructure(StructureType.DRHD, flags, base=DEFAULT_BASE, scopes=scopes)


def _file(name: bytes, data: bytes) -> bytes:
    """One member of a `newc` archive (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    mode = 0o100644 if data else 0
    fields = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
