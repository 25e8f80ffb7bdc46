"""PCI functions as sysfs shows them: finding, waiting for, describing; config space."""

from __future__ import annotations

import os
import re
import time
from typing import Any

from protocol import Operation, Refused, attempting
from system import read_text, write_text
from waiting import wait_for

_DEVICES = "/sys/bus/pci/devices"
_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
#: How long a function may take from its appearance until its IOMMU group is linked.
_GROUP_SETTLE_S = 1.0

#: Offsets in configuration space and bits of the command register (PCI Local Bus Specification 3.0, 6.2).
COMMAND = 0x04
HEADER_TYPE = 0x0E
COMMAND_MEMORY = 1 << 1
COMMAND_BUS_MASTER = 1 << 2


def directory(bdf: str) -> str:
    """The sysfs directory of function `bdf` (`0000:01:00.0`); Refused if it is malformed."""
    if not _ADDRESS.fullmatch(bdf):
        raise Refused(f"{bdf!r} is not a PCI address such as 0000:01:00.0")
    return f"{_DEVICES}/{bdf}"


def present(bdf: str) -> str:
    """As `directory`, Refused also if the function is not there."""
    path = directory(bdf)
    if not os.path.isdir(path):
        raise Refused(f"no PCI function {bdf}")
    return path


def link_name(path: str) -> str | None:
    """The last part of what the symbolic link `path` points to, None if there is no link."""
    try:
        return os.path.basename(os.readlink(path))
    except FileNotFoundError:
        return None


def driver_of(bdf: str) -> str | None:
    """The driver bound to `bdf`."""
    return link_name(f"{present(bdf)}/driver")


def group_of(bdf: str) -> str | None:
    """The number of the IOMMU group of `bdf`, None without IOMMU translation."""
    return link_name(f"{present(bdf)}/iommu_group")


def group_members(group: str) -> list[str]:
    """The functions of an IOMMU group."""
    return sorted(os.listdir(f"/sys/kernel/iommu_groups/{group}/devices"))


def is_bridge(bdf: str) -> bool:
    """Whether `bdf` has the header of a bridge."""
    return read_config(bdf, HEADER_TYPE, 1) & 0x7F != 0


def read_config(bdf: str, offset: int, length: int) -> int:
    """`length` bytes of configuration space as a little-endian number."""
    with attempting(f"read configuration space of {bdf}"), open(f"{present(bdf)}/config", "rb", buffering=0) as file:
        file.seek(offset)
        return int.from_bytes(file.read(length), "little")


def write_config(bdf: str, offset: int, value: int, length: int) -> None:
    """Write `length` bytes of configuration space."""
    with attempting(f"write configuration space of {bdf}"), open(f"{present(bdf)}/config", "r+b", buffering=0) as file:
        file.seek(offset)
        file.write(value.to_bytes(length, "little"))


def netdev_of(bdf: str) -> str | None:
    """The network interface that the driver of `bdf` made, directly or through virtio."""
    path = directory(bdf)
    parents = [path, *(f"{path}/{name}" for name in _names(path) if name.startswith("virtio"))]
    names = [name for parent in parents for name in _names(f"{parent}/net")]
    return names[0] if names else None


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _resources(path: str) -> list[dict[str, int]]:
    rows = [[int(field, 16) for field in line.split()] for line in read_text(f"{path}/resource").splitlines()]
    return [
        {"index": index, "start": start, "size": end - start + 1, "flags": flags}
        for index, (start, end, flags) in enumerate(rows)
        if flags
    ]


def describe(bdf: str) -> dict[str, Any]:
    """Identity, driver, IOMMU group and memory of one function. Numbers of sysfs stay numbers."""
    path = present(bdf)
    group = group_of(bdf)
    return {
        "bdf": bdf,
        "vendor": int(read_text(f"{path}/vendor"), 16),
        "device": int(read_text(f"{path}/device"), 16),
        "class": int(read_text(f"{path}/class"), 16),
        "driver": driver_of(bdf),
        "netdev": netdev_of(bdf),
        "iommu_group": group,
        "group_type": read_text(f"/sys/kernel/iommu_groups/{group}/type") if group else None,
        "group_devices": group_members(group) if group else [],
        "header_type": read_config(bdf, HEADER_TYPE, 1) & 0x7F,
        "bus_master": bool(read_config(bdf, COMMAND, 2) & COMMAND_BUS_MASTER),
        "resources": _resources(path),
    }


def _settled(bdf: str) -> bool:
    """Whether `bdf` is there, with its group: the kernel links the group a moment after the function appears."""
    path = directory(bdf)
    try:
        appeared = time.time() - os.stat(path).st_ctime
    except FileNotFoundError:
        return False
    return bool(link_name(f"{path}/iommu_group")) or not _names("/sys/class/iommu") or appeared > _GROUP_SETTLE_S


class PciBus:
    """Operations `pci_list`, `pci`, `pci_wait`, `pci_gone` and `pci_rescan`."""

    def operations(self) -> dict[str, Operation]:
        """Operations by name."""
        return {
            "pci_list": self.pci_list,
            "pci": self.pci,
            "pci_wait": self.pci_wait,
            "pci_gone": self.pci_gone,
            "pci_rescan": self.pci_rescan,
        }

    def pci_list(self) -> dict[str, Any]:
        """Every function, described as by `pci`."""
        return {"functions": [describe(bdf) for bdf in _names(_DEVICES)]}

    def pci(self, *, bdf: str) -> dict[str, Any]:
        """One function."""
        return describe(bdf)

    def pci_wait(self, *, bdf: str, timeout_s: float = 10) -> dict[str, Any]:
        """Wait until the kernel has enumerated `bdf` and put it in its IOMMU group; then as `pci`."""
        wait_for(f"PCI function {bdf} to appear", lambda: _settled(bdf), timeout_s)
        return describe(bdf)

    def pci_gone(self, *, bdf: str, timeout_s: float = 10) -> dict[str, Any]:
        """Wait until the kernel has removed `bdf`."""
        path = directory(bdf)
        wait_for(f"PCI function {bdf} to go", lambda: not os.path.lexists(path), timeout_s)
        return {}

    def pci_rescan(self) -> dict[str, Any]:
        """Make the kernel look for functions anew, for busses without hot-plug."""
        write_text("/sys/bus/pci/rescan", "1")
        return {}
