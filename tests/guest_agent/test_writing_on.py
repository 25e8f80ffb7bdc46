"""Devices that are left writing: an edu whose DMA nobody waits for, a NIC with a long ring."""

import pytest
from dma import Announcer
from e1000e import E1000E
from edu import Edu
from nic import Nic
from protocol import Refused


class Registers:
    """Takes what is written, and gives it back; a reset of the NIC is over at once, and its link is up."""

    bdf = "0000:01:00.0"

    def __init__(self, values=()):
        self.values = dict(values)
        self.written = []

    def read32(self, offset):
        return self.values.get(offset, 0)

    def write32(self, offset, value):
        self.written.append((offset, value))
        self.values[offset] = value & ~(1 << 26) if offset == 0 else value

    read64 = read32

    def write64(self, offset, value):
        self.written.append((offset, value))
        self.values[offset] = value


class Memory:
    size = 4096
    bus_address = 0x7000

    def __init__(self):
        self.wrote = {}

    def write(self, offset, data):
        self.wrote[offset] = data

    def read(self, offset, length):
        return self.wrote.get(offset, b"")[:length].ljust(length, b"\0")


def announcing(events):
    return Announcer(events.append, device="rogue", bdf=Registers.bdf, via="vfio")


def test_edu_is_told_to_write_and_not_waited_for():
    events = []
    registers = Registers({0: 0x010000ED})
    edu = Edu(registers, Memory(), announcing(events))

    answer = edu.start_write(0x10001000, 64, purpose="attack")

    assert registers.written[-1] == (0x98, 3)
    assert answer["registers"]["command"] == 3, "it still runs"
    assert [event["event"] for event in events] == ["dma"]
    assert (events[0]["address"], events[0]["direction"]) == (0x10001000, "to-memory")


@pytest.fixture
def nic():
    registers = Registers({0x0008: 1 << 1})
    events = []
    return Nic(E1000E, registers, Memory(), announcing(events)), registers, events


def test_a_nic_gets_a_ring_of_its_own_and_is_announced_before_its_doorbell(nic):
    device, registers, events = nic
    ring = Memory()

    device.arm_ring(0x10001000, ring, 0x8000, 0x10008000, 2047, purpose="attack")

    assert ring.wrote[0x8000] == E1000E.receive_descriptor(0x10001000) * 2048
    base = {offset: value for offset, value in registers.written if 0x2800 <= offset < 0x2820}
    assert base == {0x2800: 0x10008000, 0x2804: 0, 0x2808: 2048 * 16, 0x2810: 0, 0x2818: 2047}
    assert registers.written[-1] == (0x2818, 2047)
    assert events[-1]["doorbell"] == {"register": 0x2818, "value": 2047}
    assert registers.values[0x0100] & 1 << 1, "it receives"


@pytest.mark.parametrize("count", [0, 6, 8, 2048])
def test_a_ring_has_as_many_descriptors_as_the_device_takes(nic, count):
    with pytest.raises(Refused, match="multiple of 8"):
        nic[0].arm_ring(0x1000, Memory(), 0, 0x2000, count, purpose="attack")
