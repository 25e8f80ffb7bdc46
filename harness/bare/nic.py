"""Intel NICs on a bare machine, as devices that read: what a transmit descriptor points at leaves on the wire.

Registers are those of the 82574 (e1000e) and 82576 (igb) data sheets; QEMU's hw/net/e1000e_core.c and igb_core.c fetch
the descriptor and the buffer while the tail is being written, so a frame is on the wire, or never will be, when that
is done. A queue of igb belongs to the virtual function of its number once there are any (igb_start_xmit).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.bare.layout import PAGE
from harness.errors import InfraError
from harness.qtest import Write
from harness.wire import Wire

if TYPE_CHECKING:
    from harness.bare.session import BareDevice, BareSession

_TCTL, _ENABLE = 0x400, 0x2

#: The mapped pages that hold the ring, and a frame that nobody minds; an attack goes to the first page.
_RING_PAGE, _FRAME_PAGE = 2, 3

_RING_BYTES = 128
_ETHERNET = 64


@dataclass(frozen=True, slots=True)
class Queue:
    """One transmit queue: where its registers begin, and whether its descriptors are igb's advanced ones.

    Advanced queues are switched on by themselves (TXDCTL).
    """

    base: int
    advanced: bool

    def descriptor(self, buffer: int, length: int) -> bytes:
        """Give the descriptor of a frame that is one piece of `length` bytes."""
        if self.advanced:
            # Advanced data descriptor: DEXT, RS, IFCS, EOP; the payload's length stands in the upper word once more.
            return struct.pack("<QII", buffer, 0x2B30_0000 | length, length << 14)
        return struct.pack("<QII", buffer, 0x0900_0000 | length, 0)  # EOP, RS


E1000E = Queue(0x3800, advanced=False)
IGB = Queue(0xE000, advanced=True)


@dataclass(slots=True)
class TransmitRing:
    """The transmit ring of one NIC, and the host's end of its wire. It reads; it writes nothing that is chosen."""

    session: BareSession
    queue: Queue
    wire: Wire
    _sent: bytes | None = None

    def prepare(self, device: BareDevice) -> None:
        """Nothing: the ring is laid for each frame."""

    def compose(self, length: int) -> bytes:
        """Refuse: what it writes is not chosen."""
        raise InfraError(f"a NIC on a bare machine only reads; asked for {length} bytes to write")

    def carry(self, device: BareDevice, payload: bytes) -> None:  # noqa: ARG002
        """Refuse, as `compose`."""
        self.compose(len(payload))

    def write(self, device: BareDevice, address: int, payload: bytes, *, purpose: str) -> None:  # noqa: ARG002
        """Refuse, as `compose`."""
        self.compose(len(payload))

    def interrupt(self, device: BareDevice, address: int, data: int) -> None:  # noqa: ARG002
        """Refuse: only edu's interrupts are driven."""
        raise InfraError(f"'{device.name}' cannot be told to request an interrupt")

    def read(self, device: BareDevice, address: int, length: int, *, purpose: str) -> None:
        """Have it send what stands at `address`, announced for `purpose`; `held` tells what came.

        A frame that failed makes the next one be skipped (`skip_cp` in QEMU's cores), so one that nobody minds goes
        before.
        """
        home = self.session.layout.mapped(device.name)
        self._transmit(device, home + _FRAME_PAGE * PAGE, _ETHERNET)
        self.wire.drain()
        self.session.journal.record(
            "agent",
            "dma",
            bdf=device.function,
            address=address,
            length=length,
            direction="from-memory",
            purpose=purpose,
        )
        self._transmit(device, address, length)
        frames = self.wire.drain()
        for frame in frames:
            self.session.journal.record("wire", "frame", size=len(frame), data=frame.hex())
        if not frames:
            self.session.journal.record("wire", "silent")
        self._sent = frames[0] if len(frames) == 1 else None

    def held(self, device: BareDevice, length: int) -> bytes | None:  # noqa: ARG002
        """Give the frame that came, None if none did."""
        return None if self._sent is None else self._sent[:length]

    def _transmit(self, device: BareDevice, address: int, length: int) -> None:
        layout, bar, base = self.session.layout, device.pci.bars[0], self.queue.base
        ring = layout.mapped(device.name) + _RING_PAGE * PAGE
        place = layout.target(ring)
        if place is None:
            raise InfraError(f"the ring of '{device.name}' is not mapped")
        self.session.machine.write(place, self.queue.descriptor(address, length))
        values = [(_TCTL, _ENABLE)]
        values += [(base + 0x28, 0)] if self.queue.advanced else []
        values += [(base, ring & 0xFFFF_FFFF), (base + 4, ring >> 32), (base + 8, _RING_BYTES)]
        values += [(base + 0x10, 0), (base + 0x18, 0)]
        values += [(base + 0x28, 1 << 25)] if self.queue.advanced else []
        values += [(base + 0x18, 1)]
        with self.session.machine.explaining():
            self.session.machine.qtest.exchange(*(Write(bar + offset, value, 4) for offset, value in values))
