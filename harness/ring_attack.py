"""A NIC made to issue a chosen DMA by its descriptor rings; the wire, in the host's hands, shows or brings the bytes.

One without a wire loops back what it sends: it fetches a frame and delivers it itself.

It needs no driver but a ring: a transmit descriptor that points at forbidden memory would put those bytes on the wire,
and a receive descriptor would let a frame from the wire overwrite them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import InfraError, WaitTimeout
from harness.session import AttachedDevice, Session, fresh_bytes
from harness.waiting import Deadline
from harness.wire import OTHER_HEADER

#: Seconds for the device to be through with a receive descriptor once its frame was sent.
_USED_S = 5.0

#: Seconds for a frame to come out of QEMU once the device is through with its descriptor.
_ON_THE_WIRE_S = 1.0


@dataclass(frozen=True, slots=True)
class DescriptorRings:
    """One transmit and one receive descriptor at a time, driven by the guest agent."""

    def compose(self, length: int) -> bytes:
        """Give an Ethernet frame of `length` bytes: the device writes only what arrives, and only frames arrive."""
        return OTHER_HEADER + fresh_bytes(length - len(OTHER_HEADER))

    def write(self, session: Session, device: AttachedDevice, address: int, payload: bytes, *, purpose: str) -> None:
        """Point the receive ring at `address`, then send the payload over the wire as one frame."""
        session.call("device_arm_receive", device=device.name, address=address, purpose=purpose)
        session.wire(device).send(payload)
        _await_received(session, device)

    def read(
        self, session: Session, device: AttachedDevice, address: int, length: int, *, purpose: str
    ) -> bytes | None:
        """Let the NIC send `length` bytes of memory as a frame, and see what comes out of the wire."""
        wire = session.wire(device)
        wire.drain()
        sent = session.call("device_read", device=device.name, address=address, length=length, purpose=purpose)
        _require_sent(device, sent)
        header = bytes.fromhex(str(sent["header"]))
        try:
            frame = wire.receive(Deadline.after(_ON_THE_WIRE_S), matching=lambda seen: seen.startswith(header))
        except WaitTimeout:
            session.journal.record("wire", "silent", waited_s=_ON_THE_WIRE_S)
            return None
        session.journal.record("wire", "frame", size=len(frame), data=frame.hex())
        return frame[len(header) : len(header) + length]


@dataclass(frozen=True, slots=True)
class LoopbackRings:
    """The same for a NIC that receives what it sends."""

    def compose(self, length: int) -> bytes:
        """Give an Ethernet frame of `length` bytes."""
        return DescriptorRings().compose(length)

    def write(self, session: Session, device: AttachedDevice, address: int, payload: bytes, *, purpose: str) -> None:
        """Point the receive ring at `address`, then let the payload be sent from the staging page as one frame."""
        session.call("device_arm_receive", device=device.name, address=address, purpose=purpose)
        sent = session.call("device_send", device=device.name, hex=payload.hex(), within_s=_USED_S + 5)
        session.record("sent", **sent)
        _await_received(session, device)

    def read(
        self, session: Session, device: AttachedDevice, address: int, length: int, *, purpose: str
    ) -> bytes | None:
        """Let the NIC send `length` bytes of memory as a frame, and see what it then receives on its staging page."""
        armed = session.call("device_arm_loop", device=device.name)
        sent = session.call("device_read", device=device.name, address=address, length=length, purpose=purpose)
        _require_sent(device, sent)
        answer = session.call("device_received", device=device.name, timeout_s=_ON_THE_WIRE_S, within_s=_USED_S + 5)
        if not answer["done"]:
            session.journal.record("wire", "silent", waited_s=_ON_THE_WIRE_S)
            return None
        place = session.book.buffers[device.staging].physical(armed["offset"] + armed["header"], length)
        return session.read_physical(place, length, label=f"what {device.name} received of itself")


def _require_sent(device: AttachedDevice, answer: Mapping[str, Any]) -> None:
    """Raise InfraError if the NIC did not take up its transmit descriptors: then it asked for no memory."""
    if answer["status"] != "ended":
        head, tail = answer["registers"]["head"], answer["registers"]["tail"]
        raise InfraError(
            f"'{device.name}' did not use its transmit descriptors: it stands at {head} of {tail}",
            hint="its transmitter may be off; that of a virtual function is its NIC's, whose driver switches it",
        )


def _await_received(session: Session, device: AttachedDevice) -> None:
    """Wait until the NIC is through with its receive descriptor; InfraError if it does not take it up at all."""
    answer = session.call("device_received", device=device.name, timeout_s=_USED_S, within_s=_USED_S + 5)
    session.record("receive-descriptor", **answer)
    if not answer["done"]:
        raise InfraError(f"'{device.name}' did not use its receive descriptor within {_USED_S} s")
