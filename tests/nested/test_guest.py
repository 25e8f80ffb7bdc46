"""A nested guest as the harness handles it, over a QEMU that only takes note."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from types import SimpleNamespace

import pytest

from harness.errors import InfraError
from harness.evidence import GuestJournal, Journal, read_journal
from harness.nested.guest import NestedGuest
from harness.nested.nic import GivenNic


class Monitor:
    """QEMU's monitor: devices by their bus, and what `gpa2hpa` says."""

    def __init__(self):
        self.buses = {}
        self.says = ""

    def execute_raw(self, command, arguments, *, timeout_s):  # noqa: ARG002 - the shape of a monitor
        if command == "human-monitor-command":
            return self.says.format(**arguments)
        assert arguments["bus"] not in self.buses.values(), "there is a device behind that port already"
        self.buses[arguments["id"]] = arguments["bus"]
        return {}


class Inner:
    """A guest with an agent that answers, and with the log that it was given."""

    def __init__(self):
        self.machine = SimpleNamespace(monitor=Monitor(), explaining=nullcontext)
        self.agent = self
        self.log = []
        self.lost = False

    def pci_address(self, name):
        return f"0000:0{int(self.machine.monitor.buses[name][2:]) + 1}:00.0"

    def call(self, op, *, within_s, **args):  # noqa: ARG002
        if op == "mark":
            self.log.append({"seq": len(self.log), "text": f"vtd-harness: {args['text']}"})
        if op == "kmsg":
            told, self.log = self.log, []
            return {"entries": told, "lost": self.lost}
        return {"bdf": args.get("bdf")}


@pytest.fixture
def alice(tmp_path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        yield NestedGuest("alice", Inner(), GuestJournal(journal, "alice"), ExitStack(), virtualization="SVM")


def test_each_device_has_a_port_of_its_own(alice):
    soft = GivenNic(name="soft", model="virtio-net", via="up", mac="52:54:00:76:75:01")

    assert alice.give(soft) == {"bdf": "0000:01:00.0"}
    assert alice.hand("nic", "0000:07:00.0") == {"bdf": "0000:02:00.0"}
    assert alice.devices == {"soft": "0000:01:00.0", "nic": "0000:02:00.0"}
    assert alice.uplinks == {"soft": ("up", "virtio-pci")}


def test_a_device_that_comes_again_gets_a_port_that_is_free(alice):
    for name in ("one", "two", "three"):
        alice.hand(name, "0000:07:00.0")
    del alice.devices["two"]
    del alice.guest.machine.monitor.buses["two"]

    alice.hand("two", "0000:07:00.0")
    alice.hand("four", "0000:08:00.0")

    assert alice.guest.machine.monitor.buses == {"one": "rp0", "three": "rp2", "two": "rp1", "four": "rp3"}


def test_where_a_page_lies_is_read_out_of_what_qemu_says(alice):
    monitor = alice.guest.machine.monitor
    monitor.says = "Host physical address for 0x5000 (ram) is 0x12345000\r\n"
    assert alice.host_physical(0x5000) == 0x1234_5000
    monitor.says = "No memory is mapped at address 0x5000 ({command-line})"
    with pytest.raises(InfraError, match=r"does not tell where 0x5000 is: No memory .* \(gpa2hpa 20480\)"):
        alice.host_physical(0x5000)


def test_the_log_is_read_up_to_a_marker_that_no_other_step_has(alice, tmp_path):
    alice.guest.log.append({"seq": 0, "text": "Linux"})
    alice.mark("step 1 begin")
    alice.mark("step 1 begin")
    alice.guest.lost = True
    alice.collect()

    entries = read_journal(tmp_path / "journal.jsonl")
    assert [(entry.source, entry.kind) for entry in entries] == [
        ("alice/kmsg", "mark"),
        ("alice/kmsg", "line"),
        ("alice/kmsg", "line"),
        ("alice/kmsg", "mark"),
        ("alice/kmsg", "line"),
        ("alice/kmsg", "lost"),
    ]
    first, again = (entry.data["marker"] for entry in entries if entry.kind == "mark")
    assert first != again
    assert [entry.data["text"] for entry in entries if entry.kind == "line"] == [
        "Linux",
        f"vtd-harness: {first}",
        f"vtd-harness: {again}",
    ]
