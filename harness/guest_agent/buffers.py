"""Named pieces of guest memory whose guest-physical page addresses are known, so that the host can read them itself."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Any

from protocol import Operation, Refused, attempting, from_hex
from system import write_text

PAGE = mmap.PAGESIZE
_PAGEMAP_ENTRY = 8
_PRESENT = 1 << 63
_FRAME_BITS = (1 << 55) - 1
_LIMIT = 64 << 20
_FILLER = 16 << 20
_MADV_POPULATE_WRITE = 23  # include/uapi/asm-generic/mman-common.h; not in Python's mmap module
_COMPACT_UNEVICTABLE = "/proc/sys/vm/compact_unevictable_allowed"

_libc = ctypes.CDLL(None, use_errno=True)


def decode_pagemap(entries: bytes) -> list[int]:
    """Guest-physical addresses of pages from their 64-bit little-endian words of /proc/self/pagemap.

    Bit 63: present, bits 54..0: frame number, zero for readers without CAP_SYS_ADMIN
    (Documentation/admin-guide/mm/pagemap.rst). Refused unless every page is present and its frame is told.
    """
    addresses = []
    for start in range(0, len(entries), _PAGEMAP_ENTRY):
        word = int.from_bytes(entries[start : start + _PAGEMAP_ENTRY], "little")
        if not word & _PRESENT or not word & _FRAME_BITS:
            raise Refused(f"pagemap tells no frame for page {start // _PAGEMAP_ENTRY} (word {word:#x})")
        addresses.append((word & _FRAME_BITS) * PAGE)
    return addresses


class Buffer:
    """Anonymous memory of 4 KiB pages, populated and locked; `address` is its virtual address in this process.

    Pages stay where they are: locked against swapping, kept from compaction (see `BufferTable`), from being merged into
    huge pages, and from copy-on-write by a fork.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        with attempting(f"allocate {size} bytes"):
            self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._memory.madvise(mmap.MADV_NOHUGEPAGE)
            self._memory.madvise(mmap.MADV_DONTFORK)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._memory[:] = bytes(size)
        if _libc.mlock(ctypes.c_void_p(self.address), ctypes.c_size_t(size)):
            number = ctypes.get_errno()
            raise Refused(f"lock {size} bytes: {os.strerror(number)}", number)
        self._pages = self._read_pagemap()

    def pages(self) -> list[int]:
        """Guest-physical address of each page, read anew; Refused if a page is not where it was at first."""
        pages = self._read_pagemap()
        moved = [index for index, (was, now) in enumerate(zip(self._pages, pages, strict=True)) if was != now]
        if moved:
            raise Refused(f"the kernel moved pages {moved} of buffer {self.name}")
        return pages

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`."""
        self._check(offset, len(data))
        self._memory[offset : offset + len(data)] = data

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, as the guest sees them."""
        self._check(offset, length)
        return self._memory[offset : offset + length]

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise Refused(f"buffer {self.name} has {self.size} bytes; asked for {length} at {offset}")

    def _read_pagemap(self) -> list[int]:
        with attempting("read the page map"), open("/proc/self/pagemap", "rb", buffering=0) as file:
            file.seek(self.address // PAGE * _PAGEMAP_ENTRY)
            return decode_pagemap(file.read(self.size // PAGE * _PAGEMAP_ENTRY))


class ReservedMemory(Buffer):
    """Memory at a chosen guest-physical address that the kernel was told to leave alone (`memmap=SIZE$ADDRESS`).

    What stands there outlives a reboot. The kernel lets /dev/mem show it because it is no RAM of its own
    (devmem_is_allowed in arch/x86/mm/init.c), and VFIO pins it because its pages are reserved (is_invalid_reserved_pfn
    in drivers/vfio/vfio_iommu_type1.c).
    """

    def __init__(self, name: str, address: int, size: int) -> None:
        self.name = name
        self.size = size
        self._pages = [address + offset for offset in range(0, size, PAGE)]
        with attempting(f"map {size} bytes of memory at {address:#x}"):
            descriptor = os.open("/dev/mem", os.O_RDWR | os.O_CLOEXEC)
            try:
                self._memory = mmap.mmap(descriptor, size, offset=address)
            finally:
                os.close(descriptor)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))

    def pages(self) -> list[int]:
        """Guest-physical address of each page; they cannot move."""
        return list(self._pages)


class Mailbox:
    """One page of a buffer that a device uses for staging: what it copies from and to, or its rings.

    A null `iova` means that the device uses guest-physical addresses.
    """

    size = PAGE

    def __init__(self, buffer: Buffer, iova: int | None) -> None:
        self._buffer = buffer
        self._iova = iova

    @property
    def bus_address(self) -> int:
        """The address under which the device reaches the page."""
        return self._buffer.pages()[0] if self._iova is None else self._iova

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset` of the page."""
        self._check(offset, len(data))
        self._buffer.write(offset, data)

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` of the page."""
        self._check(offset, length)
        return self._buffer.read(offset, length)

    def _check(self, offset: int, length: int) -> None:
        if offset + length > PAGE:
            raise Refused(f"the mailbox has {PAGE} bytes; asked for {length} at {offset}")


