"""Real traffic through a NIC under its own kernel driver, compared by hash on both sides of the wire.

A stream is made from a seed by both sides on their own: the concatenation of SHA-256(seed + counter), the counter a
64-bit big-endian number from 0. Frame i carries its number (32-bit big-endian) and the stream's i-th slice.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import select
import socket
import struct
import time
from typing import Any

from pci import netdev_of
from protocol import Emit, Operation, Refused, attempting, from_hex
from system import read_text, write_text
from waiting import wait_for

#: The first EtherType for local experiments (IEEE 802).
ETHERTYPE = 0x88B5
_ETHERNET = struct.Struct("!6s6sH")
_NUMBER = struct.Struct("!I")
_SIZE_MIN, _SIZE_MAX = 46, 1500
_FRAMES_MAX = 100_000
_BROADCAST = b"\xff" * 6
_RECEIVE_BUFFER = 4 << 20
_INTERFACE_FLAGS = struct.Struct("16sH14x")
_UP = 1 << 0


def stream(seed: bytes, length: int) -> bytes:
    """The first `length` bytes of the stream of `seed`."""
    blocks = range(-(-length // 32))
    return b"".join(hashlib.sha256(seed + counter.to_bytes(8, "big")).digest() for counter in blocks)[:length]


def payloads(seed: bytes, *, frames: int, size: int) -> list[bytes]:
    """The Ethernet payloads of `frames` frames, each of `size` bytes including its number."""
    share = size - _NUMBER.size
    whole = stream(seed, frames * share)
    return [_NUMBER.pack(i) + whole[i * share : (i + 1) * share] for i in range(frames)]


def digest(parts: list[bytes]) -> str:
    """SHA-256 over payloads without their numbers, in the order of the list."""
    return hashlib.sha256(b"".join(part[_NUMBER.size :] for part in parts)).hexdigest()


class Reception:
    """Frames taken from the wire, sorted by number."""

    def __init__(self, *, frames: int, size: int) -> None:
        self._frames = frames
        self._size = size
        self._parts: dict[int, bytes] = {}
        self.duplicates = 0
        self.foreign = 0

    @property
    def complete(self) -> bool:
        """Whether every number has been seen."""
        return len(self._parts) == self._frames

    def take(self, frame: bytes) -> None:
        """Keep one frame; one of another length or with a number that is not expected counts as foreign."""
        payload = frame[_ETHERNET.size : _ETHERNET.size + self._size]
        number = _NUMBER.unpack(payload[: _NUMBER.size])[0] if len(payload) == self._size else self._frames
        if number >= self._frames:
            self.foreign += 1
        elif number in self._parts:
            self.duplicates += 1
        else:
            self._parts[number] = payload

    def summary(self) -> dict[str, Any]:
        """Counts, up to 16 of the numbers missing, and the hash of what came, in order of the numbers."""
        missing = [number for number in range(self._frames) if number not in self._parts]
        return {
            "frames": len(self._parts),
            "sha256": digest([self._parts[number] for number in sorted(self._parts)]),
            "missing": len(missing),
            "first_missing": missing[:16],
            "duplicates": self.duplicates,
            "foreign": self.foreign,
        }


class Traffic:
    """Operation `traffic`."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit

    def operations(self) -> dict[str, Operation]:
        """Operations by name."""
        return {"traffic": self.traffic, "echo": self.echo}

    def traffic(
        self,
        *,
        frames: int,
        size: int,
        netdev: str | None = None,
        bdf: str | None = None,
        send_seed: str | None = None,
        receive_seed: str | None = None,
        timeout_s: float = 30,
    ) -> dict[str, Any]:
        """Send `frames` frames of `send_seed`'s stream and take as many of `receive_seed`'s; a null seed leaves it out.

        Announces `{"event": "traffic", "state": "ready"}` once the interface has a carrier and listens. Missing
        frames are told, not refused: the answer says what came until `timeout_s` had passed.
        """
        if not _SIZE_MIN <= size <= _SIZE_MAX or not 0 < frames <= _FRAMES_MAX:
            raise Refused(f"size is {_SIZE_MIN} to {_SIZE_MAX} bytes, frames 1 to {_FRAMES_MAX}")
        name = netdev or (netdev_of(bdf) if bdf else None)
        if name is None:
            raise Refused(f"{bdf} has no network interface" if bdf else "traffic needs a netdev or a bdf")
        ends = time.monotonic() + timeout_s
        bring_up(name, timeout_s)
        outgoing = payloads(from_hex(send_seed), frames=frames, size=size) if send_seed is not None else []
        with attempting(f"open a packet socket on {name}"), _packet_socket(name) as wire:
            self._emit({"event": "traffic", "state": "ready", "netdev": name, "time_ns": time.monotonic_ns()})
            expected = frames if receive_seed is not None else 0
            begun = time.monotonic_ns()
            sent, reception = _exchange(wire, outgoing, Reception(frames=expected, size=size), ends)
            elapsed_ns = time.monotonic_ns() - begun
        wanted = payloads(from_hex(receive_seed), frames=frames, size=size) if receive_seed is not None else []
        return {
            "netdev": name,
            "elapsed_ns": elapsed_ns,
            "sent": {"frames": sent, "sha256": digest(outgoing[:sent])},
            "received": {**reception.summary(), "expected_sha256": digest(wanted)},
        }

    def echo(
        self, *, bdf: str, frames: int | None = None, until: str | None = None, timeout_s: float = 30
    ) -> dict[str, Any]:
        """Send each frame of the experiments' EtherType back as it came, until `timeout_s` at the latest.

        It ends with the last of `frames`, or with one whose payload begins with the bytes `until` (hex), which is sent
        back too; `ended` tells whether one of both has come. Announces that it listens as `traffic` does.
        """
        last = from_hex(until) if until is not None else None
        if frames is None and not last:
            raise Refused("echo needs frames or until")
        name = netdev_of(bdf)
        if name is None:
            raise Refused(f"{bdf} has no network interface")
        ends = time.monotonic() + timeout_s
        bring_up(name, timeout_s)
        sent = 0
        ended = False
        with attempting(f"open a packet socket on {name}"), _packet_socket(name) as wire:
            self._emit({"event": "traffic", "state": "ready", "netdev": name, "time_ns": time.monotonic_ns()})
            own = wire.getsockname()[4][:6]
            header = _ETHERNET.pack(_BROADCAST, own, ETHERTYPE)
            while not ended and time.monotonic() < ends:
                if not select.select([wire], [], [], 0.1)[0]:
                    continue
                frame, address = wire.recvfrom(65536)
                if address[2] != socket.PACKET_OUTGOING and frame[6:12] != own:
                    payload = frame[_ETHERNET.size :]
                    went = _send(wire, header + payload)
                    sent += went
                    ended = sent == frames or bool(went and last and payload.startswith(last))
        return {"netdev": name, "frames": sent, "ended": ended}


