"""The walker of harness.vtd says what QEMU's vIOMMU will do: random tables, random requests, compared one by one."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import pytest

from harness.bare.layout import PAGE, Laid
from harness.bare.running import BareRole, bare_session
from harness.bare.session import BareSession
from harness.evidence import VariantDirectory
from harness.machine.spec import HOLE, ROM_TABLE, IommuSpec, MachineSpec
from harness.vtd.faults import Access
from harness.vtd.interrupts import INTERRUPT_RANGE, InterruptRemapEntry, InterruptRequest
from harness.vtd.registers import (
    CAP,
    ECAP,
    Capability,
    ExtendedCapability,
    InterruptRemapTableAddress,
    RootTableAddress,
)
from harness.vtd.structure import Structure
from harness.vtd.tables import FirstStageEntry, PasidEntry, SecondStageEntry
from harness.vtd.unit import Unit
from harness.vtd.walk import SPECIFIED, Request, Unreadable, Walk, walk, walk_interrupt
from harness.waiting import Deadline, wait_for
from harness.witnesses.host_trace import FAULT_DISABLED, TRANSLATED
from harness.witnesses.qemu_habits import QEMU

pytestmark = pytest.mark.qemu

#: Requests in all; `VTD_WALKS=100000` for more.
WALKS = int(os.environ.get("VTD_WALKS", "10000"))
SEED = int(os.environ.get("VTD_SEED", "20261124"))

MODES = {
    "legacy-48": ("legacy", {"aw_bits": 48}),
    "legacy-39": ("legacy", {"aw_bits": 39}),
    "second-stage": ("second-stage", {"scalable_mode": "on"}),
    "first-stage": ("first-stage", {"scalable_mode": "on", "first_stage": "on"}),
    "legacy-on-scalable": ("legacy", {"aw_bits": 48, "scalable_mode": "on"}),
    "legacy-with-more": ("legacy", {"aw_bits": 48, "snoop_control": "on", "device_iotlb": "on"}),
    "first-stage-with-less": ("first-stage", {"scalable_mode": "on", "first_stage": "on", "fs1gp": "off"}),
}

ELSEWHERE = (0x100_0000, 0x60_0000)
#: A page of paging entries that can be read, but not marked.
ROM = range(ROM_TABLE, ROM_TABLE + PAGE)
_TRANSLATED = re.compile(r"iova 0x[0-9a-f]+ -> gpa 0x(?P<gpa>[0-9a-f]+) mask 0x(?P<mask>[0-9a-f]+)")


@dataclass(frozen=True)
class Seen:
    """What became of a request: it went to an address, was refused for a reason, or refused silently; else nothing."""

    address: int | None = None
    reason: int | None = None
    silent: bool = False


@contextmanager
def running(mode: str, qemu_build, qemu_facts, tmp_path) -> Iterator[BareSession]:
    translation, options = MODES[mode]
    spec = MachineSpec(kind="bare", translation=translation, image="", iommus=(IommuSpec(options),), root_ports=1)
    edu = BareRole("rogue", "edu", {"driver": "edu", "id": "rogue", "bus": "rp0", "dma_mask": (1 << 64) - 1})
    directory = VariantDirectory(tmp_path)
    with (
        directory.journal() as journal,
        bare_session(spec, [edu], qemu=qemu_build, facts=qemu_facts, directory=directory, journal=journal) as session,
    ):
        session.machine.trace([TRANSLATED], on=True)
        session.lay()
        yield session


@pytest.mark.parametrize("mode", MODES)
def test_what_the_walker_predicts_is_what_the_unit_does(mode, qemu_build, qemu_facts, tmp_path):
    chance = random.Random(f"{SEED} {mode}")  # noqa: S311 - a seed makes it the same again
    differences = []
    kinds = set()
    with running(mode, qemu_build, qemu_facts, tmp_path) as session:
        rogue = _Rogue(session)
        entries = session.layout.entries("rogue")
        for _ in range(WALKS // len(MODES)):
            broken = _broken(chance, entries)
            root = _root(chance, session.root_register)
            request = Request(session.device("rogue").source, _address(chance, rogue.home), chance.choice(list(Access)))
            for gpa, entry in broken.items():
                session.machine.write(gpa, entry.encode())
            predicted = rogue.predict(request, root)
            expected, seen = _seen_of(predicted), rogue.issue(request, root)
            kinds.add((expected.reason, expected.silent))
            if expected != seen:
                differences.append(f"{seen} instead of {expected}, {root}\n{predicted.explain()}")
            for laid in entries:
                session.machine.write(laid.gpa, laid.whole.encode())
    assert len(kinds) > 12, "hardly anything was provoked"
    assert not differences, f"seed {SEED}, {len(differences)} differences:\n" + "\n".join(differences[:5])


#: Habits without which the walker is wrong about this QEMU: the mode, and what is otherwise than in whole tables.
HABITS = {
    "unqualified": ("second-stage", {"context": {"pasid_directory": HOLE, "fault_processing_disable": 1}}),
    "invalid_entries_report": ("second-stage", {"pasid-directory": {"present": 0, "fault_processing_disable": 1}}),
    "legacy_codes": ("second-stage", {"context": {"present": 0}}),
    "interrupt_code_of_unit": ("legacy-on-scalable", {"level-1": {"address": INTERRUPT_RANGE.start}}),
    "mode_bit_only": ("legacy-48", {"rtaddr": {"mode": 1}}),
    "both_root_halves_checked": ("second-stage", {"root": {"upper_present": 0, "upper_context_table": 1 << 52}}),
    "unused_table_checked": ("legacy-48", {"context": {"translation_type": 2, "second_stage_table": 1 << 52}}),
    "pass_through_unlimited": ("legacy-48", {"context": {"translation_type": 2}, "request": {"address": 1 << 50}}),
    "context_features_ignored": ("second-stage", {"context": {"pasid_enable": 1}}),
    "rid_pasid_unoffered": ("second-stage", {"context": {"rid_pasid": 64}}),
    "directory_size_ignored": ("second-stage", {"context": {"rid_pasid": 0xFFFFF}}),
    "directory_reserved_ignored": ("second-stage", {"pasid-directory": {"pasid_table": 1 << 52}}),
    "pasid_reserved_ignored": ("second-stage", {"pasid": {"second_stage_table": 1 << 52}}),
    "type_before_present": ("second-stage", {"pasid": {"present": 0, "translation_type": 0}}),
    "rights_at_each_entry": ("legacy-48", {"level-1": {"write": 0, "snoop": 1}}),
    "all_ones_unreadable": ("legacy-48", {"level-2": None}),
    "snoop_with_scalable_mode": ("legacy-on-scalable", {"level-1": {"snoop": 1}}),
    "gigabyte_pages_unoffered": ("first-stage-with-less", {"level-3": {"page_size": 1, "address": 1 << 30}}),
    "first_stage_width_from_second": ("first-stage", {"pasid": {"address_width": 1}, "request": {"address": 1 << 40}}),
}


@pytest.mark.parametrize("habit", HABITS)
def test_without_a_habit_of_this_qemu_the_walker_is_wrong(habit, qemu_build, qemu_facts, tmp_path):
    mode, broken = HABITS[habit]
    with running(mode, qemu_build, qemu_facts, tmp_path) as session:
        rogue = _Rogue(session)
        root = session.root_register.replaced(**broken.get("rtaddr", {}))
        for laid in session.layout.entries("rogue"):
            if laid.name in broken:
                change = broken[laid.name]
                entry = type(laid.whole)((1 << 64) - 1) if change is None else laid.whole.replaced(**change)
                session.machine.write(laid.gpa, entry.encode())
        address = broken.get("request", {}).get("address", rogue.home)
        request = Request(session.device("rogue").source, address, Access.WRITE)
        expected = _seen_of(rogue.predict(request, root))
        assert rogue.issue(request, root) == expected
        assert _seen_of(rogue.predict(request, root, replace(QEMU, **{habit: getattr(SPECIFIED, habit)}))) != expected


@pytest.mark.parametrize("mark", ["accessed", "dirty"])
def test_one_mark_suffices_this_qemu(mark, qemu_build, qemu_facts, tmp_path):
    """No memory holds entries that are marked and cannot be marked, so it is seen by what is not written."""
    with running("first-stage", qemu_build, qemu_facts, tmp_path) as session:
        rogue, root = _Rogue(session), session.root_register
        leaf = session.layout.entries("rogue")[-1]
        marked = leaf.whole.replaced(**{mark: 1})
        session.machine.write(leaf.gpa, marked.encode())
        request = Request(session.device("rogue").source, rogue.home, Access.WRITE)
        assert rogue.issue(request, root) == Seen(address=leaf.whole.address)
        assert session.machine.read(leaf.gpa, leaf.whole.SIZE) == marked.encode()
        assert rogue.predict(request, root, locked=leaf.gpa).reason is None
        assert rogue.predict(request, root, SPECIFIED, locked=leaf.gpa).reason == 0x91


class _Rogue:
    """The edu of the machine, driven with as little as possible, and the unit's own view of its tables."""

    def __init__(self, session: BareSession) -> None:
        self.session = session
        self.home = session.layout.mapped("rogue")
        machine = session.machine
        self.unit = Unit.from_registers(
            Capability(machine.register(CAP, 8)), ExtendedCapability(machine.register(ECAP, 8))
        )
        self._bar = session.device("rogue").pci.bars[0]
        _, self._offset = machine.trace_lines()

    def predict(self, request: Request, root: RootTableAddress, habits=QEMU, *, locked: int | None = None) -> Walk:
        def writable(gpa: int) -> bool:
            return gpa not in ROM and gpa != locked

        return walk(self.unit, root, request, self.read, habits, writable=writable)

    def issue(self, request: Request, root: RootTableAddress) -> Seen:
        """Issue 4 bytes; what the fault record, and the trace where that is silent, say of it."""
        session = self.session
        session.use_tables(root)
        inside = 0x40000
        write = request.access is Access.WRITE
        words = (inside, request.address) if write else (request.address, inside)
        qtest = session.machine.qtest
        for register, value in zip((0x80, 0x88, 0x90, 0x98), (*words, 4, 3 if write else 1), strict=True):
            qtest.write(self._bar + register, value, 8)
        wait_for("the DMA", lambda: not qtest.read(self._bar + 0x98, 8) & 1, Deadline.after(10), every_s=0.0)
        _, record = session.fault_record()
        session.clear_record()
        lines, self._offset = session.machine.trace_lines(self._offset)
        if record.fault:
            fault = record.as_fault()
            assert (fault.source, fault.access, fault.first) == (
                request.source, request.access, request.address & ~0xFFF,
            )  # fmt: skip
            return Seen(reason=record.reason)
        for line in lines:
            found = _TRANSLATED.search(line) if TRANSLATED in line else None
            if found:
                mask = int(found["mask"], 16)
                return Seen(address=int(found["gpa"], 16) & ~mask | request.address & mask)
        return Seen(silent=any(FAULT_DISABLED in line for line in lines))

    def read(self, gpa: int, size: int) -> bytes:
        if gpa in ROM:
            return self.session.machine.qtest.read(gpa, size).to_bytes(size, "little")
        if not self.session.machine.holds(gpa, size):
            raise Unreadable(gpa)
        return self.session.machine.read(gpa, size)


