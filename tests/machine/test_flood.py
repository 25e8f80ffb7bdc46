"""A guest that writes to its console without end: its file stays within the bound, whoever looks or does not."""

from __future__ import annotations

import os
import resource

import pytest

from harness import bounds
from harness.errors import BoundExceeded
from harness.host.accelerator import vcpu_argv
from harness.machine.outgrown import outgrown
from harness.process import Process
from harness.waiting import Deadline, wait_for

#: mov dx, 0x3f8; mov al, 'x'; out dx, al; jmp to the out: the reset vector of a machine whose serial port is flooded.
_FLOOD = bytes.fromhex("baf803 b078 ee ebfd").ljust(16, b"\x90")
_FIRMWARE = 64 << 10


@pytest.mark.qemu
def test_a_real_qemu_whose_guest_floods_its_console_is_found_out(qemu_build, tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "QEMU_FILE_BYTES", 1 << 16)
    console = tmp_path / "console.log"
    firmware = os.memfd_create("firmware")
    try:
        os.write(firmware, _FLOOD.rjust(_FIRMWARE, b"\xf4"))
        argv = [*vcpu_argv(qemu_build, "tcg", cpu="max", firmware_fd=firmware), "-serial", f"file:{console}"]
        stderr = tmp_path / "qemu.stderr"
        given = {"pass_fds": [firmware], "env": qemu_build.env, "file_bytes": bounds.QEMU_FILE_BYTES}
        with Process(argv, stderr=stderr, **given) as process:
            told = wait_for("the flood to be seen", lambda: outgrown([console, stderr]), Deadline.after(60.0))
            assert process.poll() is None, "QEMU goes on, and its console is lost"
            size = console.stat().st_size
    finally:
        os.close(firmware)
    assert size == console.stat().st_size == 1 << 16
    assert isinstance(told, BoundExceeded)
    assert "the guest said more than 65,536 bytes in its file on its console.log" in str(told)
    assert str(console) in str(told)


def test_a_program_goes_on_at_the_bound_and_writes_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "QEMU_FILE_BYTES", 1 << 16)
    file = tmp_path / "trace.log"
    program = f"while :; do echo {'x' * 900} || : > {tmp_path}/met; done 2>/dev/null >> {file}"
    with Process(["sh", "-c", program], stderr=tmp_path / "stderr", file_bytes=1 << 16) as process:
        assert wait_for("the bound", lambda: outgrown([file]), Deadline.after(20.0))
        wait_for("a write that failed", (tmp_path / "met").exists, Deadline.after(20.0))
        assert process.poll() is None
    assert file.stat().st_size == 1 << 16


def test_files_within_the_bound_are_no_flood(tmp_path):
    (tmp_path / "console.log").write_text("x" * 1000)
    assert outgrown([tmp_path / "console.log", tmp_path / "trace.log"]) is None


def test_a_lower_limit_of_the_harness_itself_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    (tmp_path / "console.log").write_text("x" * 1000)
    assert outgrown([tmp_path / "console.log"]).bound == 1000
