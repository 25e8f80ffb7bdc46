"""Values of one machine held against each other: its unit's address width, its memory, what its kernel leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness.catalog  # noqa: F401  # registers every step and device
from harness.feasibility import infeasible
from harness.machine.properties import Property, QemuFacts
from harness.memory import offset_in_memory
from harness.own_values import address_width
from harness.scenario.load import Variant, load_document
from harness.source.document import Document

UNIT = {
    "aw-bits": Property("uint8", 48),
    "intremap": Property("OnOffAuto"),
    "caching-mode": Property("bool"),
    "x-scalable-mode": Property("bool"),
    "x-flts": Property("bool"),
}
FACTS = QemuFacts("10.0.13", frozenset({"edu"}), {"intel-iommu": UNIT}, frozenset({"max"}))
#: Before 9.2 a unit had 39 bits, unless it was told otherwise.
OLD = replace(FACTS, version="7.2.22", properties={"intel-iommu": {**UNIT, "aw-bits": Property("uint8", 39)}})

HEAD = "scenario: x\ntitle: X\ndevices: {rogue: {model: edu}, nic: {model: e1000e}}\n"


def _variants(text: str) -> list[Variant]:
    return load_document(Document.parse(text, "x.yaml"))


def _told(text: str, facts: QemuFacts = FACTS) -> list[tuple[int, str, str]]:
    """Line, what is underlined, and message of each problem of each variant."""
    return [
        (found.line, found.source[found.column - 1 : found.column - 1 + found.length], found.message)
        for variant in _variants(text)
        for found in infeasible(variant, facts)
    ]


def _steps(iova: int, *, storm: bool = False) -> str:
    dma = (
        f"  - storm: {{device: rogue, dmas: 9, write: 64, to: {iova:#x}, at_least: 1}}\n"
        if storm
        else f"  - dma: {{device: rogue, write: 64, to: {iova:#x}}}\n    expect: landed\n"
    )
    return (
        f"steps:\n  - assign: rogue\n  - map: {{device: rogue, buffer: own, iova: {iova:#x}, size: 64KiB}}\n{dma}"
        "  - unmap: {device: rogue, buffer: own}\n"
    )


@pytest.mark.parametrize(
    ("machine", "iova", "bits"),
    [
        ("machine: {iommu: {aw_bits: 39}}\n", 0x100_0000_0000, 39),
        ("machine: {iommu: {aw_bits: 39}}\n", (1 << 39) - 4096, 39),
        ("machine: {iommu: {aw_bits: 48}}\n", 1 << 48, 48),
        ("", 1 << 48, 48),
    ],
)
@pytest.mark.parametrize("storm", [False, True])
def test_an_address_beyond_the_units_width_is_told_at_each_step_that_uses_it(machine, iova, bits, storm):
    told = _told(HEAD + machine + _steps(iova, storm=storm))

    beyond = f"is beyond the {bits} bits that the unit translates"
    first = 4 + machine.count("\n")
    assert [(line, shown) for line, shown, text in told if text.endswith(beyond)][:1] == [(first + 2, f"{iova:#x}")]
    by_address = [line for line, _, text in told if text.endswith(beyond)][1:]
    assert by_address == ([first + 3] if iova + 64 > 1 << bits else [])


def test_an_address_whose_entry_is_broken_is_held_to_the_width_too():
    steps = _steps(0x100000) + "  - break: {device: rogue, entry: leaf, field: write, value: 0, at: 0x8000000000}\n"

    told = _told(f"{HEAD}machine: {{iommu: {{aw_bits: 39}}}}\n{steps}")

    assert told == [(11, "0x8000000000", "0x8000000000 is beyond the 39 bits that the unit translates")]


@given(
    width=st.sampled_from([39, 48]),
    page=st.integers(1, (1 << 40) - 1),
    pages=st.integers(1, 64),
)
def test_a_mapping_is_told_of_exactly_if_it_reaches_beyond_the_width(width, page, pages):
    iova = page << 12
    text = f"{HEAD}machine: {{iommu: {{aw_bits: {width}}}}}\nsteps:\n  - assign: rogue\n"
    text += f"  - map: {{device: rogue, buffer: own, iova: {iova:#x}, size: {pages * 4}KiB}}\n"

    told = [message for _, _, message in _told(text) if "is beyond" in message]

    assert bool(told) == (iova + (pages << 12) > 1 << width)


def test_the_default_of_the_qemu_at_hand_counts():
    text = HEAD + _steps(0x100_0000_0000)

    assert _told(text) == []
    assert [line for line, _, message in _told(text, OLD) if "39 bits" in message] == [6, 7]


def test_the_default_of_a_qemu_that_will_not_run_it_does_not():
    text = HEAD + 'requires: {qemu: ">=10.0"}\n' + _steps(0x100_0000_0000)

    assert _told(text, OLD) == []


def test_a_variant_is_held_to_its_own_width():
    text = HEAD + _steps(0x100_0000_0000) + "matrix: {machine.iommu.aw_bits: [48, 39]}\n"
    wide, narrow = _variants(text)

    assert (address_width(wide, FACTS), address_width(narrow, FACTS)) == (48, 39)
    assert list(infeasible(wide, FACTS)) == []
    assert [found.line for found in infeasible(narrow, FACTS)] == [6, 7]


@pytest.mark.parametrize(("kernel", "told"), [('["intel_iommu=on,sm_on"]', True), ("[intel_iommu=on]", False)])
def test_linux_maps_the_lower_half_of_first_stage_tables(kernel, told):
    machine = f"machine: {{iommu: {{scalable_mode: on, first_stage: on}}, kernel_args: {kernel}}}\n"

    found = [message for _, _, message in _told(HEAD + machine + _steps(1 << 47)) if "47 bits" in message]

    assert bool(found) is told


def test_a_bare_machine_has_the_levels_of_its_default_width():
    text = (
        "scenario: x\ntitle: X\nmachine: {kind: bare}\ndevices: {rogue: {model: edu}}\nsteps:\n"
        "  - provoke: {device: rogue, write: 64, break: {entry: level-4, field: address, value: hole}}\n"
        "    expect: blocked\ncounter_proof: [unbroken]\n"
    )

    assert "the tables of this machine have 3 levels" not in str(_told(text))
    assert "the tables of this machine have 3 levels" in str(_told(text, OLD))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("{aw_bits: 40}", "39 or 48 bits here; found '40'"),
        ("{aw_bits: 39, scalable_mode: on, first_stage: on}", "of 48 bits here; found '39'"),
        ("{aw_bits: 48, scalable_mode: on, first_stage: on}", None),
    ],
)
def test_a_width_that_qemu_refuses_is_told_before_it_does(options, told):
    found = _told(f"{HEAD}machine: {{iommu: {options}}}\n{_steps(0x100000)}")

    assert [(line, message.endswith(str(told))) for line, _, message in found] == ([(4, True)] if told else [])


@pytest.mark.parametrize(
    ("option", "value"), [("aw_bits", "40"), ("aw_bits", "3423"), ("intremap", "maybe"), ("caching_mode", "7")]
)
def test_what_an_option_cannot_hold_is_for_a_refusal_alone(option, value):
    machine = f"machine: {{iommu: {{{option}: {value}}}}}\n"

    assert [line for line, _, _ in _told(HEAD + machine + _steps(0x100000))] == [4]
    assert _told(f"{HEAD}{machine}refused: words\n") == []


def test_an_option_that_no_unit_has_is_wrong_in_a_refusal_too():
    [(line, shown, _)] = _told(f"{HEAD}machine: {{iommu: {{aw_bitz: 3423}}}}\nrefused: words\n")

    assert (line, shown) == (4, "aw_bitz")


REBOOT = "steps:\n  - assign: nic\n  - reboot: {device: nic, reserved: 0x10000000}\n"


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ('memory: 256MiB, kernel_args: ["memmap=64K$0x10000000"]', "is no memory of this machine, which has 256MiB"),
        ("memory: 512MiB", "the guest's kernel would take 0x10000000 to 0x1000ffff for itself"),
        ('kernel_args: ["memmap=32K$0x10000000"]', "would take 0x10000000 to 0x1000ffff for itself"),
        ('kernel_args: ["memmap=64K$0x20000000"]', "would take 0x10000000 to 0x1000ffff for itself"),
        ('kernel_args: ["memmap=64K$0x10000000"]', None),
        ('kernel_args: ["memmap=4K$1M,0x20000$256M"]', None),
        ('kernel_args: ["memmap=1M$0xfff8000"]', None),
    ],
)
def test_reserved_memory_is_there_and_left_alone(machine, message):
    told = _told(f"{HEAD}machine: {{{machine}}}\n{REBOOT}")

    assert [(line, shown, message is not None and message in text) for line, shown, text in told] == (
        [(7, "0x10000000", True)] if message else []
    )


@given(size=st.integers(256, 16384).map(lambda mib: mib << 20), gpa=st.integers(0, 20 << 30), length=st.just(4096))
def test_a_q35_has_exactly_its_memory_in_two_pieces(size, gpa, length):
    low = size if size < 0xB000_0000 else 0x8000_0000
    pieces = [range(low), range(1 << 32, (1 << 32) + size - low)]

    inside = any(gpa in piece and gpa + length - 1 in piece for piece in pieces)

    assert (offset_in_memory(size, gpa, length) is not None) == inside


def test_buffers_that_take_more_than_the_memory_are_told():
    maps = "".join(
        f"  - map: {{device: rogue, buffer: b{n}, iova: {(n + 1) << 28:#x}, size: 64MiB}}\n" for n in range(5)
    )
    steps = f"steps:\n  - assign: rogue\n{maps}  - dma: {{device: rogue, write: 64, to: b0}}\n    expect: landed\n"

    [(line, _, message)] = _told(f"{HEAD}machine: {{memory: 256MiB}}\n{steps}")
    assert (line, message) == (11, "buffers and canaries take 320MiB by then, and the machine has 256MiB")
    assert _told(HEAD + steps) == []


def test_guests_that_no_machine_has_room_for_are_told():
    guests = ", ".join(f"g{n}: {{memory: 2GiB}}" for n in range(8))

    told = _told(f"{HEAD}guests: {{{guests}}}\nsteps:\n  - traffic: {{device: nic}}\n")

    assert [(line, text) for line, _, text in told] == [
        (4, "the guests and the machine that runs them take 17408MiB, of at most 16384MiB")
    ]
