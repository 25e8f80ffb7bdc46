"""A NIC under its kernel driver that is made to read, from outside, what the driver has just unmapped.

The guest sends a frame; its driver maps the buffer for that and unmaps it once the frame has left. The machine is
stopped then, so that nothing but the harness acts and the guest's timers stand still: what the unit still translates
can be tried at leisure. The harness lays descriptors into the driver's own transmit ring, moves the tail, and puts
everything back before the guest runs on. The NIC sends what it could read; QEMU hands the frames out when the machine
runs again.

Registers and legacy descriptors are those of the 82574's data sheet; QEMU fetches descriptor and buffer while the tail
is being written (e1000e_start_xmit in hw/net/e1000e_core.c).
"""

from __future__ import annotations

import secrets
import struct
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from harness.errors import HarnessError, InfraError, WaitTimeout
from harness.invalidations import Invalidation, Range, invalidation
from harness.session import AttachedDevice, Session
from harness.table_edit import domain_id_of, walk_of
from harness.waiting import Deadline, wait_for
from harness.witnesses.host_trace import TraceLine, descriptor, read_trace, translation

_TDBAL, _TDBAH, _TDLEN, _TDH, _TDT = 0x3800, 0x3804, 0x3808, 0x3810, 0x3818
_RDBAL, _RDBAH, _RDH = 0x2800, 0x2804, 0x2810

#: A legacy descriptor: the buffer, its length with EOP and IFCS, and a status that is never written, since nothing asks
#: for that: the driver is not interrupted.
_DESCRIPTOR = struct.Struct("<QII")
_COMMAND = 0x0300_0000
_STATUS = 12

#: Bytes of the stale read and of the one that must land. A refused one makes QEMU skip the next (`skip_cp` in its
#: core), so there is a spare one in between.
STALE, SPARE, CONTROL = 128, 96, 112

_PAGE = 0x1000

#: Seconds for a frame to leave, for the driver to unmap it, for the unit to be told, and for all tries together.
_FRAME_S, _UNMAP_S, _TOLD_S, _ALL_S = 10.0, 5.0, 5.0, 60.0


