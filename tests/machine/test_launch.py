from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from harness import process
from harness.errors import LaunchError, MonitorError, Unsupported
from harness.evidence import read_journal
from harness.machine.spec import IommuSpec, MachineSpec
from harness.process import StopRung, group_members
from harness.waiting import Deadline, wait_for
from tests.listening import listening

pytestmark = pytest.mark.qemu

WRONG = {
    "address width": (MachineSpec(image="x", iommus=(IommuSpec({"aw_bits": 40}),)), "aw-bits"),
    "two units": (MachineSpec(image="x", iommus=(IommuSpec(), IommuSpec())), "multiple vIOMMUs"),
    "eim without remapping": (
        MachineSpec(image="x", iommus=(IommuSpec({"eim": True, "intremap": False}),)),
        "eim=on cannot be selected",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_configuration_is_refused_in_qemus_own_words(name, start_machine, empty_image) -> None:
    spec, words = WRONG[name]
    started = time.monotonic()
    with pytest.raises(LaunchError) as caught:
        start_machine(spec, empty_image)
    assert time.monotonic() - started < 3
    assert words in caught.value.message
    assert words in caught.value.stderr
    assert caught.value.exit_status == 1
    assert caught.value.argv[-2] == "-append"


def test_an_option_this_qemu_lacks_is_unsupported(start_machine, empty_image) -> None:
    with pytest.raises(Unsupported, match="warp_drive"):
        start_machine(MachineSpec(image="x", iommus=(IommuSpec({"warp_drive": True}),)), empty_image)


def test_nothing_listens(halted_machine) -> None:
    assert listening(halted_machine.process.pid) == set()
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert ("0100007F", server.getsockname()[1]) in listening(os.getpid()), "it would be seen"


def test_a_stop_leaves_nothing(halted_machine, tmp_path) -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    pid = halted_machine.process.pid
    assert halted_machine.stop() == StopRung.QUIT
    assert halted_machine.stop() is None
    assert group_members(pid) == []
    assert len(list(Path("/proc/self/fd").iterdir())) < descriptors
    entries = read_journal(tmp_path / "variant" / "journal.jsonl")
    assert [entry.kind for entry in entries if entry.source == "process"] == ["start", "qemu", "stop"]
    assert entries[-1].data == {"rung": "quit", "exit_status": 0} or entries[-2].data["rung"] == "quit"
    commands = [entry.data["command"] for entry in entries if entry.source == "qmp" and entry.kind == "command"]
    assert commands == ["query-version", "quit"]


def test_a_qemu_that_hangs_is_killed(halted_machine, monkeypatch) -> None:
    monkeypatch.setattr(process, "TERM_S", 0.5)
    os.kill(halted_machine.process.pid, signal.SIGSTOP)
    started = time.monotonic()
    assert halted_machine.stop() == StopRung.KILL, "a stopped process takes no SIGTERM"
    assert time.monotonic() - started < 6


def test_a_killed_qemu_is_told_with_its_exit_status(halted_machine) -> None:
    assert halted_machine.abort() is None
    os.kill(halted_machine.process.pid, signal.SIGKILL)
    error = wait_for("the abort", halted_machine.abort, Deadline.after(2))
    assert isinstance(error, LaunchError)
    assert error.exit_status == -signal.SIGKILL
    with pytest.raises(LaunchError, match="ended on its own"):
        halted_machine.device_add({"driver": "edu", "id": "a", "bus": "rp0"})


def test_devices_are_added_by_qdev_properties_and_refused_with_qemus_reason(halted_machine, tmp_path) -> None:
    halted_machine.device_add({"driver": "edu", "id": "rogue", "bus": "rp0"})
    halted_machine.device_add({"driver": "e1000e", "id": "nic", "bus": "rp1", "netdev": "w0"})
    with pytest.raises(MonitorError, match=r"'rp9' not found"):
        halted_machine.device_add({"driver": "edu", "id": "other", "bus": "rp9"})
    script = (tmp_path / "variant" / "repro.sh").read_text()
    assert script.endswith(
        "# then, at the monitor: device_add edu,id=rogue,bus=rp0\n"
        "# then, at the monitor: device_add e1000e,id=nic,bus=rp1,netdev=w0\n"
        "# then, at the monitor: device_add edu,id=other,bus=rp9\n"
    )


def test_devices_are_added_behind_a_conventional_bridge_too(start_machine, empty_image) -> None:
    with start_machine(MachineSpec(image="empty", memory_mib=64, pci_bridges=1), empty_image) as machine:
        for place in (1, 2):
            machine.device_add({"driver": "edu", "id": f"d{place}", "bus": "br0", "addr": f"{place:#x}"})


def test_trace_events_are_switched_for_real(halted_machine) -> None:
    halted_machine.register(0xFED9_001C)
    assert halted_machine.trace_lines() == ([], 0)
    halted_machine.trace(["vtd_reg_read", "vtd_dmar_fault"], on=True)
    halted_machine.register(0xFED9_001C)
    lines, offset = halted_machine.trace_lines()
    assert len(lines) == 1
    assert re.fullmatch(r"\d+@\d+\.\d{6}:vtd_reg_read .*0x1c.*", lines[0])
    halted_machine.trace(["vtd_reg_read"], on=False)
    halted_machine.register(0xFED9_001C)
    assert halted_machine.trace_lines(offset) == ([], offset)
    with pytest.raises(MonitorError, match="vtd_nonsense"):
        halted_machine.trace(["vtd_nonsense"], on=True)
    with pytest.raises(MonitorError):
        halted_machine.trace(["vtd_*"], on=True)


def test_half_a_trace_line_is_left_for_later(halted_machine, tmp_path) -> None:
    log = tmp_path / "variant" / "trace.log"
    log.write_text("1@1.000001:one\n1@1.000002:tw")
    assert halted_machine.trace_lines() == (["1@1.000001:one"], 15)
    log.write_text("1@1.000001:one\n1@1.000002:two\n")
    assert halted_machine.trace_lines(15) == (["1@1.000002:two"], 30)
