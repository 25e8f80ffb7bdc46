"""What a machine is made of: frozen data, without any idea of processes or files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.machine.acpi_override import Malformation

Accelerator = Literal["tcg", "kvm"]

#: What an IOMMU option may be before it is checked against QEMU: `on`/`off` are booleans or these words.
OptionValue = str | int | bool


#: Addresses of a bare machine: one without memory, and a page of paging entries in memory that cannot be written.
HOLE, ROM_TABLE = 0x20_0000_0000, 0xFFFF_1000


@dataclass(frozen=True, slots=True)
class IommuSpec:
    """One intel-iommu; `options` in the scenario's words (`caching_mode`, `aw_bits`, `scalable_mode`, ...).

    `as_written`: a value that its property cannot hold is handed to QEMU all the same, for QEMU to refuse it.
    """

    options: Mapping[str, OptionValue] = field(default_factory=dict)
    as_written: bool = False


#: The name of the disk that a guest runs guests of its own from.
PLATFORM_DISK = "platform"

#: What runs in a machine: Linux from a guest image, or nothing at all, so that the harness lays the tables itself.
MachineKind = Literal["linux", "bare"]

#: The tables of a bare machine: second-stage tables from context entries (legacy), or either stage in scalable mode.
Translation = Literal["legacy", "second-stage", "first-stage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """A q35 machine around the vIOMMU under test.

    A `bare` machine has no image, no kernel and no SSH; `translation` says which tables the harness lays in it.

    `image` names the guest image, `kernel_args` come after the harness' own. Devices under test are hot-added behind
    root ports `rp0` .. `rp<root_ports-1>` or behind conventional bridges `br0` .. (each behind a root port of its own);
    with `multifunction_ports` up to eight root ports are functions of one PCI device, and `acs` is whether root ports
    have Access Control Services. Each name in `wires` becomes a netdev of that name, for a NIC to use. More than one
    vIOMMU only makes sense to see it refused. `dmar_override` is what is wrong with the DMAR table that the guest is
    given instead of QEMU's. `disks` are the names of read-only disks, by which the guest finds them (the serial number
    of a virtio disk).
    """

    kind: MachineKind = "linux"
    translation: Translation = "legacy"
    image: str
    kernel_args: tuple[str, ...] = ()
    memory_mib: int = 512
    vcpus: int = 1
    cpu: str = "max"
    accelerator: Accelerator = "tcg"
    irqchip: Literal["split", "on", "off"] = "split"
    iommus: tuple[IommuSpec, ...] = (IommuSpec(),)
    root_ports: int = 4
    multifunction_ports: bool = False
    acs: bool = True
    pci_bridges: int = 0
    wires: tuple[str, ...] = ()
    dmar_override: Malformation | None = None
    disks: tuple[str, ...] = ()
