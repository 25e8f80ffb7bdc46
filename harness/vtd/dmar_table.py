"""The DMAR table of ACPI, by which a machine tells where its remapping units are and whose requests they take.

Sections are those of the VT-d specification, revision 4.1, chapter 8. `harness.vtd.dmar_parse` reads tables.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from harness.vtd.acpi_table import TableHeader
from harness.vtd.source_id import SourceId
from harness.vtd.structure import Bits, Structure

SIGNATURE = b"DMAR"

#: Host address width, flags and reserved bytes between the header and the first structure (section 8.1).
FIXED = struct.Struct("<BB10s")
#: Type and length of a structure (8.2); type, length, flags, reserved, enumeration ID and bus of a scope (8.3.1).
SUB_HEADER, SCOPE = struct.Struct("<HH"), struct.Struct("<BBBBBB")

#: Bytes of a page, of which registers and reserved memory are made.
PAGE = 4096

#: Flag of a unit that takes the requests of all devices no other unit of its segment names (8.3).
INCLUDE_ALL = 1
#: Flag of an ATSR about all root ports of its segment (8.5).
ALL_PORTS = 1

_HEADER = TableHeader(signature=SIGNATURE, revision=1)


class TableFlags(Structure):
    """The flags of the table."""

    SIZE, SPEC = 1, "8.1"
    interrupt_remapping = Bits(0, 0)
    x2apic_opt_out = Bits(1, 1)
    dma_opt_in = Bits(2, 2)
    RESERVED = (Bits(7, 3),)


class StructureType(IntEnum):
    """The kinds of remapping structures (section 8.2)."""

    DRHD = 0
    RMRR = 1
    ATSR = 2
    RHSA = 3
    ANDD = 4
    SATC = 5
    SIDP = 6


class ScopeType(IntEnum):
    """What a device scope names (section 8.3.1)."""

    ENDPOINT = 1
    BRIDGE = 2
    IO_APIC = 3
    HPET = 4
    ACPI_DEVICE = 5


class UnitBody(Structure):
    """A remapping unit: its registers are 2^`size` pages at `base`."""

    SIZE, SPEC = 12, "8.3"
    flags = Bits(0, 0)
    size = Bits(11, 8)
    segment = Bits(31, 16)
    base = Bits(95, 32)
    RESERVED = (Bits(7, 1), Bits(15, 12))


class ReservedMemoryBody(Structure):
    """Memory that the firmware had devices use; `limit` is its last byte."""

    SIZE, SPEC = 20, "8.4"
    segment = Bits(31, 16)
    base = Bits(95, 32)
    limit = Bits(159, 96)
    RESERVED = (Bits(15, 0),)


class RootPortBody(Structure):
    """The root ports that take ATS requests."""

    SIZE, SPEC = 4, "8.5"
    flags = Bits(0, 0)
    segment = Bits(31, 16)
    RESERVED = (Bits(7, 1), Bits(15, 8))


class AffinityBody(Structure):
    """The proximity domain of the unit whose registers are at `base`."""

    SIZE, SPEC = 16, "8.6"
    base = Bits(95, 32)
    domain = Bits(127, 96)
    RESERVED = (Bits(31, 0),)


class NamedDeviceBody(Structure):
    """A device of the ACPI namespace by its number; its name follows."""

    SIZE, SPEC = 4, "8.7"
    number = Bits(31, 24)
    RESERVED = (Bits(23, 0),)


class TranslationCacheBody(Structure):
    """Integrated devices with address translation caches."""

    SIZE, SPEC = 4, "8.8"
    flags = Bits(0, 0)
    segment = Bits(31, 16)
    RESERVED = (Bits(7, 1), Bits(15, 8))


class IntegratedBody(Structure):
    """Properties of integrated devices, which stand in the flags of the scopes."""

    SIZE, SPEC = 4, "8.9"
    segment = Bits(31, 16)
    RESERVED = (Bits(15, 0),)


#: What stands between the header of a structure and its scopes or its name.
BODIES: dict[int, type[Structure]] = {
    StructureType.DRHD: UnitBody,
    StructureType.RMRR: ReservedMemoryBody,
    StructureType.ATSR: RootPortBody,
    StructureType.RHSA: AffinityBody,
    StructureType.ANDD: NamedDeviceBody,
    StructureType.SATC: TranslationCacheBody,
    StructureType.SIDP: IntegratedBody,
}

#: The types without scopes.
UNSCOPED = (StructureType.RHSA, StructureType.ANDD)


@dataclass(frozen=True, slots=True)
class DeviceScope:
    """A device that a structure is about: its bus and the path of (device, function) from there.

    `flags` have a meaning in the scopes of an SIDP only, `reserved` has none.
    """

    kind: int
    bus: int
    path: tuple[tuple[int, int], ...]
    enumeration: int = 0
    flags: int = 0
    reserved: int = 0

    @property
    def function(self) -> SourceId | None:
        """The PCI function on its root bus; None for one behind bridges, whose bus only the machine knows."""
        if len(self.path) != 1 or self.path[0][0] > 0x1F or self.path[0][1] > 7:
            return None
        device, function = self.path[0]
        return SourceId(self.bus << 8 | device << 3 | function)

    @property
    def place(self) -> str:
        """Its bus and path as in `3a:00.0/1c.4`, which has a bridge at 3a:00.0 and something behind it."""
        return f"{self.bus:02x}:" + "/".join(f"{device:02x}.{function:x}" for device, function in self.path)

    @property
    def named(self) -> str:
        """Say what it names, as in `I/O APIC 2` or `the function 00:02.0`."""
        kinds = {ScopeType.IO_APIC: "I/O APIC", ScopeType.HPET: "HPET", ScopeType.ACPI_DEVICE: "device"}
        what = kinds.get(ScopeType(self.kind)) if self.kind in set(ScopeType) else None
        return f"{what} {self.enumeration}" if what else f"the function {self.place}"

    def encode(self) -> bytes:
        """Give its bytes."""
        size = SCOPE.size + 2 * len(self.path)
        head = SCOPE.pack(self.kind, size, self.flags, self.reserved, self.enumeration, self.bus)
        return head + bytes(number for step in self.path for number in step)


@dataclass(frozen=True, slots=True)
class RemappingStructure:
    """One structure: its type, the fields that its type has (the others are 0), and its scopes.

    `rest` are the bytes after the fields of a type without scopes, as the name of an ANDD with the zero that ends it,
    what follows the last scope that could be read, or all bytes of a structure that is unknown or too short for its
    fields (then it is not `whole`). `reserved` are the bits that have no name, in place among those of the fields.
    `offset` is where it was read, in bytes from the table's start.
    """

    kind: int
    flags: int = 0
    segment: int = 0
    base: int = 0
    limit: int = 0
    size: int = 0
    scopes: tuple[DeviceScope, ...] = ()
    rest: bytes = b""
    offset: int = 0
    domain: int = 0
    number: int = 0
    whole: bool = True
    reserved: int = 0

    @property
    def registers(self) -> range:
        """The addresses of a unit's registers: 2^`size` pages."""
        return range(self.base, self.base + (PAGE << self.size))

    def encode(self) -> bytes:
        """Give its bytes."""
        body = BODIES.get(self.kind) if self.whole else None
        fields = b""
        if body:
            named = body.of(**{name: getattr(self, name) for name in body.fields()})
            fields = body(named.raw | self.reserved).encode()
        data = fields + b"".join(scope.encode() for scope in self.scopes) + self.rest
        return SUB_HEADER.pack(self.kind, SUB_HEADER.size + len(data)) + data


@dataclass(frozen=True, slots=True)
class DmarTable:
    """The whole table; `address_width` is in bits, one more than its field says.

    `reserved` are the bytes without a meaning before the first structure, `rest` those after the last that could be
    read.
    """

    address_width: int
    flags: int
    structures: tuple[RemappingStructure, ...]
    header: TableHeader = _HEADER
    reserved: bytes = bytes(10)
    rest: bytes = b""

    @property
    def interrupt_remapping(self) -> bool:
        """Whether the platform offers interrupt remapping."""
        return bool(TableFlags(self.flags).interrupt_remapping)

    def of(self, kind: StructureType) -> tuple[RemappingStructure, ...]:
        """Give the structures of one type."""
        return tuple(structure for structure in self.structures if structure.kind == kind)

    def encode(self) -> bytes:
        """Give its bytes, with the right length and checksum."""
        fixed = FIXED.pack(self.address_width - 1, self.flags, self.reserved)
        return self.header.encode(fixed + b"".join(structure.encode() for structure in self.structures) + self.rest)
