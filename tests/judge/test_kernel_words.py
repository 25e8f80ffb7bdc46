"""Whose words the judge believes: those of the guest's kernel, read whole; not what a program wrote into its log."""

from __future__ import annotations

import re

import pytest

from harness.judge import judge_variant
from harness.verdict import Outcome
from tests.judge.recording import ATTACK, CONTROL, Recording, proof

FORGED = "DMAR: [DMA Write NO_PASID] Request device [02:00.0] fault addr 0x9000 [fault reason 0x05] PTE Write"


def _with_facilities(recording: Recording, *, fault: int = 0) -> Recording:
    """Let the records have a facility, as those of a guest of today do; that of the fault lines is `fault`."""
    for entry in recording.entries:
        if entry["source"] == "kmsg":
            text = entry["data"]["text"]
            entry["data"]["facility"] = 1 if text.startswith("vtd-harness") else fault if "DMAR" in text else 0
    return recording


def _written(recording: Recording, step: int, text: str) -> Recording:
    """Have a program write a line into the guest's log, which the console shows as well, before the end of a step."""
    before = [id(entry) for entry in recording.entries]
    recording.add("kmsg", "line", step, priority=6, facility=1, us=0, text=text)
    recording.add("console", "line", step, number=8, text=f"[    5.5] {text}")
    told = [entry for entry in recording.entries if id(entry) not in before]
    recording.entries[:] = [entry for entry in recording.entries if id(entry) in before]
    ends = [i for i, e in enumerate(recording.entries) if e["step"] == step and e["source"] == "kmsg"]
    for entry in told:
        recording.entries.insert(ends[-1], entry)
    for number, entry in enumerate(e for e in recording.entries if e["source"] == "kmsg"):
        entry["data"]["seq"] = number
    return recording


def test_a_record_with_facilities_is_judged_as_one_without(tmp_path):
    assert judge_variant(_with_facilities(proof()).write(tmp_path)).outcome is Outcome.PASS


def test_a_fault_line_that_a_program_wrote_is_no_witness(tmp_path):
    verdict = judge_variant(_with_facilities(proof(), fault=1).write(tmp_path))

    assert verdict.outcome is Outcome.ERROR
    assert any(each.name == "guest-log" and "no fault of 'rogue'" in each.evidence for each in verdict.witnesses)


@pytest.mark.parametrize("step", [CONTROL, ATTACK])
@pytest.mark.parametrize(
    "text", [FORGED, "DMAR: DRHD: handling fault status reg 2", "DMAR: [DMA Write] Request device"]
)
def test_what_a_program_writes_changes_no_verdict(step, text, tmp_path):
    verdict = judge_variant(_written(_with_facilities(proof()), step, text).write(tmp_path))

    assert (verdict.outcome, verdict.reason) == (Outcome.PASS, "all 2 expectations proven")


def test_a_console_line_without_a_record_of_the_log_contradicts_it(tmp_path):
    recording = _with_facilities(proof())
    recording.add("console", "line", ATTACK, number=8, text=f"[    5.5] {FORGED}")

    verdict = judge_variant(recording.write(tmp_path))

    assert verdict.outcome is Outcome.ERROR
    assert "log and console disagree" in verdict.reason


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [(r"fault addr 0x\w+", "fault addr ffxxxxxx"), (r"\[DMA Write NO_PASID\] ", ""), (r"\[fault reason 0x05\]", "")],
)
def test_a_fault_line_that_is_not_whole_is_an_error_of_its_step(pattern, replacement, tmp_path):
    recording = proof()
    for entry in recording.entries:
        if entry["step"] == ATTACK and entry["source"] in ("kmsg", "console"):
            entry["data"]["text"] = re.sub(pattern, replacement, entry["data"]["text"])

    verdict = judge_variant(recording.write(tmp_path))

    assert verdict.outcome is Outcome.ERROR
    assert "could not be read whole" in verdict.reason or "is missing" in verdict.reason


def test_a_fault_by_the_same_address_in_another_segment_is_another_devices(tmp_path):
    recording = proof()
    for entry in recording.entries:
        if entry["step"] == ATTACK and "text" in entry["data"]:
            entry["data"]["text"] = entry["data"]["text"].replace("[01:00.0]", "[0001:01:00.0]")

    verdict = judge_variant(recording.write(tmp_path))

    assert verdict.outcome is not Outcome.PASS
    assert "0001:01:00.0" in verdict.reason
