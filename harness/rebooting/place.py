"""Memory that outlives a reboot, and how a device is led to it.

A kernel that is started with `memmap=64K$ADDRESS` takes nothing of it, and neither do firmware and boot loader, so that
only a device changes it. Its first page is what the device's mapping leads to. Its second page lies, in the machine's
memory, at the very address that the device uses: there a write would end that nobody translates, as after a reset. The
upper half holds the device's descriptors, at the same address with and without translation, so that they are there for
a device that goes on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from harness.address_book import PAGE
from harness.session import AttachedDevice, Session, fresh_bytes

#: Bytes of it.
SIZE = 64 << 10

_RING = SIZE // 2

#: What the buffer is called in the guest.
RESERVED = "reserved"


@dataclass(frozen=True, slots=True)
class Place:
    """The reserved memory that begins at the guest-physical `address`."""

    address: int

    @property
    def mapped(self) -> int:
        """Where writes of the device go that the unit translates."""
        return self.address

    @property
    def iova(self) -> int:
        """The address that the device uses, and where writes of it go that nobody translates."""
        return self.address + PAGE

    @property
    def ring(self) -> int:
        """The address of its descriptors, translated or not."""
        return self.address + _RING

    @property
    def descriptors(self) -> int:
        """How many descriptors of 16 bytes have room there."""
        return _RING // 16

    def open(self, session: Session, device: AttachedDevice) -> None:
        """Map it for the domain of `device`."""
        session.call("buffer_reserved", name=RESERVED, address=self.address, size=SIZE)
        self._map(session, device, iova=self.iova, offset=0, size=PAGE)
        self._map(session, device, iova=self.ring, offset=_RING, size=_RING)

    def _map(self, session: Session, device: AttachedDevice, *, iova: int, offset: int, size: int) -> None:
        domain = session.domain_of(device)
        session.call("domain_map", domain=domain, buffer=RESERVED, iova=iova, offset=offset, size=size, access="rw")

    def plant(self, session: Session) -> bytes:
        """Put fresh bytes, from outside, wherever the device could write to; gives those at its own address."""
        fresh = b""
        for page in (self.mapped, self.iova):
            fresh = fresh_bytes(PAGE)
            session.guest.machine.memory.write(page, fresh)
        return fresh

    def read(self, session: Session, when: str) -> dict[str, str]:
        """Read both pages from outside, journalled with `when`; gives their digests."""
        pages = {"mapped": self.mapped, "untranslated": self.iova}
        return {
            name: hashlib.sha256(session.read_physical(page, PAGE, label=f"{name} {when}")).hexdigest()
            for name, page in pages.items()
        }
