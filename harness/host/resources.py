"""The cores and the memory that this process may really use: its affinity, and what its control groups leave it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Where control groups are mounted: version 2, on its own or beside version 1, and the controllers of version 1.
_MOUNTS = {
    "": ("sys/fs/cgroup", "sys/fs/cgroup/unified"),
    "cpu": ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"),
    "memory": ("sys/fs/cgroup/memory",),
}

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class Amount:
    """So much of something, and `source`, what sets that bound."""

    value: int
    source: str


def cores(root: Path = Path("/")) -> Amount:
    """Give the cores this process may use: those of its affinity mask, or fewer where a quota of time says so."""
    return min([Amount(len(os.sched_getaffinity(0)), "affinity"), *_quotas(root)])


def memory_mib(root: Path = Path("/")) -> Amount:
    """Give the MiB that can be had without swapping and without exceeding the limit of any control group."""
    return min([Amount(_available(root), "available"), *_limits(root)])


def _available(root: Path) -> int:
    """MemAvailable of /proc/meminfo (proc_meminfo(5)), in MiB."""
    for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def _quotas(root: Path) -> Iterator[Amount]:
    for group in _groups(root, ""):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        yield from _whole_cores(quota, period, group)
    for group in _groups(root, "cpu"):
        yield from _whole_cores(_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us"), group)


def _whole_cores(quota: str, period: str, group: Path) -> Iterable[Amount]:
    if quota.isdigit() and period.isdigit() and int(period):
        yield Amount(max(1, int(quota) // int(period)), f"quota of {group}")


def _limits(root: Path) -> Iterator[Amount]:
    """What each control group has left; the page cache that the kernel can drop is no use of it."""
    for version, limit, usage, cached in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for group in _groups(root, version):
            most, used = _text(group / limit), _text(group / usage)
            if most.isdigit() and used.isdigit():
                droppable = dict(line.split() for line in _text(group / "memory.stat").splitlines()).get(cached, "0")
                yield Amount(max(0, int(most) - int(used) + int(droppable)) // _MIB, f"left by {group}")


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Give the control group of this process and all above it; in a container only some of them are to be seen.

    Lines of /proc/self/cgroup are `ID:CONTROLLERS:PATH`, with no controllers for version 2 (cgroups(7)).
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            inside = Path(path.lstrip("/"))
            for mount in _MOUNTS[controller]:
                yield from (root / mount / above for above in (inside, *inside.parents))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
