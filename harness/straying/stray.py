"""A receive descriptor of a NIC's kernel driver that leads astray, and the frame that the NIC uses it for.

Either it gets a wrong address, or its own is no longer mapped, as if the driver had unmapped the buffer too early.

The driver does not look at the address in a descriptor again: it unmaps what its own books say, and lays the address of
a fresh buffer into the descriptor when its turn comes (e1000_clean_rx_irq and e1000_alloc_rx_buffers in Linux'
e1000e/netdev.c, igb_clean_rx_irq and igb_alloc_rx_buffers in igb/igb_main.c). QEMU reads a descriptor when a frame
arrives for it (e1000e_write_packet_to_guest, igb_write_packet_to_guest), so an edit holds from then on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from typing import Any

from harness.address_book import AimedAt
from harness.errors import HarnessError, InfraError, WaitTimeout
from harness.patches import Patch
from harness.session import AttachedDevice, Session, fresh_bytes
from harness.straying.ring import ADDRESS, DESCRIPTOR, buffer_name, driver_reached, look, reached, registers_of
from harness.table_edit import walk_of
from harness.vtd.walk import Unreadable
from harness.vtd.walk.mappings import PAGE, mappings
from harness.waiting import Deadline, wait_for
from harness.wire import OTHER_HEADER
from harness.witnesses.host_trace import read_trace
from harness.witnesses.nic_trace import BUFFER_WRITTEN, buffer_write

#: Descriptors that are used for other frames before the one in question.
AHEAD = 2

#: Seconds for the NIC to use a descriptor, and for a frame to be seen where it went.
_USED_S, _SEEN_S = 10.0, 2.0


def record_stray(
    session: Session,
    device: AttachedDevice,
    length: int,
    aimed: AimedAt | None,
    *,
    unmapped: bool = False,
    blocked: bool,
) -> None:
    """Have the NIC use a descriptor for a frame of `length` bytes, and record ring, bytes, and where it wrote.

    The descriptor leads to `aimed`, put there from outside, or stays as the driver made it. `unmapped` has the domain
    not map its buffer meanwhile.
    """
    if any(other.physical == device.name for other in session.devices.values()):
        raise HarnessError(f"'{device.name}' shares its queues with virtual functions", hint="take a NIC without any")
    registers = registers_of(session, device)
    ring = look(session, device, registers)
    index = ring.ahead(AHEAD)
    place = driver_reached(session, device, ring.base + index * DESCRIPTOR)
    before = session.read_physical(place, DESCRIPTOR, label="descriptor of the driver")
    own = int.from_bytes(before[:ADDRESS], "little")
    address, target = (own, buffer_name(index)) if aimed is None else (aimed.address, aimed.name)
    physical = driver_reached(session, device, own) if aimed is None else aimed.physical
    content = session.read_physical(physical, length, label=f"{target} before")
    frames = [OTHER_HEADER + fresh_bytes(length - len(OTHER_HEADER)) for _ in range(AHEAD + 1)]
    issued = session.guest.machine.trace_lines(0)[1]
    with ExitStack() as stack:
        stack.enter_context(session.watching(BUFFER_WRITTEN[device.model]))
        if blocked:
            stack.enter_context(session.provoking())
        if unmapped and not session.raw:
            stack.enter_context(_unmapped(session, device, address, length))
        if aimed is not None:
            stack.enter_context(_edited(session, place, before, address))
        leads, maps = reached(session, device, address), _mappings(session, device, address)
        edited = session.read_physical(place, DESCRIPTOR, label="descriptor for the NIC")
        heads = [_use(session, device, registers, frame) for frame in frames]
        used = session.read_physical(place, DESCRIPTOR, label="descriptor as used")
        if not blocked or session.raw:
            _await_bytes(session, physical, frames[-1])
    after = session.read_physical(physical, length, label=f"{target} after")
    lines, _ = read_trace(session.guest.machine.trace_lines(issued)[0])
    session.record(
        "stray",
        device=device.name,
        model=device.model,
        source_id=str(device.source),
        strays=aimed is not None,
        unmapped=unmapped,
        target=target,
        address=address,
        physical=physical,
        length=length,
        own=own,
        leads=leads,
        ring=asdict(ring),
        index=index,
        place=place,
        descriptors=[before.hex(), edited.hex(), used.hex()],
        heads=heads,
        frames=[frame.hex() for frame in frames],
        writes=[asdict(write) for line in lines if (write := buffer_write(line)) is not None],
        before=content.hex(),
        after=after.hex(),
        mappings=maps,
    )


@contextmanager
def _edited(session: Session, place: int, before: bytes, address: int) -> Iterator[None]:
    """Put `address` into a descriptor; where the NIC did not come to use it, the driver's own is put back."""
    memory = session.guest.machine.memory
    wrong = address.to_bytes(ADDRESS, "little")
    memory.write(place, wrong)
    try:
        yield
    except BaseException:
        if memory.read(place, ADDRESS) == wrong:
            memory.write(place, before[:ADDRESS])
        raise


@contextmanager
def _unmapped(session: Session, device: AttachedDevice, address: int, length: int) -> Iterator[None]:
    """Have the tables not map what a frame at `address` would take, and the unit forget that they did.

    The mapping is put back in the end. The driver may have come to unmap the buffer itself by then: Linux warns of an
    address that leads nowhere and leaves the entry alone (iommu_dma_unmap_page in drivers/iommu/dma-iommu.c).
    """
    for page in range(address & -PAGE, address + length, PAGE):
        leaf = walk_of(session, device, page).entry("leaf")
        old = session.guest.machine.memory.read(leaf.address, leaf.entry.SIZE)
        what = f"mapping of {page:#x}"
        session.patches.make(Patch(device=device.name, what=what, address=leaf.address, old=old, new=bytes(len(old))))
    try:
        yield
    finally:
        session.patches.heal(device.name)


def _use(session: Session, device: AttachedDevice, registers: int, frame: bytes) -> int:
    """Send a frame, wait until the NIC has gone on to the next descriptor, and give its number."""
    ring = look(session, device, registers)
    session.wire(device).send(frame)

    def gone_on() -> bool:
        return look(session, device, registers).head != ring.head

    used = Deadline.after(_USED_S)
    wait_for("the NIC to use a receive descriptor", gone_on, used, abort=[session.abort], every_s=0.005)
    head = look(session, device, registers).head
    if head != (ring.head + 1) % ring.count:
        raise InfraError(f"'{device.name}' used more than one descriptor for a frame: {ring}, and then {head}")
    return head


def _await_bytes(session: Session, physical: int, frame: bytes) -> None:
    """Wait for a frame that should stand there; that it does not is for the judge to say."""
    memory = session.guest.machine.memory
    with suppress(WaitTimeout):
        seen = Deadline.after(_SEEN_S)
        wait_for("the frame", lambda: memory.read(physical, len(frame)) == frame, seen, abort=[session.abort])


def _mappings(session: Session, device: AttachedDevice, address: int) -> list[list[Any]] | None:
    """Give what its domain maps: address, size, where it leads, and the rights; None where there are no tables."""
    if session.raw:
        return None
    memory = session.guest.machine.memory

    def read(place: int, size: int) -> bytes:
        if not memory.holds(place, size):
            raise Unreadable(place)
        return memory.read(place, size)

    try:
        found = list(mappings(walk_of(session, device, address), read))
    except LookupError:  # nothing is translated for it, or it was refused before its domain
        return None
    return [[m.start, m.size, m.physical, "r" * m.readable + "w" * m.writable] for m in found]
