"""What a remapping unit offers, as far as translation depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from harness.vtd.registers import Capability, ExtendedCapability

#: CAP.SAGAW: the bit that offers tables of so many levels.
_LEVELS_BIT = {3: 1, 4: 2, 5: 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The offers of a unit.

    `levels` are the depths of second-stage tables it walks, `address_width` is the bits of the largest address that it
    translates, `host_address_width` the bits of an address in memory; bits above that are reserved in all entries.
    `large_levels` are the levels at which an entry may map a large page (2 for 2 MiB, 3 for 1 GiB). `pasid` is whether
    it takes requests with PASID, `rid_pasid` whether context entries choose a PASID for those without.
    """

    levels: frozenset[int]
    address_width: int
    host_address_width: int
    large_levels: frozenset[int] = frozenset()
    scalable_mode: bool = False
    first_stage: bool = False
    second_stage: bool = True
    first_stage_5_levels: bool = False
    first_stage_1gib_pages: bool = False
    nested: bool = False
    pass_through: bool = False
    device_tlb: bool = False
    page_requests: bool = False
    pasid: bool = False
    rid_pasid: bool = False
    abort_dma: bool = False
    snoop_control: bool = False
    posted_interrupts: bool = False

    @classmethod
    def from_registers(
        cls, cap: Capability, ecap: ExtendedCapability, *, host_address_width: int | None = None
    ) -> Self:
        """Read the offers from the capability registers.

        The host's address width is not in them (ACPI's DMAR table tells it); without it, that of the unit is taken.
        """
        width = cap.guest_address_width + 1
        return cls(
            levels=frozenset(level for level, bit in _LEVELS_BIT.items() if cap.address_widths >> bit & 1),
            address_width=width,
            host_address_width=width if host_address_width is None else host_address_width,
            large_levels=frozenset(level + 2 for level in (0, 1) if cap.second_stage_large_pages >> level & 1),
            scalable_mode=bool(ecap.scalable_mode),
            first_stage=bool(ecap.first_stage),
            second_stage=not ecap.scalable_mode or bool(ecap.second_stage),
            first_stage_5_levels=bool(cap.first_stage_5_levels),
            first_stage_1gib_pages=bool(cap.first_stage_1gib_pages),
            nested=bool(ecap.nested),
            pass_through=bool(ecap.pass_through),
            device_tlb=bool(ecap.device_tlb),
            page_requests=bool(ecap.page_requests),
            pasid=bool(ecap.pasid),
            rid_pasid=bool(ecap.rid_pasid),
            abort_dma=bool(ecap.abort_dma),
            snoop_control=bool(ecap.snoop_control),
            posted_interrupts=bool(cap.posted_interrupts),
        )

    def beyond(self, address: int) -> int:
        """Give the bits of `address` that no address in memory has."""
        return address >> self.host_address_width
