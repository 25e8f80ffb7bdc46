"""The MSI-X table of a NIC under its kernel driver, written behind that driver's back: any interrupt message it likes.

Where a hypervisor leaves the real table open to a guest, nothing but interrupt remapping stands between such a message
and the processors.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pci
from protocol import Emit, Operation, Refused, attempting
from waiting import poll, wait_for

#: The 82574 (datasheet 10.2.4): causes to set, to enable, and where each goes. A packet that was sent is cause 22; its
#: vector stands in bits 10:8 of IVAR if bit 11 is set. Nobody sends but who is told to, so this vector is quiet.
_IDENTIFICATION = 0x8086_10D3
_ICS, _IMS, _IVAR = 0xC8, 0xD0, 0xE4
_SENT = 1 << 22
_VECTOR_AT, _VECTOR, _VECTOR_VALID = 8, 0x7, 1 << 11
#: Its MSI-X structures: BAR 3, the table at 0, pending bits at 0x2000 (hw/net/e1000e.c of QEMU).
_BAR, _PENDING = 3, 0x2000

#: An entry of the table: address, data, control with the mask bit (PCI Local Bus 3.0, 6.8.2).
_ENTRY = struct.Struct("<QII")
_MASKED = 1 << 0

_PENDING_S = 2.0
#: QEMU repeats a message when the vector's throttle runs out, after 128 us or so
#: (e1000e_intrmgr_on_msix_throttling_timer): while the vector is masked that adds nothing to what is pending.
_THROTTLE_S = 0.02


class Registers:
    """A BAR of a function, mapped from sysfs, in accesses of 4 bytes."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._cells = (ctypes.c_uint32 * (len(memory) // 4)).from_buffer(memory)

    def __getitem__(self, offset: int) -> int:
        """Read the 4 bytes at `offset`."""
        return int(self._cells[offset // 4])

    def __setitem__(self, offset: int, value: int) -> None:
        """Write the 4 bytes at `offset`."""
        self._cells[offset // 4] = value


class VectorTable:
    """Operation `vector_send`."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit

    def operations(self) -> dict[str, Operation]:
        """Operations by name."""
        return {"vector_send": self.vector_send}

    def vector_send(
        self, *, bdf: str, address: int | None = None, data: int | None = None, purpose: str = "attack"
    ) -> dict[str, Any]:
        """Have the NIC send `data` to `address` once by the vector of sent packets, or that vector's own message.

        The entry is masked, an interrupt made pending and the message put in: unmasking sends it, which is announced
        before. Then the entry is as it was. Needs the kernel argument `iomem=relaxed` while a driver has the function.
        """
        if (address is None) != (data is None):
            raise Refused("a message is an address and its data")
        described = pci.describe(bdf)
        if described["vendor"] << 16 | described["device"] != _IDENTIFICATION:
            raise Refused(f"{bdf} is no 82574")
        with _mapped(bdf, 0) as registers, _mapped(bdf, _BAR) as table:
            vector = _vector_of(registers, bdf)
            own = _message(table, vector)
            sent = own if address is None or data is None else (address, data)
            _mask(table, vector, on=True)
            try:
                registers[_IMS] = _SENT  # sending one takes it from there
                registers[_ICS] = _SENT
                wait_for(f"a pending interrupt of vector {vector}", lambda: table[_PENDING] >> vector & 1, _PENDING_S)
                poll(lambda: None, _THROTTLE_S)
                _put(table, vector, sent)
                self._announce(bdf, vector, sent, purpose)
                _mask(table, vector, on=False)
                left = table[_PENDING] >> vector & 1
            finally:
                _mask(table, vector, on=True)
                _put(table, vector, own)
                registers[_IMS] = _SENT
                _mask(table, vector, on=False)
        if left:
            raise Refused(f"vector {vector} of {bdf} still has its interrupt pending, so it was not sent")
        return {"vector": vector, "own": own, "sent": sent}

    def _announce(self, bdf: str, vector: int, sent: tuple[int, int], purpose: str) -> None:
        told = {"event": "msi", "bdf": bdf, "purpose": purpose, "vector": vector, "address": sent[0], "data": sent[1]}
        self._emit({**told, "time_ns": time.monotonic_ns()})


def _vector_of(registers: Registers, bdf: str) -> int:
    told = registers[_IVAR]
    if not told & _VECTOR_VALID:
        raise Refused(f"{bdf} has no vector for packets that were sent: its interface is not up")
    return told >> _VECTOR_AT & _VECTOR


def _message(table: Registers, vector: int) -> tuple[int, int]:
    begin = vector * _ENTRY.size
    return table[begin] | table[begin + 4] << 32, table[begin + 8]


def _put(table: Registers, vector: int, message: tuple[int, int]) -> None:
    begin = vector * _ENTRY.size
    address, data = message
    table[begin], table[begin + 4], table[begin + 8] = address & 0xFFFF_FFFF, address >> 32, data


def _mask(table: Registers, vector: int, *, on: bool) -> None:
    control = vector * _ENTRY.size + 12
    table[control] = table[control] | _MASKED if on else table[control] & ~_MASKED


@contextmanager
def _mapped(bdf: str, bar: int) -> Iterator[Registers]:
    path = f"{pci.present(bdf)}/resource{bar}"
    with attempting(f"map {path} (while a driver has it, that takes the kernel argument iomem=relaxed)"):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            memory = mmap.mmap(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)
    yield Registers(memory)
