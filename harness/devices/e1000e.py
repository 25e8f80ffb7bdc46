"""e1000e, Intel's 82574L (hw/net/e1000e.c): a NIC for traffic, and a rogue through its descriptor rings."""

from __future__ import annotations

from typing import ClassVar, Literal

from harness.ring_attack import DescriptorRings
from harness.scenario.device import BareAccess, Device
from harness.session import Engine


class E1000e(Device, model="e1000e"):
    """Intel 82574L as QEMU emulates it: a NIC with a wire to the host. It reads what it sends, writes what arrives."""

    model: Literal["e1000e"]

    kernel_driver: ClassVar[str | None] = "e1000e"
    wired: ClassVar[bool] = True
    queued: ClassVar[bool] = True
    min_dma: ClassVar[int] = 64  # what arrives or leaves is an Ethernet frame
    bare: ClassVar[frozenset[BareAccess]] = frozenset({"read"})
    max_dma: ClassVar[int] = 1400

    def qdev(self) -> dict[str, object]:
        """Give the properties QEMU adds it with."""
        return {"driver": "e1000e"}

    @property
    def engine(self) -> Engine:
        """Its descriptor rings."""
        return DescriptorRings()
