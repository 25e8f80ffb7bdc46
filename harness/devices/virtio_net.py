"""virtio-net over PCI, behind the vIOMMU: a NIC for traffic.

A virtio device goes around the vIOMMU unless it offers VIRTIO_F_ACCESS_PLATFORM, which QEMU spells
`iommu_platform=on` and grants to modern devices only, hence `disable-legacy=on`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from harness.scenario.device import Device
from harness.scenario.values import OnOff


class VirtioNet(Device, model="virtio-net"):
    """Paravirtualised NIC that uses the vIOMMU, with a wire of its own to the host."""

    model: Literal["virtio-net"]

    kernel_driver: ClassVar[str | None] = "virtio-pci"
    wired: ClassVar[bool] = True

    iommu_platform: OnOff = Field(
        default="on",
        description="Whether it uses the vIOMMU; off shows the trap of a virtio device that goes around it.",
    )

    ats: OnOff = Field(
        default="off",
        description="Whether it offers Address Translation Services; the vIOMMU needs `device_iotlb: on` for them.",
    )

    def qdev(self) -> dict[str, object]:
        """Give the properties QEMU adds it with."""
        properties: dict[str, object] = {
            "driver": "virtio-net-pci",
            "iommu_platform": self.iommu_platform == "on",
            "disable-legacy": "on",
        }
        return {**properties, "ats": True} if self.ats == "on" else properties
