"""The DMAR table: real ones, malformed ones with their diagnoses, and bytes of any kind."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.vtd.acpi_table import TableHeader, checksum, io_apic_ids
from harness.vtd.dmar_fit import Machine, left_out, misfits
from harness.vtd.dmar_parse import parse
from harness.vtd.dmar_table import INCLUDE_ALL, DeviceScope, DmarTable, RemappingStructure, ScopeType, StructureType
from harness.vtd.source_id import SourceId

#: As QEMU 10.0.13 makes it (build_dmar_q35 in hw/i386/acpi-build.c) for 48 address bits, interrupt remapping and a q35
#: with four root ports, and the MADT beside it.
QEMU = bytes.fromhex(
    "444d415280000000011e424f4348532042585043202020200100000042585043010000002f010000000000000000000000005000000000000000"
    "d9fe000000000308000000ff00000108000000000000010800000000010002080000000002000208000000000300020800000000040002080000"
    "000005000108000000001f00"
)
MADT = bytes.fromhex(
    "41504943780000000388424f4348532042585043202020200100000042585043010000000000e0fe010000000008000001000000010c00000000"
    "c0fe00000000020a0000020000000000020a0005050000000d00020a0009090000000d00020a000a0a0000000d00020a000b0b0000000d000406"
    "ff000001"
)
#: The functions of the root bus, and which are bridges.
PRESENT = {SourceId.parse(f"00:{device:02x}.0"): device in {2, 3, 4, 5} for device in (0, 1, 2, 3, 4, 5, 0x1F)}
RAM = [range(0x9FC00), range(0x10_0000, 0x1FFD_E000)]
RESERVED = [range(0x1FFD_E000, 0x2000_0000)]
MACHINE = Machine(bridges=PRESENT, memory=RAM, reserved=RESERVED, io_apics=io_apic_ids(MADT))


def repaired(data: bytes) -> bytes:
    table = bytearray(data)
    table[4:8] = struct.pack("<I", len(table))
    table[9] = 0
    table[9] = -sum(table) & 0xFF
    return bytes(table)


def test_what_qemu_makes_is_read():
    parsed = parse(QEMU)
    table = parsed.table
    assert parsed.diagnoses == ()
    assert (table.address_width, table.interrupt_remapping, table.header.oem) == (48, True, b"BOCHS ")
    (unit,) = table.of(StructureType.DRHD)
    assert (unit.base, unit.flags, unit.segment) == (0xFED90000, 0, 0)
    assert unit.scopes[0] == DeviceScope(ScopeType.IO_APIC, 0xFF, ((0, 0),))
    assert [str(scope.function) for scope in unit.scopes if scope.kind == ScopeType.BRIDGE] == [
        "00:02.0",
        "00:03.0",
        "00:04.0",
        "00:05.0",
    ]
    assert table.encode() == QEMU
    assert list(misfits(table, MACHINE)) == []
    assert list(left_out(table, MACHINE)) == []


def wrong_checksum() -> bytes:
    return QEMU[:9] + bytes([QEMU[9] ^ 1]) + QEMU[10:]


def zero_length() -> bytes:
    return repaired(QEMU + struct.pack("<HH", 2, 0))


def beyond() -> bytes:
    return repaired(QEMU + struct.pack("<HH", 2, 200) + bytes(8))


def empty_scope() -> bytes:
    return repaired(QEMU[:50] + struct.pack("<H", 0x52) + QEMU[52:] + b"\1\0")


def no_unit() -> bytes:
    return DmarTable(48, 1, ()).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (wrong_checksum(), "at 0x9: wrong checksum: the bytes add up to 0xff (section 8.1)"),
        (zero_length(), "at 0x80: a structure of type 2 has 0 bytes, so none can follow it (section 8.2)"),
        (beyond(), "at 0x80: a structure of type 2 with 200 bytes reaches beyond the table (section 8.2)"),
        (empty_scope(), "at 0x80: a device scope of 0 bytes, where 2 are left (section 8.3.1)"),
        (no_unit(), "at 0x30: there is no remapping unit (DRHD) (section 8.3)"),
        (QEMU[:40], "at 0x0: 40 bytes are too few, 48 are fixed (section 8.1)"),
        (repaired(b"XMAR" + QEMU[4:]), "at 0x0: the signature is b'XMAR' (section 8.1)"),
        (QEMU + b"\0", "at 0x4: its length says 128, there are 129 bytes (section 8.1)"),
        (repaired(QEMU + struct.pack("<HH", 9, 4)), "at 0x80: structures of type 9 are unknown (section 8.2)"),
        (repaired(QEMU[:36] + b"\7" + QEMU[37:]), "at 0x24: a host address width of 8 bits (section 8.1)"),
        (repaired(QEMU + b"\0\0"), "at 0x80: 2 bytes are left over (section 8.2)"),
    ],
)
def test_what_is_wrong_has_its_diagnosis(data, said):
    told = [str(diagnosis) for diagnosis in parse(data).diagnoses]
    if said.startswith("at 0x9"):
        said = said.replace("0xff", f"{checksum(data):#04x}")
    assert said in told


def with_structure(structure: RemappingStructure) -> DmarTable:
    return DmarTable(48, 1, (*parse(QEMU).table.structures, structure))


@pytest.mark.parametrize(
    ("structure", "said"),
    [
        (
            RemappingStructure(StructureType.ATSR, scopes=(DeviceScope(ScopeType.BRIDGE, 0, ((0x0A, 0),)),)),
            "a scope names 00:0a.0, where no device is",
        ),
        (
            RemappingStructure(StructureType.RMRR, base=0x20_0000, limit=0x2F_FFFF),
            "reserved memory 0x200000..0x2fffff lies in memory that is used as RAM",
        ),
        (
            RemappingStructure(StructureType.ATSR, scopes=(DeviceScope(ScopeType.IO_APIC, 0, ((0, 0),), 7),)),
            "a scope names I/O APIC 7, which the MADT does not list",
        ),
        (
            RemappingStructure(StructureType.ATSR, scopes=(DeviceScope(ScopeType.ENDPOINT, 0, ((2, 0),)),)),
            "a scope names 00:02.0 as an endpoint, which it is not",
        ),
        (
            RemappingStructure(StructureType.ATSR, scopes=(DeviceScope(ScopeType.BRIDGE, 0, ((1, 0),)),)),
            "a scope names 00:01.0 as a bridge, which it is not",
        ),
    ],
)
def test_what_does_not_fit_the_machine_has_its_diagnosis(structure, said):
    told = [each.text for each in misfits(with_structure(structure), MACHINE)]
    assert said in told


@pytest.mark.parametrize(("first", "last"), [(0x1FFD_E000, 0x1FFF_FFFF), (0x1FFE_0000, 0x1FFE_FFFF)])
def test_an_rmrr_in_reserved_memory_fits(first, last):
    assert list(misfits(with_structure(RemappingStructure(StructureType.RMRR, base=first, limit=last)), MACHINE)) == []


@pytest.mark.parametrize(("first", "last"), [(0x1FFE_0000, 0x2000_0FFF), (0x9000_0000, 0x9000_FFFF)])
def test_an_rmrr_that_no_reserved_range_covers_is_told_where_those_are_known(first, last):
    table = with_structure(RemappingStructure(StructureType.RMRR, base=first, limit=last))

    assert [each.text for each in misfits(table, MACHINE)] == [
        f"reserved memory {first:#x}..{last:#x} is not reserved in the memory map"
    ]
    assert list(misfits(table, replace(MACHINE, reserved=None))) == []


def test_a_function_of_another_segment_is_another_one():
    bridge = DeviceScope(ScopeType.BRIDGE, 0, ((2, 0),))
    table = with_structure(RemappingStructure(StructureType.ATSR, segment=1, scopes=(bridge,)))

    assert [each.text for each in misfits(table, MACHINE)] == ["a scope names 0001:00:02.0, where no device is"]


@pytest.mark.parametrize(("flags", "told"), [(1, ["no scope names I/O APIC 0"]), (0, [])])
def test_an_io_apic_may_be_left_out_where_no_interrupt_is_remapped(flags, told):
    table = parse(QEMU).table
    (unit,) = table.structures
    without = replace(unit, scopes=tuple(each for each in unit.scopes if each.kind != ScopeType.IO_APIC))

    assert list(left_out(DmarTable(48, flags, (without,)), MACHINE)) == told


_PATHS = st.lists(st.tuples(st.integers(0, 31), st.integers(0, 7)), min_size=1, max_size=4).map(tuple)
_ALLOWED = {
    StructureType.DRHD: list(ScopeType),
    StructureType.RMRR: [ScopeType.ENDPOINT, ScopeType.BRIDGE, ScopeType.ACPI_DEVICE],
    StructureType.ATSR: [ScopeType.BRIDGE],
    StructureType.SATC: [ScopeType.ENDPOINT],
    StructureType.SIDP: [ScopeType.ENDPOINT, ScopeType.BRIDGE],
}


def _scopes(kind, *, least=1):
    """Scopes as a structure of this kind may have them, each of another device."""
    flags = st.integers(0, 31) if kind == StructureType.SIDP else st.just(0)
    types, numbers = st.sampled_from(_ALLOWED[kind]), st.integers(0, 255)
    scopes = st.builds(DeviceScope, types, numbers, _PATHS, numbers, flags)
    return st.lists(scopes, min_size=least, max_size=6, unique_by=(lambda each: (each.bus, each.path), _numbered)).map(
        tuple
    )


def _numbered(scope):
    return (scope.kind, scope.enumeration)


def _structure(kind, draw, bases, area):
    """A structure that breaks no rule beside units at `bases`, other memory than `area` and devices 0 to 255."""
    if kind == StructureType.RHSA:
        return RemappingStructure(kind, base=bases.pop(), domain=draw(st.integers(0, 0xFFFF_FFFF)))
    scopes = draw(_scopes(kind))
    match kind:
        case StructureType.RMRR:
            return RemappingStructure(kind, 0, 7, area, area | 0xFFF, scopes=scopes)
        case StructureType.ATSR if draw(st.booleans()):
            return RemappingStructure(kind, 1, 7)
        case StructureType.SATC:
            return RemappingStructure(kind, draw(st.integers(0, 1)), 7, scopes=scopes)
    return RemappingStructure(kind, 0, 7, scopes=scopes)


def _table(draw) -> DmarTable:
    """Units of one segment, of up to 16 pages each, and other structures for them."""
    places = draw(st.lists(st.integers(1, (1 << 36) - 1), min_size=9, max_size=9, unique=True))
    pages = [place << 16 for place in places]
    taken = draw(_scopes(StructureType.DRHD, least=3))
    bases = pages[:3]
    units = [
        RemappingStructure(StructureType.DRHD, 0, 7, base, size=draw(st.integers(0, 4)), scopes=(scope,))
        for base, scope in zip(bases[1:], taken, strict=False)
    ]
    units.append(RemappingStructure(StructureType.DRHD, INCLUDE_ALL, 7, base=bases[0]))
    devices = [RemappingStructure(StructureType.ANDD, number=number, rest=b"\\_SB.X\0") for number in range(256)]
    others = sorted(set(StructureType) - {StructureType.DRHD, StructureType.ANDD})
    kinds = draw(st.lists(st.sampled_from(others), max_size=5))
    kinds = [kind for place, kind in enumerate(kinds) if kind != StructureType.RHSA or kinds[:place].count(kind) < 3]
    structures = [*units, *devices, *(_structure(kind, draw, bases, pages.pop()) for kind in kinds)]
    flags = draw(st.sampled_from([0, 1, 3, 4, 5, 7]))
    ordered = tuple(sorted(structures, key=lambda each: each.kind))
    return DmarTable(draw(st.integers(53, 64)), flags, ordered)


@settings(deadline=None)
@given(st.data())
def test_a_table_is_read_back_as_it_was_made(data):
    made = _table(data.draw)
    parsed = parse(made.encode())
    assert parsed.diagnoses == ()
    assert parsed.table.encode() == made.encode()
    assert [replace(each, offset=0) for each in parsed.table.structures] == list(made.structures)


UNIT = RemappingStructure(StructureType.DRHD, INCLUDE_ALL, base=0xFED9_0000)
OTHER = replace(UNIT, flags=0, base=0xFED8_0000, scopes=(DeviceScope(ScopeType.ENDPOINT, 0, ((1, 0),)),))
ACPI_DEVICE = (DeviceScope(ScopeType.ACPI_DEVICE, 0, ((1, 0),), 3),)


@pytest.mark.parametrize(
    ("structures", "said"),
    [
        ((OTHER, RemappingStructure(StructureType.RHSA, base=OTHER.base), OTHER), "type 0 follows one of type 3"),
        ((UNIT, OTHER), "a unit follows the one for all other devices of segment 0"),
        ((replace(OTHER, scopes=()), UNIT), "a unit for no device at all"),
        ((OTHER, replace(UNIT, base=OTHER.base)), "two units have their registers at 0xfed80000"),
        ((replace(UNIT, base=0),), "registers at 0x0, which is no page"),
        ((replace(UNIT, base=0x1800),), "registers at 0x1800, which is no page"),
        (
            (UNIT, RemappingStructure(StructureType.RMRR, base=0x1000, limit=0x10FF, scopes=OTHER.scopes)),
            "reserved memory 0x1000..0x10ff is no range of pages",
        ),
        (
            (UNIT, RemappingStructure(StructureType.RMRR, base=0x1000, limit=0x1FFF)),
            "reserved memory 0x1000..0x1fff for no device",
        ),
        ((UNIT, RemappingStructure(StructureType.ATSR)), "ATS for no root port"),
        ((UNIT, RemappingStructure(StructureType.RHSA, base=UNIT.base, rest=b"12")), "2 bytes are left over"),
        ((UNIT, RemappingStructure(StructureType.RHSA, base=0x1000)), "no unit has its registers at 0x1000"),
        ((UNIT, RemappingStructure(StructureType.ANDD, rest=b"X")), "the name b'X' is not ended by a zero"),
        ((replace(OTHER, scopes=ACPI_DEVICE), UNIT), "no ANDD has the number 3"),
        ((UNIT, RemappingStructure(StructureType.RHSA, rest=bytes(4), whole=False)), "has 8 bytes, 20 are fixed"),
        (
            (UNIT, RemappingStructure(StructureType.RMRR, rest=b"\1" + bytes(19), whole=False)),
            "bits 15:0 after the header are reserved, and set",
        ),
    ],
)
def test_a_broken_rule_has_its_diagnosis(structures, said):
    told = [each.text for each in parse(DmarTable(48, 1, structures).encode()).diagnoses]
    assert any(said in text for text in told), told


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (8, 2, "at 0x8: revision 2 is above the known one, 1 (section 8.1)"),
        (8, 0, "at 0x8: revision 0 is not the known one, 1 (section 8.1)"),
        (37, 2, "at 0x25: it opts out of x2APIC, which has no meaning without interrupt remapping (section 8.1)"),
        (37, 9, "at 0x25: reserved bits are set in 0900000000000000000000 (section 8.1)"),
        (40, 1, "at 0x26: reserved bits are set in 00000100000000000000 (section 8.1)"),
    ],
)
def test_what_is_wrong_before_the_structures_has_its_diagnosis(place, value, said):
    assert [str(each) for each in parse(repaired(QEMU[:place] + bytes([value]) + QEMU[place + 1 :])).diagnoses] == [
        said
    ]


@settings(max_examples=500)
@given(st.binary(max_size=200))
@example(b"")
def test_any_bytes_are_read_without_a_crash_and_told_wrong(data):
    assert parse(data).diagnoses


@settings(max_examples=500)
@given(st.integers(0, len(QEMU) - 1), st.integers(1, 255))
def test_a_table_with_one_wrong_byte_is_told_wrong(place, flip):
    damaged = bytearray(QEMU)
    damaged[place] ^= flip
    assert parse(bytes(damaged)).diagnoses


def test_the_io_apics_of_the_madt_are_read():
    assert io_apic_ids(MADT) == (0,)
    with pytest.raises(ValueError, match="not a MADT"):
        io_apic_ids(QEMU)
    with pytest.raises(ValueError, match="36 bytes at least"):
        TableHeader.decode(b"APIC")
