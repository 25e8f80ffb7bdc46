"""Source IDs: the requester's bus, device and function as VT-d and PCI Express write them (VT-d spec 3.4.1).

A remapping unit serves one PCI segment, so its records name none; kernels and hosts with several do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_BDF = re.compile(
    r"(?:(?:0x)?(?P<segment>[0-9a-fA-F]{4,8}):)?(?:0x)?(?P<bus>[0-9a-fA-F]{1,2}):(?:0x)?(?P<device>[0-9a-fA-F]{1,2})\.(?P<function>[0-7])"
)


@dataclass(frozen=True, slots=True, order=True)
class SourceId:
    """The 16-bit requester ID `value`, bus in bits 15:8, device in 7:3, function in 2:0, and its PCI segment."""

    value: int
    segment: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `01:00.0`, `0001:01:00.0` or `0x01:0x00.0`; ValueError otherwise."""
        match = _BDF.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"'{text}' is not a PCI address such as 01:00.0")
        bus, device, function = (int(match[name], 16) for name in ("bus", "device", "function"))
        if device > 0x1F:
            raise ValueError(f"'{text}': a PCI device number ends at 1f")
        return cls(bus << 8 | device << 3 | function, int(match["segment"] or "0", 16))

    @property
    def bus(self) -> int:
        """Bus number, 0 to 255."""
        return self.value >> 8

    @property
    def devfn(self) -> int:
        """Device and function in one byte, the index into a context table."""
        return self.value & 0xFF

    def __str__(self) -> str:
        segment = f"{self.segment:04x}:" if self.segment else ""
        return f"{segment}{self.bus:02x}:{self.devfn >> 3:02x}.{self.devfn & 7}"
