"""The QEMU command line of a machine without a guest; a pure function of its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.machine.argv import SANDBOX, as_json, device_options, ports
from harness.machine.parts import QemuBinary
from harness.machine.properties import IOMMU_DEVICE
from harness.machine.spec import MachineSpec

#: Bytes of memory; there is no guest that could want more.
MEMORY = 64 << 20

#: No timer but those of the devices: an idle machine's clock jumps to the next one.
_MACHINE = "q35,kernel-irqchip=split,usb=off,sata=off,smbus=off,vmport=off,pit=off,hpet=off,memory-backend=ram"


@dataclass(frozen=True, slots=True, kw_only=True)
class BareChannels:
    """The descriptors that QEMU inherits, and the file `trace`: memory, firmware, monitor, test channel, and wires."""

    memory: int
    rom: int
    qmp: int
    qtest: int
    wires: Mapping[str, int]
    trace: str


def bare_command_line(
    spec: MachineSpec,
    iommus: Sequence[Mapping[str, Any]],
    devices: Sequence[Mapping[str, Any]],
    channels: BareChannels,
    qemu: QemuBinary,
) -> list[str]:
    """Give the argv of `spec` with `devices`; `iommus` holds the resolved properties of each vIOMMU."""
    backend = {
        "qom-type": "memory-backend-file",
        "id": "ram",
        "size": MEMORY,
        "mem-path": f"/proc/self/fd/{channels.memory}",
        "share": True,
    }
    return [
        *qemu.argv_prefix,
        *("-name", "guest=vtd-bare,debug-threads=on"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", SANDBOX),
        *("-msg", "timestamp=on", "-D", channels.trace),
        *("-machine", _MACHINE, "-object", as_json(backend)),
        *("-accel", "tcg", "-icount", "shift=0,sleep=off", "-m", f"{MEMORY >> 20}M"),
        *("-bios", f"/proc/self/fd/{channels.rom}"),
        *device_options({"driver": IOMMU_DEVICE, **properties} for properties in iommus),
        *device_options(ports(spec)),
        *(part for name, fd in channels.wires.items() for part in _netdev(name, fd)),
        *device_options(devices),
        *("-chardev", f"socket,id=qmp,fd={channels.qmp}", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=qtest,fd={channels.qtest}", "-qtest", "chardev:qtest", "-qtest-log", "/dev/null"),
    ]


def _netdev(name: str, descriptor: int) -> tuple[str, str]:
    return "-netdev", f"dgram,id={name},local.type=fd,local.str={descriptor}"
