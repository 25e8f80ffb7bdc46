"""Which mapping a refused request missed, and by how much.

What a driver did wrong can often be read off that: an address just behind a buffer is an overrun, one page of a buffer
that is gone is a stale address, and an address of memory that is mapped elsewhere was never made a bus address at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.vtd.faults import Access
from harness.vtd.walk.mappings import PAGE, Mapping

#: A mapping farther away than this was hardly meant.
NEAR = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """Where `address` lies among the mappings of a domain that permit `access`.

    `within` maps it. `below` and `above` are the whole ranges without a gap that end before it and begin after it;
    `denies` maps it too, but not for this access; `behind` leads to it: its *physical* addresses have `address` in
    them, as if the driver had given the address of the memory instead of that of its mapping.
    """

    address: int
    access: Access
    within: Mapping | None = None
    denies: Mapping | None = None
    below: range | None = None
    above: range | None = None
    behind: Mapping | None = None

    @property
    def beyond(self) -> int | None:
        """Bytes from the end of the range below to the address: 0 for the first byte behind it."""
        return None if self.below is None else self.address - self.below.stop

    @property
    def short(self) -> int | None:
        """Bytes from the address to the range above: 1 for the last byte before it."""
        return None if self.above is None else self.above.start - self.address

    def __str__(self) -> str:
        at = f"{self.address:#x}"
        if self.within is not None:
            return f"{at} is mapped, to {self.within.physical + self.address - self.within.start:#x}"
        told = []
        if self.denies is not None:
            told.append(f"is mapped, but not for a {self.access}")
        near = (
            (self.beyond, self.below, "beyond the end of"),
            (self.short, self.above, "before the beginning of"),
        )
        told += [
            f"is {_bytes(distance)} {how} the mapping {span.start:#x}-{span.stop - 1:#x}"
            for distance, span, how in near
            if distance is not None and span is not None and distance <= NEAR
        ]
        if not told:
            told.append(f"is near no mapping that permits a {self.access}{self._farther()}")
        if self.behind is not None:
            bus = self.behind.start + self.address - self.behind.physical
            told.append(f"is the physical address of memory whose bus address is {bus:#x}")
        return f"{at} {', and '.join(told)}"

    def _farther(self) -> str:
        spans = [(d, s) for d, s in ((self.beyond, self.below), (self.short, self.above)) if d is not None and s]
        if not spans:
            return ": there is none"
        distance, span = min(spans, key=lambda found: found[0])
        return f": the nearest, {span.start:#x}-{span.stop - 1:#x}, is {_bytes(distance)} away"


def missed(mappings: Iterable[Mapping], address: int, access: Access) -> Miss:
    """Tell where `address` lies among `mappings`, which come in the order of their addresses, none over another."""
    within = denies = behind = below = above = None
    run: range | None = None
    for mapping in mappings:
        if behind is None and mapping.physical <= address < mapping.physical + mapping.size:
            behind = mapping
        holds = mapping.start <= address < mapping.end
        if not mapping.permits(access):
            denies = mapping if holds else denies
            continue
        within = mapping if holds else within
        begin = run.start if run is not None and run.stop == mapping.start else mapping.start
        run = range(begin, mapping.end)
        if run.stop <= address:
            below = run
        elif run.start > address and (above is None or above.start == run.start):
            above = run
    if within is not None:
        return Miss(address=address, access=access, within=within)
    return Miss(address=address, access=access, denies=denies, below=below, above=above, behind=behind)


def _bytes(distance: int) -> str:
    pages, rest = divmod(distance, PAGE)
    if pages and not rest:
        return f"{distance} bytes ({pages} page{'s' if pages > 1 else ''})"
    return f"{distance} byte{'' if distance == 1 else 's'}"
