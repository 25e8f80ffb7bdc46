"""Which driver has a PCI function: bound by `driver_override`, and verified by the driver link afterwards."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from pci import driver_of, netdev_of, present
from protocol import Operation, Refused, attempting
from system import read_text, write_text
from waiting import poll, wait_for

VFIO = "vfio-pci"
_NETDEV_WAIT_S = 5.0
_NETWORK_CLASS = 0x02


def modprobe(name: str) -> None:
    """Load a module by name or alias with what it needs; Refused with modprobe's own words."""
    with attempting("run modprobe"):
        done = subprocess.run(["modprobe", name], capture_output=True, check=False)
    if done.returncode:
        raise Refused(f"modprobe {name}: {done.stderr.decode(errors='replace').strip() or done.returncode}")


def unbind(bdf: str) -> None:
    """Take the driver off `bdf`, if it has one."""
    driver = driver_of(bdf)
    if driver is not None:
        write_text(f"{present(bdf)}/driver/unbind", bdf)
    if driver_of(bdf) is not None:
        raise Refused(f"{bdf} is still bound to {driver_of(bdf)}")


def bind(bdf: str, driver: str) -> None:
    """Give `bdf` to `driver` and verify it; vfio-pci by override, any other by what the device says it is."""
    path = present(bdf)
    if driver == VFIO:
        modprobe(VFIO)
    elif not os.path.isdir(f"/sys/bus/pci/drivers/{driver}"):
        modprobe(read_text(f"{path}/modalias"))
    write_text(f"{path}/driver_override", driver if driver == VFIO else "\n")
    if driver_of(bdf) != driver:
        unbind(bdf)
        write_text("/sys/bus/pci/drivers_probe", bdf)
    if driver_of(bdf) != driver:
        raise Refused(f"{bdf} is bound to {driver_of(bdf)} instead of {driver}")


def _load_virtio_drivers(path: str) -> None:
    """Load the drivers of a virtio function's inner device: virtio-pci only carries it."""
    for name in os.listdir(path):
        inner = f"{path}/{name}"
        if name.startswith("virtio") and not os.path.islink(f"{inner}/driver"):
            modprobe(read_text(f"{inner}/modalias"))


class Binding:
    """Operation `bind`."""

    def operations(self) -> dict[str, Operation]:
        """Operations by name."""
        return {"bind": self.bind}

    def bind(self, *, bdf: str, driver: str | None) -> dict[str, Any]:
        """Bind `bdf` to `driver`, or take any driver off it where `driver` is null.

        Answers the driver found bound afterwards and, of a network function under its kernel driver, the interface.
        """
        path = present(bdf)
        if driver is None:
            unbind(bdf)
            write_text(f"{path}/driver_override", "\n")
            return {"driver": None, "netdev": None}
        bind(bdf, driver)
        netdev = None
        if driver != VFIO and int(read_text(f"{path}/class"), 16) >> 16 == _NETWORK_CLASS:
            if driver == "virtio-pci":
                wait_for(f"the virtio device of {bdf}", lambda: _has_virtio(path), _NETDEV_WAIT_S)
                _load_virtio_drivers(path)
            netdev = poll(lambda: netdev_of(bdf), _NETDEV_WAIT_S)
        return {"driver": driver_of(bdf), "netdev": netdev}


def _has_virtio(path: str) -> bool:
    return any(name.startswith("virtio") for name in os.listdir(path))
