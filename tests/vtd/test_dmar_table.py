"""The DMAR table: real ones, malformed ones with their diagnoses, and bytes of any kind."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.vtd.acpi_table import TableHeader, checksum, io_apic_ids
from harness.vtd.dmar_fit import misfits
from harness.vtd.dmar_table import (
    DeviceScope,
    DmarTable,
    RemappingStructure,
    ScopeType,
    StructureType,
    parse,
)
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
PRESENT = [SourceId.parse(f"00:{device:02x}.0") for device in (0, 1, 2, 3, 4, 5, 0x1F)]
RAM = [range(0x9FC00), range(0x10_0000, 0x1FFD_E000)]


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
    assert misfits(table, PRESENT, RAM, io_apic_ids(MADT)) == ()


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
        (RemappingStructure(StructureType.DRHD, base=0xFED90000), "two units have their registers at 0xfed90000"),
    ],
)
def test_what_does_not_fit_the_machine_has_its_diagnosis(structure, said):
    told = [each.text for each in misfits(with_structure(structure), PRESENT, RAM, io_apic_ids(MADT))]
    assert said in told


def test_an_rmrr_outside_of_ram_fits():
    structure = RemappingStructure(StructureType.RMRR, base=0x1FFE_0000, limit=0x1FFE_FFFF)
    assert misfits(with_structure(structure), PRESENT, RAM, io_apic_ids(MADT)) == ()


def test_an_rmrr_that_is_no_pages_is_told():
    table = with_structure(RemappingStructure(StructureType.RMRR, base=0x1000, limit=0x10FF))
    assert any("is no range of pages" in str(diagnosis) for diagnosis in parse(table.encode()).diagnoses)


_SCOPES = st.builds(
    DeviceScope,
    st.sampled_from(list(ScopeType)),
    st.integers(0, 255),
    st.lists(st.tuples(st.integers(0, 31), st.integers(0, 7)), min_size=1, max_size=4).map(tuple),
    st.integers(0, 255),
)
_PAGES = st.integers(0, (1 << 51) - 1).map(lambda page: page << 12)


def _structure(kind, draw):
    scopes = tuple(draw(st.lists(_SCOPES, max_size=3)))
    segment = draw(st.integers(0, 0xFFFF))
    match kind:
        case StructureType.DRHD:
            return RemappingStructure(kind, draw(st.integers(0, 1)), segment, draw(_PAGES), scopes=scopes)
        case StructureType.RMRR:
            base = draw(_PAGES)
            return RemappingStructure(kind, 0, segment, base, base | 0xFFF, scopes=scopes)
        case StructureType.ATSR | StructureType.SATC:
            return RemappingStructure(kind, draw(st.integers(0, 1)), segment, scopes=scopes)
    return RemappingStructure(kind, rest=draw(st.binary(min_size=4, max_size=20)))


@given(st.data())
def test_a_table_is_read_back_as_it_was_made(data):
    kinds = sorted([*data.draw(st.lists(st.sampled_from(list(StructureType)), max_size=5)), StructureType.DRHD])
    made = DmarTable(
        data.draw(st.integers(32, 64)), data.draw(st.integers(0, 7)), tuple(_structure(k, data.draw) for k in kinds)
    )
    parsed = parse(made.encode())
    assert parsed.diagnoses == ()
    assert parsed.table.encode() == made.encode()
    assert [each.scopes for each in parsed.table.structures] == [each.scopes for each in made.structures]


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
