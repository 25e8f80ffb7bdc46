"""The machine without a guest: its layouts, its devices, its channels, and its end."""

from __future__ import annotations

import os
import re
import secrets
import signal

import pytest

from harness.bare.layout import MAPPED_PAGES, PAGE, Layout
from harness.bare.running import BareRole, bare_session
from harness.cli.scenarios import _argv
from harness.equipment import open_host
from harness.errors import InfraError, LaunchError
from harness.evidence import VariantDirectory
from harness.machine.spec import HOLE
from harness.plan import plan_all
from harness.qtest import Qtest
from harness.scenario.edit import Edit
from harness.vtd.registers import CAP, ECAP, FSTS, VER, Capability, ExtendedCapability, Version
from harness.vtd.source_id import SourceId
from harness.vtd.unit import Unit
from harness.vtd.walk import Request, Unreadable, walk
from tests.bare.conftest import TRANSLATIONS

pytestmark = pytest.mark.qemu

MASK = {"dma_mask": (1 << 64) - 1}
EDU = BareRole("rogue", "edu", {"driver": "edu", "id": "rogue", "bus": "rp0", **MASK})
BRIDGED = BareRole("bridged", "edu", {"driver": "edu", "id": "bridged", "bus": "br0", "addr": "0x1", **MASK})


def nic(model: str, driver: str) -> BareRole:
    return BareRole(model, model, {"driver": driver, "id": model, "bus": "rp1", "netdev": "wire"})


NICS = [nic("e1000e", "e1000e"), nic("igb", "igb"), nic("igb-vf", "igb")]


@pytest.mark.parametrize("mode", TRANSLATIONS)
@pytest.mark.parametrize(("role", "source"), [(EDU, "01:00.0"), (BRIDGED, "21:00.0")], ids=["root-port", "bridge"])
def test_edu_writes_and_reads_what_is_mapped_and_nothing_else(session_of, mode, role, source):
    with session_of(EDU, BRIDGED, mode=mode) as session:
        layout, device = session.lay(), session.device(role.name)
        assert (str(device.source), session.levels) == (source, TRANSLATIONS[mode][2])
        home = layout.mapped(role.name)
        target = layout.target(home)
        session.clear()
        payload = device.engine.compose(64)
        device.engine.write(device, home, payload, purpose="control")
        assert session.machine.read(target, 64) == payload
        secret = secrets.token_bytes(64)
        session.machine.write(target, secret)
        device.engine.read(device, home, 64, purpose="control")
        assert device.engine.held(device, 64) == secret
        assert not session.fault_record()[1].fault
        session.lay()
        session.edit(role.name, [Edit(entry="leaf", field="address", value="hole")])
        device.engine.write(device, home, device.engine.compose(64), purpose="attack")
        assert session.machine.read(target, 64) == secret
        assert not session.fault_record()[1].fault  # it was translated, to where there is no memory
        session.lay()
        device.engine.write(
            device,
            layout.mapped(role.name) + MAPPED_PAGES * PAGE,
            device.engine.compose(16),
            purpose="attack",
        )
        record = session.fault_record()[1]
        assert (record.fault, record.source) == (1, SourceId.parse(source))


@pytest.mark.parametrize("role", NICS, ids=lambda role: role.model)
def test_a_nic_sends_what_is_mapped_and_is_refused_by_its_own_source_id(session_of, role):
    with session_of(role) as session:
        layout, device = session.lay(), session.device(role.name)
        home = layout.mapped(role.name)
        secret = secrets.token_bytes(300)
        session.machine.write(layout.target(home), secret)
        session.clear()
        device.engine.read(device, home, 300, purpose="control")
        assert device.engine.held(device, 300) == secret
        device.engine.read(device, 0x20000, 300, purpose="attack")
        assert device.engine.held(device, 300) in (None, bytes(300))  # QEMU lets it see zeros
        record = session.fault_record()[1]
        assert (record.fault, str(record.source)) == (1, "02:10.0" if role.model == "igb-vf" else "02:00.0")
        session.clear()
        device.engine.read(device, home, 300, purpose="control")
        assert device.engine.held(device, 300) == secret
        with pytest.raises(InfraError, match="only reads"):
            device.engine.compose(64)


