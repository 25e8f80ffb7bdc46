"""Reading a DMAR table of any bytes: what can be read is read, and what is wrong becomes a diagnosis.

Sections are those of the VT-d specification, revision 4.1, chapter 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.vtd.acpi_table import TableHeader, checksum
from harness.vtd.dmar_diagnosis import Diagnosis
from harness.vtd.dmar_rules import broken
from harness.vtd.dmar_table import (
    BODIES,
    FIXED,
    SCOPE,
    SIGNATURE,
    SUB_HEADER,
    UNSCOPED,
    DeviceScope,
    DmarTable,
    RemappingStructure,
    ScopeType,
    TableFlags,
)

#: The revision of the table that is read here (section 8.1). Later ones exist, and must be read as this one: ACPI 5.2.6
#: has later revisions add to a table, and Linux does not look.
_REVISION = 1
_CHECKSUM, _FLAGS, _RESERVED = 9, TableHeader.SIZE + 1, TableHeader.SIZE + 2


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was read of a table; `table` is None where not even its fixed part is there."""

    table: DmarTable | None
    diagnoses: tuple[Diagnosis, ...]

    @property
    def defects(self) -> tuple[Diagnosis, ...]:
        """What is wrong with the table."""
        return tuple(diagnosis for diagnosis in self.diagnoses if not diagnosis.remark)

    @property
    def remarks(self) -> tuple[Diagnosis, ...]:
        """What is odd about it without being wrong."""
        return tuple(diagnosis for diagnosis in self.diagnoses if diagnosis.remark)


def parse(data: bytes) -> Parsed:
    """Read a table of any bytes."""
    found: list[Diagnosis] = []
    fixed_end = TableHeader.SIZE + FIXED.size
    if len(data) < fixed_end:
        return Parsed(None, (Diagnosis(0, f"{len(data)} bytes are too few, {fixed_end} are fixed", "8.1"),))
    header, length = TableHeader.decode(data)
    width, flags, reserved = FIXED.unpack_from(data, TableHeader.SIZE)
    if header.signature != SIGNATURE:
        found.append(Diagnosis(0, f"the signature is {header.signature!r}", "8.1"))
    if length != len(data):
        found.append(Diagnosis(4, f"its length says {length}, there are {len(data)} bytes", "8.1"))
    if header.revision != _REVISION:
        newer = header.revision > _REVISION
        text = f"revision {header.revision} is {'above' if newer else 'not'} the known one, {_REVISION}"
        found.append(Diagnosis(8, text, "8.1", remark=newer))
    if total := checksum(data[:length] or data):
        found.append(Diagnosis(_CHECKSUM, f"wrong checksum: the bytes add up to {total:#04x}", "8.1"))
    if not 32 <= width + 1 <= 64:
        found.append(Diagnosis(TableHeader.SIZE, f"a host address width of {width + 1} bits", "8.1"))
    if TableFlags(flags).reserved_set() or any(reserved):
        at = _FLAGS if TableFlags(flags).reserved_set() else _RESERVED
        found.append(Diagnosis(at, f"reserved bits are set in {data[at:fixed_end].hex()}", "8.1"))
    inside = data[: max(length, fixed_end)]  # what follows the table is none of its structures
    structures = tuple(_structures(inside, fixed_end, found))
    rest = inside[fixed_end + sum(len(structure.encode()) for structure in structures) :]
    table = DmarTable(width + 1, flags, structures, header, reserved, rest)
    return Parsed(table, (*found, *broken(table)))


def _structures(data: bytes, at: int, found: list[Diagnosis]) -> Iterator[RemappingStructure]:
    """Give the structures in `data`, a table without what follows it, from offset `at` on."""
    while at < len(data):
        if at + SUB_HEADER.size > len(data):
            found.append(Diagnosis(at, f"{len(data) - at} bytes are left over", "8.2"))
            return
        kind, size = SUB_HEADER.unpack_from(data, at)
        if size < SUB_HEADER.size:
            found.append(Diagnosis(at, f"a structure of type {kind} has {size} bytes, so none can follow it", "8.2"))
            return
        if at + size > len(data):
            found.append(Diagnosis(at, f"a structure of type {kind} with {size} bytes reaches beyond the table", "8.2"))
            return
        yield _structure(kind, data[at : at + size], at, found)
        at += size


def _structure(kind: int, data: bytes, at: int, found: list[Diagnosis]) -> RemappingStructure:
    rest = data[SUB_HEADER.size :]
    if kind not in BODIES:
        found.append(Diagnosis(at, f"structures of type {kind} are unknown", "8.2"))
        return RemappingStructure(kind, rest=rest, offset=at)
    layout = BODIES[kind]
    if len(rest) < layout.SIZE:
        text = f"a structure of type {kind} has {len(data)} bytes, {SUB_HEADER.size + layout.SIZE} are fixed"
        found.append(Diagnosis(at, text, layout.SPEC))
        return RemappingStructure(kind, rest=rest, offset=at, whole=False)
    body = layout.decode(rest[: layout.SIZE])
    named = layout.of(**body.values())
    fields: dict[str, Any] = {**body.values(), "offset": at, "reserved": body.raw & ~named.raw}
    if body.reserved_set():
        text = f"bits {', '.join(map(str, body.reserved_set()))} after the header are reserved, and set"
        found.append(Diagnosis(at, text, layout.SPEC))
    after = rest[layout.SIZE :]
    if kind in UNSCOPED:
        return RemappingStructure(kind, rest=after, **fields)
    scopes = tuple(_scopes(after, at + SUB_HEADER.size + layout.SIZE, found))
    rest = after[sum(len(scope.encode()) for scope in scopes) :]
    return RemappingStructure(kind, scopes=scopes, rest=rest, **fields)


def _scopes(data: bytes, at: int, found: list[Diagnosis]) -> Iterator[DeviceScope]:
    begin = 0
    while begin < len(data):
        left = len(data) - begin
        size = data[begin + 1] if left > 1 else 0
        if size < SCOPE.size + 2 or size > left or size % 2:
            text = f"a device scope of {size} bytes, where {left} are left"
            found.append(Diagnosis(at + begin, text, "8.3.1"))
            return
        kind, _, flags, reserved, enumeration, bus = SCOPE.unpack_from(data, begin)
        if kind not in {each.value for each in ScopeType}:
            found.append(Diagnosis(at + begin, f"device scopes of type {kind} are unknown", "8.3.1"))
        numbers = data[begin + SCOPE.size : begin + size]
        path = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        if any(device > 0x1F or function > 7 for device, function in path):
            found.append(Diagnosis(at + begin, f"a path of {path} names no PCI function", "8.3.1"))
        yield DeviceScope(kind, bus, path, enumeration, flags, reserved)
        begin += size
