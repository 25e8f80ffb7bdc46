"""A NIC of the host this runs on: what stands in the way of handing it out, its way to vfio-pci and back again.

Sent to the host with the programs that use it; needs the standard library of Python 3.9 only. Everything is read and
written below `root`, which is `/` but in tests.

While a NIC is out, the file `run/vtd-harness/nic-ADDRESS` says which driver it had, and is locked by who has it: two
runs cannot take one NIC, and where a program was killed before it could give a NIC back, the next one still can.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import subprocess
import time
from typing import Any

VFIO = "vfio-pci"

#: Class codes (PCI Code and ID Assignment Specification): network controllers, and bridges from PCI to PCI.
_NETWORK, _BRIDGE = 0x02, 0x0604

#: Drivers that a member of a group may have beside one that VFIO hands out (vfio_dev_driver_allowed in Linux'
#: drivers/vfio/group.c, vfio_dev_viable before 6.2); the IOMMU core refuses bridges' drivers no more than it does.
_HARMLESS = (None, VFIO, "pci-stub", "pcieport")

#: What drives a NIC that was taken and not given back: it may have been on its way.
_NOT_OWN = (None, VFIO)

#: Seconds for the kernel to have moved a device between drivers: it has by the time a write to sysfs returns.
_MOVED_S = 10.0

#: What driver_override holds where there is none.
_NO_OVERRIDE = "(null)"


class RefusedError(Exception):
    """Why a NIC is not handed out, and what to do about it."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


