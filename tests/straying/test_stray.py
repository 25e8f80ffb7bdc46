"""A descriptor that leads astray, on a machine whose registers, ring and memory are in the test's hands."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from harness.address_book import AimedAt
from harness.errors import HarnessError, InfraError, WaitTimeout
from harness.session import AttachedDevice
from harness.straying import ring, stray
from harness.straying.ring import ReceiveRing, look, registers_of
from harness.straying.stray import AHEAD, record_stray
from harness.vtd.source_id import SourceId

BAR, QUEUE = 0xFE80_0000, {"e1000e": 0x2800, "igb": 0xC000}
RING, COUNT, BUFFERS, VICTIM = 0x10_0000, 8, 0x20_0000, 0x30_0000


class Machine:
    """A NIC of `model` whose driver has laid a ring of 8 buffers; nothing is translated."""

    def __init__(self, model="e1000e", *, head=6, tail=5, takes=True):
        self.bytes: dict[int, int] = {}
        self.model, self.head, self.tail, self.takes = model, head, tail, takes
        self.trace: list[str] = []
        for number in range(COUNT):
            self.write(RING + 16 * number, (BUFFERS + 0x800 * number).to_bytes(8, "little") + bytes(8))
        self.memory = SimpleNamespace(read=self.read, write=self.write)

    def abort(self):
        """Nothing ends it."""

    def write(self, address, data):
        self.bytes |= dict(enumerate(data, start=address))

    def read(self, address, size):
        return bytes(self.bytes.get(address + offset, 0) for offset in range(size))

    def register(self, address):
        queue = BAR + QUEUE[self.model]
        values = {0: RING, 4: 0, 8: COUNT * 16, 0x10: self.head, 0x18: self.tail}
        return values[address - queue]

    def trace_lines(self, offset):
        return self.trace[offset:], len(self.trace)

    def arrive(self, frame):
        if not self.takes:
            return
        place = RING + 16 * self.head
        address = int.from_bytes(self.read(place, 8), "little")
        text = f"buffer #0, addr: {address:#x}, offset: 0, from: 0x7f00, length: {len(frame)}"
        self.trace.append(f"7@1.5:{self.model}_rx_desc_buff_write {text}")
        self.write(address, frame)
        self.write(place, bytes(16))
        self.head = (self.head + 1) % COUNT


class Session:
    raw = True

    def __init__(self, machine):
        self.guest = SimpleNamespace(machine=machine)
        self.recorded, self.reads, self.devices = [], [], {"nic": nic(machine.model)}

    def abort(self):
        """Nothing ends it."""

    def wire(self, _device):
        return SimpleNamespace(send=self.guest.machine.arrive)

    def call(self, op, **_):
        assert op == "pci"
        return {"resources": [{"index": 0, "start": BAR}]}

    def watching(self, *_events):
        return nullcontext()

    def provoking(self):
        return nullcontext()

    def read_physical(self, address, length, *, label):
        self.reads.append(label)
        return self.guest.machine.read(address, length)

    def record(self, kind, **data):
        self.recorded.append((kind, data))


def nic(model="e1000e"):
    return AttachedDevice(name="nic", model=model, slot=0, qdev={}, address="0000:01:00.0", source=SourceId(0x100))


def recorded(machine, aimed=None, *, blocked=False):
    session = Session(machine)
    record_stray(session, nic(machine.model), 64, aimed, blocked=blocked)
    [(kind, data)] = session.recorded
    assert kind == "stray"
    return data


@pytest.mark.parametrize("model", ["e1000e", "igb"])
def test_the_ring_is_read_where_the_model_has_its_registers(model):
    session = Session(Machine(model, head=3, tail=1))

    assert registers_of(session, nic(model)) == BAR
    assert look(session, nic(model), BAR) == ReceiveRing(RING, COUNT, 3, 1)


def test_descriptors_are_counted_round_the_end_of_the_ring():
    seen = ReceiveRing(RING, COUNT, head=6, tail=5)

    assert (seen.ready, seen.ahead(0), seen.ahead(2), seen.ahead(6)) == (7, 6, 0, 4)
    with pytest.raises(InfraError, match="has 7 buffers ready, and 8 are needed"):
        seen.ahead(7)
    with pytest.raises(InfraError, match="has 0 buffers ready"):
        ReceiveRing(RING, COUNT, head=5, tail=5).ahead(0)


def test_a_nic_that_is_not_up_has_no_ring(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(machine, "register", lambda _: 0)
    with pytest.raises(InfraError, match="is its interface up"):
        look(Session(machine), nic(), BAR)


def test_registers_that_have_no_place_are_told():
    session = Session(Machine())
    session.call = lambda *_, **__: {"resources": []}
    with pytest.raises(InfraError, match="no place of the registers"):
        registers_of(session, nic())


@pytest.mark.parametrize("model", ["e1000e", "igb"])
def test_an_untouched_descriptor_takes_its_frame_to_the_drivers_buffer(model):
    machine = Machine(model)
    data = recorded(machine)

    assert (data["index"], data["heads"]) == (0, [7, 0, 1])
    assert data["address"] == data["own"] == data["physical"] == BUFFERS
    assert data["descriptors"][0] == data["descriptors"][1] != data["descriptors"][2]
    assert data["after"] == data["frames"][AHEAD] != data["before"]
    assert data["writes"][-1] == {"address": BUFFERS, "offset": 0, "length": 64}
    assert not data["strays"]


@pytest.mark.parametrize("model", ["e1000e", "igb"])
def test_an_edited_descriptor_takes_it_elsewhere_and_only_that_one(model):
    machine = Machine(model)
    data = recorded(machine, AimedAt("victim", VICTIM, VICTIM, 64), blocked=True)

    assert (data["address"], data["own"], data["strays"]) == (VICTIM, BUFFERS, True)
    assert bytes.fromhex(data["descriptors"][1])[:8] == VICTIM.to_bytes(8, "little")
    assert machine.read(VICTIM, 64).hex() == data["after"] == data["frames"][-1]
    assert machine.read(BUFFERS, 64) == bytes(64)
    assert [write["address"] for write in data["writes"]] == [BUFFERS + 0x3000, BUFFERS + 0x3800, VICTIM]


def test_the_drivers_own_address_is_put_back_where_the_nic_used_nothing(monkeypatch):
    monkeypatch.setattr(stray, "_USED_S", 0.05)
    machine = Machine(takes=False)
    with pytest.raises(WaitTimeout):
        recorded(machine, AimedAt("victim", VICTIM, VICTIM, 64), blocked=True)

    assert machine.read(RING, 8) == BUFFERS.to_bytes(8, "little")


def test_a_nic_that_uses_two_descriptors_for_a_frame_is_told(monkeypatch):
    machine = Machine()

    def twice(frame):
        Machine.arrive(machine, frame)
        Machine.arrive(machine, frame)

    monkeypatch.setattr(machine, "arrive", twice)
    with pytest.raises(InfraError, match="more than one descriptor"):
        recorded(machine)


def test_a_nic_whose_queues_belong_to_its_functions_is_refused():
    session = Session(Machine("igb"))
    session.devices["vf"] = AttachedDevice(name="vf", model="igb-vf", slot=1, qdev={}, physical="nic")
    with pytest.raises(HarnessError, match="shares its queues with virtual functions"):
        record_stray(session, nic("igb"), 64, None, blocked=False)


def test_a_ring_that_its_own_tables_do_not_reach_is_told(monkeypatch):
    monkeypatch.setattr(ring, "reached", lambda *_: None)
    with pytest.raises(InfraError, match="lead nowhere from 0x100000, which its driver has given it"):
        recorded(Machine())
