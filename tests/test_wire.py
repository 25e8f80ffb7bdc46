from __future__ import annotations

import os
import socket

import pytest

from harness import bounds
from harness.errors import BoundExceeded, InfraError, WaitTimeout
from harness.waiting import Deadline
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


@pytest.mark.parametrize(("bound", "most", "unit"), [("WIRE_FRAMES", 4, "4 frames"), ("WIRE_BYTES", 240, "240 bytes")])
def test_a_flood_is_told_and_not_taken_in(monkeypatch, bound, most, unit) -> None:
    monkeypatch.setattr(bounds, bound, most)
    with Wire("w") as wire, socket.socket(fileno=os.dup(wire.qemu_fd)) as qemu:

        def another(frame: bytes) -> bool:
            qemu.send(frame)
            return False

        for _ in range(4):
            qemu.send(b"\xff" * 60)
        assert len(wire.drain()) == 4
        for take in (wire.drain, lambda: wire.receive(Deadline.after(60), another)):
            for _ in range(5):
                qemu.send(b"\xff" * 60)
            with pytest.raises(BoundExceeded, match=f"the guest said more than {unit} at once on its wire 'w'"):
                take()


def test_frames_that_come_as_fast_as_they_are_looked_at_do_not_outlast_the_deadline(monkeypatch) -> None:
    monkeypatch.setattr(bounds, "WIRE_FRAMES", 1 << 40)
    monkeypatch.setattr(bounds, "WIRE_BYTES", 1 << 40)
    with Wire("w") as wire, socket.socket(fileno=os.dup(wire.qemu_fd)) as qemu:
        sent = 0

        def another(frame: bytes) -> bool:
            nonlocal sent
            sent += 1
            assert sent < 500_000, "it never ends"
            qemu.send(frame)
            return False

        qemu.send(b"\xff" * 60)
        with pytest.raises(WaitTimeout, match="other frames"):
            wire.receive(Deadline.after(0.2), another)
