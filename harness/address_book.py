"""The host's own books of guest memory: which buffer lies where, and which domain maps it at what address.

They turn a scenario's names into bus addresses, and, once a protection has been taken away for a counter-proof, into
guest-physical addresses: a device that nothing translates for must be given the address of the page itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from harness.errors import HarnessError, InfraError

PAGE = 4096


@dataclass(frozen=True, slots=True)
class Buffer:
    """A named piece of guest memory; `pages` are the guest-physical addresses of its 4 KiB pages, in order.

    A piece that is smaller than a page need not begin at one.
    """

    name: str
    size: int
    pages: tuple[int, ...]

    def physical(self, offset: int, length: int) -> int:
        """Give the guest-physical address of `offset`; InfraError where `length` bytes there are not contiguous."""
        if offset < 0 or length <= 0 or offset + length > self.size:
            raise HarnessError(f"'{self.name}' has {self.size} bytes; asked for {length} at {offset:#x}")
        first, last = offset // PAGE, (offset + length - 1) // PAGE
        if self.pages[last] - self.pages[first] != (last - first) * PAGE:
            raise InfraError(f"'{self.name}'+{offset:#x}: {length} bytes are not contiguous in guest memory")
        return self.pages[first] + offset % PAGE


@dataclass(frozen=True, slots=True)
class IovaRange:
    """One range of I/O virtual addresses of a domain; `live` until it is unmapped or its domain ends.

    A `private` one means nothing to a device of another domain: a guest-physical address of a nested guest.
    """

    domain: str
    buffer: str
    iova: int
    size: int
    live: bool = True
    private: bool = False


@dataclass(frozen=True, slots=True)
class AimedAt:
    """Where a DMA is aimed: the address put on the bus, and the bytes of guest memory that must tell the outcome."""

    name: str
    address: int
    physical: int
    length: int


@dataclass(slots=True)
class AddressBook:
    """Buffers by name, and every range that was ever mapped; `translated` is whether a unit translates for devices."""

    translated: bool
    buffers: dict[str, Buffer] = field(default_factory=dict)
    ranges: list[IovaRange] = field(default_factory=list)

    def add(self, buffer: Buffer) -> None:
        """Book a new buffer."""
        self.buffers[buffer.name] = buffer

    def mapped(self, domain: str, buffer: str, iova: int, size: int, *, private: bool = False) -> None:
        """Book a mapping."""
        self.ranges.append(IovaRange(domain, buffer, iova, size, private=private))

    def unmapped(self, domain: str, iova: int | None = None) -> None:
        """Book the end of the mapping at `iova` of `domain`, or of all of its mappings."""
        self.ranges = [
            replace(known, live=False) if known.domain == domain and iova in (None, known.iova) else known
            for known in self.ranges
        ]

    def live_range(self, domain: str, buffer: str) -> IovaRange:
        """Find where `domain` maps `buffer` now; HarnessError where it does not."""
        for known in reversed(self.ranges):
            if (known.domain, known.buffer, known.live) == (domain, buffer, True):
                return known
        raise HarnessError(f"domain '{domain}' does not map '{buffer}'")

    def aim(self, domain: str | None, name: str, offset: int, length: int) -> AimedAt:
        """Find the address that a device of `domain` must use to hit `offset` of a buffer.

        That is the IOVA in its own domain, else the one that anybody's domain has or had for it, else, for memory
        that no domain ever mapped or when nothing translates, the guest-physical address.
        """
        physical = self.buffers[name].physical(offset, length)
        known = [found for found in self._reachable(domain) if found.buffer == name]
        label = f"{name}+{offset:#x}" if offset else name
        if not known or not self.translated:
            return AimedAt(label, physical, physical, length)
        return AimedAt(label, self._nearest(domain, known).iova + offset, physical, length)

    def aim_at(self, domain: str | None, iova: int, length: int) -> AimedAt:
        """Find the bytes behind a numeric IOVA: in the device's own domain, else in any that maps or mapped it."""
        reachable = self._reachable(domain)
        known = [found for found in reachable if found.iova <= iova and iova + length <= found.iova + found.size]
        if not known:
            raise HarnessError(f"nothing was ever mapped at {iova:#x}, so no bytes could tell what happened there")
        best = self._nearest(domain, known)
        physical = self.buffers[best.buffer].physical(iova - best.iova, length)
        return AimedAt(f"{best.buffer}+{iova - best.iova:#x}", iova if self.translated else physical, physical, length)

    def _reachable(self, domain: str | None) -> list[IovaRange]:
        return [found for found in self.ranges if not found.private or found.domain == domain]

    def _nearest(self, domain: str | None, known: list[IovaRange]) -> IovaRange:
        own = [found for found in known if found.domain == domain]
        return max(own or known, key=lambda found: found.live)