def _placed(name: str, size: int, above: int) -> Buffer:
    """Make a buffer above an address; what the kernel gives from below is held until it gives other pages."""
    held: list[mmap.mmap] = []
    try:
        while True:
            buffer = Buffer(name, size)
            if min(buffer.pages()) >= above:
                return buffer
            if len(held) * _FILLER > above:
                raise Refused(f"the kernel gives no {size} bytes above {above:#x}")
            with attempting(f"hold {_FILLER} bytes"):
                filler = mmap.mmap(-1, _FILLER, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                held.append(filler)
                filler.madvise(mmap.MADV_NOHUGEPAGE)
                filler.madvise(_MADV_POPULATE_WRITE)
    finally:
        for filler in held:
            filler.close()


class BufferTable:
    """Operations `buffer_*`. Buffers live as long as the agent: a device may still know their addresses."""

    def __init__(self) -> None:
        self._buffers: dict[str, Buffer] = {}

    def operations(self) -> dict[str, Operation]:
        """Operations by name."""
        return {
            "buffer_create": self.buffer_create,
            "buffer_reserved": self.buffer_reserved,
            "buffer_fill": self.buffer_fill,
            "buffer_read": self.buffer_read,
            "buffer_pages": self.buffer_pages,
        }

    def find(self, name: str) -> Buffer:
        """The buffer called `name`."""
        if name not in self._buffers:
            raise Refused(f"no buffer {name!r}; known: {', '.join(self._buffers) or 'none'}")
        return self._buffers[name]

    def buffer_create(self, *, name: str, size: int, fill: str = "00", above: int = 0) -> dict[str, Any]:
        """Make a buffer of `size` bytes (whole pages), filled with the hex pattern `fill` repeated, or `random`.

        No page of it lies below the guest-physical address `above`; Refused where the kernel has no such page left.
        """
        if name in self._buffers:
            raise Refused(f"there is a buffer {name!r} already")
        if size <= 0 or size % PAGE or size > _LIMIT:
            raise Refused(f"size must be a multiple of {PAGE} up to {_LIMIT}, not {size}")
        pattern = os.urandom(size) if fill == "random" else from_hex(fill)
        if not pattern:
            raise Refused("the fill pattern is empty")
        if not self._buffers and os.path.exists(_COMPACT_UNEVICTABLE):
            # By default the kernel moves even locked pages to make room for huge ones.
            write_text(_COMPACT_UNEVICTABLE, "0")
        buffer = _placed(name, size, above)
        buffer.write(0, (pattern * -(-size // len(pattern)))[:size])
        self._buffers[name] = buffer
        return {"pages": buffer.pages()}

    def buffer_reserved(self, *, name: str, address: int, size: int) -> dict[str, Any]:
        """Make a buffer of the memory at the guest-physical `address`, of which the kernel takes none (`memmap=`).

        It holds what stands there.
        """
        if name in self._buffers:
            raise Refused(f"there is a buffer {name!r} already")
        if size <= 0 or size % PAGE or address % PAGE or size > _LIMIT:
            raise Refused(f"size and address must be multiples of {PAGE}, the size up to {_LIMIT}")
        buffer = ReservedMemory(name, address, size)
        self._buffers[name] = buffer
        return {"pages": buffer.pages()}

    def buffer_fill(self, *, name: str, hex: str, offset: int = 0) -> dict[str, Any]:  # noqa: A002 - the protocol's word
        """Put bytes at `offset`."""
        self.find(name).write(offset, from_hex(hex))
        return {}

    def buffer_read(self, *, name: str, length: int, offset: int = 0) -> dict[str, Any]:
        """What the guest sees at `offset`, as hex."""
        return {"hex": self.find(name).read(offset, length).hex()}

    def buffer_pages(self, *, name: str) -> dict[str, Any]:
        """Guest-physical address of each page, read anew."""
        return {"pages": self.find(name).pages()}
