"""What a machine is made of: frozen data, without any idea of processes or files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Accelerator = Literal["tcg", "kvm"]

#: What an IOMMU option may be before it is checked against QEMU: `on`/`off` are booleans or these words.
OptionValue = str | int | bool


@dataclass(frozen=True, slots=True)
class IommuSpec:
    """One intel-iommu; `options` in the scenario's words (`caching_mode`, `aw_bits`, `scalable_mode`, ...)."""

    options: Mapping[str, OptionValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """A q35 machine around the vIOMMU under test.

    `image` names the guest image, `kernel_args` come after the harness' own. Devices under test are hot-added behind
    root ports `rp0` .. `rp<root_ports-1>` or behind conventional bridges `br0` .. (each behind a root port of its own);
    Each name in `wires` becomes a netdev of that name, for a NIC to use. More than one vIOMMU only makes sense to see
    it refused.
    """

    image: str
    kernel_args: tuple[str, ...] = ()
    memory_mib: int = 512
    vcpus: int = 1
    cpu: str = "max"
    accelerator: Accelerator = "tcg"
    irqchip: Literal["split", "on", "off"] = "split"
    iommus: tuple[IommuSpec, ...] = (IommuSpec(),)
    root_ports: int = 4
    pci_bridges: int = 0
    wires: tuple[str, ...] = ()
