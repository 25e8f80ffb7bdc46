"""What paging tables of both stages have in common: 512 entries each, and pages of 4 KiB, 2 MiB and 1 GiB."""

from __future__ import annotations

from harness.vtd.unit import Unit

PAGE_SHIFT = 12
_BITS = 9

#: The most levels of which a single entry maps a page: 1 GiB.
LARGEST = 3

#: Where the address ends in an entry (bits 63:52 are ignored, or have a meaning of their own).
_ADDRESS_BITS = 52


def width(levels: int) -> int:
    """Give the bits of an address that tables of so many levels translate."""
    return PAGE_SHIFT + _BITS * levels


def offset_bits(level: int) -> int:
    """Give the bits of the offset in a page that an entry of this level maps."""
    return PAGE_SHIFT + _BITS * (level - 1)


def index(address: int, level: int) -> int:
    """Give the entry of a table of this level that `address` leads to."""
    return address >> offset_bits(level) & (1 << _BITS) - 1


def landing(frame: int, level: int, requested: int) -> tuple[int, int]:
    """Give where a request lands in the page at `frame` that an entry of this level maps, and the size of that page."""
    page = 1 << offset_bits(level)
    return frame & -page | requested & page - 1, page


def beyond_memory(unit: Unit) -> int:
    """Give the bits of an entry's address that no address in memory has, which are reserved."""
    return (1 << _ADDRESS_BITS) - (1 << unit.host_address_width)
