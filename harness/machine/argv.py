"""A machine spec as a QEMU command line; a pure function of its arguments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.machine.parts import BootImage, QemuBinary
from harness.machine.properties import IOMMU_DEVICE
from harness.machine.spec import MachineSpec

#: Kernel arguments of every machine; a scenario's own follow and win where the kernel takes the last one.
#: - loglevel=7 keeps the DMAR and pciehp lines on the console; printk.devkmsg=on lets every marker written to /dev/kmsg
#:   through; a large log buffer survives a fault storm.
#: - random.trust_cpu=on: the SSH server needs no entropy device. mitigations=off and tsc=reliable only save time: under
#:   TCG they protect nothing, and the clock watchdog calls a busy host's TSC unstable.
#: - no_timer_check: the kernel counts ten ticks of the timer against its TSC (timer_irq_works in
#:   arch/x86/kernel/apic/io_apic.c) and panics if they are late, which on a busy host QEMU's main loop is. Under KVM,
#:   Linux sets it by itself.
#: - cryptomgr.notests: the kernel's own tests of its ciphers are a good part of a boot under TCG.
#: - panic=0: a panicked guest stays to be looked at; the harness ends it as soon as it has read the console.
KERNEL_ARGS = (
    "console=ttyS0",
    "loglevel=7",
    "printk.devkmsg=on",
    "log_buf_len=4M",
    "random.trust_cpu=on",
    "mitigations=off",
    "tsc=reliable",
    "net.ifnames=0",
    "panic=0",
    "cryptomgr.notests",
    "no_timer_check",
)

#: Slots on pcie.0. Slot 0 is the host bridge, 0x1f the ICH9; all others are fixed, so that addresses are the same in
#: every run, and root ports come first, so that a device behind rp0 is on bus 1.
MANAGEMENT_SLOT = 0x01
FIRST_ROOT_PORT_SLOT = 0x02
FIRST_BRIDGE_SLOT = 0x10
FIRST_DISK_SLOT = 0x14
MAX_ROOT_PORTS = 14
MAX_BRIDGES = 4
MAX_DISKS = 8

#: Functions of one PCI device.
FUNCTIONS = 8

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

#: QOM id of the network and NIC the harness talks to the guest over.
MANAGEMENT = "mgmt"

#: Without IPv6 the network has nothing to tell a restored guest before that answers.
_MANAGEMENT_NET = f"user,id={MANAGEMENT},restrict=on,ipv6=off"

#: Where the guest reaches the chardev that the harness listens to its SSH server on (images/guest/init connects to it).
SSH_ADDRESS = "10.0.2.100", 22


@dataclass(frozen=True, slots=True)
class Ram:
    """Where the guest's memory is: nowhere in particular, or the file `path`.

    A `shared` file holds what the guest writes; otherwise the guest's writes go to copies of the pages.
    """

    path: str | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """How the outside reaches the machine, each as QEMU wants it written.

    `monitor` is a list of arguments, `serial` a chardev (`file,path=...`), `ssh` the chardev that the guest connects
    its SSH server to (None for a server that listens, behind a forwarded port), the keys are paths that QEMU can open,
    `wires` maps a wire's name to its netdev without the id (`dgram,local.type=fd,local.str=9`), `trace` is the log
    file, `qtest` the chardev by which registers are written from outside (None for a machine where none are), `start`
    whether the CPU runs at once.
    """

    monitor: tuple[str, ...]
    serial: str
    ssh: str | None
    host_key: str
    authorized_keys: str
    wires: Mapping[str, str]
    trace: str | None = None
    qtest: str | None = None
    start: bool = False

    @classmethod
    def inherited(
        cls,
        *,
        qmp_fd: int,
        ssh_fd: int,
        host_key_fd: int,
        authorized_keys_fd: int,
        console: str,
        trace: str,
        wire_fds: Mapping[str, int],
        qtest_fd: int | None = None,
    ) -> Channels:
        """Channels made of descriptors that QEMU inherits, and the two files `console` and `trace`."""
        return cls(
            monitor=("-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control"),
            serial=f"file,path={escaped(console)}",
            ssh=f"socket,fd={ssh_fd}",
            host_key=f"/proc/self/fd/{host_key_fd}",
            authorized_keys=f"/proc/self/fd/{authorized_keys_fd}",
            wires={name: f"dgram,local.type=fd,local.str={fd}" for name, fd in wire_fds.items()},
            trace=trace,
            qtest=None if qtest_fd is None else f"socket,fd={qtest_fd}",
        )


def command_line(
    spec: MachineSpec,
    iommus: Sequence[Mapping[str, Any]],
    channels: Channels,
    image: BootImage,
    qemu: QemuBinary,
    *,
    ram: Ram = Ram(),
    incoming: bool = False,
) -> list[str]:
    """The argv of `spec`, for a machine that boots or, `incoming`, one whose device state is brought to it over QMP.

    `iommus` holds the resolved properties of each of `spec.iommus` (`properties.resolve_all`), `image` also the
    files of `spec.disks`. What was saved fits only
    into a machine with the same argv but for channels, memory and `incoming`: even the kernel's file must be there, as
    the guest remembers the numbers of its fw_cfg files, which are sorted (fw_cfg_add_file_callback in QEMU's
    hw/nvram/fw_cfg.c).
    """
    _check(spec)
    return [
        *qemu.argv_prefix,
        *("-name", "guest=vtd,debug-threads=on"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", SANDBOX),
        *("-msg", "timestamp=on"),
        *(("-D", channels.trace) if channels.trace else ()),
        *(() if channels.start else ("-S",)),
        *("-machine", f"q35,kernel-irqchip={spec.irqchip},usb=off,sata=off,smbus=off,vmport=off,memory-backend=ram"),
        *("-object", as_json(_memory(spec, ram))),
        *("-accel", "tcg,thread=multi" if spec.accelerator == "tcg" else "kvm"),
        *("-cpu", spec.cpu, "-smp", str(spec.vcpus), "-m", f"{spec.memory_mib}M"),
        *device_options({"driver": IOMMU_DEVICE, **properties} for properties in iommus),
        *device_options(ports(spec)),
        *_ssh(channels.ssh),
        # Its GUID is new in every QEMU: a restored Linux then reseeds its random numbers (drivers/virt/vmgenid.c).
        *device_options([_management_nic(), {"driver": "vmgenid", "id": "vmgenid", "guid": "auto"}]),
        *_disks(spec, image.disks),
        *(part for name, netdev in channels.wires.items() for part in ("-netdev", f"{netdev},id={name}")),
        *("-chardev", f"{channels.serial},id=serial", "-serial", "chardev:serial"),
        *channels.monitor,
        *_qtest(channels.qtest),
        *("-fw_cfg", f"name=opt/vtd/host_key,file={channels.host_key}"),
        *("-fw_cfg", f"name=opt/vtd/authorized_keys,file={channels.authorized_keys}"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", " ".join((*KERNEL_ARGS, *spec.kernel_args))),
        *(("-incoming", "defer") if incoming else ()),
    ]


def _check(spec: MachineSpec) -> None:
    if not 0 <= spec.root_ports <= MAX_ROOT_PORTS:
        raise ValueError(f"a machine has 0 to {MAX_ROOT_PORTS} root ports, not {spec.root_ports}")
    if not 0 <= spec.pci_bridges <= MAX_BRIDGES:
        raise ValueError(f"a machine has 0 to {MAX_BRIDGES} bridges, not {spec.pci_bridges}")
    if len(spec.disks) > MAX_DISKS:
        raise ValueError(f"a machine has up to {MAX_DISKS} disks, not {len(spec.disks)}")


def _disks(spec: MachineSpec, files: Mapping[str, Path]) -> list[str]:
    """Like the management NIC, they stay out of the vIOMMU: no `iommu_platform`."""
    options: list[str] = []
    for number, name in enumerate(spec.disks):
        node = {"driver": "file", "node-name": f"disk{number}", "filename": str(files[name]), "read-only": True}
        device = {
            "driver": "virtio-blk-pci",
            "id": f"disk-{number}",
            "drive": f"disk{number}",
            "serial": name,
            "bus": "pcie.0",
            "addr": f"{FIRST_DISK_SLOT + number:#x}",
        }
        options += ["-blockdev", as_json(node), *device_options([device])]
    return options


def _ssh(chardev: str | None) -> list[str]:
    if chardev is None:
        return ["-netdev", f"{_MANAGEMENT_NET},hostfwd=tcp:127.0.0.1:0-:22"]
    address, port = SSH_ADDRESS
    return [
        *("-chardev", f"{chardev},id=ssh"),
        *("-netdev", f"{_MANAGEMENT_NET},guestfwd=tcp:{address}:{port}-chardev:ssh"),
        *("-fw_cfg", f"name=opt/vtd/channel,string={address} {port}"),
    ]


def _qtest(chardev: str | None) -> list[str]:
    """QEMU's test protocol beside a running guest; its log of every command would go to stderr."""
    if chardev is None:
        return []
    return ["-chardev", f"{chardev},id=qtest", "-qtest", "chardev:qtest", "-qtest-log", "/dev/null"]


