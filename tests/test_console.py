from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.console import Console
from harness.waiting import Deadline, wait_for

PANIC = """\
[    1.902000] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r
[    1.903000] CPU: 0 PID: 1 Comm: swapper/0 Not tainted 6.12.0 #1\r
[    1.904000] Call Trace:\r
[    1.905000] ---[ end Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0) ]---\r
"""


def console_with(tmp_path: Path, text: str) -> Console:
    (tmp_path / "console.log").write_text(text, newline="")
    return Console(tmp_path / "console.log")


def test_a_complete_panic_is_told_with_its_surroundings(tmp_path) -> None:
    console = console_with(tmp_path, "[    0.000000] Linux version 6.12\r\n" + PANIC)
    panic = console.panic()
    assert panic is not None
    assert panic.title == "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
    assert panic.console_tail[0] == "[    0.000000] Linux version 6.12"
    assert len(panic.console_tail) == 5


def test_a_panic_whose_end_never_comes_is_told_all_the_same(tmp_path, monkeypatch) -> None:
    console = console_with(tmp_path, PANIC.splitlines(keepends=True)[0])
    assert console.panic() is None, "the rest of the report may still be on its way"
    assert console.reporting()
    told = console.panic(over=True)
    assert told is not None
    assert told.title.startswith("Kernel panic"), "nothing more comes from a QEMU that has ended"
    monkeypatch.setattr("harness.console.REPORT_S", 0.3)
    assert wait_for("the panic", console.panic, Deadline.after(3)).title.startswith("Kernel panic")


def test_a_report_that_comes_slowly_is_told_with_its_call_trace(tmp_path, monkeypatch) -> None:
    """A starved guest took over half a second from the title to the trace, and the panic was told without it."""
    path = tmp_path / "console.log"
    console = console_with(tmp_path, "")
    clock = [100.0]
    monkeypatch.setattr("harness.console.time", SimpleNamespace(monotonic=lambda: clock[0]))
    for line in PANIC.splitlines(keepends=True)[:-1]:
        with path.open("a", newline="") as file:
            file.write(line)
        assert console.panic() is None
        clock[0] += 2.0
    with path.open("a", newline="") as file:
        file.write(PANIC.splitlines(keepends=True)[-1])
    panic = console.panic()
    assert panic is not None
    assert any("Call Trace" in line for line in panic.console_tail)


@pytest.mark.parametrize(
    "line",
    [
        "BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "Oops: general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] PREEMPT SMP",
        "general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1]",
        "kernel BUG at drivers/iommu/intel/iommu.c:1234!",
    ],
)
def test_the_first_line_of_an_oops_is_the_title(tmp_path, line) -> None:
    console = console_with(tmp_path, f"[   12.345678] {line}\n[   12.5] ---[ end trace 0000000000000000 ]---\n")
    panic = console.panic()
    assert panic is not None
    assert panic.title == line


@pytest.mark.parametrize(
    "line",
    [
        "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x5000 [fault reason 0x05] PTE Write access",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [swapper/0:1]",
        "rcu: INFO: rcu_sched self-detected stall on CPU",
        "WARNING: CPU: 0 PID: 1 at kernel/foo.c:1",
        "Kernel command line: console=ttyS0 panic=0",
    ],
)
def test_what_a_guest_survives_is_no_panic(tmp_path, line) -> None:
    console = console_with(tmp_path, f"{line}\n---[ end trace 0000000000000000 ]---\n")
    assert console.panic() is None


def test_lines_are_told_whole_and_clean_as_the_file_grows(tmp_path) -> None:
    path = tmp_path / "console.log"
    console = Console(path)
    assert console.tail(5) == []
    path.write_bytes(b"\x1b[1;34mone\x1b[0m\r\ntw")
    assert console.tail(5) == ["one"]
    with path.open("ab") as file:
        file.write(b"o\r\nthr\xffee\n")
    assert console.tail(2) == ["two", "thr�ee"]
    assert console.tail(1) == ["thr�ee"]
