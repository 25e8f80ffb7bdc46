"""What this host has of what the harness needs, one line per need, each with the command that mends it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.host.accelerator import ACCELERATOR, KvmFinding, kvm_missing, probe_kvm, wanted_accelerator
from harness.images.apt import apt_found
from harness.images.qemu_build import QemuBuild
from harness.images.store import QEMU, ImageStore
from harness.storage import free_bytes

#: The device types that the machines and scenarios use.
DEVICE_TYPES = ("intel-iommu", "edu", "e1000e", "igb", "virtio-net-pci", "pcie-root-port", "pcie-pci-bridge")

_OLDEST_PYTHON = (3, 11)
_GIB = 1024**3
_CACHE_BYTES = int(1.5 * _GIB)
_RUNS_BYTES = 1 * _GIB
_MEMORY_BYTES = 1 * _GIB
_DEVICE = re.compile(r'^name "([^"]+)"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Need:
    """One thing needed: whether it is there, what was found, and the command or deed that mends it ("" if none)."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


#: Boots the kernels of the images that are built with KVM, and gives what was found.
Boots = Callable[[ImageStore], KvmFinding]


def examine(store: ImageStore | None = None, runs: Path = Path("runs"), *, boots: Boots | None = None) -> list[Need]:
    """Look at everything. Builds nothing; runs QEMU where there is one, and `boots` kernels where a vCPU runs."""
    store = store or ImageStore()
    return [*_tools(), *_qemu(store, boots), *_images(store), *_room(store, runs)]


def render(needs: Sequence[Need]) -> str:
    """The needs as a table; under each that is not met, the remedy."""
    width = max((len(need.name) for need in needs), default=0)
    lines = []
    for need in needs:
        lines.append(f"{'ok     ' if need.ok else 'MISSING'}  {need.name:<{width}}  {need.found}")
        if need.remedy and not need.ok:
            lines.append(f"{'':<{width + 11}}-> {need.remedy}")
    missing = sum(not need.ok for need in needs)
    lines.append("everything is there" if not missing else f"{missing} of {len(needs)} needs are not met")
    return "\n".join(lines)


def _tools() -> Iterator[Need]:
    yield Need(
        "python",
        sys.version_info >= _OLDEST_PYTHON,
        platform.python_version(),
        "apt-get install python3 python3-venv (3.11 or newer: Debian 12 or newer)",
    )
    apt = apt_found()
    found = "apt-get, dpkg-deb and tar are there" if apt else "apt-get, dpkg-deb or tar is not there"
    yield Need("apt", apt, found, "build images on Debian or in a container of it")
    setpriv = shutil.which("setpriv")
    yield Need("setpriv", setpriv is not None, setpriv or "not there", "apt-get install util-linux")


def _qemu(store: ImageStore, boots: Boots | None) -> Iterator[Need]:
    named = os.environ.get("VTD_QEMU")
    wanted = named or QEMU
    remedy = f"harness images build {wanted}"
    try:
        qemu = store.qemu(lambda _: None) if _stands(store, wanted) else None
    except HarnessError as error:
        yield Need("qemu", ok=False, found=error.message, remedy=error.hint or remedy)
        return
    if qemu is None:
        yield Need("qemu", ok=False, found=f"the build '{wanted}' is not in the cache", remedy=remedy)
        return
    yield Need("qemu", ok=True, found=f"{qemu.version}, {'VTD_QEMU' if named else 'the pinned build'}")
    offered = device_types(qemu)
    for device in DEVICE_TYPES:
        there = device in offered
        found = f"offered by QEMU {qemu.version}" if there else f"QEMU {qemu.version} does not offer it"
        yield Need(f"device {device}", there, found, "unset VTD_QEMU to use the pinned build")
    yield accelerator_need(lambda: probe_kvm(qemu), None if boots is None else lambda: boots(store))


def accelerator_need(runs_vcpu: Callable[[], KvmFinding], boots: Callable[[], KvmFinding] | None) -> Need:
    """Tell what a run would choose and why, as it would; a second look where the first is promising."""
    name = "accelerator"
    try:
        wanted = wanted_accelerator()
    except HarnessError as error:
        return Need(name, ok=False, found=error.message, remedy=error.hint or "")
    if wanted == "tcg":
        return Need(name, ok=True, found=f"tcg, asked for by {ACCELERATOR}")
    found = runs_vcpu()
    if found.usable and boots is not None:
        found = boots()
    if found.usable:
        return Need(name, ok=True, found=f"kvm: {found.reason}")
    if wanted == "kvm":
        missing = kvm_missing(found.reason)
        return Need(name, ok=False, found=missing.message, remedy=missing.hint or "")
    return Need(name, ok=True, found=f"tcg, slower but sufficient (kvm: {found.reason})")


def _stands(store: ImageStore, wanted: str) -> bool:
    """Whether `wanted` need not be built first: a QEMU that is built and undamaged, or no recipe of one."""
    recipe = wanted in store.names() and store.state(wanted).kind == "qemu"
    return not recipe or store.intact(wanted)


def device_types(qemu: QemuBuild) -> frozenset[str]:
    """The device types that `qemu` offers."""
    argv = [*qemu.argv_prefix, "-machine", "none", "-device", "help"]
    told = subprocess.run(argv, env={**os.environ, **qemu.env}, capture_output=True, text=True, check=False)
    return frozenset(_DEVICE.findall(told.stdout))


def _images(store: ImageStore) -> Iterator[Need]:
    for name in store.names():
        remedy = f"harness images build {name}"
        try:
            if store.state(name).kind != "guest":
                continue
            intact = store.intact(name)
            image = store.get(name, lambda _: None) if intact else None
        except HarnessError as error:
            yield Need(f"image {name}", ok=False, found=error.message, remedy=error.hint or remedy)
            continue
        found = f"kernel {image.kernel_release}" if image else "not in the cache, or damaged"
        yield Need(f"image {name}", image is not None, found, remedy)


def _room(store: ImageStore, runs: Path) -> Iterator[Need]:
    for name, place, wanted in (("disk cache", store.cache, _CACHE_BYTES), ("disk runs", runs.absolute(), _RUNS_BYTES)):
        free = free_bytes(place) or 0
        found = f"{free / _GIB:.1f} GiB free at {place}"
        yield Need(name, free >= wanted, found, f"free {wanted / _GIB:.1f} GiB there, or set VTD_CACHE (cache)")
    available = _available_memory()
    found = f"{available / _GIB:.1f} GiB available"
    yield Need("memory", available >= _MEMORY_BYTES, found, "end other programs: a guest takes 512 MiB")


def _available_memory() -> int:
    """The bytes that can be had without swapping, from MemAvailable of /proc/meminfo (proc_meminfo(5))."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