def _seen_of(predicted: Walk) -> Seen:
    if predicted.address is not None:
        # What passes through untranslated is traced by nobody.
        return Seen(address=predicted.address) if predicted.page else Seen()
    return Seen(silent=True) if predicted.silent else Seen(reason=predicted.reason)


def _broken(chance: random.Random, entries: tuple[Laid, ...]) -> dict[int, Structure]:
    broken: dict[int, Structure] = {}
    for _ in range(chance.choice((0, 1, 1, 1, 1, 2))):
        laid = chance.choice(entries)
        entry = broken.get(laid.gpa, laid.whole)
        broken[laid.gpa] = _mutated(chance, entry, leaf=laid is entries[-1])
    return broken


def _mutated(chance: random.Random, entry: Structure, *, leaf: bool) -> Structure:
    kind = type(entry)
    fields = kind.fields()
    match chance.choices(("bit", "field", "address", "fpd", "ones", "noise"), (35, 25, 12, 8, 4, 16))[0]:
        case "bit":
            return kind(entry.raw ^ 1 << chance.randrange(8 * kind.SIZE))
        case "field":
            name = chance.choice(list(fields))
            bits = fields[name]
            value = chance.choice((0, bits.largest, chance.randrange(bits.largest + 1) >> bits.shift << bits.shift))
            return entry.replaced(**{name: value})
        case "address":
            name = chance.choice([name for name, bits in fields.items() if bits.shift])
            # A table in the interrupt range is read from the interrupt controller, which this test has no picture of.
            places = (HOLE, *ELSEWHERE, INTERRUPT_RANGE.start if leaf else HOLE)
            paged = isinstance(entry, PasidEntry | FirstStageEntry | SecondStageEntry)
            if paged and not leaf:
                places = (*places, ROM_TABLE, ROM_TABLE)
            return entry.replaced(**{name: chance.choice(places)})
        case "fpd":
            return kind(entry.raw | 2)
        case "ones":
            return kind((1 << 8 * kind.SIZE) - 1)
        case _:
            noise = [chance.getrandbits(8 * kind.SIZE) for _ in range(3)]
            return kind(noise[0] & noise[1] & noise[2] | chance.choice((0, 1)))


