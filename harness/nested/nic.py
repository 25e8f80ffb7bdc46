"""NICs that a nested guest is given by its own QEMU, and the way of their frames to the platform's NIC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: By the word of a scenario: the device type of QEMU, and the kernel's driver of its PCI function.
_MODELS: Mapping[str, tuple[str, str]] = {
    "e1000e": ("e1000e", "e1000e"),
    "virtio-net": ("virtio-net-pci", "virtio-pci"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenNic:
    """One NIC: `model` is what it is to the guest, `via` the platform's NIC that its frames go through."""

    name: str
    model: str
    via: str
    mac: str

    def qdev(self) -> dict[str, Any]:
        """Give the properties that QEMU adds it with, but for its bus."""
        return {"driver": _MODELS[self.model][0], "id": self.name, "netdev": self.name, "mac": self.mac}

    @property
    def kernel_driver(self) -> str:
        """The driver that a guest's kernel has for it."""
        return _MODELS[self.model][1]

    @property
    def bridge(self) -> str:
        """The platform's bridge of all that reaches `via`; an interface's name has 15 characters at most."""
        return f"br-{self.via}"[:15]
