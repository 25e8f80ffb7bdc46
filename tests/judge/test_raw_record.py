"""The journal held against the files that QEMU and the console wrote themselves."""

from __future__ import annotations

import pytest

from harness.evidence import VariantDirectory, read_journal
from harness.raw_record import disagreements

TRACED = "26022@1795336826.592933:vtd_dmar_fault sid 0x100 fault 5 addr 0x7bee000 write 1\n"
SHOWN = "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x7bee000 [fault reason 0x05]"


@pytest.fixture
def directory(tmp_path) -> VariantDirectory:
    """One fault, traced and shown on the console; the journal tells of both."""
    directory = VariantDirectory(tmp_path)
    directory.file("trace.log").write_text(TRACED)
    directory.file("console.log").write_text(f"{SHOWN}\n")
    with directory.journal() as journal:
        fault = {"source_id": "01:00.0", "access": "write", "reason": 5, "first": 0x7BEE000, "last": 0x7BEE000}
        journal.record("trace", "fault", t=1795336826.592933, **fault, count=1)
        journal.record("console", "line", number=1, text=SHOWN)
        journal.record("console", "unmarked", marker="step 1 end 12345678")
    return directory


def found(directory: VariantDirectory) -> list[str]:
    return disagreements(directory, read_journal(directory.file("journal.jsonl")))


def test_files_that_say_the_same_as_the_journal(directory) -> None:
    assert found(directory) == []


def test_a_fault_that_the_trace_holds_and_the_journal_does_not(directory) -> None:
    directory.file("trace.log").write_text(TRACED * 2)
    assert found(directory) == ["trace.log holds 2 faults, the journal tells 1"]


def test_a_line_that_the_console_never_showed(directory) -> None:
    directory.file("console.log").write_text("something else\n")
    (told,) = found(directory)
    assert told.endswith(f"console.log has no such line: {SHOWN}")
