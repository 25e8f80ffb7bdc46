"""Bounce buffers: what Linux copies for devices that cannot reach the memory of a DMA (kernel/dma/swiotlb.c).

The counters are those of debugfs (`swiotlb/io_tlb_used`: slots of 2 KiB in use now), the single copies are trace event
`swiotlb:swiotlb_bounced` (include/trace/events/swiotlb.h), which names the device and the address it could not reach.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

from protocol import Operation, Refused, attempting
from system import read_text, write_text

_COUNTERS = "/sys/kernel/debug/swiotlb"
_TRACING = "/sys/kernel/tracing"
_INSTANCE = f"{_TRACING}/instances/vtd-bounces"
_EVENT = f"{_INSTANCE}/events/swiotlb/swiotlb_bounced"
#: Per CPU; an event takes less than 64 bytes.
_BUFFER_KIB = 1024

_BOUNCED = re.compile(
    r"swiotlb_bounced: dev_name: (?P<bdf>\S+) dma_mask=(?P<mask>[0-9a-f]+) "
    r"dev_addr=(?P<address>[0-9a-f]+) size=(?P<size>\d+) "
)
_LOST = re.compile(r"^(?:overrun|commit overrun|dropped events): ([0-9]+)$", re.MULTILINE)


def bounces(trace: str) -> dict[str, dict[str, int]]:
    """The copies by device, out of the text of a trace: how many, the device's mask, the lowest address, the bytes."""
    found: dict[str, dict[str, int]] = {}
    for match in _BOUNCED.finditer(trace):
        address = int(match["address"], 16)
        device = found.setdefault(match["bdf"], {"count": 0, "mask": 0, "lowest": address, "bytes": 0})
        device["count"] += 1
        device["mask"] |= int(match["mask"], 16)
        device["lowest"] = min(device["lowest"], address)
        device["bytes"] += int(match["size"])
    return found


def lost_events(stats: str) -> int:
    """How many events a CPU's ring buffer lost, from the text of its `stats`."""
    return sum(int(count) for count in _LOST.findall(stats))


def _mount(kind: str, path: str) -> None:
    if os.path.ismount(path):
        return
    with attempting(f"mount {kind} on {path}"):
        done = subprocess.run(["mount", "-t", kind, kind, path], capture_output=True, check=False)
    if done.returncode:
        raise Refused(f"mount {kind} on {path}: {done.stderr.decode(errors='replace').strip() or done.returncode}")


def _counter(name: str) -> int:
    """A counter of the default pool, 0 where there is none (swiotlb_create_debugfs_files then makes no files)."""
    path = f"{_COUNTERS}/{name}"
    if not os.path.exists(path):
        return 0
    with attempting(f"read {path}"):
        return int(read_text(path))


class BounceBuffers:
    """Operations `bounces_watch` and `bounces_seen`."""

    def operations(self) -> dict[str, Operation]:
        """Operations by name."""
        return {"bounces_watch": self.bounces_watch, "bounces_seen": self.bounces_seen}

    def bounces_watch(self) -> dict[str, Any]:
        """Begin to trace the kernel's bounces, with nothing of before in the trace; `used` is the slots in use now."""
        _mount("debugfs", "/sys/kernel/debug")
        _mount("tracefs", _TRACING)
        if os.path.isdir(_INSTANCE):
            os.rmdir(_INSTANCE)
        with attempting(f"make the trace {_INSTANCE}"):
            os.mkdir(_INSTANCE)
        write_text(f"{_INSTANCE}/buffer_size_kb", str(_BUFFER_KIB))
        write_text(f"{_EVENT}/enable", "1")
        return {"used": _counter("io_tlb_used")}

    def bounces_seen(self) -> dict[str, Any]:
        """What was bounced since `bounces_watch`, which ends with it.

        `tracing` is whether the event was on until now, `lost` how many events the trace lost, `bounces` device to
        `{count, mask, lowest, bytes}`, `used` the slots in use now, `slots` how many there are, 0 without swiotlb.
        """
        if not os.path.isdir(_INSTANCE):
            raise Refused("bounces are not watched")
        used = _counter("io_tlb_used")
        tracing = read_text(f"{_EVENT}/enable") == "1" and read_text(f"{_INSTANCE}/tracing_on") == "1"
        write_text(f"{_EVENT}/enable", "0")
        found = bounces(read_text(f"{_INSTANCE}/trace"))
        cpus = [name for name in os.listdir(f"{_INSTANCE}/per_cpu") if name.startswith("cpu")]
        lost = sum(lost_events(read_text(f"{_INSTANCE}/per_cpu/{cpu}/stats")) for cpu in cpus)
        os.rmdir(_INSTANCE)
        return {"tracing": tracing, "lost": lost, "bounces": found, "used": used, "slots": _counter("io_tlb_nslabs")}
