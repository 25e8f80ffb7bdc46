"""edu, QEMU's teaching device (hw/misc/edu.c, docs/specs/edu.rst), as the rogue: it copies where it is told.

It has 4 KiB of memory of its own and one DMA channel between that and the bus. It says "done" even when its DMA was
refused, and it clamps addresses to its `dma_mask`, so the mask is opened wide and its word is not believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from harness.scenario.device import BareAccess, Device
from harness.session import AttachedDevice, Engine, Session, fresh_bytes


@dataclass(frozen=True, slots=True)
class CopyChannel:
    """The DMA channel of edu; what it moves is staged in a page that its domain maps.

    Where the tables are broken, they are whole while bytes are staged, so that only the DMA itself is refused.
    """

    def compose(self, length: int) -> bytes:
        """Give a payload of `length` bytes; any will do."""
        return fresh_bytes(length)

    def write(self, session: Session, device: AttachedDevice, address: int, payload: bytes, *, purpose: str) -> None:
        """Fetch the payload from the staging page, then write it to `address`."""
        with session.patches.whole():
            session.call("device_load", device=device.name, hex=payload.hex())
        session.call("device_write", device=device.name, address=address, length=len(payload), purpose=purpose)

    def read(self, session: Session, device: AttachedDevice, address: int, length: int, *, purpose: str) -> bytes:
        """Read into the device over a random filling, then put what it holds on the staging page and look there.

        Of a refused read QEMU lets the device see zeros.
        """
        with session.patches.whole():
            session.call("device_load", device=device.name, hex=fresh_bytes(length).hex())
        session.call("device_read", device=device.name, address=address, length=length, purpose=purpose)
        with session.patches.whole():
            session.call("device_store", device=device.name, length=length)
        staging = session.book.buffers[device.staging]
        return session.read_physical(staging.physical(0, length), length, label=f"what {device.name} holds")


class Edu(Device, model="edu"):
    """QEMU's teaching device, used as the rogue: a DMA channel that goes to any address it is given."""

    model: Literal["edu"]

    bare: ClassVar[frozenset[BareAccess]] = frozenset({"read", "write", "interrupt"})
    bare_max_dma: ClassVar[int | None] = 512  # its payloads are pieces of the 2 KiB that it is loaded with
    max_dma: ClassVar[int] = 4096

    def qdev(self) -> dict[str, object]:
        """Give the properties QEMU adds it with."""
        return {"driver": "edu", "dma_mask": 0xFFFF_FFFF_FFFF_FFFF}

    @property
    def engine(self) -> Engine:
        """Its copy channel."""
        return CopyChannel()
