"""The 82576 as QEMU's `igb` models it: advanced descriptors only (datasheet 7.1.5 receive, 7.2.2 transmit)."""

from __future__ import annotations

import struct

from nic import Model, Received

_TRANSMIT = struct.Struct("<QII")  # address; length, type and command; packet length and status
_RECEIVE = struct.Struct("<QQ")  # packet address; header address
_WRITTEN_BACK = struct.Struct("<QIHH")  # packet type and hash; status and errors; length, VLAN tag
_DATA, _END_OF_PACKET, _INSERT_CHECKSUM, _REPORT_STATUS, _ADVANCED = 3 << 20, 1 << 24, 1 << 25, 1 << 27, 1 << 29
_PACKET_LENGTH_SHIFT = 14
_ERRORS_SHIFT = 20
_DONE = 1 << 0
#: Split and replication receive control of queue 0: 2 KiB buffers, advanced descriptors with one buffer.
_SRRCTL, _ONE_BUFFER_2K = 0xC00C, 2 | 1 << 25


def _transmit_descriptor(address: int, length: int, last: bool, packet: int) -> bytes:  # noqa: FBT001 - `Model` gives it
    command = _DATA | _ADVANCED | _INSERT_CHECKSUM | _REPORT_STATUS | (_END_OF_PACKET if last else 0)
    return _TRANSMIT.pack(address, command | length, packet << _PACKET_LENGTH_SHIFT)


def _receive_descriptor(address: int) -> bytes:
    return _RECEIVE.pack(address, 0)


def _received(raw: bytes) -> Received | None:
    _, status, length, _ = _WRITTEN_BACK.unpack(raw)
    if not status & _DONE:
        return None
    return Received(length, status & (1 << _ERRORS_SHIFT) - 1, status >> _ERRORS_SHIFT)


IGB = Model(
    name="igb",
    identifications=(0x808610C9,),
    interrupt_mask=(0x150C, 0x1528),
    transmit=0xE000,
    receive=0xC000,
    per_queue=True,
    receive_setup=((_SRRCTL, _ONE_BUFFER_2K),),
    transmit_descriptor=_transmit_descriptor,
    receive_descriptor=_receive_descriptor,
    received=_received,
)
