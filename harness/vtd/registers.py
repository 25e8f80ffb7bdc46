"""Register offsets and bits of a remapping unit, as far as the scenarios read them (VT-d spec chapter 11)."""

from __future__ import annotations

from dataclasses import dataclass

#: Where QEMU and most chipsets place the first unit; the DMAR table's DRHD says so.
DEFAULT_BASE = 0xFED90000

#: Offset of the Global Status register.
GSTS = 0x1C


@dataclass(frozen=True, slots=True)
class GlobalStatus:
    """The Global Status register (GSTS, VT-d spec 11.4.5)."""

    value: int

    @property
    def translation_enabled(self) -> bool:
        """TES: DMA remapping is on."""
        return bool(self.value >> 31 & 1)

    @property
    def interrupt_remapping_enabled(self) -> bool:
        """IRES: interrupt remapping is on."""
        return bool(self.value >> 25 & 1)
