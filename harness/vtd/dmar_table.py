"""The DMAR table of ACPI, by which a machine tells where its remapping units are and whose requests they take.

Sections are those of the VT-d specification, revision 4.1, chapter 8. Reading never fails: what is wrong becomes a
diagnosis with the offset of the culprit, and what can be read is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from harness.vtd.acpi_table import TableHeader, checksum
from harness.vtd.source_id import SourceId

SIGNATURE = b"DMAR"

_FIXED, _SUB_HEADER, _SCOPE = struct.Struct("<BB10s"), struct.Struct("<HH"), struct.Struct("<BBBBBB")


_HEADER = TableHeader(signature=SIGNATURE, revision=1)


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


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Something wrong with a table: the offset of the culprit in bytes, what it is, and the section that says so."""

    offset: int
    text: str
    section: str

    def __str__(self) -> str:
        return f"at {self.offset:#x}: {self.text} (section {self.section})"


@dataclass(frozen=True, slots=True)
class DeviceScope:
    """A device that a structure is about: its bus and the path of (device, function) from there."""

    kind: int
    bus: int
    path: tuple[tuple[int, int], ...]
    enumeration: int = 0
    flags: int = 0

    @property
    def function(self) -> SourceId | None:
        """The PCI function on its root bus; None for one behind bridges, whose bus only the machine knows."""
        if len(self.path) != 1 or self.path[0][0] > 0x1F or self.path[0][1] > 7:
            return None
        device, function = self.path[0]
        return SourceId(self.bus << 8 | device << 3 | function)

    def encode(self) -> bytes:
        """Give its bytes."""
        size = _SCOPE.size + 2 * len(self.path)
        head = _SCOPE.pack(self.kind, size, self.flags, 0, self.enumeration, self.bus)
        return head + bytes(number for step in self.path for number in step)


@dataclass(frozen=True, slots=True)
class RemappingStructure:
    """One structure: its type, what stands between its header and its scopes, and the scopes.

    `flags`, `segment`, `base` and `limit` are read for the types that have them.
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

    def encode(self) -> bytes:
        """Give its bytes."""
        match self.kind:
            case StructureType.DRHD:
                body = struct.pack("<BBHQ", self.flags, self.size, self.segment, self.base)
            case StructureType.RMRR:
                body = struct.pack("<HHQQ", 0, self.segment, self.base, self.limit)
            case StructureType.ATSR | StructureType.SATC:
                body = struct.pack("<BBH", self.flags, 0, self.segment)
            case _:
                body = self.rest
        body += b"".join(scope.encode() for scope in self.scopes)
        return _SUB_HEADER.pack(self.kind, _SUB_HEADER.size + len(body)) + body


@dataclass(frozen=True, slots=True)
class DmarTable:
    """The whole table; `address_width` is in bits, one more than its field says."""

    address_width: int
    flags: int
    structures: tuple[RemappingStructure, ...]
    header: TableHeader = _HEADER

    @property
    def interrupt_remapping(self) -> bool:
        """Whether the platform offers interrupt remapping."""
        return bool(self.flags & 1)

    def of(self, kind: StructureType) -> tuple[RemappingStructure, ...]:
        """Give the structures of one type."""
        return tuple(structure for structure in self.structures if structure.kind == kind)

    def encode(self) -> bytes:
        """Give its bytes, with the right length and checksum."""
        fixed = _FIXED.pack(self.address_width - 1, self.flags, bytes(10))
        return self.header.encode(fixed + b"".join(structure.encode() for structure in self.structures))


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was read of a table; `table` is None where not even its fixed part is there."""

    table: DmarTable | None
    diagnoses: tuple[Diagnosis, ...]


def parse(data: bytes) -> Parsed:
    """Read a table of any bytes."""
    found: list[Diagnosis] = []
    fixed_end = TableHeader.SIZE + _FIXED.size
    if len(data) < fixed_end:
        return Parsed(None, (Diagnosis(0, f"{len(data)} bytes are too few, {fixed_end} are fixed", "8.1"),))
    header, length = TableHeader.decode(data)
    if header.signature != SIGNATURE:
        found.append(Diagnosis(0, f"the signature is {header.signature!r}", "8.1"))
    if length != len(data):
        found.append(Diagnosis(4, f"its length says {length}, there are {len(data)} bytes", "8.1"))
    if checksum(data[: min(length, len(data))] or data):
        found.append(Diagnosis(9, f"wrong checksum: the bytes add up to {checksum(data):#04x}", "8.1"))
    width, flags, _ = _FIXED.unpack_from(data, TableHeader.SIZE)
    if not 32 <= width + 1 <= 64:
        found.append(Diagnosis(TableHeader.SIZE, f"a host address width of {width + 1} bits", "8.1"))
    structures = tuple(_structures(data, fixed_end, found))
    if not any(structure.kind == StructureType.DRHD for structure in structures):
        found.append(Diagnosis(fixed_end, "there is no remapping unit (DRHD)", "8.3"))
    return Parsed(DmarTable(width + 1, flags, structures, header), tuple(found))


