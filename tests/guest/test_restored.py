"""Guests restored from a template: alike where they must be, strangers to each other otherwise."""

from __future__ import annotations

import secrets
import time

import pytest

from harness.errors import OperationRefused
from harness.evidence import read_journal
from harness.guest import Guest
from tests.listening import listening

pytestmark = pytest.mark.guest


def sh(guest: Guest, script: str) -> str:
    done = guest.run(["sh", "-c", script])
    assert done.status == 0, done
    return done.stdout.decode()


def whole_memory(guest: Guest) -> bytes:
    return guest.machine.memory.read(0, guest.machine.memory._size)


#: Where a scenario could leave something: MARK stands for letters that nothing else has.
MARKS = {
    "a file in each file system": "for d in /run /root /dev/shm /tmp /etc; do mkdir -p $d; echo MARK >$d/MARK; done",
    "the kernel's log": "echo MARK >/dev/kmsg",
    "the host's name": "echo MARK >/proc/sys/kernel/hostname",
    "a setting": "echo 4242 >/proc/sys/kernel/threads-max",
    "a process": "sh -c 'exec -a MARK sleep 1000' >/dev/null 2>&1 &",
    "free memory": (
        "set -e; cd /dev/shm; yes MARK | head -c 1m >one; for _ in $(seq 64); do cat one; done >all; rm one all"
    ),
    "a module": "modprobe uio_pci_generic",
    "a driver's list": "echo 1234 5678 >/sys/bus/pci/drivers/vfio-pci/new_id",
    "configuration space": "setpci -s 00:02.0 3c.b=77",
    "a bridge's secret": "setpci -s 00:02.0 1c.b=f0",
    "the network": "ip address add 10.9.9.9/24 dev lo",
    "the clock": "date -s 2001-02-03",
}

#: What tells of them, each with what it says in a guest that has them.
TRACES = {
    "ls /run /root /dev/shm /tmp /etc 2>/dev/null; ps; dmesg; hostname": "MARK",
    "cat /proc/sys/kernel/threads-max": "4242",
    "lsmod": "uio_pci_generic",
    "setpci -s 00:02.0 3c.b": "77",
    "ip address show dev lo": "10.9.9.9",
    "date +%Y": "2001",
}


def test_nothing_of_one_guest_is_seen_in_the_next(restored) -> None:
    mark = "M" + secrets.token_hex(12)
    secret = secrets.token_bytes(24)
    with restored("first") as guest:
        for script in MARKS.values():
            sh(guest, script.replace("MARK", mark))
        guest.machine.device_add({"driver": "edu", "id": "rogue", "bus": "rp0"})
        address = guest.pci_address("rogue")
        guest.agent.call("pci_wait", bdf=address)
        guest.agent.call("bind", bdf=address, driver="vfio-pci")
        guest.agent.call("buffer_create", name=mark, size=4096, fill=secret.hex())
        for script, trace in TRACES.items():
            assert trace.replace("MARK", mark) in sh(guest, script), "the mark was not even made"
        marked = whole_memory(guest)
        assert mark.encode() in marked
        assert secret in marked
    with restored("second") as guest:
        for script, trace in TRACES.items():
            assert trace.replace("MARK", mark) not in sh(guest, script)
        assert "1234:11e8" not in sh(guest, "lspci -n")
        clean = whole_memory(guest)
        with pytest.raises(OperationRefused):
            guest.agent.call("buffer_read", name=mark, length=16)
        assert len(clean) == len(marked)
        assert mark.encode() not in clean
        assert secret not in clean
        assert secret.hex().encode() not in clean


def test_siblings_share_no_key_no_port_no_random_number_and_have_the_time(restored) -> None:
    with restored("one") as one, restored("two") as two:
        assert one.machine.keys.client.public != two.machine.keys.client.public
        assert one.machine.keys.host_public == two.machine.keys.host_public, "the template's"
        for guest in (one, two):
            assert listening(guest.machine.process.pid) == set()
            assert sh(guest, "cat /root/.ssh/authorized_keys").strip() == guest.machine.keys.client.public.strip()
            assert "crng reseeded due to virtual machine fork" in sh(guest, "dmesg")
            assert abs(float(sh(guest, "date +%s")) - time.time()) < 5
        drawn = [sh(guest, "head -c 16 /dev/urandom | od -An -tx1") for guest in (one, two)]
        assert drawn[0] != drawn[1]


def test_a_restored_guest_reads_the_fw_cfg_files_of_the_qemu_that_it_is_in(restored_guest) -> None:
    names = "/sys/firmware/qemu_fw_cfg/by_name"
    of_ours = f"{names}/opt/vtd"
    # The guest still goes by the size of the file that was there when it booted.
    assert sh(restored_guest, f"cat {of_ours}/host_key/raw").rstrip("\0") == "-\n"
    assert sh(restored_guest, f"cat {of_ours}/channel/raw") == "10.0.2.100 22"
    assert sh(restored_guest, f"cat {of_ours}/authorized_keys/raw").strip() == restored_guest.machine.keys.client.public
    # The first command of the table loader is to allocate (QEMU's hw/acpi/bios-linker-loader.c).
    assert sh(restored_guest, f"head -c 4 {names}/etc/table-loader/raw | od -An -tu4").split() == ["1"]


def test_the_journal_tells_how_late_a_restored_guest_was(restored, tmp_path) -> None:
    with restored("late") as guest:
        assert guest.machine.restored
    entries = read_journal(tmp_path / "late" / "journal.jsonl")
    clock = next(entry for entry in entries if entry.kind == "clock")
    assert clock.data["behind_s"] > 0
    assert clock.data["within_s"] >= 0


def test_a_guest_with_memory_of_its_own_is_written_from_outside_and_nobody_else_is(restored) -> None:
    with restored("written", own_memory=True) as written, restored("sibling") as sibling:
        secret = secrets.token_bytes(4096)
        made = written.agent.call("buffer_create", name="page", size=4096, fill="00")
        gpa = made["pages"][0]
        before = sibling.machine.memory.read(gpa, 4096)
        written.machine.memory.write(gpa, secret)
        assert written.machine.memory.read(gpa, 4096) == secret
        assert written.agent.call("buffer_read", name="page", length=4096)["hex"] == secret.hex()
        assert sibling.machine.memory.read(gpa, 4096) == before
    with restored("next") as guest:
        assert guest.machine.memory.read(gpa, 4096) != secret
