"""A block by the host of a NIC that it handed out: believed as its log, the bytes and the guest's silence agree."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.blocked_by_host import judge_blocked_by_host
from harness.blocking import Attempt, judge_landed
from harness.evidence import Entry
from harness.judgement import StepEvidence
from harness.testimony import hear
from harness.verdict import Outcome
from harness.vtd.faults import Access
from harness.vtd.source_id import SourceId
from harness.witnesses.lab_host import LOG, problems

NIC, INSIDE = SourceId.parse("0000:03:00.0"), SourceId.parse("0000:01:00.0")
ATTEMPT = Attempt(
    device="nic", function=INSIDE, source=INSIDE, at_host=NIC, access=Access.WRITE, address=0x1234000, length=64,
    bytes_moved=False, intact=True, target="victim",
)  # fmt: skip
FAULT = "DMAR: [DMA Write NO_PASID] Request device [03:00.0] fault addr 0x1234000 [fault reason 0x05] PTE Write access"


def entries(*log: str, source=LOG, drop=(), driver="e1000e") -> list[Entry]:
    """One step with an announced DMA, in a run with a NIC of the host; `log` are lines between the markers."""
    told = [
        ("lab", "lent", None, {"address": "0000:03:00.0", "driver": "e1000e"}),
        (LOG, "mark", None, {"marker": "begin"}),
        (LOG, "line", None, {"seq": 7, "text": "vtd-harness: begin"}),
        ("runner", "step-begin", 0, {"marker": "b"}),
        ("kmsg", "line", 0, {"seq": 0, "text": "vtd-harness: b"}),
        (
            "agent", "dma", 0,
            {"bdf": "0000:01:00.0", "device": "nic", "address": 0x1234000, "length": 2048, "direction": "to-memory",
             "purpose": "attack"},
        ),
        (LOG, "mark", 0, {"marker": "end"}),
        *((source, "line", 0, {"seq": 8 + number, "text": text}) for number, text in enumerate(log)),
        (LOG, "line", 0, {"seq": 8 + (len(log) if source == LOG else 0), "text": "vtd-harness: end"}),
        ("kmsg", "line", 0, {"seq": 9, "text": "vtd-harness: e"}),
        ("runner", "step-end", 0, {"marker": "e"}),
        ("lab", "returned", None, {"address": "0000:03:00.0", "before": "e1000e", "driver": driver, "kept": False}),
    ]  # fmt: skip
    kept = [each for place, each in enumerate(told) if place not in drop]
    return [
        Entry(t=0.0, source=source, kind=kind, step=step, data=data, line=number)
        for number, (source, kind, step, data) in enumerate(kept, start=1)
    ]


def step(*log: str, **how) -> StepEvidence:
    return hear(entries(*log, **how)).steps[0]


def judged(evidence: StepEvidence, attempt: Attempt = ATTEMPT, reason: int = 5):
    judgement = judge_blocked_by_host(evidence, attempt, NIC, [reason])
    return judgement.outcome, judgement.findings[0].text


def test_a_block_that_the_host_reports_is_proven():
    outcome, text = judged(step(FAULT))
    assert outcome is Outcome.PASS
    assert "blocked by the lab host" in text


@pytest.mark.parametrize(
    ("log", "attempt", "outcome", "words"),
    [
        ((), ATTEMPT, Outcome.ERROR, "the bytes are intact, but the host's log has no fault of 'nic' (03:00.0)"),
        ((), replace(ATTEMPT, bytes_moved=True, intact=False), Outcome.FAIL, "not blocked: the payload stands"),
        ((FAULT,), replace(ATTEMPT, bytes_moved=True, intact=False), Outcome.ERROR, "contradiction"),
        ((FAULT,), replace(ATTEMPT, intact=False), Outcome.ERROR, "contradiction"),
        ((FAULT,), replace(ATTEMPT, address=0x9999000), Outcome.ERROR, "not proven to be issued"),
        ((FAULT.replace("0x05", "0x0c"),), ATTEMPT, Outcome.FAIL, "expected reason"),
        ((FAULT.replace("0x1234000", "0x7770000"),), ATTEMPT, Outcome.FAIL, "expected an address"),
        ((FAULT.replace("Write NO", "Read NO"),), ATTEMPT, Outcome.FAIL, "expected a"),
    ],
)
def test_what_does_not_agree_is_no_proof(log, attempt, outcome, words):
    found, text = judged(step(*log), attempt)
    assert found is outcome
    assert words in text


@pytest.mark.parametrize("log", [(FAULT, FAULT.replace("03:00.0", "05:00.0")), (FAULT.replace("03:00.0", "01:00.0"),)])
def test_a_fault_of_another_device_of_the_host_makes_the_step_unreliable(log):
    """It says nothing of the unit under test, and may be this NIC's under another name."""
    [problem] = step(*log).problems
    assert "another device of the lab host faulted during the step" in problem
    assert step(FAULT).problems == ()


