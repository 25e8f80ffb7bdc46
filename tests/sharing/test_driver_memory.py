"""A canary in memory of a NIC's driver: where it is put, on a machine in the test's hands."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from harness.address_book import AddressBook
from harness.errors import InfraError
from harness.session import AttachedDevice
from harness.sharing import driver_memory
from harness.sharing.driver_memory import SIZE, plant_received
from harness.vtd.faults import Access
from harness.vtd.source_id import SourceId

BAR, RING, RING_PAGE = 0xFE80_0000, 0xFFFF_0000, 0x5000
BUFFERS = {0xFFFC_0040: 0x9040, 0xFFFB_0040: 0xB040, 0xFFFA_0040: 0xD040}


class Machine:
    """Registers and memory of a machine whose igb has three receive buffers and two functions.

    A frame goes where the next descriptor leads, with its IOVA taken for an address if nothing `translated`.
    """

    def __init__(self, *, enabled=True, translated=True):
        self.bytes: dict[int, int] = {}
        self.head, self.tail = 0, len(BUFFERS)
        self.enabled, self.translated = enabled, translated
        for number, iova in enumerate(BUFFERS):
            self.put((RING_PAGE if translated else RING) + 16 * number, iova.to_bytes(8, "little"))
        self.memory = SimpleNamespace(read=self.read)

    def abort(self):
        """Nothing ends it."""

    def put(self, address, data):
        self.bytes |= dict(enumerate(data, start=address))

    def read(self, address, size):
        return bytes(self.bytes.get(address + offset, 0) for offset in range(size))

    def register(self, address):
        queue = BAR + 0xC000 + 0x40 * 2  # the first that the two functions leave
        return {
            queue: RING,
            queue + 4: 0,
            queue + 0x10: self.head,
            queue + 0x18: self.tail,
            queue + 0x28: self.enabled << 25,
        }[address]

    def arrive(self, frame):
        iova, physical = list(BUFFERS.items())[self.head]
        self.put(physical if self.translated else iova, frame)
        self.head += 1


class Session:
    raw = False

    def __init__(self, machine):
        self.guest = SimpleNamespace(machine=machine)
        self.book = AddressBook(translated=True)
        self.recorded, self.reads = [], []
        pf = AttachedDevice(name="pf", model="igb", slot=0, qdev={}, address="0000:01:00.0", source=SourceId(0x100))
        self.devices = {"pf": pf}
        for name, source in (("vf-a", 0x180), ("vf-b", 0x182)):
            self.devices[name] = AttachedDevice(
                name=name, model="igb-vf", slot=1, qdev={}, source=SourceId(source), physical="pf"
            )

    def device(self, name):
        return self.devices[name]

    def wire(self, _device):
        return SimpleNamespace(send=self.guest.machine.arrive)

    def call(self, op, **_):
        return {"pci": {"resources": [{"index": 3, "start": 1}, {"index": 0, "start": BAR}]}}[op]

    def read_physical(self, address, length, *, label):
        self.reads.append((label, address))
        return self.guest.machine.memory.read(address, length)

    def record(self, kind, **data):
        self.recorded.append((kind, data))


@pytest.fixture
def plant(monkeypatch):
    def run(machine, *, raw=False, elsewhere=(), permitted=tuple(Access)):
        """`elsewhere` are IOVAs that mean something to vf-b too, for the `permitted` kinds of access."""
        session = Session(machine)
        session.raw = raw

        def translate(_session, device, address, access):
            known = {**BUFFERS, RING: RING_PAGE}
            page = {iova & ~0xFFF: physical & ~0xFFF for iova, physical in known.items()}
            reached = {iova & ~0xFFF for iova in elsewhere} if access in permitted else set()
            if device.name == "vf-b" and address & ~0xFFF not in reached:
                page = {}
            if device.name == "vf-a":
                page = {}
            found = page.get(address & ~0xFFF)
            return SimpleNamespace(address=None if found is None else found + address % 4096)

        monkeypatch.setattr(driver_memory, "translate", translate)
        monkeypatch.setattr(driver_memory, "_WRITTEN_S", 0.01)
        monkeypatch.setattr(driver_memory, "_PLANTED_S", 0.2)
        monkeypatch.setattr(driver_memory, "counting_translations", lambda _session: nullcontext())
        plant_received(session, "pfs", session.device("pf"))
        [(kind, told)] = session.recorded
        assert kind == "received"
        return session, told

    return run


def test_the_canary_is_what_the_nic_wrote_where_its_next_descriptor_leads(plant):
    machine = Machine()
    session, told = plant(machine)

    assert (told["iova"], told["physical"], told["led"]) == (0xFFFC_0080, 0x9080, 0x9080)
    assert told["others"] == {"vf-a": None, "vf-b": None}
    assert machine.read(0x9080, SIZE).hex() == told["sent"]
    assert told["before"] != told["after"]
    aimed = session.book.aim("alice", "pfs", 0, 64)
    assert (aimed.address, aimed.physical) == (0xFFFC_0080, 0x9080)


@pytest.mark.parametrize("permitted", [[Access.WRITE], [Access.READ]], ids=["to write", "to read"])
def test_a_buffer_whose_address_means_something_to_a_function_is_passed_over(plant, permitted):
    """A nested guest's firmware may be read by its devices, and not written."""
    _, told = plant(Machine(), elsewhere=[0xFFFC_0040], permitted=permitted)

    assert (told["iova"], told["physical"]) == (0xFFFB_0080, 0xB080)


def test_without_a_unit_the_descriptor_has_the_address_itself(plant):
    session, told = plant(Machine(translated=False), raw=True)

    assert (told["iova"], told["physical"], told["led"]) == (0xFFFC_0080, 0xFFFC_0080, None)
    assert told["sent"] == session.guest.machine.read(0xFFFC_0080, SIZE).hex()


def test_memory_where_nothing_lands_is_an_error(plant):
    machine = Machine()
    machine.arrive = lambda _frame: None

    with pytest.raises(InfraError, match="no frame came to lie where the next descriptor of 'pf' leads"):
        plant(machine)


@pytest.mark.parametrize("spoil", [{"enabled": False}, {"empty": True}])
def test_a_driver_without_buffers_is_an_error(plant, spoil):
    machine = Machine(enabled=spoil.get("enabled", True))
    if spoil.get("empty"):
        machine.tail = 0

    with pytest.raises(InfraError, match="has no receive buffers ready"):
        plant(machine)
