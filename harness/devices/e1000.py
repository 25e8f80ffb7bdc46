"""e1000, Intel's 82540EM (hw/net/e1000.c): a conventional PCI NIC whose driver limits it to 32-bit addresses.

Linux lets an 8254x use 64-bit addresses on a PCI-X bus only (e1000_probe in e1000_main.c of
drivers/net/ethernet/intel/e1000), and QEMU's says in its STATUS register that it is on a plain PCI bus.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from harness.scenario.device import Device


class E1000(Device, model="e1000"):
    """Intel 82540EM as QEMU emulates it: a conventional PCI NIC with a wire to the host, limited to 32-bit DMA."""

    model: Literal["e1000"]

    kernel_driver: ClassVar[str | None] = "e1000"
    wired: ClassVar[bool] = True

    def qdev(self) -> dict[str, object]:
        """Give the properties QEMU adds it with."""
        return {"driver": "e1000"}
