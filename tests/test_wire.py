from __future__ import annotations

import os
import socket

import pytest

from harness.errors import InfraError, WaitTimeout
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
