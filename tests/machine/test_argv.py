"""Golden command lines. After an intended change run this file with VTD_GOLDEN=update, and read the diff."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest

from harness.machine.argv import MAX_DISKS, MAX_ROOT_PORTS, Channels, Ram, command_line, ports
from harness.machine.spec import IommuSpec, MachineSpec

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Qemu:
    argv_prefix: tuple[str, ...] = ("/cache/qemu/ld.so", "--library-path", "/cache/qemu/lib", "/cache/qemu/qemu")
    env: dict[str, str] = field(default_factory=dict)
    version: str = "10.0.2"
    digest: str = "sha256:0"


@dataclass(frozen=True)
class Image:
    name: str = "debian-13"
    digest: str = "sha256:1"
    kernel: Path = Path("/cache/images/debian-13/kernel")
    initrd: Path = Path("/cache/images/debian-13/initrd")
    disks: Mapping[str, Path] = field(default_factory=dict)


CHANNELS = Channels.inherited(
    qmp_fd=5,
    ssh_fd=8,
    host_key_fd=6,
    authorized_keys_fd=7,
    console="/runs/a,b/console.log",
    trace="/runs/a,b/trace.log",
    wire_fds={"lan": 9, "wan": 11},
)

MACHINES = {
    "plain": (MachineSpec(image="debian-13", root_ports=2), [{"intremap": "on", "caching-mode": True}], {}),
    "no-viommu": (MachineSpec(image="debian-13", iommus=(), root_ports=1), [], {}),
    "everything": (
        MachineSpec(
            image="debian-13",
            kernel_args=("intel_iommu=on", "iommu.strict=1"),
            memory_mib=1024,
            vcpus=2,
            cpu="host",
            accelerator="kvm",
            irqchip="on",
            root_ports=3,
            pci_bridges=2,
            wires=("lan", "wan"),
        ),
        [{"aw-bits": 39}, {}],
        CHANNELS.wires,
    ),
    "platform": (MachineSpec(image="debian-13", vcpus=2, disks=("platform", "more")), [{}], {}),
}


def argv_of(name: str) -> list[str]:
    spec, iommus, wires = MACHINES[name]
    channels = Channels(
        monitor=CHANNELS.monitor,
        serial=CHANNELS.serial,
        ssh=CHANNELS.ssh,
        host_key=CHANNELS.host_key,
        authorized_keys=CHANNELS.authorized_keys,
        trace=CHANNELS.trace,
        wires=wires,
    )
    disks = {disk: Path(f"/cache/images/{disk}/disk, of it") for disk in spec.disks}
    return command_line(spec, iommus, channels, replace(Image(), disks=disks), Qemu())


@pytest.mark.parametrize("name", MACHINES)
def test_the_command_line_is_the_golden_one(name) -> None:
    lines: list[str] = []
    for argument in argv_of(name):
        if argument.startswith("-") or not lines or " " in lines[-1] or not lines[-1].startswith("-"):
            lines.append(argument)
        else:
            lines[-1] += f" {argument}"
    text = "\n".join(lines) + "\n"
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("VTD_GOLDEN") == "update":
        golden.write_text(text)
    assert text == golden.read_text()


def devices_of(name: str) -> list[dict[str, object]]:
    argv = argv_of(name)
    return [json.loads(value) for option, value in pairwise(argv) if option == "-device"]


@pytest.mark.parametrize(
    ("ram", "backend"),
    [
        (Ram(), {"qom-type": "memory-backend-ram"}),
        (Ram("/t/ram", shared=True), {"qom-type": "memory-backend-file", "mem-path": "/t/ram", "share": True}),
        (
            Ram("/t/ram"),
            {"qom-type": "memory-backend-file", "mem-path": "/t/ram", "share": False, "readonly": True, "rom": "off"},
        ),
    ],
    ids=["nowhere", "shared", "copied-on-write"],
)
def test_a_machine_differs_by_nothing_but_where_its_memory_is(ram, backend) -> None:
    booted = command_line(MACHINES["plain"][0], [{}], CHANNELS, Image(), Qemu())
    other = command_line(MACHINES["plain"][0], [{}], CHANNELS, Image(), Qemu(), ram=ram, incoming=True)
    assert other[-2:] == ["-incoming", "defer"]
    (memory,) = [value for option, value in pairwise(other) if option == "-object"]
    assert json.loads(memory) == {"id": "ram", "size": 512 << 20, **backend}
    assert [part for part in other[:-2] if part != memory] == [part for part in booted if '"id":"ram"' not in part]


def test_a_channel_to_write_registers_by_changes_nothing_else() -> None:
    with_it = replace(CHANNELS, qtest="socket,fd=12")
    plain, written = (command_line(MACHINES["plain"][0], [{}], how, Image(), Qemu()) for how in (CHANNELS, with_it))
    added = ["-chardev", "socket,fd=12,id=qtest", "-qtest", "chardev:qtest", "-qtest-log", "/dev/null"]
    place = written.index(added[1]) - 1
    assert written[place : place + len(added)] == added
    assert written[:place] + written[place + len(added) :] == plain
    assert "-qtest" not in plain


def test_the_iommu_comes_before_every_other_device() -> None:
    assert [device["driver"] for device in devices_of("everything")][:2] == ["intel-iommu", "intel-iommu"]


def test_the_management_nic_stays_out_of_the_iommu() -> None:
    nic = next(device for device in devices_of("everything") if device["driver"] == "virtio-net-pci")
    assert "iommu_platform" not in nic
    assert nic["bus"] == "pcie.0"


def test_a_machine_without_a_line_of_its_own_listens_on_loopback_alone() -> None:
    by_hand = command_line(MACHINES["plain"][0], [{}], replace(CHANNELS, ssh=None), Image(), Qemu())
    nets = [value for option, value in pairwise(by_hand) if option == "-netdev" and "id=mgmt" in value]
    assert nets == ["user,id=mgmt,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22"]
    assert not any("opt/vtd/channel" in part for part in by_hand)


@pytest.mark.parametrize(("acs", "shown"), [(True, None), (False, True)])
def test_root_ports_share_slots_as_functions_and_have_acs_only_where_asked_for(acs, shown) -> None:
    spec = MachineSpec(image="x", root_ports=10, multifunction_ports=True, acs=acs)
    root_ports = ports(spec)
    assert [port["addr"] for port in root_ports][:3] == ["0x2.0x0", "0x2.0x1", "0x2.0x2"]
    assert [port["addr"] for port in root_ports][7:] == ["0x2.0x7", "0x3.0x0", "0x3.0x1"]
    assert {port.get("multifunction") for port in root_ports} == {True}
    assert {port.get("disable-acs") for port in root_ports} == {shown}


def test_a_disk_is_read_only_goes_around_the_iommu_and_is_found_by_its_name() -> None:
    disks = [device for device in devices_of("platform") if device["driver"] == "virtio-blk-pci"]
    assert [(disk["serial"], disk["drive"], disk["bus"]) for disk in disks] == [
        ("platform", "disk0", "pcie.0"),
        ("more", "disk1", "pcie.0"),
    ]
    assert not any("iommu_platform" in disk for disk in disks)
    files = [json.loads(value) for option, value in pairwise(argv_of("platform")) if option == "-blockdev"]
    assert [(file["node-name"], file["filename"], file["read-only"]) for file in files] == [
        ("disk0", "/cache/images/platform/disk, of it", True),
        ("disk1", "/cache/images/more/disk, of it", True),
    ]


def test_a_machine_is_given_no_disk_that_its_spec_does_not_name() -> None:
    image = replace(Image(), disks={"platform": Path("/disk")})
    assert command_line(MACHINES["plain"][0], [{}], CHANNELS, image, Qemu()) == command_line(
        MACHINES["plain"][0], [{}], CHANNELS, Image(), Qemu()
    )
    with pytest.raises(KeyError, match="platform"):
        command_line(MachineSpec(image="x", disks=("platform",)), [{}], CHANNELS, Image(), Qemu())


def test_more_disks_than_slots_are_refused() -> None:
    names = tuple(f"d{number}" for number in range(MAX_DISKS + 1))
    with pytest.raises(ValueError, match="a machine has up to 8 disks, not 9"):
        command_line(MachineSpec(image="x", disks=names), [{}], CHANNELS, Image(), Qemu())


def test_ports_and_slots_are_taken_once() -> None:
    names = tuple(f"d{number}" for number in range(MAX_DISKS))
    spec = MachineSpec(image="x", root_ports=MAX_ROOT_PORTS, pci_bridges=4, disks=names)
    image = replace(Image(), disks=dict.fromkeys(names, Path("/disk")))
    argv = command_line(spec, [{}], CHANNELS, image, Qemu())
    devices = [json.loads(value) for option, value in pairwise(argv) if option == "-device"]
    ports = [device for device in devices if device["driver"] == "pcie-root-port"]
    assert len(ports) == MAX_ROOT_PORTS + 4
    assert len({device["chassis"] for device in ports}) == len(ports)
    addresses = [device["addr"] for device in devices if device.get("bus") == "pcie.0"]
    assert len(set(addresses)) == len(addresses)
    assert "0x1f" not in addresses


@pytest.mark.parametrize(("ports", "bridges"), [(MAX_ROOT_PORTS + 1, 0), (-1, 0), (1, 5)])
def test_more_ports_than_slots_are_refused(ports, bridges) -> None:
    spec = MachineSpec(image="x", root_ports=ports, pci_bridges=bridges, iommus=(IommuSpec(),))
    with pytest.raises(ValueError, match="a machine has 0 to"):
        command_line(spec, [{}], CHANNELS, Image(), Qemu())