def bring_up(name: str, timeout_s: float) -> None:
    """Set the interface up, silent in IPv6, and wait for its carrier."""
    quiet = f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6"
    if os.path.exists(quiet):
        write_text(quiet, "1")
    with attempting(f"set {name} up"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = _INTERFACE_FLAGS.pack(name.encode(), 0)
        _, flags = _INTERFACE_FLAGS.unpack(fcntl.ioctl(any_socket, _GET_FLAGS, request))
        fcntl.ioctl(any_socket, _SET_FLAGS, _INTERFACE_FLAGS.pack(name.encode(), flags | _UP))
    wait_for(f"the carrier of {name}", lambda: read_text(f"/sys/class/net/{name}/carrier") == "1", timeout_s)


_GET_FLAGS, _SET_FLAGS = 0x8913, 0x8914  # SIOCGIFFLAGS, SIOCSIFFLAGS of include/uapi/linux/sockios.h


def _packet_socket(name: str) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    wire.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _RECEIVE_BUFFER)
    wire.bind((name, ETHERTYPE))
    return wire


_RCVBUFFORCE = 33  # SO_RCVBUFFORCE of include/uapi/asm-generic/socket.h; not in Python's socket module


def _exchange(wire: socket.socket, outgoing: list[bytes], reception: Reception, ends: float) -> tuple[int, Reception]:
    """Send and receive side by side until all of both is done or time is up; answers how many frames were sent."""
    header = _ETHERNET.pack(_BROADCAST, wire.getsockname()[4][:6], ETHERTYPE)
    sent = 0
    while time.monotonic() < ends and (sent < len(outgoing) or not reception.complete):
        wants_to_send = [wire] if sent < len(outgoing) else []
        readable, writable, _ = select.select([wire], wants_to_send, [], 0.1)
        if readable:
            _drain(wire, reception)
        if writable:
            sent += _send(wire, header + outgoing[sent])
    return sent, reception


def _send(wire: socket.socket, frame: bytes) -> int:
    try:
        wire.send(frame)
    except (BlockingIOError, OSError) as error:
        if isinstance(error, BlockingIOError) or error.errno == _NO_BUFFERS:
            return 0
        raise
    return 1


_NO_BUFFERS = 105  # ENOBUFS: the interface's queue is full for a moment


def _drain(wire: socket.socket, reception: Reception) -> None:
    """Take all that has come; what the NIC sent itself may come back from its own switch (82576, 7.10.3.6)."""
    own = wire.getsockname()[4][:6]
    while True:
        try:
            frame, address = wire.recvfrom(65536)
        except BlockingIOError:
            return
        if address[2] != socket.PACKET_OUTGOING and frame[6:12] != own:
            reception.take(frame)
