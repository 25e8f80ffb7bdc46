"""Page map words, recorded in a guest under Debian's 6.1 kernel, and the limits of buffers."""

import ctypes
import mmap

import buffers
import protocol
import pytest

#: Two populated pages and two that were never touched.
RECORDED = bytes.fromhex("3888000000008081398800000000808100000000000080000000000000008000")


def test_present_pages_give_their_guest_physical_addresses():
    assert buffers.decode_pagemap(RECORDED[:16]) == [0x8838 << 12, 0x8839 << 12]


def test_a_page_that_is_not_there_is_refused():
    with pytest.raises(protocol.Refused, match=r"page 2 \(word 0x80000000000000\)"):
        buffers.decode_pagemap(RECORDED)


def test_a_frame_number_withheld_from_the_unprivileged_is_refused():
    with pytest.raises(protocol.Refused, match="no frame for page 0"):
        buffers.decode_pagemap((1 << 63 | 1 << 55).to_bytes(8, "little"))


@pytest.mark.parametrize("size", [0, -4096, 100, (64 << 20) + 4096])
def test_a_buffer_is_whole_pages_up_to_a_limit(size):
    with pytest.raises(protocol.Refused, match="size must be a multiple of 4096"):
        buffers.BufferTable().buffer_create(name="b", size=size)


class Frames:
    """Page map words of a process, taken over so that a page can be seen to move."""

    def __init__(self, monkeypatch):
        self.addresses = [0x5000, 0x9000]
        monkeypatch.setattr(buffers.Buffer, "_read_pagemap", lambda _: list(self.addresses))


def test_a_page_that_moved_is_refused_wherever_its_address_is_needed(monkeypatch):
    frames = Frames(monkeypatch)
    buffer = buffers.Buffer("b", 8192)
    by_gpa = buffers.Mailbox(buffer, None)
    assert by_gpa.bus_address == 0x5000
    frames.addresses[1] = 0xA000
    with pytest.raises(protocol.Refused, match=r"moved pages \[1\] of buffer b"):
        buffer.pages()
    with pytest.raises(protocol.Refused, match="moved pages"):
        _ = by_gpa.bus_address
    assert buffers.Mailbox(buffer, 0x10000).bus_address == 0x10000


def test_a_buffer_keeps_what_is_written_and_refuses_what_does_not_fit(monkeypatch):
    Frames(monkeypatch)
    buffer = buffers.Buffer("b", 8192)
    buffer.write(4090, b"across pages")
    assert buffer.read(4090, 12) == b"across pages"
    assert ctypes.string_at(buffer.address + 4090, 12) == b"across pages"
    with pytest.raises(protocol.Refused, match="has 8192 bytes; asked for 2 at 8191"):
        buffer.write(8191, b"xx")
    with pytest.raises(protocol.Refused, match="asked for 1 at -1"):
        buffer.read(-1, 1)
    with pytest.raises(protocol.Refused, match=f"the mailbox has {mmap.PAGESIZE} bytes"):
        buffers.Mailbox(buffer, 0).write(4095, b"xx")