class Missed(HarnessError):
    """What was to be caught had gone by already; another frame may do better."""


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A buffer that the driver unmapped: its bus address, where it lay, and when its frame was asked for."""

    iova: int
    physical: int
    asked: float

    @property
    def page(self) -> Range:
        """The page of the bus address."""
        return Range(self.iova & -_PAGE, _PAGE)


@dataclass(slots=True)
class StaleReader:
    """The NIC `device`, an e1000e whose kernel driver has brought it up and that nobody else uses meanwhile."""

    session: Session
    device: AttachedDevice
    _bar: int = field(init=False)
    _domain_id: int = field(init=False)
    _trace: list[TraceLine] = field(default_factory=list)
    _offset: int = 0

    def __post_init__(self) -> None:
        facts = self.session.call("pci", bdf=self.device.address)
        self._bar = int(facts["resources"][0]["start"])
        self._domain_id = domain_id_of(self.session, self.device)

    def catch(self, *, window: bool) -> None:
        """Have the driver unmap a buffer and read that: in the `window` before the unit is told of it, and afterwards.

        What has gone by is tried again with another frame; WaitTimeout in the end. Where it turns out that there is a
        window although there must be none, or the other way round, that is recorded and nothing else is tried.
        """

        def caught() -> bool:
            try:
                self._once(window=window)
            except Missed as missed:
                self.session.record("missed", why=missed.message)
                return False
            return True

        wait_for("a buffer that was unmapped a moment ago", caught, Deadline.after(_ALL_S), abort=[self.session.abort])

    def _once(self, *, window: bool) -> None:
        wire, index, asked = self.session.wire(self.device), self._register(_TDT), time.time()
        wire.drain()
        with ThreadPoolExecutor(1, thread_name_prefix="sender") as pool:
            sent = pool.submit(self._send)
            try:
                wire.receive(Deadline.after(_FRAME_S))
                self._stop()
                unmapped = self._unmapped(index, asked)
                if self._is_otherwise(unmapped, window=window):
                    return
                if window:
                    self._attempt(unmapped, "before")
            finally:
                self._go_on()
            sent.result()
        told = Deadline.after(_TOLD_S)
        wait_for("the unit to be told of it", lambda: self._told(unmapped), told, abort=[self.session.abort])
        with self.session.provoking():
            self._stop()
            try:
                if walk_of(self.session, self.device, unmapped.iova).reason is None:
                    raise Missed("the address had been mapped anew before the machine stood still")
                self._attempt(unmapped, "after")
            finally:
                self._go_on()

    def _is_otherwise(self, unmapped: Unmapped, *, window: bool) -> bool:
        """Look whether the unit has been told, now that the unmapping is over, and record a surprise.

        The invalidation of a strict domain selects pages, that of a lazy one does not.
        """
        told = self._told(unmapped)
        strict = any(one.selective for one in told)
        if window and not strict:
            if told:
                raise Missed("the unit had been told of everything before the machine stood still")
            return False
        if window or not strict:
            self.session.record("surprise", window="closed" if strict else "open", iova=unmapped.iova, told=len(told))
            return True
        return False

    def _send(self) -> None:
        """Have the guest send one frame of random bytes."""
        self.session.call(
            "traffic", bdf=self.device.address, frames=1, size=600, send_seed=secrets.token_hex(16),
            timeout_s=_FRAME_S, within_s=_FRAME_S + 15,
        )  # fmt: skip

    def _unmapped(self, index: int, asked: float) -> Unmapped:
        """Let the guest go on bit by bit until its driver has unmapped the buffer of descriptor `index` and gone on.

        It clears the status, in which the NIC said that it was done, when the unmapping has returned (e1000_put_txbuf
        in e1000_clean_tx_irq, drivers/net/ethernet/intel/e1000e/netdev.c). That the tables do not map the buffer is not
        enough: QEMU likes to stop a CPU where it writes the tail of the invalidation queue, amid a strict unmapping.
        Where the buffer lies, QEMU traced when the NIC read the frame.
        """
        machine, place = self.session.guest.machine, self._descriptor(index)
        iova = int.from_bytes(machine.memory.read(place, 8), "little")
        places = [
            found.physical
            for line in self._lines()
            if line.t >= asked and (found := translation(line)) is not None
            if (found.source, found.iova & -_PAGE) == (self.device.source, iova & -_PAGE)
        ]
        if not places:
            raise InfraError(f"QEMU's trace does not tell where the NIC read the frame at {iova:#x}")

        def gone() -> bool:
            if machine.memory.read(place + _STATUS, 4) == bytes(4):
                return True
            self._go_on()
            self._stop()
            return False

        ends = Deadline.after(_UNMAP_S)
        wait_for("the driver to unmap the frame", gone, ends, abort=[self.session.abort], every_s=0.0)
        return Unmapped(iova, places[-1] & -_PAGE | iova & (_PAGE - 1), asked)

    def _told(self, unmapped: Unmapped) -> list[Invalidation]:
        """Give what told the unit, since the frame was asked for, to forget the page of the buffer."""
        found = [
            told
            for line in self._lines()
            if (raw := descriptor(line)) is not None and (told := invalidation(line.t, raw, "")) is not None
        ]
        mine = [told for told in found if told.t >= unmapped.asked and told.of_domain(self._domain_id)]
        return [told for told in mine if told.touches(unmapped.page)]

    def _attempt(self, unmapped: Unmapped, when: str) -> None:
        """Have the NIC read the buffer that was unmapped and one that is mapped, and record what came out of it.

        Both hold fresh bytes meanwhile. The machine stands still; it runs when this returns.
        """
        mapped = self._receive_buffer()
        secret, control = secrets.token_bytes(STALE), secrets.token_bytes(CONTROL)
        reason = walk_of(self.session, self.device, unmapped.iova).reason
        began = time.time()
        self._transmit(
            [(unmapped.iova, STALE), (mapped.iova, SPARE), (mapped.iova, CONTROL)],
            [(unmapped.physical, secret), (mapped.physical, control)],
        )
        ended = time.time()
        self._go_on()
        frames = self._frames(control)
        self.session.record(
            "stale",
            when=when,
            source_id=str(self.device.source),
            domain_id=self._domain_id,
            iova=unmapped.iova,
            physical=unmapped.physical,
            asked=unmapped.asked,
            began=began,
            ended=ended,
            reason=reason,
            secret=secret.hex(),
            control=control.hex(),
            frames=[frame.hex() for frame in frames],
        )

    def _receive_buffer(self) -> Unmapped:
        """Give the buffer that the next frame from the wire would be written to; it is mapped."""
        ring = self._register(_RDBAL) | self._register(_RDBAH) << 32
        place = self._physical(ring + self._register(_RDH) * _DESCRIPTOR.size)
        iova = int.from_bytes(self.session.guest.machine.memory.read(place, 8), "little")
        return Unmapped(iova, self._physical(iova), 0.0)

    def _transmit(self, reads: Sequence[tuple[int, int]], fill: Sequence[tuple[int, bytes]]) -> None:
        """Have the NIC read at each bus address of `reads` so many bytes, while memory holds `fill`; leave no trace."""
        machine = self.session.guest.machine
        head, entries = self._register(_TDH), self._register(_TDLEN) // _DESCRIPTOR.size
        if head != self._register(_TDT):
            raise Missed("the NIC had something to send")
        indices = [(head + number) % entries for number in range(len(reads) + 1)]
        laid = [
            (self._descriptor(index), _DESCRIPTOR.pack(address, _COMMAND | length, 0))
            for index, (address, length) in zip(indices, reads, strict=False)
        ]
        kept = [(place, machine.memory.read(place, len(data))) for place, data in (*fill, *laid)]
        for place, data in (*fill, *laid):
            machine.memory.write(place, data)
        self._set_register(_TDT, indices[-1])
        through = self._register(_TDH)
        for place, data in kept:
            machine.memory.write(place, data)
        # First the head: a tail that differs from it would have the NIC send again.
        self._set_register(_TDH, head)
        self._set_register(_TDT, head)
        if through != indices[-1]:
            raise InfraError(f"the NIC went through its ring up to {through}, not to {indices[-1]}")

    def _frames(self, control: bytes) -> list[bytes]:
        """Take the frames off the wire, up to the last control, behind which there is none."""
        found: list[bytes] = []

        def is_last(frame: bytes) -> bool:
            found.append(frame)
            return frame == control

        try:
            self.session.wire(self.device).receive(Deadline.after(_FRAME_S), is_last)
        except WaitTimeout:
            self.session.record("no-control", frames=len(found))
        return found

    def _descriptor(self, index: int) -> int:
        """Give the guest-physical address of a descriptor of the transmit ring."""
        ring = self._register(_TDBAL) | self._register(_TDBAH) << 32
        return self._physical(ring + index * _DESCRIPTOR.size)

    def _physical(self, iova: int) -> int:
        seen = walk_of(self.session, self.device, iova)
        if seen.address is None:
            raise InfraError(f"the driver of '{self.device.name}' has not mapped what it uses:\n{seen.explain()}")
        return seen.address

    def _register(self, offset: int) -> int:
        return self.session.guest.machine.register(self._bar + offset)

    def _set_register(self, offset: int, value: int) -> None:
        self.session.guest.machine.set_register(self._bar + offset, value)

    def _lines(self) -> list[TraceLine]:
        """Give all lines that QEMU has traced by now."""
        texts, self._offset = self.session.guest.machine.trace_lines(self._offset)
        self._trace += read_trace(texts)[0]
        return self._trace

    def _stop(self) -> None:
        self.session.guest.machine.monitor.execute("stop")

    def _go_on(self) -> None:
        """Let the guest run; nothing happens if it does."""
        self.session.guest.machine.cont()