def _memory(spec: MachineSpec, ram: Ram) -> dict[str, Any]:
    backend = {"qom-type": "memory-backend-ram", "id": "ram", "size": spec.memory_mib << 20}
    if ram.path is None:
        return backend
    backend |= {"qom-type": "memory-backend-file", "mem-path": ram.path, "share": ram.shared}
    # Read only, QEMU does not make a file that is not there, and `rom` off lets the guest write its copy all the same.
    return backend if ram.shared else backend | {"readonly": True, "rom": "off"}


def ports(spec: MachineSpec) -> list[dict[str, Any]]:
    """Give root ports rp0.., and for each bridge br0.. a root port of its own (brp0..), each with its own chassis."""
    devices = [_root_port(spec, f"rp{n}", _place(spec, n), chassis=n + 1) for n in range(spec.root_ports)]
    for n in range(spec.pci_bridges):
        place = f"{FIRST_BRIDGE_SLOT + n:#x}"
        devices.append(_root_port(spec, f"brp{n}", place, chassis=MAX_ROOT_PORTS + n + 1))
        devices.append({"driver": "pcie-pci-bridge", "id": f"br{n}", "bus": f"brp{n}"})
    return devices


def _place(spec: MachineSpec, number: int) -> str:
    """Give the address on pcie.0 of a root port: a slot of its own, or a function of one that eight of them share."""
    if spec.multifunction_ports:
        return f"{FIRST_ROOT_PORT_SLOT + number // FUNCTIONS:#x}.{number % FUNCTIONS:#x}"
    return f"{FIRST_ROOT_PORT_SLOT + number:#x}"


