from __future__ import annotations

import contextlib
import os
import select
import socket
import threading

import pytest

from harness import bounds
from harness.errors import BoundExceeded, InfraError, WaitTimeout
from harness.waiting import Deadline, wait_for
from harness.wire import Wire


def test_frames_keep_their_bounds_in_both_directions() -> None:
    with Wire("w") as wire, socket.socket(fileno=os.dup(wire.qemu_fd)) as qemu:
        wire.send(b"\xff" * 60)
        wire.send(b"\x01" * 9000)
        assert (len(qemu.recv(65536)), len(qemu.recv(65536))) == (60, 9000)
        qemu.send(b"one")
        qemu.send(b"two")
        assert wire.drain() == [b"one", b"two"]
        assert wire.drain() == []


def test_only_a_matching_frame_is_received() -> None:
    with Wire("w") as wire, socket.socket(fileno=os.dup(wire.qemu_fd)) as qemu:
        qemu.send(b"arp")
        qemu.send(b"ours")
        assert wire.receive(Deadline.after(2), lambda frame: frame == b"ours") == b"ours"
        qemu.send(b"arp")
        with pytest.raises(WaitTimeout, match=r"a frame on wire 'w'; seen instead: 1 other frames"):
            wire.receive(Deadline.after(0.1), lambda frame: frame == b"ours")
        with pytest.raises(InfraError, match="QEMU ended"):
            wire.receive(Deadline.after(20), abort=[lambda: InfraError("QEMU ended")])


def test_a_frame_nobody_takes_is_an_error() -> None:
    with Wire("w") as wire:
        wire.inherited()
        with pytest.raises(InfraError, match="wire 'w': a frame of 3 bytes was not taken"):
            wire.send(b"abc")


@pytest.fixture
def flooded():
    """A wire whose far end sends as fast as it is read."""
    with Wire("lan") as wire:
        over = threading.Event()

        def flood():
            wire.far_end.setblocking(True)
            wire.far_end.settimeout(0.1)
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    wire.far_end.send(bytes(60))

        sender = threading.Thread(target=flood)
        sender.start()
        yield wire
        over.set()
        sender.join()


def test_a_guest_that_floods_a_wire_is_told(flooded, monkeypatch):
    monkeypatch.setattr(bounds, "WIRE_FRAMES", 2000)
    with pytest.raises(BoundExceeded, match="2,000 frames that nobody waits for on its wire 'lan'"):
        flooded.receive(Deadline.after(30), lambda frame: frame == b"never")


def test_a_flood_does_not_outlast_a_deadline(flooded, monkeypatch):
    monkeypatch.setattr(bounds, "WIRE_QUEUE", 50)
    monkeypatch.setattr(bounds, "WIRE_FRAMES", 10**9)
    with pytest.raises(WaitTimeout, match="other frames"):
        flooded.receive(Deadline.after(0.5), lambda frame: frame == b"never")


def test_a_flood_cannot_be_drained(flooded, monkeypatch):
    monkeypatch.setattr(bounds, "WIRE_QUEUE", 50)
    wait_for("a full wire", lambda: not _takes_more(flooded), Deadline.after(10))
    with pytest.raises(BoundExceeded, match="50 frames"):
        _drained(flooded)


def _drained(wire):
    for _ in range(1000):
        wire.drain()


def _takes_more(wire):
    return select.select([], [wire.far_end], [], 0.05)[1]
