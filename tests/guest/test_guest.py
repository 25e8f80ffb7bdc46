"""A real guest behind a real vIOMMU, on each image."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from harness.agent_link import AgentLink
from harness.errors import AgentError, GuestPanic, LaunchError, OperationRefused, SshError
from harness.evidence import read_journal
from harness.guest import AGENT_PORT, Guest
from harness.machine.launch import Machine
from harness.machine.spec import IommuSpec, MachineSpec
from harness.ssh import KeyPair, Ssh
from harness.waiting import Deadline, wait_for

pytestmark = pytest.mark.guest

SPEC = MachineSpec(
    image="",
    kernel_args=("intel_iommu=on",),
    iommus=(IommuSpec({"intremap": True, "caching_mode": True}),),
    root_ports=4,
    pci_bridges=1,
    wires=("lan",),
)

ARP = b"\x08\x06"


@pytest.fixture
def machine(start_machine, guest_image):
    with start_machine(SPEC, guest_image) as machine:
        yield machine


@pytest.fixture
def guest(machine):
    with Guest.boot(machine) as guest:
        yield guest


def vanished(guest: Guest, address: str) -> bool:
    return guest.run(["test", "-e", f"/sys/bus/pci/devices/{address}"]).status == 1


def test_a_guest_boots_answers_and_takes_devices(guest, tmp_path) -> None:
    assert guest.hello["kernel"].startswith("6.")
    done = guest.run(["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"a'b\n\x00\xff" * 20000)
    assert (done.status, done.stderr) == (3, b"err\n")
    assert done.stdout == b"a'b\n\x00\xff" * 20000
    assert guest.run(["printf", "%s|", "two words", "$HOME", ""]).stdout == b"two words|$HOME||"
    with pytest.raises(OperationRefused):
        guest.agent.call("no-such-operation")

    places = {"rogue": ("edu", "rp0"), "nic": ("e1000e", "rp1"), "sriov": ("igb", "rp2"), "old": ("edu", "br0")}
    for name, (driver, bus) in places.items():
        extra = {"netdev": "lan"} if driver == "e1000e" else {"addr": "0x1"} if bus == "br0" else {}
        guest.machine.device_add({"driver": driver, "id": name, "bus": bus, **extra})

    def enumerated() -> bool:
        listed = guest.run(["ls", "/sys/bus/pci/devices"]).stdout.decode().split()
        return all(guest.pci_address(name) in listed for name in places)

    wait_for("the guest to see its devices", enumerated, Deadline.after(15), abort=[guest.machine.abort])
    assert guest.pci_address("rogue") == "0000:01:00.0"
    assert guest.pci_address("nic") == "0000:02:00.0"
    assert guest.pci_address("old").endswith(":01.0"), "behind the bridge in the slot it was given"
    assert guest.run(["cat", "/sys/bus/pci/devices/0000:01:00.0/device"]).stdout == b"0x11e8\n"
    for name in places:
        address = guest.pci_address(name)
        guest.machine.device_del(name)
        assert vanished(guest, address)

    entries = read_journal(tmp_path / "variant" / "journal.jsonl")
    ready = next(entry for entry in entries if entry.kind == "ready")
    assert 0 < ready.data["boot_s"] < 120
    assert [entry.data["name"] for entry in entries if entry.kind == "event"].count("DEVICE_DELETED") >= 4


def test_frames_cross_the_wire_both_ways(restored_guest) -> None:
    guest, machine = restored_guest, restored_guest.machine
    machine.device_add({"driver": "e1000e", "id": "nic", "bus": "rp0", "netdev": "lan", "mac": "02:00:00:00:00:02"})

    def interface() -> str:
        return guest.run(["ls", f"/sys/bus/pci/devices/{guest.pci_address('nic')}/net"]).stdout.decode().strip()

    nic = wait_for("the driver to bind", interface, Deadline.after(15), abort=[machine.abort])
    guest.run(["ip", "address", "add", "192.0.2.2/24", "dev", nic])
    guest.run(["ip", "link", "set", nic, "up"])
    carrier = ["grep", "-q", "1", f"/sys/class/net/{nic}/carrier"]
    wait_for("the link", lambda: guest.run(carrier).status == 0, Deadline.after(15), abort=[machine.abort])
    guest.run(["sh", "-c", "busybox ping -c1 -W3 192.0.2.1 >/dev/null 2>&1 &"])
    wire = machine.wires["lan"]
    host, asked = bytes.fromhex("020000000001"), bytes.fromhex("c0000201")
    query = wire.receive(Deadline.after(10), lambda frame: frame[12:14] == ARP, abort=[machine.abort])
    assert query[:12] == b"\xff" * 6 + bytes.fromhex("020000000002")
    assert query[38:42] == asked

    guests = query[6:12]
    ethernet, who_has = guests + host + ARP, bytes.fromhex("0001080006040001")
    wire.send((ethernet + who_has + host + asked + bytes(6) + bytes.fromhex("c0000202")).ljust(60, b"\0"))
    answer = wire.receive(Deadline.after(10), lambda frame: frame[:6] == host and frame[12:14] == ARP)
    assert answer[20:22] == b"\x00\x02", "an ARP answer"


def test_a_hundred_short_commands_on_one_connection(restored_guest) -> None:
    guest = restored_guest
    assert [guest.run(["true"]).status for _ in range(100)] == [0] * 100
    statuses: list[int] = []

    def run_some() -> None:
        statuses.extend(guest.run(["echo", "hi"]).status for _ in range(15))

    threads = [threading.Thread(target=run_some) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        guest.agent.call("hello")
    for thread in threads:
        thread.join()
    assert statuses == [0] * 45


def test_a_panic_is_told_by_its_title(restored_guest) -> None:
    with pytest.raises(GuestPanic) as caught:
        restored_guest.run(["sh", "-c", "echo c >/proc/sysrq-trigger"], timeout_s=60)
    assert "sysrq" in caught.value.title or "NULL pointer" in caught.value.title
    assert any("sysrq_handle_crash" in line for line in caught.value.console_tail), "the report is not whole"


def test_a_qemu_killed_during_boot_is_told(machine) -> None:
    def kill() -> None:
        wait_for("the guest to print", lambda: machine.console.path.stat().st_size > 2000, Deadline.after(30))
        machine.process.kill()

    threading.Thread(target=kill).start()
    with pytest.raises(LaunchError, match="QEMU ended on its own") as caught:
        Guest.boot(machine)
    assert caught.value.exit_status == -9
    assert any("Linux version" in line or "[    0." in line for line in caught.value.console_tail)
    assert caught.value.argv == machine.argv


def test_an_image_that_never_gets_ready_is_told_with_its_console(start_machine, guest_image) -> None:
    spec = MachineSpec(image="", kernel_args=("rdinit=/bin/nothing", "panic=0"))
    with start_machine(spec, guest_image) as machine, pytest.raises((GuestPanic, LaunchError)) as caught:
        Guest.boot(machine, deadline_s=30)
    assert any("/bin/nothing" in line or "panic" in line for line in caught.value.console_tail)


def connect(machine: Machine, **other: Any) -> Ssh:
    who = {"client": machine.keys.client, "host_public": machine.keys.host_public, **other}
    return Ssh.connect(machine.line, deadline=Deadline.after(60), abort=[machine.abort], **who)


def test_a_server_with_another_host_key_is_refused(restored_machine) -> None:
    with restored_machine() as machine:
        machine.cont()
        with pytest.raises(SshError, match="another host key"):
            connect(machine, host_public=KeyPair.generate().public)


def test_a_client_whose_key_the_guest_does_not_have_is_refused(restored_machine) -> None:
    with restored_machine() as machine:
        machine.cont()
        with pytest.raises(SshError, match="refused the client key"):
            connect(machine, client=KeyPair.generate())


def test_a_server_that_dies_ends_the_session_and_is_followed_by_another(restored_guest) -> None:
    machine = restored_guest.machine
    with pytest.raises(SshError):
        restored_guest.ssh.run(["sh", "-c", "kill -9 $(pidof dropbear); sleep 1000"], timeout_s=90)
    with pytest.raises((AgentError, SshError)):
        restored_guest.agent.call("hello", within_s=60)
    with connect(machine) as ssh:
        assert ssh.run(["echo", "hi"]).stdout == b"hi\n"
        agent = AgentLink(ssh.forward(AGENT_PORT), on_event=print)
        assert agent.call("hello")["boot_id"] == restored_guest.hello["boot_id"]


def test_sessions_that_are_hung_up_follow_each_other(restored_guest) -> None:
    restored_guest.ssh.hang_up()
    for _ in range(5):
        with connect(restored_guest.machine) as ssh:
            assert ssh.run(["echo", "hi"]).stdout == b"hi\n"
            ssh.hang_up()


def test_a_guest_at_rest_has_greeted_and_has_nobody_connected(guest) -> None:
    machine = guest.machine
    greeting = guest.settle()
    assert greeting.startswith(b"SSH-2.0-")
    with connect(machine) as ssh:
        told = ssh.run(["netstat", "-tn"]).stdout.decode().split("\n")
        assert [line.split()[4] for line in told if "ESTABLISHED" in line] == ["10.0.2.100:22"]
        AgentLink(ssh.forward(AGENT_PORT), on_event=print).call("hello")


def test_a_qemu_that_ends_is_told_as_the_cause(restored_guest) -> None:
    restored_guest.machine.process.kill()
    with pytest.raises(LaunchError, match="QEMU ended on its own with exit status -9"):
        restored_guest.run(["true"], timeout_s=60)
    with (
        pytest.raises(LaunchError, match="QEMU ended on its own with exit status -9"),
        restored_guest.machine.explaining(),
    ):
        restored_guest.agent.call("hello", within_s=60)
