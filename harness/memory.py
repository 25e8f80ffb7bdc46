"""The guest's physical memory, read and, where the guest has a copy of its own, written from outside the guest."""

from __future__ import annotations

import os
from collections.abc import Callable

from harness.errors import InfraError, MonitorError
from harness.qmp import Monitor

#: Where q35 puts the rest of a memory that does not fit below 4 GiB, and how much it leaves below for each size
#: (pc_q35_init in QEMU's hw/i386/pc_q35.c, `max-ram-below-4g` at its default).
_ABOVE = 1 << 32
_LOW, _LOW_WHEN_SPLIT = 0xB000_0000, 0x8000_0000


def offset_in_memory(size: int, gpa: int, length: int) -> int | None:
    """Give how far into a q35's memory of `size` bytes the `length` bytes at `gpa` lie, None if some are none of it."""
    low = size if size < _LOW else _LOW_WHEN_SPLIT
    if gpa >= 0 and gpa + length <= low:
        return gpa
    if gpa >= _ABOVE and gpa - _ABOVE + length <= size - low:
        return gpa - _ABOVE + low
    return None


class GuestMemory:
    """Reads guest-physical addresses as the CPU of the guest would see them; VT-d does not stand in between.

    QEMU's `pmemsave` writes into a memfd that QEMU inherited under the number `fd`, so no file is ever made.
    """

    def __init__(
        self,
        monitor: Monitor,
        fd: int,
        *,
        own: int | None = None,
        size: int = 0,
        fetch: Callable[[int], bytes] | None = None,
    ) -> None:
        """`fd` must be open in the harness and, under the same number, in QEMU; it stays the caller's to close.

        `own` is the file that the guest's memory of `size` bytes is mapped from, if that is this guest's alone. Where
        QEMU runs on another host, `fetch` gives the first bytes of its file there.
        """
        self._monitor = monitor
        self._fd = fd
        self._fetch = fetch
        self._own = own
        self._size = size

    def read(self, gpa: int, size: int) -> bytes:
        """`size` bytes at guest-physical address `gpa`; MonitorError if QEMU refuses or delivers fewer."""
        if size <= 0:
            raise ValueError(f"cannot read {size} bytes of guest memory")
        if self._fetch is None:
            os.ftruncate(self._fd, 0)
        self._monitor.execute("pmemsave", val=gpa, size=size, filename=f"/proc/self/fd/{self._fd}", timeout_s=30.0)
        data = os.pread(self._fd, size, 0) if self._fetch is None else self._fetch(size)
        if len(data) != size:
            raise MonitorError(
                f"pmemsave of {size} bytes at {gpa:#x} delivered {len(data)}",
                command="pmemsave",
                arguments={"val": gpa, "size": size},
            )
        return data

    def write(self, gpa: int, data: bytes) -> None:
        """Put `data` at guest-physical address `gpa`, behind the guest's back.

        InfraError for a guest that was not started with memory of its own, ValueError outside of its memory.
        """
        if self._own is None:
            raise InfraError(
                f"the memory of this guest cannot be written from outside (at {gpa:#x})",
                hint="start the machine with own_memory",
            )
        os.pwrite(self._own, data, self._offset(gpa, len(data)))

    def holds(self, gpa: int, size: int) -> bool:
        """Whether all of `size` bytes at `gpa` are memory of the guest."""
        try:
            self._offset(gpa, size)
        except ValueError:
            return False
        return True

    def _offset(self, gpa: int, length: int) -> int:
        offset = offset_in_memory(self._size, gpa, length)
        if offset is None:
            raise ValueError(f"{length} bytes at {gpa:#x} are not in the guest's memory")
        return offset
