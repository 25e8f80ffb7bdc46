"""Tells what the host it runs on has of what a machine there needs, as one line of JSON.

Sent to the host; needs the standard library of Python 3.9 only. Its argument is the root of all it reads.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import sys
from typing import Any

from harness.lab.nic_there import VFIO, all_nics

_KVM = "/dev/kvm"


def survey(root: str = "/") -> dict[str, Any]:
    """Look at everything; changes nothing and starts nothing."""
    system = os.uname()
    return {
        "uid": os.geteuid(),
        "home": os.path.expanduser("~"),
        "kernel": system.release,
        "machine": system.machine,
        "python": sys.version.split()[0],
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mib": _available_mib(os.path.join(root, "proc/meminfo")),
        "tar": shutil.which("tar"),
        "kvm": _kvm(),
        "boot_id": _first_line(os.path.join(root, "proc/sys/kernel/random/boot_id")),
        "iommus": sorted(os.path.basename(path) for path in glob.glob(os.path.join(root, "sys/class/iommu/*"))),
        "groups": len(glob.glob(os.path.join(root, "sys/kernel/iommu_groups/*"))),
        "vfio": _has_vfio(root, system.release),
        "log_readable": os.access("/dev/kmsg", os.R_OK | os.W_OK),
        "nics": [nic.describe() for nic in all_nics(root)],
    }


def _kvm() -> str:
    """What is wrong with /dev/kvm, empty if it can be opened."""
    if not os.path.exists(_KVM):
        return f"{_KVM} is not there"
    return "" if os.access(_KVM, os.R_OK | os.W_OK) else f"no permission to open {_KVM}"


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _available_mib(path: str) -> int:
    with open(path, encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) >> 10
    return 0


def _has_vfio(root: str, release: str) -> bool:
    """Whether vfio-pci is loaded, built in, or there to be loaded (modules.builtin and modules.dep of kmod)."""
    if os.path.exists(os.path.join(root, "sys/bus/pci/drivers", VFIO)):
        return True
    for name in ("modules.builtin", "modules.dep"):
        path = os.path.join(root, "lib/modules", release, name)
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                if any(f"/{VFIO}.ko" in line for line in file):
                    return True
    return False


if __name__ == "__main__":
    print(json.dumps(survey(*sys.argv[2:3])))
