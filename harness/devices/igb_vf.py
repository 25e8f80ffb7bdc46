"""A virtual function of igb (SR-IOV): a requester of its own behind the registers of its physical function."""

from __future__ import annotations

from typing import ClassVar, Literal

from harness.scenario.device import BareAccess, Device


class IgbVf(Device, model="igb-vf"):
    """The first virtual function of an Intel 82576, on bare machines only: its requests carry its own source ID."""

    model: Literal["igb-vf"]

    wired: ClassVar[bool] = True
    queued: ClassVar[bool] = True
    bare: ClassVar[frozenset[BareAccess]] = frozenset({"read"})
    bare_only: ClassVar[bool] = True
    min_dma: ClassVar[int] = 64
    max_dma: ClassVar[int] = 1400

    def qdev(self) -> dict[str, object]:
        """Give the properties QEMU adds its physical function with."""
        return {"driver": "igb"}
