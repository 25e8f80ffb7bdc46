"""A guest's log that begins anew: only after a reset that was asked for and seen."""

from __future__ import annotations

from harness.evidence import Entry
from harness.testimony import holes
from harness.witnesses.host_trace import WATCHED
from tests.judge.recording import Recording


def run(*, asked: int = 1, resets: int = 1, again: bool = True, first: int = 0) -> list[str]:
    """The holes of a run with resets that QEMU tells of, some of them asked for, and a log that begins again."""
    recording = Recording()
    recording.add("trace", "watching", events=list(WATCHED))
    for number in range(3):
        recording.log(f"line {number}")
    for _ in range(resets):
        recording.add("qmp", "event", name="RESET", event={})
    for _ in range(asked):
        recording.add("process", "reset", reason="host-qmp-system-reset")
    recording.seq = first if again else 3
    recording.log("Linux version 6.12")
    recording.log("line")
    recording.add("runner", "collected")
    return holes([Entry(**data, line=number) for number, data in enumerate(recording.entries, start=1)])


def test_it_may_begin_anew_after_a_reset():
    assert run() == []
    assert run(asked=2, resets=2) == [], "that of the firmware is recorded too"


def test_nobody_else_may_reset_the_machine():
    assert "nobody had asked for that" in run(asked=0)[1]
    assert any("nobody had asked for that" in hole for hole in run(asked=1, resets=2))
    assert any("nobody had asked for that" in hole for hole in run(asked=0, again=False))


def test_a_log_that_begins_anew_without_a_reset_has_a_hole():
    assert run(asked=0, resets=0) == ["journal.jsonl:5: record 0 of the guest's log follows record 2"]


def test_the_new_log_is_there_from_its_first_record():
    assert run(first=2) == ["journal.jsonl:7: record 2 of the guest's log follows record -1"]
    assert "record 3" in run(again=False)[0], "a log that goes on is not that of a new boot"


def test_a_new_boot_of_which_no_record_was_read_has_a_hole():
    recording = Recording()
    recording.add("trace", "watching", events=list(WATCHED))
    recording.log("line")
    recording.add("process", "reset", reason="host-qmp-system-reset")
    recording.add("runner", "collected")
    entries = [Entry(**data, line=number) for number, data in enumerate(recording.entries, start=1)]

    assert holes(entries) == ["not one record of the guest's log was read"]
