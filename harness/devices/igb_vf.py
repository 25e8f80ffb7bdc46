"""A virtual function of igb (SR-IOV): a requester of its own behind the registers of its physical function."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from harness.ring_attack import DescriptorRings
from harness.scenario.device import BareAccess, Device
from harness.scenario.values import Name
from harness.session import Engine


class IgbVf(Device, model="igb-vf"):
    """A virtual function of an Intel 82576: its requests carry its own source ID. On bare machines it is the first."""

    model: Literal["igb-vf"]
    of: Name | None = Field(
        default=None,
        description="The igb that it is a function of, in the order of the file; not on bare machines, where it "
        "stands for both.",
    )

    kernel_driver: ClassVar[str | None] = "igbvf"
    wired: ClassVar[bool] = True
    queued: ClassVar[bool] = True
    bare: ClassVar[frozenset[BareAccess]] = frozenset({"read"})
    physical_model: ClassVar[str | None] = "igb"
    min_dma: ClassVar[int] = 64
    max_dma: ClassVar[int] = 1400

    def qdev(self) -> dict[str, object]:
        """Give the properties QEMU adds its physical function with."""
        return {"driver": "igb"}

    @property
    def physical(self) -> str | None:
        """Give the name of its physical function."""
        return self.of

    @property
    def engine(self) -> Engine:
        """Its descriptor rings."""
        return DescriptorRings()
