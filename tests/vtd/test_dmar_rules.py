"""A laptop's DMAR table, which has nothing wrong with it, and one change after the other that has its one diagnosis."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.vtd.acpi_table import TableHeader
from harness.vtd.dmar_diagnosis import Diagnosis
from harness.vtd.dmar_parse import parse
from harness.vtd.dmar_table import DeviceScope, DmarTable, RemappingStructure, ScopeType, StructureType
from tests.vtd.test_dmar_table import QEMU, repaired

#: Four units (graphics, two Thunderbolt ports, all other devices) and the graphics' memory.
LAPTOP = bytes.fromhex(Path(__file__).with_name("revision-2.hex").read_text(encoding="ascii"))
NEWER = Diagnosis(8, "revision 2 is above the known one, 1", "8.1", remark=True)

Change = Callable[[list[RemappingStructure]], list[RemappingStructure]]


def laptop() -> DmarTable:
    table = parse(LAPTOP).table
    assert table is not None
    return table


GRAPHICS, PORT, OTHER_PORT, ALL_OTHERS, MEMORY = laptop().structures
(SCREEN,), (IO_APIC, HPET) = GRAPHICS.scopes, ALL_OTHERS.scopes


def scope(kind: int, device: int, function: int = 0, number: int = 0, **more: int) -> DeviceScope:
    return DeviceScope(kind, 0, ((device, function),), number, **more)


def rmrr(base: int, limit: int, **more: int) -> RemappingStructure:
    return replace(MEMORY, base=base, limit=limit, **more)


AUDIO = scope(ScopeType.ENDPOINT, 0x1F, 3)
ROOT_PORT = scope(ScopeType.BRIDGE, 0x1C)
ATSR = RemappingStructure(StructureType.ATSR, scopes=(ROOT_PORT,))
NEAR = RemappingStructure(StructureType.RHSA, base=GRAPHICS.base, domain=1)
SERIAL = RemappingStructure(StructureType.ANDD, number=1, rest=b"\\_SB.PCI0.UA00\0")
SATC = RemappingStructure(StructureType.SATC, scopes=(SCREEN,))
SIDP = RemappingStructure(StructureType.SIDP, scopes=(scope(ScopeType.ENDPOINT, 2, flags=3),))


def at(place: int, *others: RemappingStructure) -> Change:
    """Put `others` in place of the structure there."""
    return lambda structures: [*structures[:place], *others, *structures[place + 1 :]]


def and_(*others: RemappingStructure) -> Change:
    return lambda structures: [*structures, *others]


def told(table: DmarTable) -> list[tuple[str, bool]]:
    parsed = parse(table.encode())
    assert parsed.table is not None
    assert NEWER in parsed.diagnoses
    return [(each.text, each.remark) for each in parsed.diagnoses if each != NEWER]


def test_a_table_of_a_later_revision_is_read_in_full_with_a_remark():
    parsed = parse(LAPTOP)

    assert parsed.table is not None
    assert (parsed.defects, parsed.remarks) == ((), (NEWER,))
    assert [unit.base for unit in parsed.table.of(StructureType.DRHD)] == [
        0xFED90000,
        0xFED84000,
        0xFED85000,
        0xFED91000,
    ]
    assert [(area.base, area.limit) for area in parsed.table.of(StructureType.RMRR)] == [(0x83800000, 0x87BFFFFF)]
    assert parsed.table.encode() == LAPTOP


@pytest.mark.parametrize(
    "change",
    [
        at(4, rmrr(0x87C0_0000, 0x87C0_FFFF), MEMORY),  # beside the other, as USB and graphics have it
        at(4, rmrr(0x7F_FFFF_F000, 0x7F_FFFF_FFFF)),  # the last page there is
        at(0, replace(GRAPHICS, size=0), replace(PORT, base=0xFED8_6000, size=3, scopes=(AUDIO,))),
        at(3, replace(ALL_OTHERS, scopes=(IO_APIC, scope(ScopeType.IO_APIC, 0x1E, 5, 3), HPET))),
        and_(ATSR, NEAR, replace(NEAR, base=PORT.base), SERIAL, replace(SERIAL, number=2), SATC, SIDP),
        and_(replace(ATSR, flags=1, scopes=())),
    ],
)
def test_what_is_allowed_has_no_diagnosis(change):
    assert told(replace(laptop(), structures=tuple(change(list(laptop().structures))))) == []


CHANGES = {
    "a unit beyond the host address width": (
        at(0, replace(GRAPHICS, base=1 << 39)),
        "registers at 0x8000000000 lie beyond the host address width of 39 bits",
        False,
    ),
    "the last page of a unit beyond it": (
        at(0, replace(GRAPHICS, base=(1 << 39) - 0x1000, size=1)),
        "registers at 0x7ffffff000 lie beyond the host address width of 39 bits",
        False,
    ),
    "an RMRR beyond it": (
        at(4, rmrr(0x80_0000_0000, 0x80_0000_0FFF)),
        "reserved memory 0x8000000000..0x8000000fff lies beyond the host address width of 39 bits",
        False,
    ),
    "an RMRR over registers": (
        at(4, rmrr(0xFED9_0000, 0xFED9_0FFF)),
        "reserved memory 0xfed90000..0xfed90fff lies over the registers of the unit at 0xfed90000",
        False,
    ),
    "an RMRR over the last page of registers": (
        lambda all_: [replace(GRAPHICS, base=0xFED9_8000, size=2), *all_[1:4], rmrr(0xFED9_B000, 0xFED9_BFFF)],
        "reserved memory 0xfed9b000..0xfed9bfff lies over the registers of the unit at 0xfed98000",
        False,
    ),
    "overlapping RMRRs": (
        and_(rmrr(0x87BF_F000, 0x87C0_FFFF)),
        "reserved memory 0x87bff000..0x87c0ffff overlaps reserved memory 0x83800000..0x87bfffff",
        True,
    ),
    "an RMRR twice": (and_(MEMORY), "reserved memory 0x83800000..0x87bfffff is told of twice", True),
    "overlapping windows": (
        at(1, replace(PORT, size=1)),
        "the registers at 0xfed85000 overlap those of the unit at 0xfed84000",
        False,
    ),
    "a function in two units": (
        at(1, replace(PORT, scopes=(*PORT.scopes, SCREEN))),
        "the function 00:02.0 is in the scope of the unit at 0xfed84000 and of that at 0xfed90000",
        False,
    ),
    "a bridge in one unit and an endpoint in another": (
        at(1, replace(PORT, scopes=(*PORT.scopes, replace(SCREEN, kind=ScopeType.BRIDGE)))),
        "the function 00:02.0 is in the scope of the unit at 0xfed84000 and of that at 0xfed90000",
        False,
    ),
    "an I/O APIC in two units": (
        at(1, replace(PORT, scopes=(*PORT.scopes, replace(IO_APIC, path=((0x1E, 5),))))),
        "I/O APIC 2 is in the scope of the unit at 0xfed91000 and of that at 0xfed84000",
        False,
    ),
    "a function twice": (
        at(0, replace(GRAPHICS, scopes=(SCREEN, SCREEN))),
        "the function 00:02.0 is named twice by one unit",
        True,
    ),
    "an I/O APIC twice": (
        at(3, replace(ALL_OTHERS, scopes=(IO_APIC, replace(IO_APIC, path=((0x1E, 5),)), HPET))),
        "I/O APIC 2 is named twice by one unit",
        True,
    ),
    "an endpoint of the unit for all others": (
        at(3, replace(ALL_OTHERS, scopes=(IO_APIC, HPET, AUDIO))),
        "the unit for all other devices of segment 0 names 00:1f.3, which it has anyway",
        True,
    ),
    "an I/O APIC of an RMRR": (
        at(4, replace(MEMORY, scopes=(SCREEN, IO_APIC))),
        "an RMRR names I/O APIC 2, and such a device issues no DMA",
        False,
    ),
    "an HPET of a SATC": (
        and_(replace(SATC, scopes=(HPET,))),
        "an SATC names HPET 0, and such a device issues no DMA",
        False,
    ),
    "an ATSR that names an endpoint": (
        and_(replace(ATSR, scopes=(ROOT_PORT, AUDIO))),
        "ATS for the function 00:1f.3, which is no root port",
        False,
    ),
    "an ATSR of all ports and some": (
        and_(replace(ATSR, flags=1)),
        "ATS for all root ports, and some of them named",
        True,
    ),
    "a SATC for no device": (and_(replace(SATC, scopes=())), "a translation cache of no device", False),
    "a SIDP for no device": (and_(replace(SIDP, scopes=())), "properties of no device", False),
    "a number of two devices of the namespace": (
        and_(SERIAL, replace(SERIAL, rest=b"\\_SB.PCI0.UA01\0")),
        "another device of the namespace has the number 1, too",
        False,
    ),
    "an empty name": (and_(replace(SERIAL, rest=b"\0")), "the name of a device is empty", False),
    "bytes after a name": (
        and_(replace(SERIAL, rest=b"\\_SB\0\0x")),
        "2 bytes follow the name b'\\\\_SB' and its zero",
        True,
    ),
    "a unit near two domains": (
        and_(NEAR, replace(NEAR, domain=2)),
        "the unit at 0xfed90000 is near domain 2, and in domain 1 before",
        False,
    ),
    "a unit near one domain twice": (
        and_(NEAR, NEAR),
        "the unit at 0xfed90000 is near domain 1, and once more in domain 1",
        True,
    ),
    "an RMRR of a segment without a unit": (
        at(4, replace(MEMORY, segment=3)),
        "no unit is of segment 3, of which this RMRR is",
        False,
    ),
    "an ATSR of a segment without a unit": (
        and_(replace(ATSR, segment=3)),
        "no unit is of segment 3, of which this ATSR is",
        False,
    ),
    "flags of a scope": (
        at(4, replace(MEMORY, scopes=(replace(SCREEN, flags=2),))),
        "the scope of the function 00:02.0 has flags (0x02), which only those of an SIDP have",
        False,
    ),
    "the reserved byte of a scope": (
        at(3, replace(ALL_OTHERS, scopes=(IO_APIC, replace(HPET, reserved=1)))),
        "the reserved byte of the scope of HPET 0 is 0x01",
        False,
    ),
}


@pytest.mark.parametrize(("change", "text", "remark"), CHANGES.values(), ids=CHANGES)
def test_a_change_has_its_diagnosis_and_no_other(change, text, remark):
    table = laptop()

    assert told(replace(table, structures=tuple(change(list(table.structures))))) == [(text, remark)]


def test_without_interrupt_remapping_opting_out_of_x2apic_is_but_a_remark():
    table = laptop()

    assert told(replace(table, flags=table.flags | 2)) == []
    ((text, remark),) = told(replace(table, flags=2))
    assert "opts out of x2APIC" in text
    assert remark


def test_structures_end_where_the_header_says():
    tail = struct.pack("<HH", 2, 8) + bytes(4)  # an ATSR, were it inside
    parsed = parse(LAPTOP + tail)

    assert parsed.table is not None
    assert list(parsed.table.structures) == list(laptop().structures)
    assert [str(each) for each in parsed.defects] == ["at 0x4: its length says 184, there are 192 bytes (section 8.1)"]


@pytest.mark.parametrize("said", [0, 10, 47, 48, 60])
def test_a_table_that_ends_early_has_no_more_structures(said):
    parsed = parse(LAPTOP[:4] + struct.pack("<I", said) + LAPTOP[8:])

    assert parsed.table is not None
    assert parsed.table.structures == ()
    assert f"its length says {said}, there are 184 bytes" in " ".join(map(str, parsed.defects))


_TABLES = st.sampled_from(
    [
        LAPTOP,
        QEMU,
        replace(laptop(), structures=tuple(CHANGES["bytes after a name"][0](list(laptop().structures)))).encode(),
    ]
)
_EDITS = st.lists(st.tuples(st.integers(TableHeader.SIZE, 400), st.binary(max_size=4)), max_size=6)


@settings(max_examples=1000, deadline=None)
@given(_TABLES, _EDITS, st.binary(max_size=12))
def test_whatever_is_read_is_written_again(data, edits, tail):
    for place, new in edits:
        data = data[:place] + new + data[place + len(new) :]
    data = repaired(data + tail)
    table = parse(data).table

    assert table is not None
    assert table.encode() == data