@pytest.mark.parametrize("mode", TRANSLATIONS)
def test_the_walker_takes_the_way_that_was_laid(session_of, mode):
    with session_of(EDU, BRIDGED, mode=mode) as session:
        layout, machine = session.lay(), session.machine
        unit = Unit.from_registers(Capability(machine.register(CAP, 8)), ExtendedCapability(machine.register(ECAP, 8)))

        def read(gpa: int, size: int) -> bytes:
            if not machine.holds(gpa, size):
                raise Unreadable(gpa)
            return machine.read(gpa, size)

        for name in ("rogue", "bridged"):
            address = layout.mapped(name) + PAGE
            seen = walk(unit, session.root_register, Request(session.device(name).source, address, "read"), read)
            laid = layout.entries(name)
            assert seen.address == layout.target(address)
            assert [step.table for step in seen.steps] == [entry.name for entry in laid]
            assert [step.address for step in seen.steps][:-1] == [entry.gpa for entry in laid][:-1]


def test_nothing_is_free_where_the_harness_has_something():
    layout = Layout("legacy", 4, {"a": SourceId(0x100), "b": SourceId(0x200)})
    taken = [laid.gpa for name in "ab" for laid in layout.entries(name)]
    assert not any(layout.free(gpa, 8) for gpa in (*taken, layout.staging("b"), HOLE, 0xA_0000))
    assert layout.free(layout.target(layout.mapped("b")), 64)
    assert layout.free(layout.mapped("a"), 64)


def test_a_command_that_qemu_refuses_and_a_channel_that_is_gone_are_told(session_of):
    with session_of(EDU) as session:
        machine = session.machine
        assert Version(machine.register(VER)).major == 1
        assert machine.registers((VER, 4), (FSTS, 4)) == [machine.register(VER), 0]
        with pytest.raises(InfraError, match="QEMU refuses 'nonsense'"):
            machine.qtest._ask("nonsense")
        assert Version(machine.register(VER)).major == 1
        os.kill(machine.process.pid, signal.SIGKILL)
        with pytest.raises(LaunchError, match="QEMU ended on its own with exit status -9"):
            machine.register(VER)


def test_a_silent_qemu_is_told_by_the_command_it_does_not_answer(monkeypatch):
    import socket

    monkeypatch.setattr("harness.qtest.ANSWER_S", 0.05)
    ours, theirs = socket.socketpair()
    with theirs, Qtest(ours) as channel, pytest.raises(InfraError, match="does not answer 'readl 0xfed90000'"):
        channel.read(0xFED9_0000, 4)


def test_memory_that_is_not_there_is_refused(session_of):
    with session_of(EDU) as session:
        for gpa in (HOLE, 0xA_0000, -8):
            with pytest.raises(ValueError, match="there is no memory"):
                session.machine.read(gpa, 8)


def test_a_device_that_is_not_there_is_told(session_of):
    missing = BareRole("ghost", "edu", {"driver": "edu", "id": "ghost", "bus": "rp0", **MASK})
    with session_of(EDU) as session, pytest.raises(InfraError, match="no PCI function at 02:00.0"):
        session.buses.set_up({**missing.qdev, "bus": "rp1"})


def test_an_option_that_qemu_refuses_is_told_in_its_own_words(session_of):
    with pytest.raises(LaunchError, match="supported values for aw-bits are: 39, 48"), session_of(EDU, aw_bits=40):
        pass


def test_the_planned_command_line_is_the_one_that_runs(tmp_path, session_of):
    file = tmp_path / "x.yaml"
    file.write_text(
        "scenario: x\ntitle: X\nmachine: {kind: bare, iommu: {aw_bits: 48}}\ndevices: {rogue: {model: edu}}\n"
        "steps:\n  - provoke: {device: rogue, write: 64, at: 0x20000}\n    expect: blocked\ncounter_proof: [unbroken]\n"
    )
    host = open_host(print)
    (plan,) = plan_all([file], host)
    directory = VariantDirectory(tmp_path / "run")
    directory.path.mkdir()
    with (
        directory.journal() as journal,
        bare_session(
            plan.machine,
            [BareRole(each.name, each.model, each.qdev) for each in plan.devices],
            qemu=host.qemu,
            facts=host.facts,
            directory=directory,
            journal=journal,
        ) as session,
    ):
        run = list(session.machine.argv)

    def without_numbers(argv: list[str]) -> list[str]:
        plain = [re.sub(r"(fd=|/proc/self/fd/)\d+", r"\1N", word) for word in argv]
        return [word.removeprefix(f"{directory.path}/") for word in plain]

    assert without_numbers(_argv(plan, host)) == without_numbers(run)