class Nic:
    """The PCI function at `address` (`0000:03:00.0`)."""

    def __init__(self, address: str, root: str = "/") -> None:
        self.address = address
        self._root = root
        self._device = os.path.join(root, "sys/bus/pci/devices", address)
        self._record: int | None = None
        self._override = _NO_OVERRIDE
        self.own_driver: str | None = None

    # -- what it is -----------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Tell what it is, who drives it, and what stands in the way of handing it out (None if nothing does)."""
        obstacle = self.obstacle()
        return {
            "address": self.address,
            "id": f"{self._number('vendor'):04x}:{self._number('device'):04x}",
            "driver": self.driver(),
            "group": self._group(),
            "interfaces": self._interfaces(),
            "obstacle": None if obstacle is None else list(obstacle),
            "left_behind": self._left_behind() is not None and self.driver() in _NOT_OWN,
        }

    def obstacle(self) -> tuple[str, str] | None:
        """What stands in the way of handing it out, and what to do; None if nothing does."""
        if not os.path.exists(self._device):
            return f"there is no PCI device {self.address}", "'harness doctor --host' lists the host's NICs"
        if self._number("class") >> 16 != _NETWORK:
            return f"{self.address} is no NIC (class {self._number('class'):06x})", "name a network controller"
        group = self._group()
        if group is None:
            return (
                f"{self.address} is in no IOMMU group: no remapping unit translates for it",
                "switch VT-d on in the firmware and boot the host with intel_iommu=on",
            )
        for member, driver in self._others(group):
            if driver not in _HARMLESS:
                return (
                    f"group {group} of {self.address} is not viable: {member} is in it too, driven by {driver}",
                    f"take a NIC that has a group of its own, or unbind {member} from {driver}",
                )
        return self._use()

    def _use(self) -> tuple[str, str] | None:
        """What the host has it for, as `obstacle`: whatever taking it would cut off."""
        if glob.glob(os.path.join(self._device, "virtfn*")):
            return (
                f"{self.address} has virtual functions, which go with it",
                f"take one of them, or remove them: echo 0 >/sys/bus/pci/devices/{self.address}/sriov_numvfs",
            )
        for interface in self._interfaces():
            use = self._use_of(interface)
            if use is not None:
                return f"{self.address} is in use: {interface} {use}", f"take another NIC, or free {interface} first"
        return None

    def driver(self) -> str | None:
        """The driver that it is bound to."""
        return _link(os.path.join(self._device, "driver"))

    def _others(self, group: str) -> list[tuple[str, str | None]]:
        """The other members of its group with their drivers, but bridges."""
        found = []
        for path in sorted(glob.glob(os.path.join(self._root, "sys/kernel/iommu_groups", group, "devices/*"))):
            address = os.path.basename(path)
            there = os.path.join(self._root, "sys/bus/pci/devices", address)
            bridge = _number(os.path.join(there, "class")) >> 8 == _BRIDGE
            if address != self.address and not bridge:
                found.append((address, _link(os.path.join(there, "driver"))))
        return found

    def _interfaces(self) -> list[str]:
        """Its network interfaces; those of a virtio function belong to the virtio device below it."""
        places = ("net/*", "virtio*/net/*")
        found = [path for place in places for path in glob.glob(os.path.join(self._device, place))]
        return sorted(os.path.basename(path) for path in found)

    def _use_of(self, interface: str) -> str | None:
        """What the host uses an interface for: a way of its traffic that taking the NIC would cut."""
        if os.path.exists(os.path.join(self._root, "sys/class/net", interface, "master")):
            return "is a port of a bridge, bond or team"
        for upper in sorted(glob.glob(os.path.join(self._root, "sys/class/net", interface, "upper_*"))):
            return f"carries {os.path.basename(upper).removeprefix('upper_')}"
        for line in _lines(os.path.join(self._root, "proc/net/route"))[1:]:
            if line.split("\t", 1)[0] == interface:
                return "carries a route of the host"
        for line in _lines(os.path.join(self._root, "proc/net/if_inet6")):
            address, _, _, scope, _, name = line.split()
            if name == interface and scope == "00":  # global; every interface that is up has a link-local one
                return f"has the address {address}"
        return None

    def _group(self) -> str | None:
        return _link(os.path.join(self._device, "iommu_group"))

    def _number(self, name: str) -> int:
        return _number(os.path.join(self._device, name))

    # -- out and back ---------------------------------------------------------------------------------------------

    def take(self) -> None:
        """Take it from its driver and give it to vfio-pci; RefusedError, with all as it was, if that cannot be."""
        self._lock()
        try:
            obstacle = self.obstacle()
            if obstacle is not None:
                raise RefusedError(*obstacle)
            left = self._left_behind()
            now = self.driver()
            # A driver of its own that it has by now was given to it by somebody else; the override was not.
            self.own_driver = now if left is None or now not in _NOT_OWN else left["driver"]
            self._override = self._override_now() if left is None else left["override"]
            self._write_record({"driver": self.own_driver, "override": self._override})
            try:
                self._to_vfio()
            except BaseException:
                self.give_back()
                raise
        except BaseException:
            self._unlock()
            raise

    def give_back(self) -> None:
        """Give it back to the driver that it had; RefusedError if the host then says that another drives it, or none.

        The kernel lets a device go from vfio-pci only once nobody has it open (vfio_unregister_group_dev in Linux'
        drivers/vfio/vfio_main.c waits), so QEMU has ended by then, or is asked for it.
        """
        try:
            if self.own_driver == VFIO:
                self._write_record(None)
                return
            if self.driver() == VFIO:
                self._write(f"sys/bus/pci/drivers/{VFIO}/unbind", self.address)
            self._set_override("" if self._override == _NO_OVERRIDE else self._override)
            if self.own_driver is not None and self.driver() != self.own_driver:
                self._write(f"sys/bus/pci/drivers/{self.own_driver}/bind", self.address)
            self._await(self.own_driver)
            self._write_record(None)
        except OSError as error:
            raise RefusedError(
                f"{self.address} could not be given back to {self.own_driver}: {error}", self._by_hand()
            ) from error
        finally:
            self._unlock()

    def _to_vfio(self) -> None:
        if not os.path.exists(os.path.join(self._root, "sys/bus/pci/drivers", VFIO)):
            done = subprocess.run(["modprobe", VFIO], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RefusedError(f"the host has no {VFIO}: {done.stderr.strip()}", f"modprobe {VFIO} must work there")
        if self.driver() == VFIO:
            return
        try:
            self._set_override(VFIO)
            if (driver := self.driver()) is not None:
                self._write(f"sys/bus/pci/drivers/{driver}/unbind", self.address)
            self._write("sys/bus/pci/drivers_probe", self.address)
        except OSError as error:
            raise RefusedError(
                f"{self.address} could not be given to {VFIO}: {error}", "log in to the host as root"
            ) from error
        self._await(VFIO)

    def _await(self, wanted: str | None) -> None:
        end = time.monotonic() + _MOVED_S
        while self.driver() != wanted:
            if time.monotonic() > end:
                raise RefusedError(
                    f"{self.address} is driven by {self.driver() or 'nobody'}, not by {wanted or 'nobody'}",
                    self._by_hand(),
                )
            time.sleep(0.01)

    def _by_hand(self) -> str:
        path = f"/sys/bus/pci/devices/{self.address}/driver_override"
        again = f"echo {self.address} >/sys/bus/pci/drivers_probe"
        return f"look at the host's kernel log; by hand: echo >{path}; {again}"

    def _override_now(self) -> str:
        text = _lines(os.path.join(self._device, "driver_override"))
        return text[0] if text else _NO_OVERRIDE

    def _set_override(self, driver: str) -> None:
        self._write(f"sys/bus/pci/devices/{self.address}/driver_override", driver)

    def _write(self, name: str, text: str) -> None:
        """One write, as sysfs wants it."""
        descriptor = os.open(os.path.join(self._root, name), os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(descriptor, f"{text}\n".encode())
        finally:
            os.close(descriptor)

    # -- the record -----------------------------------------------------------------------------------------------

    def _record_file(self) -> str:
        return os.path.join(self._root, "run/vtd-harness", f"nic-{self.address}")

    def _lock(self) -> None:
        try:
            os.makedirs(os.path.dirname(self._record_file()), exist_ok=True)
            self._record = os.open(self._record_file(), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise RefusedError(f"{error.filename}: {error.strerror}", "log in to the host as root") from error
        try:
            fcntl.flock(self._record, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._record)
            self._record = None
            raise RefusedError(f"another run has {self.address}", "wait for its end, or take another NIC") from None

    def _unlock(self) -> None:
        if self._record is not None:
            os.close(self._record)
            self._record = None

    def _left_behind(self) -> dict[str, Any] | None:
        """What the record says of a NIC that was taken and not given back."""
        with contextlib.suppress(OSError, ValueError):
            told = json.loads("\n".join(_lines(self._record_file())))
            return {"driver": told["driver"], "override": told["override"]}
        return None

    def _write_record(self, told: dict[str, Any] | None) -> None:
        if self._record is not None:
            os.ftruncate(self._record, 0)
            os.pwrite(self._record, b"" if told is None else json.dumps(told).encode(), 0)


def all_nics(root: str = "/") -> list[Nic]:
    """Every network controller of the host, in the order of their addresses."""
    paths = sorted(glob.glob(os.path.join(root, "sys/bus/pci/devices/*")))
    return [Nic(os.path.basename(p), root) for p in paths if _number(os.path.join(p, "class")) >> 16 == _NETWORK]


def _link(path: str) -> str | None:
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return None


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _number(path: str) -> int:
    """A number in hexadecimal, as most of sysfs has them; 0 where there is none."""
    lines = _lines(path)
    return int(lines[0], 16) if lines else 0
