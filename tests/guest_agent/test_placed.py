"""Buffers that must lie above an address: what the kernel gives from below is held until it gives other pages."""

import buffers
import protocol
import pytest

MIB = 1 << 20


class Kernel:
    """Gives pages from below upwards; each filler takes as many as it is long."""

    def __init__(self, monkeypatch):
        self.next = 0
        self.fillers = []
        self.buffers = 0
        made = buffers.mmap.mmap
        kernel = self

        class Filler:
            def __init__(self, length):
                self.length, self.closed = length, False
                kernel.fillers.append(self)

            def madvise(self, advice):
                if advice == buffers._MADV_POPULATE_WRITE:
                    kernel.next += self.length

            def close(self):
                self.closed = True

        def mmap(fd, size, flags):
            return Filler(size) if size == buffers._FILLER else made(fd, size, flags=flags)

        def read_pagemap(buffer):
            if not hasattr(buffer, "at"):
                buffer.at = kernel.next
                kernel.next += buffer.size
                kernel.buffers += 1
            return [buffer.at + page for page in range(0, buffer.size, 4096)]

        monkeypatch.setattr(buffers.mmap, "mmap", mmap)
        monkeypatch.setattr(buffers.Buffer, "_read_pagemap", read_pagemap)
        monkeypatch.setattr(buffers, "write_text", lambda _path, _text: None)


@pytest.fixture
def kernel(monkeypatch):
    return Kernel(monkeypatch)


def test_a_buffer_that_may_lie_anywhere_is_the_first(kernel):
    assert buffers.BufferTable().buffer_create(name="b", size=8192) == {"pages": [0, 4096]}
    assert (kernel.fillers, kernel.buffers) == ([], 1)


def test_memory_from_below_is_held_until_a_buffer_lies_above_and_then_let_go(kernel):
    pages = buffers.BufferTable().buffer_create(name="b", size=8192, above=40 * MIB)["pages"]

    assert min(pages) >= 40 * MIB
    assert [filler.closed for filler in kernel.fillers] == [True] * 3


def test_no_page_of_it_may_lie_below(kernel):
    kernel.next = MIB - 4096
    pages = buffers.BufferTable().buffer_create(name="b", size=8192, above=MIB)["pages"]

    assert min(pages) >= MIB


def test_where_the_kernel_has_no_such_memory_it_is_refused_and_nothing_is_held(kernel, monkeypatch):
    monkeypatch.setattr(buffers.Buffer, "pages", lambda _buffer: [0x1000])

    with pytest.raises(protocol.Refused, match="the kernel gives no 4096 bytes above 0x4000000"):
        buffers.BufferTable().buffer_create(name="b", size=4096, above=64 * MIB)
    assert [filler.closed for filler in kernel.fillers] == [True] * 5


def test_what_is_written_stands_in_the_buffer_that_was_kept(kernel):
    table = buffers.BufferTable()
    table.buffer_create(name="b", size=4096, fill="0a0b", above=20 * MIB)

    assert table.buffer_read(name="b", length=4) == {"hex": "0a0b0a0b"}
