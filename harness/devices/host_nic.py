"""A real NIC of the lab host, handed to the machine with vfio-pci; its requests pass the host's own remapping unit.

QEMU's vIOMMU never sees them: with caching mode on, QEMU shadows what the guest maps in the host's tables
(vtd_page_walk in hw/i386/intel_iommu.c notifies vfio_iommu_map_notify in hw/vfio/common.c), and the host's VT-d
translates, or blocks and reports to the host's kernel. It has no wire to the harness, so it is driven in loopback.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from harness.ring_attack import LoopbackRings
from harness.scenario.device import Device
from harness.session import Engine

#: What it must be to be driven as a model: vendor and device.
IDENTIFICATIONS = {"e1000e": "8086:10d3", "igb": "8086:10c9"}


class HostNic(Device, model="host-nic"):
    """A NIC of the lab host, handed to the machine; `--nic` says which. Its DMA passes the host's own VT-d.

    A block is then reported by the host's kernel, not by the guest's. Without a lab host the scenario is skipped.
    """

    model: Literal["host-nic"]
    like: Literal["e1000e", "igb"] = Field(
        default="e1000e",
        description="What it must be, so that it can be told to issue a DMA: e1000e is an Intel 82574 (8086:10d3), igb "
        "an 82576 (8086:10c9).",
    )

    from_host: ClassVar[bool] = True
    queued: ClassVar[bool] = True
    min_dma: ClassVar[int] = 64  # what arrives or leaves is an Ethernet frame
    max_dma: ClassVar[int] = 1400

    def qdev(self) -> dict[str, object]:
        """Give the properties QEMU adds it with, but for its address on the host."""
        return {"driver": "vfio-pci"}

    @property
    def driven_as(self) -> str:
        """What it is like."""
        return self.like

    @property
    def identification(self) -> str:
        """Give its vendor and device as the host must have them."""
        return IDENTIFICATIONS[self.like]

    @property
    def engine(self) -> Engine:
        """Its descriptor rings, in loopback."""
        return LoopbackRings()
