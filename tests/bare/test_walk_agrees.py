"""The walker of harness.vtd says what QEMU's vIOMMU will do: random tables, random requests, compared one by one."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from harness.bare.layout import Laid
from harness.bare.running import BareRole, bare_session
from harness.bare.session import BareSession
from harness.evidence import VariantDirectory
from harness.machine.spec import IommuSpec, MachineSpec
from harness.vtd.faults import Access
from harness.vtd.interrupts import INTERRUPT_RANGE, InterruptRemapEntry, InterruptRequest
from harness.vtd.registers import CAP, ECAP, Capability, ExtendedCapability
from harness.vtd.structure import Structure
from harness.vtd.unit import Unit
from harness.vtd.walk import Request, Unreadable, Walk, walk, walk_interrupt
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
}

HOLE, ELSEWHERE = 0x20_0000_0000, (0x100_0000, 0x60_0000)
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
            request = Request(session.device("rogue").source, _address(chance, rogue.home), chance.choice(list(Access)))
            for gpa, entry in broken.items():
                session.machine.write(gpa, entry.encode())
            predicted = rogue.predict(request)
            expected, seen = _seen_of(predicted), rogue.issue(request)
            kinds.add((expected.reason, expected.silent))
            if expected != seen:
                differences.append(f"{seen} instead of {expected}\n{predicted.explain()}")
            for laid in entries:
                session.machine.write(laid.gpa, laid.whole.encode())
    assert len(kinds) > 12, "hardly anything was provoked"
    assert not differences, f"seed {SEED}, {len(differences)} differences:\n" + "\n".join(differences[:5])


@pytest.mark.parametrize("habit", ["permission_before_reserved", "top_table_unreadable"])
def test_without_a_habit_of_this_qemu_the_walker_is_wrong(habit, qemu_build, qemu_facts, tmp_path):
    from dataclasses import replace

    other = replace(QEMU, **{habit: False if habit.startswith("perm") else None})
    with running("legacy-48", qemu_build, qemu_facts, tmp_path) as session:
        rogue = _Rogue(session)
        entries = {laid.name: laid for laid in session.layout.entries("rogue")}
        if habit.startswith("perm"):
            where, wrong = entries["level-1"], entries["level-1"].whole.replaced(write=0, snoop=1)
        else:
            where, wrong = entries["context"], entries["context"].whole.replaced(second_stage_table=HOLE)
        session.machine.write(where.gpa, wrong.encode())
        request = Request(session.device("rogue").source, rogue.home, Access.WRITE)
        seen = rogue.issue(request)
        assert _seen_of(rogue.predict(request)) == seen
        assert _seen_of(rogue.predict(request, other)) != seen


class _Rogue:
    """The edu of the machine, driven with as little as possible, and the unit's own view of its tables."""

    def __init__(self, session: BareSession) -> None:
        self.session = session
        self.home = session.layout.mapped("rogue")
        machine = session.machine
        self._unit = Unit.from_registers(
            Capability(machine.register(CAP, 8)), ExtendedCapability(machine.register(ECAP, 8))
        )
        self._bar = session.device("rogue").pci.bars[0]
        _, self._offset = machine.trace_lines()

    def predict(self, request: Request, habits=QEMU) -> Walk:
        return walk(self._unit, self.session.root_register, request, self._read, habits)

    def issue(self, request: Request) -> Seen:
        """Issue 4 bytes; what the fault record, and the trace where that is silent, say of it."""
        session = self.session
        session.use_tables()
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

    def _read(self, gpa: int, size: int) -> bytes:
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
    match chance.choices(("bit", "field", "address", "fpd", "noise"), (35, 25, 12, 10, 18))[0]:
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
            places = (HOLE, *ELSEWHERE, INTERRUPT_RANGE.start) if leaf else (HOLE, *ELSEWHERE)
            return entry.replaced(**{name: chance.choice(places)})
        case "fpd":
            return kind(entry.raw | 2)
        case _:
            noise = [chance.getrandbits(8 * kind.SIZE) for _ in range(3)]
            return kind(noise[0] & noise[1] & noise[2] | chance.choice((0, 1)))


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


def test_what_the_walker_predicts_of_interrupts_is_what_the_unit_does(qemu_build, qemu_facts, tmp_path):
    chance = random.Random(f"{SEED} interrupts")  # noqa: S311 - a seed makes it the same again
    differences, kinds = [], set()
    with running("legacy-48", qemu_build, qemu_facts, tmp_path) as session:
        machine, rogue = session.machine, session.device("rogue")
        machine.trace([_PASSED_ON], on=True)
        _, offset = machine.trace_lines()

        def read(gpa: int, size: int) -> bytes:
            if not machine.holds(gpa, size):
                raise Unreadable(gpa)
            return machine.read(gpa, size)

        for _ in range(WALKS // 10):
            entry, register, message = _interrupt(chance, rogue.source, session.interrupt_register)
            session.lay_interrupts({5: entry}, register)
            predicted = walk_interrupt(register, message, rogue.source, read, QEMU)
            session.clear()
            rogue.engine.interrupt(rogue, *message)
            _, record = session.fault_record()
            lines, offset = machine.trace_lines(offset)
            passed = any(f"{_PASSED_ON} " in line and "->" in line for line in lines)
            index = record.interrupt_index if record.fault else None
            seen = (record.reason if record.fault else None, passed, index)
            gone = predicted.reason is None
            reported = None if gone or predicted.silent else predicted.reason
            expected = (reported, gone, None if reported is None else predicted.index)
            kinds.add(expected[:2])
            if seen != expected:
                differences.append(f"{seen} instead of {expected}: {entry}, {register}, message {message}")
    assert len(kinds) > 6, "hardly anything was provoked"
    assert not differences, f"seed {SEED}, {len(differences)} differences:\n" + "\n".join(differences[:5])


def _interrupt(chance: random.Random, source, register):
    """An entry 5, a table register, and a message that mostly names entry 5, each maybe with something wrong."""
    entry = InterruptRemapEntry.of(present=1, vector=0x60, source_id=source.value, source_validation=1)
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
    handle = index if subhandle is None else max(0, index - subhandle)
    address, data = InterruptRequest(handle, subhandle).message()
    if chance.random() < 0.05:
        address, data = 0xFEE0_0000, 0x61
    return entry, register, (address, data)
