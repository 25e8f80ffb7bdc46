"""What nested guests leave in a journal: entries under their own names, logs without holes, DMA told from inside."""

from __future__ import annotations

import pytest

from harness.evidence import GuestJournal, Journal, read_journal
from harness.judge import judge_variant
from harness.testimony import hear, holes
from harness.verdict import Outcome
from tests.judge.one_step import denying, judge
from tests.judge.recording import BEFORE, OTHER, PAYLOAD, PHYSICAL, Recording, proof


class TestGuestJournal:
    def test_a_guests_own_channels_carry_its_name_and_all_others_say_it(self, tmp_path):
        with Journal(tmp_path / "journal.jsonl") as journal:
            journal.step = 3
            alice = GuestJournal(journal, "alice")
            for source in ("kmsg", "console", "qmp", "ssh", "process"):
                assert alice.record(source, "line", text="x").source == f"alice/{source}"
            alice.record("agent", "dma", bdf="0000:01:00.0")
            alice.record("memory", "read", t=7.5, gpa=1)
            journal.record("kmsg", "line", text="the platform's")
        entries = read_journal(tmp_path / "journal.jsonl")

        assert [(entry.source, entry.data) for entry in entries[:1]] == [("alice/kmsg", {"text": "x"})]
        assert [(entry.source, entry.data.get("guest")) for entry in entries[5:]] == [
            ("agent", "alice"),
            ("memory", "alice"),
            ("kmsg", None),
        ]
        assert {entry.step for entry in entries} == {3}
        assert entries[6].t == 7.5

    def test_what_a_guests_kernel_logs_is_no_word_of_the_platforms(self, tmp_path):
        line = "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x5000 [fault reason 0x05] PTE Write"
        with Journal(tmp_path / "journal.jsonl") as journal:
            journal.record("runner", "step-begin", marker="m")
            journal.step = 0
            journal.record("runner", "step-begin", marker="m")
            GuestJournal(journal, "alice").record("kmsg", "line", seq=0, text=line)
            GuestJournal(journal, "alice").record("console", "line", text=line)
        step = hear(read_journal(tmp_path / "journal.jsonl")).steps[0]

        assert (step.logged, step.on_console) == ((), ())


class Nested(Recording):
    """The record of the proof, with one nested guest that lives during the attack."""

    def __init__(self):
        super().__init__(entries=proof().entries)
        self.insert = next(i for i, entry in enumerate(self.entries) if entry["step"] == 3) + 1
        self.live("alice")

    def put(self, source, kind, **data):
        self.entries.insert(self.insert, {"t": 0.0, "source": source, "kind": kind, "step": 3, "data": data})
        self.insert += 1

    def live(self, guest, *, lines=("Linux version 6.1", "booted"), marker="step 4 begin cc3"):
        """A life: the guest answers, its log is marked and read."""
        self.put(f"{guest}/process", "ready", hello={"kernel": "6.1"})
        self.put(f"{guest}/kmsg", "mark", marker=marker)
        for number, text in enumerate((*lines, f"vtd-harness: {marker}")):
            self.put(f"{guest}/kmsg", "line", seq=number, priority=6, us=number, text=text)

    def numbered(self, guest, number):
        """The line of a guest's log with that number, in its last life."""
        found = [e for e in self.entries if e["source"] == f"{guest}/kmsg" and e["data"].get("seq") == number]
        return lambda entry: entry is found[-1]


def found(recording, tmp_path):
    verdict = judge_variant(recording.write(tmp_path))
    return verdict.outcome, verdict.reason


