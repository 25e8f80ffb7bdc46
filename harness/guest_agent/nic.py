"""The smallest user-space driver for Intel NICs: one descriptor ring each way, one packet at a time, no interrupts.

Sending makes the device read from a chosen address, and the frame shows on the wire what it read. Receiving makes it
write a frame from the wire to a chosen address. What differs between models is a `Model`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from buffers import Buffer, Mailbox
from dma import FROM_MEMORY, TO_MEMORY, Announcer
from function import Function
from protocol import Refused
from waiting import poll, wait_for

# Registers common to the 82574 (e1000e) and the 82576 (igb); Intel's datasheets, chapters "Programming Interface".
_CTRL = 0x0000
_STATUS = 0x0008
_MDIC = 0x0020
_RCTL = 0x0100
_TCTL = 0x0400
_CTRL_SET_LINK_UP = 1 << 6
_CTRL_RESET = 1 << 26
_STATUS_LINK_UP = 1 << 1
#: Write to register 0 (control) of PHY 1: autonegotiation on and restarted (IEEE 802.3, 22.2.4.1).
_MDIC_NEGOTIATE = 1 << 26 | 1 << 21 | 0 << 16 | 1 << 12 | 1 << 9
#: Receive: enable, promiscuous for unicast and multicast, accept broadcast, strip the checksum; 2 KiB buffers.
_RCTL_PROMISCUOUS = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 15 | 1 << 26
#: Receive what is sent: loopback in the MAC (82574 datasheet 10.2.5.1; e1000e_tx_pkt_send in QEMU's e1000e_core.c).
_RCTL_LOOPBACK = 1 << 6
#: Transmit: enable, pad short packets.
_TCTL_ON = 1 << 1 | 1 << 3

# A ring's registers, from its first.
_LOW, _HIGH, _LENGTH, _HEAD, _TAIL, _CONTROL = 0x00, 0x04, 0x08, 0x10, 0x18, 0x28
_QUEUE_ENABLE = 1 << 25

DESCRIPTOR = 16
#: The smallest ring the devices take: its bytes are a multiple of 128.
_RING = 8 * DESCRIPTOR
#: Where things lie in the mailbox page.
_TX_RING, _RX_RING, _HEADER, _FRAME, _LOOPED = 0x000, 0x100, 0x200, 0x240, 0x800

RECEIVE_BUFFER = 2048
#: Broadcast, a locally administered sender, the second EtherType for local experiments (IEEE 802); a number follows.
_ETHERNET = bytes.fromhex("ffffffffffff02767464000188b6")
HEADER_SIZE = len(_ETHERNET) + 4
PAYLOAD_MAX = 1514 - HEADER_SIZE
#: A frame that is sent from the mailbox.
_FRAME_MAX = _LOOPED - _FRAME

_RESET_S = 2.0
_LINK_S = 10.0
_TRANSMIT_S = 2.0


class Received(NamedTuple):
    """A receive descriptor after the device wrote it back: frame bytes, and its status and error bits."""

    length: int
    status: int
    errors: int


class Model(NamedTuple):
    """What differs between NIC models.

    `interrupt_mask` lists registers that mask interrupts when written with ones, `transmit` and `receive` are the
    first registers of the queues. `per_queue` tells that a queue has an enable bit of its own. The functions encode a
    transmit descriptor from address, length, whether it is the last, and the packet's length; a receive descriptor
    from its address; and decode a written-back one (None while it is not).
    """

    name: str
    identifications: tuple[int, ...]
    interrupt_mask: tuple[int, ...]
    transmit: int
    receive: int
    per_queue: bool
    receive_setup: tuple[tuple[int, int], ...]
    transmit_descriptor: Callable[[int, int, bool, int], bytes]
    receive_descriptor: Callable[[int], bytes]
    received: Callable[[bytes], Received | None]


class Nic:
    """A NIC whose rings and frame header lie in the mailbox page.

    With `loopback` it receives what it sends, so that it needs no wire.
    """

    def __init__(
        self, model: Model, function: Function, mailbox: Mailbox, announcer: Announcer, *, loopback: bool = False
    ) -> None:
        self._model = model
        self._loopback = _RCTL_LOOPBACK if loopback else 0
        self._function = function
        self._mailbox = mailbox
        self._announcer = announcer
        self._sent = 0
        self._armed: dict[str, Any] | None = None
        self._reset()

    def describe(self) -> dict[str, Any]:
        """Status register, and the bytes a receive buffer must have."""
        return {"status": self._function.read32(_STATUS), "receive_buffer": RECEIVE_BUFFER}

    def read(self, address: int, length: int, *, purpose: str) -> dict[str, Any]:
        """Send one frame: a header from the mailbox (answered as `header`), then `length` bytes read from `address`."""
        if not 0 < length <= PAYLOAD_MAX:
            raise Refused(f"a frame carries 1 to {PAYLOAD_MAX} bytes, not {length}")
        self._sent += 1
        header = _ETHERNET + self._sent.to_bytes(4, "big")
        last = self._prepare_transmission(header, address, length)
        announced = self._announcer.started(
            direction=FROM_MEMORY,
            address=address,
            length=length,
            purpose=purpose,
            registers=self._queue(self._model.transmit),
            doorbell={"register": self._model.transmit + _TAIL, "value": 2},
            rings=[self._staging(_TX_RING, _RING, last), self._staging(_HEADER, HEADER_SIZE, header)],
        )
        self._function.write32(self._model.transmit + _TAIL, 2)
        consumed = poll(lambda: self._function.read32(self._model.transmit + _HEAD) == 2, _TRANSMIT_S)
        status = "ended" if consumed else "running"
        registers = self._queue(self._model.transmit)
        self._announcer.ended(announced, status=status, registers=registers)
        written_back = bool(self._mailbox.read(_TX_RING + DESCRIPTOR + 12, 1)[0] & 1)
        return {
            "dma": announced["dma"],
            "status": status,
            "written_back": written_back,
            "header": header.hex(),
            "registers": registers,
        }

    def send(self, frame: bytes) -> dict[str, Any]:
        """Send `frame` from the mailbox; with loopback it is received."""
        if not 0 < len(frame) <= _FRAME_MAX:
            raise Refused(f"a frame from the mailbox has 1 to {_FRAME_MAX} bytes, not {len(frame)}")
        descriptor = self._model.transmit_descriptor(self._mailbox.bus_address + _FRAME, len(frame), True, len(frame))  # noqa: FBT003
        self._mailbox.write(_FRAME, frame)
        self._switch_transmitter(on=False)
        self._place_ring(self._model.transmit, _TX_RING, descriptor)
        self._switch_transmitter(on=True)
        self._function.write32(self._model.transmit + _TAIL, 1)
        sent = poll(lambda: self._function.read32(self._model.transmit + _HEAD) == 1, _TRANSMIT_S)
        return {"status": "ended" if sent else "running", "registers": self._queue(self._model.transmit)}

    def arm_loop(self) -> dict[str, Any]:
        """Let what is sent next be received into the mailbox, at `offset` of it, behind a header of `header` bytes."""
        self.arm_receive(self._mailbox.bus_address + _LOOPED, purpose="staging")
        return {"offset": _LOOPED, "header": HEADER_SIZE}

    def arm_receive(self, address: int, *, purpose: str) -> dict[str, Any]:
        """Let the next frame from the wire be written to `address`; up to `RECEIVE_BUFFER` bytes of it.

        An earlier arming that no frame has used is taken back.
        """
        descriptor = self._model.receive_descriptor(address)
        self._prepare_reception(descriptor)
        announced = self._announcer.started(
            direction=TO_MEMORY,
            address=address,
            length=RECEIVE_BUFFER,
            purpose=purpose,
            registers=self._queue(self._model.receive),
            doorbell={"register": self._model.receive + _TAIL, "value": 1},
            rings=[self._staging(_RX_RING, _RING, descriptor)],
        )
        self._armed = announced
        self._function.write32(self._model.receive + _TAIL, 1)
        return {"dma": announced["dma"], "registers": self._queue(self._model.receive)}

    def arm_ring(
        self, address: int, ring: Buffer, offset: int, iova: int, count: int, *, purpose: str
    ) -> dict[str, Any]:
        """Let each of the next `count` frames from the wire be written to `address`, one over the other.

        The descriptors are put at `offset` of the buffer `ring`, which the device reaches under `iova`.
        """
        descriptors = self._model.receive_descriptor(address) * (count + 1)
        if len(descriptors) % _RING:
            raise Refused(f"a ring has a multiple of 8 descriptors, one of which stays unused; not {count + 1}")
        ring.write(offset, descriptors)
        self._switch_receiver(on=False)
        for register, value in self._model.receive_setup:
            self._function.write32(register, value)
        self._start_ring(self._model.receive, iova, len(descriptors))
        self._switch_receiver(on=True)
        announced = self._announcer.started(
            direction=TO_MEMORY,
            address=address,
            length=RECEIVE_BUFFER,
            purpose=purpose,
            registers=self._queue(self._model.receive),
            doorbell={"register": self._model.receive + _TAIL, "value": count},
            rings=[{"address": iova, "length": len(descriptors), "content": descriptors[:DESCRIPTOR].hex()}],
        )
        self._function.write32(self._model.receive + _TAIL, count)
        return {"dma": announced["dma"], "registers": self._queue(self._model.receive)}

    def received(self, timeout_s: float) -> dict[str, Any]:
        """Whether the armed descriptor was used, waiting up to `timeout_s` for it; its content if it was."""
        if self._armed is None:
            raise Refused("no reception is armed")
        result = poll(lambda: self._model.received(self._mailbox.read(_RX_RING, DESCRIPTOR)), timeout_s)
        registers = self._queue(self._model.receive)
        answer = {"dma": self._armed["dma"], "done": result is not None, "registers": registers}
        if result is None:
            return answer
        self._announcer.ended(self._armed, status="ended", registers=registers)
        self._armed = None
        return {**answer, **result._asdict()}

    def quiesce(self) -> None:
        """Stop both rings."""
        self._switch_receiver(on=False)
        self._switch_transmitter(on=False)

    def _switch_receiver(self, *, on: bool) -> None:
        self._function.write32(_RCTL, _RCTL_PROMISCUOUS | self._loopback if on else 0)

    def _switch_transmitter(self, *, on: bool) -> None:
        self._function.write32(_TCTL, _TCTL_ON if on else 0)

    def _reset(self) -> None:
        function = self._function
        self._mask_interrupts()
        function.write32(_CTRL, function.read32(_CTRL) | _CTRL_RESET)
        wait_for("the NIC's reset", lambda: not function.read32(_CTRL) & _CTRL_RESET, _RESET_S)
        self._mask_interrupts()
        function.write32(_CTRL, function.read32(_CTRL) | _CTRL_SET_LINK_UP)
        if not self._link():
            # The 82576 comes out of a reset without a link; its PHY has to be told to look for one.
            function.write32(_MDIC, _MDIC_NEGOTIATE)
        wait_for("the NIC's link", self._link, _LINK_S)

    def _link(self) -> bool:
        return bool(self._function.read32(_STATUS) & _STATUS_LINK_UP)

    def _mask_interrupts(self) -> None:
        for register in self._model.interrupt_mask:
            self._function.write32(register, 0xFFFFFFFF)

    def _prepare_transmission(self, header: bytes, address: int, length: int) -> bytes:
        """Lay out both descriptors of one packet with the ring at rest; answers the ring's bytes."""
        whole = len(header) + length
        bus = self._mailbox.bus_address
        first = self._model.transmit_descriptor(bus + _HEADER, len(header), False, whole)  # noqa: FBT003 - not the last
        second = self._model.transmit_descriptor(address, length, True, whole)  # noqa: FBT003 - the last
        self._mailbox.write(_HEADER, header)
        self._switch_transmitter(on=False)
        self._place_ring(self._model.transmit, _TX_RING, first + second)
        self._switch_transmitter(on=True)
        return first + second

    def _prepare_reception(self, descriptor: bytes) -> None:
        self._switch_receiver(on=False)
        for register, value in self._model.receive_setup:
            self._function.write32(register, value)
        self._place_ring(self._model.receive, _RX_RING, descriptor)
        self._switch_receiver(on=True)

    def _place_ring(self, queue: int, offset: int, descriptors: bytes) -> None:
        """Start a ring over: `descriptors` first, nothing handed to the device yet."""
        if self._model.per_queue:
            self._function.write32(queue + _CONTROL, 0)
        self._mailbox.write(offset, descriptors.ljust(_RING, b"\0"))
        self._start_ring(queue, self._mailbox.bus_address + offset, _RING)

    def _start_ring(self, queue: int, bus: int, length: int) -> None:
        write = self._function.write32
        if self._model.per_queue:
            write(queue + _CONTROL, 0)
        write(queue + _LOW, bus & 0xFFFFFFFF)
        write(queue + _HIGH, bus >> 32)
        write(queue + _LENGTH, length)
        write(queue + _HEAD, 0)
        write(queue + _TAIL, 0)
        if self._model.per_queue:
            write(queue + _CONTROL, _QUEUE_ENABLE)

    def _queue(self, queue: int) -> dict[str, int]:
        read = self._function.read32
        return {
            "base": read(queue + _HIGH) << 32 | read(queue + _LOW),
            "length": read(queue + _LENGTH),
            "head": read(queue + _HEAD),
            "tail": read(queue + _TAIL),
            "link": int(self._link()),
        }

    def _staging(self, offset: int, length: int, content: bytes) -> dict[str, Any]:
        return {"address": self._mailbox.bus_address + offset, "length": length, "content": content.hex()}
