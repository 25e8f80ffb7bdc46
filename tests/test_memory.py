from __future__ import annotations

import os

import pytest

from harness.errors import InfraError, MonitorError
from harness.memory import GuestMemory

#: The reset vector of every PC firmware: a far jump (0xea) at the last 16 bytes below 4 GiB.
RESET_VECTOR = 0xFFFF_FFF0


@pytest.mark.qemu
def test_guest_memory_is_read_from_outside(halted_machine) -> None:
    memory = halted_machine.memory
    assert memory.read(RESET_VECTOR, 16)[0] == 0xEA
    assert memory.read(0x10_0000, 4096) == bytes(4096), "a second, larger read must not see the first one's bytes"
    assert memory.read(RESET_VECTOR, 1) == b"\xea"


@pytest.mark.qemu
def test_a_live_register_is_read_from_outside(halted_machine) -> None:
    assert halted_machine.register(0xFED9_0000) == 0x10, "VT-d version register: 1.0"
    assert halted_machine.register(0xFED9_0008, 8) & 1 << 7, "CAP.CM, since caching_mode is on"


@pytest.mark.qemu
def test_a_read_qemu_refuses_is_an_error(halted_machine) -> None:
    with pytest.raises(ValueError, match="cannot read 0 bytes"):
        halted_machine.memory.read(0, 0)
    unknown_to_qemu = os.memfd_create("later")
    try:
        with pytest.raises(MonitorError, match="pmemsave"):
            GuestMemory(halted_machine.monitor, unknown_to_qemu).read(0, 16)
    finally:
        os.close(unknown_to_qemu)


MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture
def memory():
    """Guest memory of a given size in a file of its own, and the file; QEMU has no part in it."""
    own = os.memfd_create("own")

    def of(size: int) -> tuple[GuestMemory, int]:
        os.ftruncate(own, size)
        return GuestMemory(None, -1, own=own, size=size), own

    yield of
    os.close(own)


#: QEMU keeps a memory of less than 2.75 GiB in one piece; of others it puts all beyond 2 GiB above 4 GiB.
OFFSETS = [
    (512 * MIB, 0, 0),
    (512 * MIB, 512 * MIB - 16, 512 * MIB - 16),
    (0xB000_0000 - MIB, 0x8000_0000, 0x8000_0000),
    (0xB000_0000 - MIB, 0xB000_0000 - MIB - 16, 0xB000_0000 - MIB - 16),
    (0xB000_0000, 0x8000_0000 - 16, 0x8000_0000 - 16),
    (0xB000_0000, 4 * GIB, 0x8000_0000),
    (0xB000_0000, 4 * GIB + 0x3000_0000 - 16, 0xB000_0000 - 16),
    (8 * GIB, 0x7FFF_FFF0, 0x7FFF_FFF0),
    (8 * GIB, 5 * GIB, 3 * GIB),
    (8 * GIB, 10 * GIB - 16, 8 * GIB - 16),
]


@pytest.mark.parametrize(("size", "gpa", "offset"), OFFSETS)
def test_an_address_is_written_where_qemu_has_it_in_the_file(size, gpa, offset, memory) -> None:
    guest, own = memory(size)
    guest.write(gpa, b"sixteen bytes ..")
    assert os.pread(own, 16, offset) == b"sixteen bytes .."
    assert os.lseek(own, 0, os.SEEK_DATA) // 4096 == offset // 4096, "and nowhere else"


@pytest.mark.parametrize(
    ("size", "gpa"),
    [
        (512 * MIB, 512 * MIB - 15),
        (512 * MIB, 512 * MIB),
        (512 * MIB, 4 * GIB),
        (512 * MIB, -1),
        (0xB000_0000 - MIB, 0xB000_0000 - MIB),
        (0xB000_0000, 0x8000_0000 - 15),
        (0xB000_0000, 0x8000_0000),
        (0xB000_0000, 0xB000_0000 - 16),
        (0xB000_0000, 4 * GIB - 1),
        (0xB000_0000, 4 * GIB + 0x3000_0000 - 15),
        (8 * GIB, 3 * GIB),
        (8 * GIB, 10 * GIB),
    ],
)
def test_what_is_not_memory_is_not_written(size, gpa, memory) -> None:
    guest, own = memory(size)
    with pytest.raises(ValueError, match="16 bytes at .* are not in the guest's memory"):
        guest.write(gpa, bytes(range(1, 17)))
    with pytest.raises(OSError, match="No such device or address"):
        os.lseek(own, 0, os.SEEK_DATA)


def test_memory_of_no_file_of_its_own_is_not_written() -> None:
    with pytest.raises(InfraError, match=r"cannot be written from outside \(at 0x1000\)") as caught:
        GuestMemory(None, -1, size=512 * MIB).write(0x1000, b"x")
    assert caught.value.hint == "start the machine with own_memory"


class FarQemu:
    """The monitor of a QEMU on another host, and its file there."""

    def __init__(self, delivers: bytes) -> None:
        self.delivers = delivers
        self.asked: list[object] = []

    def execute(self, command: str, **arguments: object) -> None:
        self.asked.append((command, arguments["val"], arguments["size"], arguments["filename"]))

    def fetch(self, size: int) -> bytes:
        self.asked.append(size)
        return self.delivers[:size]


def test_memory_of_a_qemu_elsewhere_is_fetched_from_its_file_there() -> None:
    far = FarQemu(b"sixteen bytes .. and more")
    memory = GuestMemory(far, 46, size=512 * MIB, fetch=far.fetch)
    assert memory.read(0x1000, 16) == b"sixteen bytes .."
    assert far.asked == [("pmemsave", 0x1000, 16, "/proc/self/fd/46"), 16]
    assert memory.holds(512 * MIB - 16, 16)
    assert not memory.holds(512 * MIB - 15, 16)


def test_fewer_bytes_than_were_asked_for_are_an_error() -> None:
    far = FarQemu(b"sixteen bytes ..")
    with pytest.raises(MonitorError, match="pmemsave of 17 bytes at 0x1000 delivered 16"):
        GuestMemory(far, 46, fetch=far.fetch).read(0x1000, 17)