class TestLogsOfNestedGuests:
    def test_whole_logs_pass(self, tmp_path):
        recording = Nested()
        recording.live("bob")

        assert found(recording, tmp_path)[0] is Outcome.PASS

    def test_a_second_life_begins_a_log_of_its_own(self, tmp_path):
        recording = Nested()
        recording.live("alice", lines=("Linux version 6.1",), marker="step 4 begin dd3")

        assert found(recording, tmp_path)[0] is Outcome.PASS

    SPOILED = {
        "a line is missing": (
            lambda r: r.drop(r.numbered("alice", 1)),
            "record 2 of the guest's log follows record 0",
        ),
        "the first line is missing": (
            lambda r: r.drop(r.numbered("alice", 0)),
            "record 1 of the guest's log follows record -1",
        ),
        "its log was overwritten": (lambda r: r.put("alice/kmsg", "lost"), "was overwritten before it was read"),
        "its kernel panicked": (
            lambda r: r.change(r.numbered("alice", 1), text="Kernel panic - not syncing: Attempted to kill init!"),
            "the guest's kernel says: Kernel panic",
        ),
        "its log lacks the marker": (
            lambda r: r.change(r.numbered("alice", 2), text="something else"),
            "does not hold the marker 'step 4 begin cc3'",
        ),
        "another marker stands there": (
            lambda r: r.change(r.numbered("alice", 2), text="vtd-harness: step 4 begin cc4"),
            "does not hold the marker 'step 4 begin cc3'",
        ),
        "its log was never read": (
            lambda r: r.drop(lambda entry: entry["source"] == "alice/kmsg"),
            "not one record of the guest's log was read",
        ),
        "it never answered": (
            lambda r: r.drop(lambda entry: entry["source"] == "alice/process"),
            "its log was read, but it never answered",
        ),
    }

    @pytest.mark.parametrize(("spoil", "words"), SPOILED.values(), ids=SPOILED.keys())
    def test_a_hole_in_one_is_an_error_and_named(self, spoil, words, tmp_path):
        recording = Nested()
        recording.live("bob")
        spoil(recording)
        outcome, reason = found(recording, tmp_path)

        assert outcome is Outcome.ERROR
        assert reason.startswith("nested guest 'alice': ")
        assert words in reason

    def test_the_marker_of_the_first_life_does_not_stand_for_that_of_the_second(self, tmp_path):
        recording = Nested()
        recording.live("alice")
        recording.change(recording.numbered("alice", 2), text="something else")

        assert "does not hold the marker" in found(recording, tmp_path)[1]

    def test_a_second_life_may_have_no_gap_either(self, tmp_path):
        recording = Nested()
        recording.live("alice", marker="step 4 begin dd3")
        recording.drop(recording.numbered("alice", 0))

        assert "record 1 of the guest's log follows record -1" in found(recording, tmp_path)[1]

    def test_a_log_that_goes_on_where_it_should_begin_anew_is_a_gap(self):
        recording = Nested()
        recording.put("alice/process", "ready", hello={"kernel": "6.1"})
        recording.put("alice/kmsg", "line", seq=3, priority=6, us=3, text="more")

        assert [problem for problem in holes(read(recording)) if "nested guest 'alice'" in problem]

    def test_what_was_read_before_a_guest_answered_is_looked_at_too(self):
        recording = Nested()
        first = next(i for i, entry in enumerate(recording.entries) if entry["source"] == "alice/process")
        early = {"seq": 0, "text": "Kernel panic - not syncing: VFS"}
        recording.entries.insert(first, {"t": 0.0, "source": "alice/kmsg", "kind": "line", "step": 3, "data": early})

        assert any("Kernel panic" in problem for problem in holes(read(recording)))

    def test_without_a_kernel_in_the_machine_there_is_nobody_to_ask(self):
        recording = Nested()
        recording.drop(recording.numbered("alice", 1))

        assert [problem for problem in holes(read(recording), kernel=False) if "alice" in problem] == []


def read(recording):
    from harness.evidence import Entry

    return [Entry(**entry, line=number) for number, entry in enumerate(recording.entries, start=1)]


class TestAttackFromInside:
    """The guest announces the DMA under the address that the device has there, the unit reports the platform's."""

    STEP = {"dma": {"device": "nic", "write": 64, "to": "victim"}, "expect": {"blocked": {"reason": "pte-write"}}}
    INSIDE, OUTSIDE = "0000:01:00.0", "07:00.0"

    def recording(
        self,
        *,
        device="nic",
        inside=INSIDE,
        outside=OUTSIDE,
        observed=INSIDE,
        logged=OUTSIDE,
        shown=OUTSIDE,
        after=BEFORE,
    ):
        recording = Recording()
        recording.add(
            "agent", "dma", 0, guest="alice", device=device, bdf=inside, direction="to-memory", address=PHYSICAL,
            length=2048, purpose="attack",
        )  # fmt: skip
        recording.bytes_at(0, BEFORE, label="before")
        recording.bytes_at(0, after, label="after")
        recording.add(
            "observation", "dma", 0, device="nic", function=observed, source_id=self.OUTSIDE, access="write",
            address=PHYSICAL, physical=PHYSICAL, length=64, target="victim", bystanders={}, payload=PAYLOAD.hex(),
            before=BEFORE.hex(), after=after.hex(),
        )  # fmt: skip
        recording.add(
            "trace", "fault", 0, source_id=outside, access="write", reason=5, first=PHYSICAL, last=PHYSICAL + 60,
            count=16,
        )  # fmt: skip
        tail = f"fault addr {PHYSICAL:#x} [fault reason 0x05] PTE Write"
        recording.log(f"DMAR: [DMA Write NO_PASID] Request device [{logged}] {tail}", 0)
        recording.add("console", "line", 0, text=f"DMAR: [DMA Write NO_PASID] Request device [{shown}] {tail}")
        return recording

    def test_a_block_of_what_a_guest_announced_passes(self):
        assert judge(self.STEP, self.recording()) is Outcome.PASS
        assert denying(self.STEP, self.recording()) == set()

    @pytest.mark.parametrize("changes", [
        {"inside": "0000:07:00.0"},                # announced under the platform's address: by somebody else
        {"observed": "0000:07:00.0"},
        {"inside": "0000:01:00.1"},
        {"device": "bobs"},                        # bob has a device at that address too
        {"shown": "01:00.0"},
        {"logged": "01:00.0"},
        {"after": PAYLOAD},
        {"after": OTHER},
    ])  # fmt: skip
    def test_one_witness_that_means_another_device_or_other_bytes_is_an_error(self, changes):
        assert judge(self.STEP, self.recording(**changes)) is Outcome.ERROR

    @pytest.mark.parametrize("changes", [{"outside": "01:00.0"}, {"logged": "01:00.0", "shown": "01:00.0"}])
    def test_a_fault_of_the_function_that_has_the_guests_address_in_the_platform_fails(self, changes):
        assert judge(self.STEP, self.recording(**changes)) is Outcome.FAIL

    def test_a_dma_that_nobody_announced_is_an_error(self):
        recording = self.recording()
        recording.drop(lambda entry: entry["source"] == "agent")

        assert judge(self.STEP, recording) is Outcome.ERROR
