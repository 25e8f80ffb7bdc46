"""The 82574 as QEMU's `e1000e` models it: legacy descriptors (datasheet 7.1.4 receive, 7.2.10.1 transmit)."""

from __future__ import annotations

import struct

from nic import Model, Received

_TRANSMIT = struct.Struct("<QHBBBBH")  # address; length, checksum offset, command; status, checksum start, special
_RECEIVE = struct.Struct("<QHHBBH")  # address; length, checksum, status, errors, special
_END_OF_PACKET, _INSERT_CHECKSUM, _REPORT_STATUS = 1 << 0, 1 << 1, 1 << 3
_DONE = 1 << 0


def _transmit_descriptor(address: int, length: int, last: bool, _packet: int) -> bytes:  # noqa: FBT001 - `Model` gives it
    command = _INSERT_CHECKSUM | _REPORT_STATUS | (_END_OF_PACKET if last else 0)
    return _TRANSMIT.pack(address, length, 0, command, 0, 0, 0)


def _receive_descriptor(address: int) -> bytes:
    return _RECEIVE.pack(address, 0, 0, 0, 0, 0)


def _received(raw: bytes) -> Received | None:
    _, length, _, status, errors, _ = _RECEIVE.unpack(raw)
    return Received(length, status, errors) if status & _DONE else None


E1000E = Model(
    name="e1000e",
    identifications=(0x808610D3,),
    interrupt_mask=(0x00D8,),
    transmit=0x3800,
    receive=0x2800,
    per_queue=False,
    receive_setup=(),
    transmit_descriptor=_transmit_descriptor,
    receive_descriptor=_receive_descriptor,
    received=_received,
)