def test_a_fault_in_another_segment_is_of_another_device():
    [problem] = step(FAULT.replace("03:00.0", "0001:03:00.0")).problems
    assert "another device of the lab host faulted during the step: write by 0001:03:00.0" in problem
    assert judged(step(FAULT.replace("03:00.0", "0000:03:00.0")))[0] is Outcome.PASS


def test_a_line_that_a_program_on_the_host_wrote_is_no_fault():
    told = [replace(each, data={**each.data, "facility": 1}) for each in entries(FAULT) if each.source == LOG]
    others = [each for each in entries(FAULT) if each.source != LOG]
    evidence = hear([*others, *told]).steps[0]
    assert (evidence.on_host, evidence.problems) == ((), ())


def test_a_control_that_the_host_refused_fails_with_its_words():
    judgement = judge_landed(step(FAULT), ATTEMPT)
    assert judgement.outcome is Outcome.FAIL
    assert "should have landed, but was refused: write by 03:00.0" in judgement.findings[0].text


def test_a_fault_that_the_guest_reports_is_none_of_a_nic_of_the_host():
    """QEMU's unit must not see the request at all."""
    evidence = step(FAULT.replace("03:00.0", "01:00.0"), source="kmsg")
    assert judged(evidence)[0] is Outcome.FAIL


def test_a_control_lands_only_where_the_host_reports_nothing():
    landed = replace(ATTEMPT, bytes_moved=True, intact=False)
    assert judge_landed(step(), landed).outcome is Outcome.PASS
    assert judge_landed(step(FAULT), landed).outcome is Outcome.FAIL


def test_a_fault_of_the_nic_outside_of_any_step_is_told_and_one_of_another_device_is_not():
    told = entries()
    outside = replace(told[0], source=LOG, kind="line", data={"seq": 6, "text": FAULT})
    other = replace(outside, data={"seq": 6, "text": FAULT.replace("03:00.0", "05:00.0")})
    assert [fault.source for fault in hear([told[0], outside, *told[1:]]).between] == [NIC]
    assert not hear([told[0], other, *told[1:]]).between


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ({}, None),
        ({"drop": [10]}, "did not come back from the run"),
        ({"driver": "vfio-pci"}, "had e1000e, and came back to vfio-pci"),
        ({"drop": [6, 7]}, "was not heard at the end of this step"),
        ({"drop": [7]}, "does not hold the marker 'end'"),
    ],
)
def test_a_record_with_a_gap_or_without_the_nics_return_is_not_relied_on(how, problem):
    found = list(problems(entries(**how)))
    assert any(problem in text for text in found) if problem else found == []


def test_missing_and_lost_records_of_the_hosts_log_are_told():
    told = entries(FAULT)
    assert any("follows record" in text for text in problems([e for e in told if e.data.get("seq") != 8]))
    lost = Entry(t=0.0, source=LOG, kind="lost", step=0, data={}, line=99)
    assert any("was overwritten" in text for text in problems([*told, lost]))
