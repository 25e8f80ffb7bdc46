"""nvme, QEMU's NVMe controller (hw/nvme/ctrl.c), on bare machines: it moves 512 bytes, into itself or out of itself."""

from __future__ import annotations

from typing import ClassVar, Literal

from harness.scenario.device import BareAccess, Device


class Nvme(Device, model="nvme"):
    """QEMU's NVMe controller without a disk, on bare machines only: it moves 512 bytes at a time."""

    model: Literal["nvme"]

    bare: ClassVar[frozenset[BareAccess]] = frozenset({"read", "write"})
    bare_only: ClassVar[bool] = True
    queued: ClassVar[bool] = True
    min_dma: ClassVar[int] = 512
    max_dma: ClassVar[int] = 512

    def qdev(self) -> dict[str, object]:
        """Give the properties QEMU adds it with."""
        return {"driver": "nvme", "serial": "vtd"}