def _root(chance: random.Random, whole: RootTableAddress) -> RootTableAddress:
    return whole.replaced(mode=chance.randrange(4)) if chance.random() < 0.03 else whole


def _address(chance: random.Random, home: int) -> int:
    while True:
        inside = home + chance.randrange(4) * 4096 + chance.randrange(1024) * 4
        wide = home | 1 << chance.randrange(64)
        anywhere = chance.getrandbits(64) >> chance.randrange(40)
        address = chance.choices((inside, wide, anywhere), (8, 1, 1))[0] & ~3
        if address not in INTERRUPT_RANGE:
            return address


#: Traced for each interrupt that goes on, remapped or as it was (vtd_interrupt_remap_msi).
_PASSED_ON = "vtd_ir_remap_msi"


class _Interrupter:
    """The edu of the machine, and what became of its interrupt requests: reason, whether it went on, index."""

    def __init__(self, session: BareSession) -> None:
        self.session, self.rogue = session, session.device("rogue")
        self._unit, self._read = _Rogue(session).unit, _Rogue(session).read
        session.machine.trace([_PASSED_ON], on=True)
        _, self._offset = session.machine.trace_lines()

    def predict(self, register: InterruptRemapTableAddress, message: tuple[int, int], habits=QEMU):
        predicted = walk_interrupt(self._unit, register, message, self.rogue.source, self._read, habits=habits)
        if predicted.reason is None or predicted.silent:
            return None, predicted.reason is None, None
        return predicted.reason, False, predicted.index

    def issue(self, message: tuple[int, int], *, by_dma: bool = False):
        self.session.clear()
        address, data = message
        if by_dma:
            payload = data.to_bytes(4, "little")
            self.rogue.engine.carry(self.rogue, payload)
            self.rogue.engine.write(self.rogue, address, payload, purpose="attack")
        else:
            self.rogue.engine.interrupt(self.rogue, address, data)
        _, record = self.session.fault_record()
        lines, self._offset = self.session.machine.trace_lines(self._offset)
        passed = any(f"{_PASSED_ON} " in line and "->" in line for line in lines)
        return (record.reason, passed, record.interrupt_index) if record.fault else (None, passed, None)


