"""Whose a line of the log is: the kernel's, or that of a program which wrote it into /dev/kmsg."""

from __future__ import annotations

import pytest

from harness.evidence import Entry
from harness.lab.listener import parsed
from harness.witnesses.kernel_log import kernel_lines, said

FAULT = "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x1000 [fault reason 0x05] PTE Write"


def entry(source: str, text: str, **data: object) -> Entry:
    return Entry(t=0.0, source=source, kind="line", step=0, data={"text": text, **data})


def shown(text: str) -> Entry:
    return entry("console", f"[    5.457844] {text}")


def test_only_the_kernels_lines_count_and_those_of_old_journals_all_do():
    log = [entry("kmsg", "a", facility=0), entry("kmsg", "b", facility=1), entry("kmsg", "c", facility=3)]
    log.append(entry("kmsg", "d"))

    assert said(log) == ["a", "d"]
    assert [line.text for line in kernel_lines(log, "kmsg")] == ["a", "d"]


def test_a_console_has_each_line_that_a_program_wrote_once_less():
    kernel, program = entry("kmsg", FAULT, facility=0), entry("kmsg", FAULT, facility=1)

    assert len(kernel_lines([program, shown(FAULT)], "console")) == 0
    assert len(kernel_lines([kernel, program, shown(FAULT), shown(FAULT)], "console")) == 1
    assert len(kernel_lines([kernel, shown(FAULT)], "console")) == 1
    assert len(kernel_lines([shown(FAULT)], "console")) == 1, "what the log does not have contradicts it"


def test_a_written_record_of_two_lines_is_on_the_console_twice():
    assert kernel_lines([entry("kmsg", f"x\n{FAULT}", facility=1), shown("x"), shown(FAULT)], "console") == []


@pytest.mark.parametrize(
    ("raw", "facility"), [(b"3,5,7,-;DMAR\n", 0), (b"11,5,7,-;DMAR\n", 1), (b"30,5,7,-;DMAR\n", 3)]
)
def test_the_lab_hosts_listener_keeps_the_facility(raw, facility):
    assert parsed(raw)["facility"] == facility
    assert parsed(raw)["priority"] == int(raw.split(b",")[0]) & 7
