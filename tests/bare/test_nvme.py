"""The NVMe controller of a bare machine: what it moves, what it is refused, and how the loss of its queues is told."""

from __future__ import annotations

import secrets

import pytest

from harness.bare.running import BareRole
from harness.errors import InfraError
from harness.scenario.edit import Edit
from harness.vtd.faults import Access
from harness.vtd.source_id import SourceId

pytestmark = pytest.mark.qemu

DISK = BareRole("disk", "nvme", {"driver": "nvme", "serial": "vtd", "id": "disk", "bus": "rp0"})
BRIDGED = BareRole("disk", "nvme", {"driver": "nvme", "serial": "vtd", "id": "disk", "bus": "br0", "addr": "0x1"})
NOWHERE = 0x20000


@pytest.mark.parametrize("mode", ["legacy-48", "legacy-39", "second-stage", "first-stage"])
@pytest.mark.parametrize(("role", "source"), [(DISK, "01:00.0"), (BRIDGED, "21:00.0")], ids=["root-port", "bridge"])
def test_it_moves_what_is_mapped_and_is_refused_elsewhere(session_of, mode, role, source):
    with session_of(role, mode=mode) as session:
        layout, device = session.lay(), session.device("disk")
        home = layout.mapped("disk")
        target = layout.target(home)
        for _ in range(20):  # round its queues and on
            payload = device.engine.compose(512)
            device.engine.write(device, home, payload, purpose="control")
            assert session.machine.read(target, 512) == payload
            secret = secrets.token_bytes(512)
            session.machine.write(target, secret)
            device.engine.read(device, home, 512, purpose="control")
            assert device.engine.held(device, 512) == secret
        assert not session.fault_record()[1].fault

        session.clear()
        session.machine.write(NOWHERE, secret)
        device.engine.write(device, NOWHERE, device.engine.compose(512), purpose="attack")
        assert session.machine.read(NOWHERE, 512) == secret
        record = session.fault_record()[1]
        assert (record.fault, record.source) == (1, SourceId.parse(source))
        assert (record.as_fault().access, record.as_fault().first) == (Access.WRITE, NOWHERE)

        session.clear()
        device.engine.read(device, NOWHERE, 512, purpose="attack")
        assert device.engine.held(device, 512) != secret
        assert session.fault_record()[1].as_fault().access is Access.READ


def test_what_it_cannot_move_is_refused(session_of):
    with session_of(DISK) as session:
        layout, device = session.lay(), session.device("disk")
        home = layout.mapped("disk")
        for act in (
            lambda: device.engine.compose(64),
            lambda: device.engine.write(device, home, bytes(1024), purpose="attack"),
            lambda: device.engine.read(device, home, 64, purpose="attack"),
        ):
            with pytest.raises(InfraError, match="moves 512 bytes at a time here, not"):
                act()
        with pytest.raises(InfraError, match="cannot be told to request an interrupt"):
            device.engine.interrupt(device, 0xFEE0_0000, 0x41)


def test_queues_behind_broken_tables_are_told_and_whole_tables_start_it_anew(session_of):
    with session_of(DISK) as session:
        layout, device = session.lay(), session.device("disk")
        home = layout.mapped("disk")
        session.edit("disk", [Edit(entry="context", field="present", value=0)])
        with pytest.raises(InfraError, match=r"'disk' cannot reach its queues \(CSTS\.CFS\)"):
            device.engine.read(device, home, 512, purpose="attack")
        session.lay()
        session.clear()
        payload = device.engine.compose(512)
        device.engine.write(device, home, payload, purpose="healed")
        assert session.machine.read(layout.target(home), 512) == payload