def test_what_the_walker_predicts_of_interrupts_is_what_the_unit_does(qemu_build, qemu_facts, tmp_path):
    chance = random.Random(f"{SEED} interrupts")  # noqa: S311 - a seed makes it the same again
    differences, kinds = [], set()
    with running("legacy-48", qemu_build, qemu_facts, tmp_path) as session:
        interrupter = _Interrupter(session)
        for _ in range(WALKS // 10):
            entry, register, message = _interrupt(chance, interrupter.rogue.source, session.interrupt_register)
            session.lay_interrupts({5: entry}, register)
            expected, seen = interrupter.predict(register, message), interrupter.issue(message)
            kinds.add(expected[:2])
            if seen != expected:
                differences.append(f"{seen} instead of {expected}: {entry}, {register}, message {message}")
    assert len(kinds) > 6, "hardly anything was provoked"
    assert not differences, f"seed {SEED}, {len(differences)} differences:\n" + "\n".join(differences[:5])


_OWN, _WRAPPED = InterruptRequest(5).message(), InterruptRequest(0xFFFA, 11).message()

#: Habits without which the walker is wrong about interrupts of this QEMU: what is otherwise than in a right entry,
#: and the message. Only a DMA has data of 32 bits.
INTERRUPT_HABITS = {
    "compatibility_passes": ({}, (INTERRUPT_RANGE.start, 0x61)),
    "request_checked_last": ({"present": 0}, (InterruptRequest(5, 0).message()[0], 1 << 16)),
    "index_wraps": ({}, _WRAPPED),
    "entry_reserved_before_source": ({"reserved": 1 << 12, "source_id": 0x99}, _OWN),
    "reserved_validation_is_source": ({"source_validation": 3}, _OWN),
    "bus_range_reversed": ({"source_validation": 2, "source_id": 0x0030}, _OWN),
    "posted_is_remapped": ({"posted": 1}, _OWN),
    "destination_reserved_ignored": ({"destination": 0x10000}, _OWN),
}


@pytest.mark.parametrize("habit", INTERRUPT_HABITS)
def test_without_a_habit_of_this_qemu_the_walker_is_wrong_about_interrupts(habit, qemu_build, qemu_facts, tmp_path):
    change, message = INTERRUPT_HABITS[habit]
    with running("legacy-48", qemu_build, qemu_facts, tmp_path) as session:
        interrupter, register = _Interrupter(session), session.interrupt_register
        named = {name: value for name, value in change.items() if name != "reserved"}
        entry = _right(interrupter.rogue.source).replaced(**named)
        session.lay_interrupts({5: InterruptRemapEntry(entry.raw | change.get("reserved", 0))}, register)
        expected = interrupter.predict(register, message)
        assert interrupter.issue(message, by_dma=message[1] > 0xFFFF) == expected
        assert interrupter.predict(register, message, replace(QEMU, **{habit: False})) != expected


def test_every_habit_of_this_qemu_is_seen():
    assert {*HABITS, "one_mark_suffices", *INTERRUPT_HABITS} == {field.name for field in fields(QEMU)}


def _right(source) -> InterruptRemapEntry:
    return InterruptRemapEntry.of(present=1, vector=0x60, source_id=source.value, source_validation=1)


def _interrupt(chance: random.Random, source, register):
    """An entry 5, a table register, and a message that mostly names entry 5, each maybe with something wrong."""
    entry = _right(source)
    match chance.choice(("right", "bit", "field", "noise", "source", "fpd")):
        case "bit":
            entry = InterruptRemapEntry(entry.raw ^ 1 << chance.randrange(128))
        case "field":
            name, bits = chance.choice(list(InterruptRemapEntry.fields().items()))
            entry = entry.replaced(**{name: chance.randrange(bits.largest + 1)})
        case "noise":
            entry = InterruptRemapEntry(chance.getrandbits(128) & chance.getrandbits(128) | chance.choice((0, 1)))
        case "source":
            entry = entry.replaced(source_id=chance.getrandbits(16), source_validation=chance.randrange(4))
        case "fpd":
            entry = entry.replaced(fault_processing_disable=1, source_id=chance.choice((source.value, 0x99)))
    if chance.random() < 0.1:
        register = register.replaced(**chance.choice(({"size": chance.randrange(5)}, {"table": HOLE})))
    index = 5 if chance.random() < 0.8 else chance.choice((0, 4, 6, 15, 16, 17, 0x7FFF, 0xFFFF))
    subhandle = chance.choice((None, None, 0, 1, 11))
    handle = index if subhandle is None else (index - subhandle) & 0xFFFF
    address, data = InterruptRequest(handle, subhandle).message()
    if chance.random() < 0.05:
        address, data = 0xFEE0_0000, 0x61
    return entry, register, (address, data)
