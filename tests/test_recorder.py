"""A step's end marker on the console of its guest."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness import recorder
from harness.evidence import Journal, read_journal
from harness.log_allowance import LOGGED_FAULTS, LogAllowance
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
            allowance=LogAllowance(),
            call=mark,
            guest=SimpleNamespace(machine=machine),
            host_log=None,
            journal=journal,
            nested={},
            read_log=list,
        )
        Recorder(session).end("step 1")
    assert [entry.kind for entry in read_journal(log) if entry.source == "console"] == told


RECORDED = "7@1.0:vtd_frr_new index 0 high 0xffff0500000100 low 0x200000"


class Machine(SimpleNamespace):
    """A machine whose trace is `lines`, and whose console shows every marker."""

    def trace_lines(self, offset):
        return self.lines[offset:], len(self.lines)


@pytest.fixture
def recording(tmp_path):
    """A recorder of a machine, its session, and how often it waited for room in the guest's log."""
    console = tmp_path / "console.log"
    console.write_text("")
    machine = Machine(lines=[], console=SimpleNamespace(path=console))

    def mark(_operation, *, text, level):
        with console.open("a") as file:
            file.write(f"vtd-harness: {text}\n")

    with Journal(tmp_path / "journal.jsonl") as journal:
        session = SimpleNamespace(
            allowance=LogAllowance(), call=mark, guest=SimpleNamespace(machine=machine), host_log=None,
            journal=journal, nested={}, waits=[], read_log=lambda: [LOGGED],
        )  # fmt: skip
        session.abort = lambda: None
        session.await_room = lambda: session.waits.append(len(session.allowance._last))
        yield Recorder(session), session, machine.lines


FAULT_LINE = "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x200000 [fault reason 0x05] x"
LOGGED = SimpleNamespace(source="kmsg", ref="", data={"text": FAULT_LINE})


def run_step(recorder, lines, *new):
    recorder.begin("step")
    lines += new
    recorder.end("step")


def test_faults_that_nobody_expected_are_booked_and_the_next_steps_wait_for_room(recording) -> None:
    recorder, session, lines = recording

    for _ in range(LOGGED_FAULTS):
        run_step(recorder, lines, RECORDED)
    recorder.begin("step")

    assert len(session.allowance._last) == LOGGED_FAULTS
    assert session.waits == [1, 2, 3]


def test_a_fault_between_steps_is_booked_too(recording) -> None:
    recorder, session, lines = recording
    lines.append(RECORDED)
    recorder.begin("step")

    assert len(session.allowance._last) == 1


def test_faults_that_were_provoked_are_not_booked_twice(recording) -> None:
    recorder, session, lines = recording
    recorder.begin("step")
    for _ in range(2):
        session.allowance.take()
        lines.append(RECORDED)
    recorder.end("step")
    run_step(recorder, lines)

    assert (len(session.allowance._last), session.waits) == (2, [])


def test_a_step_that_provoked_a_fault_and_had_more_of_them_books_those(recording) -> None:
    recorder, session, lines = recording
    recorder.begin("step")
    session.allowance.take()
    lines += [RECORDED] * 2
    recorder.end("step")

    assert len(session.allowance._last) == 2
