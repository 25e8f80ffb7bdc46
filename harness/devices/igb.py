"""igb, Intel's 82576 (hw/net/igb.c, QEMU 8.0 and newer): a NIC for traffic, and a rogue by its descriptor rings."""

from __future__ import annotations

from typing import ClassVar, Literal

from harness.ring_attack import DescriptorRings
from harness.scenario.device import BareAccess, Device
from harness.session import Engine


class Igb(Device, model="igb"):
    """Intel 82576 as QEMU emulates it: a NIC with a wire to the host. It reads what it sends, writes what arrives."""

    model: Literal["igb"]

    kernel_driver: ClassVar[str | None] = "igb"
    wired: ClassVar[bool] = True
    queued: ClassVar[bool] = True
    min_dma: ClassVar[int] = 64  # what arrives or leaves is an Ethernet frame
    bare: ClassVar[frozenset[BareAccess]] = frozenset({"read"})
    max_dma: ClassVar[int] = 1400

    def qdev(self) -> dict[str, object]:
        """Give the properties QEMU adds it with."""
        return {"driver": "igb"}

    @property
    def engine(self) -> Engine:
        """Its descriptor rings."""
        return DescriptorRings()
