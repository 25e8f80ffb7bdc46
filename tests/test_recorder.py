"""A step's end marker on the console of its guest."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness import recorder
from harness.evidence import Journal, read_journal
from harness.recorder import Recorder


@pytest.mark.parametrize(("loglevel", "told"), [(7, []), (4, []), (3, ["unmarked"])])
def test_a_console_that_would_not_show_a_fault_is_told(loglevel, told, tmp_path, monkeypatch) -> None:
    """It shows what is more urgent than its level; the kernel's fault lines are errors, level 3."""
    monkeypatch.setattr(recorder, "_CONSOLE_S", 0.01)
    console, log = tmp_path / "console.log", tmp_path / "journal.jsonl"
    console.write_text("")

    def mark(_operation, *, text, level):
        if level < loglevel:
            console.write_text(f"[    1.0] vtd-harness: {text}\n")

    machine = SimpleNamespace(console=SimpleNamespace(path=console), trace_lines=lambda offset: ([], offset))
    with Journal(log) as journal:
        session = SimpleNamespace(
            abort=lambda: None,
            call=mark,
            guest=SimpleNamespace(machine=machine),
            host_log=None,
            journal=journal,
            nested={},
            read_log=list,
        )
        Recorder(session).end("step 1")
    assert [entry.kind for entry in read_journal(log) if entry.source == "console"] == told
