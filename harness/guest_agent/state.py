"""What the kernel made of the IOMMU: effective group types, register values, fault interrupts. Read from sysfs."""

from __future__ import annotations

import os
from typing import Any

from protocol import Operation
from system import read_text

_GROUPS = "/sys/kernel/iommu_groups"
_UNITS = "/sys/class/iommu"


def count_dmar_interrupts(table: str) -> int:
    """Fault interrupts of all DMAR units over all CPUs, from the text of /proc/interrupts."""
    cpus = len(table.splitlines()[0].split()) if table else 0
    lines = (line.split() for line in table.splitlines() if "DMAR-MSI" in line)
    return sum(int(field) for fields in lines for field in fields[1 : 1 + cpus])


def _listing(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


def _group(number: str) -> dict[str, Any]:
    path = f"{_GROUPS}/{number}"
    return {"type": read_text(f"{path}/type"), "devices": sorted(_listing(f"{path}/devices"))}


def _unit(name: str) -> dict[str, str]:
    path = f"{_UNITS}/{name}/intel-iommu"
    return {key: read_text(f"{path}/{key}") for key in ("address", "cap", "ecap", "version") if key in _listing(path)}


class IommuState:
    """Operation `iommu_state`."""

    def operations(self) -> dict[str, Operation]:
        """Operations by name."""
        return {"iommu_state": self.iommu_state}

    def iommu_state(self) -> dict[str, Any]:
        """Groups with their effective domain type, units with their registers (hex, as sysfs prints them).

        Group types: `DMA` (strict), `DMA-FQ` (lazy), `identity`, `unmanaged` (given to VFIO).
        """
        return {
            "groups": {number: _group(number) for number in sorted(_listing(_GROUPS), key=int)},
            "iommus": {name: _unit(name) for name in sorted(_listing(_UNITS))},
            "dmar_interrupts": count_dmar_interrupts(read_text("/proc/interrupts")),
        }