def _root_port(spec: MachineSpec, name: str, place: str, *, chassis: int) -> dict[str, Any]:
    # io-reserve=0: there is I/O space for a dozen bridges only, and no device under test needs any.
    port = {
        "driver": "pcie-root-port",
        "id": name,
        "bus": "pcie.0",
        "addr": place,
        "chassis": chassis,
        "slot": chassis,
        "io-reserve": 0,
    }
    if "." in place:
        port["multifunction"] = True
    if not spec.acs:
        port["disable-acs"] = True  # the capability is left out then (rp_realize in hw/pci-bridge/pcie_root_port.c)
    return port


def _management_nic() -> dict[str, Any]:
    """No iommu_platform: its DMA never passes the vIOMMU, so a broken IOMMU cannot cut the channel.

    Nobody has to learn where a restored guest is now, so it is not asked to announce itself.
    """
    return {
        "driver": "virtio-net-pci",
        "id": MANAGEMENT,
        "netdev": MANAGEMENT,
        "bus": "pcie.0",
        "addr": f"{MANAGEMENT_SLOT:#x}",
        "romfile": "",
        "guest_announce": False,
    }


def device_options(devices: Iterable[Mapping[str, Any]]) -> list[str]:
    """Give the options that add `devices` (properties, `driver` among them)."""
    return [part for device in devices for part in ("-device", as_json(dict(device)))]


def as_json(value: Mapping[str, Any]) -> str:
    """Give `value` as QEMU reads it on its command line."""
    return json.dumps(value, separators=(",", ":"))


def escaped(text: str) -> str:
    """`text` inside a QEMU option list, where a comma is written twice."""
    return text.replace(",", ",,")
