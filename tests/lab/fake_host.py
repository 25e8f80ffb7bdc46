"""A host's sysfs in a directory, with a kernel that binds and unbinds as it is told through it.

The files that drivers are told by are named pipes, which a thread reads, so that a program of another process meets the
same kernel.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from pathlib import Path

NIC = "0000:03:00.0"


class FakeHost:
    """`root` is what stands for the host's `/`; drivers bind what they are told to unless `broken` has them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pci = root / "sys/bus/pci"
        self.broken: set[str] = set()
        self.moves: list[tuple[str, str]] = []
        self._pipes: dict[int, tuple[str, str]] = {}
        self._stopping = threading.Event()
        for place in ("sys/bus/pci/devices", "sys/class/iommu/dmar0", "sys/class/net", "proc/net"):
            (root / place).mkdir(parents=True)
        (root / "proc/meminfo").write_text("MemAvailable:    2097152 kB\n")
        (root / "proc/net/route").write_text("Iface\tDestination\tGateway\n")
        self.driver("vfio-pci")
        self._pipe(self.pci / "drivers_probe", "", "probe")
        self._thread = threading.Thread(target=self._serve)

    def driver(self, name: str) -> None:
        directory = self.pci / "drivers" / name
        directory.mkdir(parents=True)
        for what in ("bind", "unbind"):
            self._pipe(directory / what, name, what)

    def device(self, address: str, *, driver: str | None, group: str | None = "7", klass: str = "0x020000") -> Path:
        directory = self.pci / "devices" / address
        directory.mkdir()
        for name, text in {
            "class": klass,
            "vendor": "0x8086",
            "device": "0x10d3",
            "driver_override": "(null)",
        }.items():
            (directory / name).write_text(text + "\n")
        if group is not None:
            members = self.root / "sys/kernel/iommu_groups" / group / "devices"
            members.mkdir(parents=True, exist_ok=True)
            (members / address).symlink_to(directory)
            (directory / "iommu_group").symlink_to(members.parent)
        if driver is not None:
            if not (self.pci / "drivers" / driver).exists():
                self.driver(driver)
            (directory / "driver").symlink_to(self.pci / "drivers" / driver)
        return directory

    def driven_by(self, address: str = NIC) -> str | None:
        link = self.pci / "devices" / address / "driver"
        with contextlib.suppress(OSError):
            return link.readlink().name
        return None

    def override(self, address: str = NIC) -> str:
        return (self.pci / "devices" / address / "driver_override").read_text().strip()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join()
        for descriptor in self._pipes:
            os.close(descriptor)

    def _pipe(self, path: Path, driver: str, what: str) -> None:
        os.mkfifo(path)
        self._pipes[os.open(path, os.O_RDWR | os.O_NONBLOCK)] = (driver, what)

    def _serve(self) -> None:
        while not self._stopping.is_set():
            readable, _, _ = select.select(list(self._pipes), [], [], 0.02)
            # Who writes to a bind file has written to the unbind file before.
            for descriptor in sorted(readable, key=lambda each: self._pipes[each][1] != "unbind"):
                driver, what = self._pipes[descriptor]
                for address in os.read(descriptor, 4096).decode().split():
                    self._move(address, driver, what)

    def _move(self, address: str, driver: str, what: str) -> None:
        link = self.pci / "devices" / address / "driver"
        self.moves.append((what, driver))
        if what == "unbind":
            link.unlink()
            return
        wanted = self.override(address) if what == "probe" else driver
        if wanted not in ("", "(null)") and wanted not in self.broken and not link.is_symlink():
            link.symlink_to(self.pci / "drivers" / wanted)
