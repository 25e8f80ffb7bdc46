"""Writing a NIC's MSI-X table, on memory that stands for its registers."""

import mmap

import pytest
import vectors
from protocol import Refused


class Pending(vectors.Registers):
    """A table whose vector 1 is pending as soon as it is masked, and no more when it is unmasked."""

    seen: list[tuple[int, int]]

    def __setitem__(self, offset: int, value: int) -> None:
        super().__setitem__(offset, value)
        if offset == 1 * 16 + 12:
            if not value & 1 and self[0x2000]:
                self.seen.append((self[16] | self[20] << 32, self[24]))
            super().__setitem__(0x2000, value << 1 & 2)


@pytest.fixture
def nic(monkeypatch):
    registers, table = vectors.Registers(mmap.mmap(-1, 0x1000)), Pending(mmap.mmap(-1, 0x4000))
    table.seen = []
    registers[0xE4] = 0xA << 0 | 0x9 << 8
    table[16], table[24] = 0xFEE00398, 0

    class Mapped:
        def __init__(self, _bdf, bar):
            self._bar = bar

        def __enter__(self):
            return table if self._bar else registers

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(vectors, "_mapped", Mapped)
    monkeypatch.setattr(vectors.pci, "describe", lambda _: {"vendor": 0x8086, "device": 0x10D3})
    return registers, table


def test_a_message_is_sent_once_and_the_entry_is_as_before(nic):
    registers, table = nic
    told = []
    answer = vectors.VectorTable(told.append).vector_send(bdf="0000:01:00.0", address=0x1_FEE0_0018, data=5)

    assert answer == {"vector": 1, "own": (0xFEE00398, 0), "sent": (0x1_FEE0_0018, 5)}
    # Unmasked once with the message, and once more when its own is back; a real device has nothing pending by then.
    assert table.seen[0] == (0x1_FEE0_0018, 5)
    assert (table[16], table[20], table[24], table[28] & 1) == (0xFEE00398, 0, 0, 0)
    assert (registers[0xC8], registers[0xD0]) == (1 << 22, 1 << 22)
    assert [(event["event"], event["address"], event["data"]) for event in told] == [("msi", 0x1_FEE0_0018, 5)]


def test_without_a_message_its_own_is_sent(nic):
    _, table = nic
    vectors.VectorTable(lambda _: None).vector_send(bdf="0000:01:00.0")

    assert table.seen[0] == (0xFEE00398, 0)


def test_half_a_message_and_an_interface_that_is_down_are_refused(nic):
    registers, _ = nic
    sender = vectors.VectorTable(lambda _: None)
    with pytest.raises(Refused, match="an address and its data"):
        sender.vector_send(bdf="0000:01:00.0", address=0xFEE00018)
    registers[0xE4] = 0
    with pytest.raises(Refused, match="its interface is not up"):
        sender.vector_send(bdf="0000:01:00.0")
