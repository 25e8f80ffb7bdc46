"""Memory that a NIC's kernel driver has mapped for that NIC: a receive buffer, found from outside, with a known frame.

Only the NIC's own domain has a translation to it: the IOVA stands in a descriptor that the NIC has yet to take, and its
page is found by walking the NIC's tables. The frame that is then sent is written there by the NIC itself.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass

from harness.address_book import Buffer
from harness.errors import InfraError, WaitTimeout
from harness.nesting import translate
from harness.session import AttachedDevice, Session, fresh_bytes
from harness.sharing.queues import DESCRIPTOR, SharedNic
from harness.traffic import counting_translations
from harness.vtd.faults import Access
from harness.waiting import Deadline, wait_for
from harness.wire import OTHER_HEADER

#: Bytes of the canary, and where in the frame it begins, so that it is aligned if the frame is. A receive buffer of igb
#: has 2 KiB (IGB_RXBUFFER_2048 in Linux' igb.h).
SIZE = 1024
_BEGIN = 64

#: Seconds until a frame lies where it was to: another could have come between, or the address of the buffer could have
#: a meaning for another function too (a nested guest's firmware, which its devices may read, ends at 4 GiB, and there
#: the IOVAs of Linux begin).
_PLANTED_S = 30.0

#: Seconds for the NIC to write a frame into memory.
_WRITTEN_S = 2.0


@dataclass(frozen=True, slots=True)
class _ReceiveBuffer:
    """Where the next frame goes: the address in the descriptor, and where the NIC's tables lead from there."""

    iova: int
    physical: int


def plant_received(session: Session, name: str, device: AttachedDevice) -> None:
    """Have `device` write a frame of fresh bytes into memory of its driver, which becomes the canary `name`.

    Its kernel driver must have it, with virtual functions. InfraError if no frame lands where it was to.
    """
    nic = SharedNic.of(session, device)
    others = [session.device(function) for function in nic.functions]
    wire = session.wire(device)
    deadline = Deadline.after(_PLANTED_S)
    with counting_translations(session):
        while True:
            place = _next_buffer(session, nic, device)
            frame = OTHER_HEADER + fresh_bytes(_BEGIN + SIZE - len(OTHER_HEADER))
            begin, content = place.physical + _BEGIN, frame[_BEGIN:]
            led = {other.name: _led_at_all(session, other, place.iova + _BEGIN) for other in others}
            before = session.read_physical(begin, SIZE, label=f"{name} before")
            wire.send(frame)
            if all(end is None for end in led.values()) and _stands(session, begin, content):
                break
            if deadline.expired:
                text = f"no frame came to lie where the next descriptor of '{device.name}' leads, and only that"
                raise InfraError(text, hint=f"the last was to go to {place.iova:#x}, where the tables lead {led}")
    after = session.read_physical(begin, SIZE, label=f"{name} after")
    session.book.add(Buffer(name, SIZE, (begin,)))
    session.book.mapped(f"driver of {device.name}", name, place.iova + _BEGIN, SIZE)
    session.record(
        "received",
        canary=name,
        device=device.name,
        source_id=str(device.source),
        iova=place.iova + _BEGIN,
        physical=begin,
        led=_led(session, device, place.iova + _BEGIN),
        others=led,
        sent=content.hex(),
        before=hashlib.sha256(before).hexdigest(),
        after=hashlib.sha256(after).hexdigest(),
    )


def _stands(session: Session, address: int, content: bytes) -> bool:
    """Wait for the bytes at an address; whether they came."""
    with suppress(WaitTimeout):
        return wait_for(
            "the frame in memory",
            lambda: session.guest.machine.memory.read(address, len(content)) == content,
            Deadline.after(_WRITTEN_S),
            abort=[session.guest.machine.abort],
        )
    return False


def _next_buffer(session: Session, nic: SharedNic, device: AttachedDevice) -> _ReceiveBuffer:
    """Read the descriptor that the NIC takes next from its own first queue, the one after those of its functions."""
    queue = nic.receive_queue(session, len(nic.functions))
    if not queue.enabled or queue.head == queue.tail:
        raise InfraError(f"the driver of '{device.name}' has no receive buffers ready: {queue}")
    where = _reached(session, device, queue.base + queue.head * DESCRIPTOR)
    address = session.read_physical(where, 8, label=f"next receive descriptor of '{device.name}'")
    iova = int.from_bytes(address, "little")
    return _ReceiveBuffer(iova, _reached(session, device, iova))


def _reached(session: Session, device: AttachedDevice, address: int) -> int:
    physical = address if session.raw else _led(session, device, address)
    if physical is None:
        raise InfraError(f"the tables of '{device.name}' lead nowhere from {address:#x}, which is in its registers")
    return physical


def _led(session: Session, device: AttachedDevice, address: int, access: Access = Access.WRITE) -> int | None:
    """Where the unit's tables lead a request of `device`, None for nowhere; without a unit they do not lead at all."""
    return None if session.raw else translate(session, device, address, access).address


def _led_at_all(session: Session, device: AttachedDevice, address: int) -> int | None:
    """Where they lead a read or a write."""
    ends = (_led(session, device, address, access) for access in Access)
    return next((end for end in ends if end is not None), None)