def _structures(data: bytes, at: int, found: list[Diagnosis]) -> Iterator[RemappingStructure]:
    before = -1
    while at < len(data):
        if at + _SUB_HEADER.size > len(data):
            found.append(Diagnosis(at, f"{len(data) - at} bytes are left over", "8.2"))
            return
        kind, size = _SUB_HEADER.unpack_from(data, at)
        if size < _SUB_HEADER.size:
            found.append(Diagnosis(at, f"a structure of type {kind} has {size} bytes, so none can follow it", "8.2"))
            return
        if at + size > len(data):
            found.append(Diagnosis(at, f"a structure of type {kind} with {size} bytes reaches beyond the table", "8.2"))
            return
        if kind not in {each.value for each in StructureType}:
            found.append(Diagnosis(at, f"structures of type {kind} are unknown", "8.2"))
        elif kind < before:
            found.append(Diagnosis(at, f"a structure of type {kind} follows one of type {before}", "8.2"))
        before = kind
        yield _structure(kind, data[at : at + size], at, found)
        at += size


#: What stands between the header of a structure and its scopes, by type; those without scopes are left whole.
_BODIES = {
    StructureType.DRHD: struct.Struct("<BBHQ"),
    StructureType.RMRR: struct.Struct("<HHQQ"),
    StructureType.ATSR: struct.Struct("<BBH"),
    StructureType.SATC: struct.Struct("<BBH"),
}


def _structure(kind: int, data: bytes, at: int, found: list[Diagnosis]) -> RemappingStructure:
    body = _BODIES.get(StructureType(kind)) if kind in {each.value for each in _BODIES} else None
    rest = data[_SUB_HEADER.size :]
    if body is None:
        return RemappingStructure(kind, rest=rest, offset=at)
    if len(rest) < body.size:
        text = f"a structure of type {kind} has {len(data)} bytes, {_SUB_HEADER.size + body.size} are fixed"
        found.append(Diagnosis(at, text, "8.2"))
        return RemappingStructure(kind, rest=rest, offset=at)
    values = body.unpack_from(rest)
    scopes = tuple(_scopes(rest[body.size :], at + _SUB_HEADER.size + body.size, found))
    match kind:
        case StructureType.DRHD:
            flags, size, segment, base = values
            if base % 4096:
                found.append(Diagnosis(at + 8, f"registers at {base:#x}, which is no page", "8.3"))
            return RemappingStructure(kind, flags, segment, base, size=size, scopes=scopes, offset=at)
        case StructureType.RMRR:
            _, segment, base, limit = values
            if base % 4096 or (limit + 1) % 4096 or limit < base:
                text = f"reserved memory {base:#x}..{limit:#x} is no range of pages"
                found.append(Diagnosis(at + 8, text, "8.4"))
            return RemappingStructure(kind, 0, segment, base, limit, scopes=scopes, offset=at)
    flags, _, segment = values
    return RemappingStructure(kind, flags, segment, scopes=scopes, offset=at)


def _scopes(data: bytes, at: int, found: list[Diagnosis]) -> Iterator[DeviceScope]:
    begin = 0
    while begin < len(data):
        left = len(data) - begin
        size = data[begin + 1] if left > 1 else 0
        if size < _SCOPE.size + 2 or size > left or size % 2:
            text = f"a device scope of {size} bytes, where {left} are left"
            found.append(Diagnosis(at + begin, text, "8.3.1"))
            return
        kind, _, flags, _, enumeration, bus = _SCOPE.unpack_from(data, begin)
        if kind not in {each.value for each in ScopeType}:
            found.append(Diagnosis(at + begin, f"device scopes of type {kind} are unknown", "8.3.1"))
        numbers = data[begin + _SCOPE.size : begin + size]
        path = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        if any(device > 0x1F or function > 7 for device, function in path):
            found.append(Diagnosis(at + begin, f"a path of {path} names no PCI function", "8.3.1"))
        yield DeviceScope(kind, bus, path, enumeration, flags)
        begin += size
