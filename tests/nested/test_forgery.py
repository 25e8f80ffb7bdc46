"""Judging an interrupt message that a NIC in a nested guest sends, on evidence made for each case."""

from __future__ import annotations

import pytest

from harness.verdict import Outcome
from harness.vtd.interrupts import InterruptRequest
from tests.judge.one_step import denying, judge, judgement
from tests.judge.recording import Recording

PASS, FAIL, ERROR = Outcome.PASS, Outcome.FAIL, Outcome.ERROR
INDEX, SOURCE_ID = 0x1A, 0x26
MESSAGE = InterruptRequest(INDEX).message()
OWN = {"forge": {"device": "nic", "guest": "alice"}, "expect": "landed"}
FORGED = {
    "forge": {"device": "nic", "guest": "alice", "victim": "victim"},
    "expect": {"blocked": {"reason": "ir-source-id"}},
}


def counters(nic=0, guest=0, victim=None):
    found = [("in the platform", "vfio-msix[1]", nic), ("in the guest", "eth1-tx-0", guest)]
    owned = [{"where": w, "name": n, "before": 5, "after": 5 + r, "owner": victim is None} for w, n, r in found]
    if victim is None:
        return owned
    return [*owned, {"where": "of the victim", "name": "vfio-msi[0]", "before": 2, "after": 2 + victim, "owner": True}]


def recorded(*, came=0, refused=None, sent=MESSAGE, announced=1, source="01:00.0", **changes):
    recording = Recording()
    recording.add("runner", "device", None, name="nic", source_id="01:00.0")
    for _ in range(announced):
        purpose = "control" if refused is None else "attack"
        told = {"guest": "alice", "bdf": "0000:02:00.0", "purpose": purpose, "address": sent[0], "data": sent[1]}
        recording.add("agent", "msi", 0, **told)
    if refused is not None:
        line = f"[INTR-REMAP] Request device [{source}] fault index {INDEX:#x} [fault reason {refused:#04x}] Text"
        recording.log(f"DMAR: {line}", 0)
        recording.add("console", "line", 0, number=1, text=f"[    1.0] DMAR: {line}")
        text = f"index 0 high {refused << 32 | 0x100:#x} low {INDEX << 48:#x}"
        recording.add("trace", "recorded", 0, source_id="01:00.0", reason=refused, text=text)
    told = {
        "device": "nic", "model": "e1000e", "function": "0000:02:00.0", "source_id": "01:00.0", "by": "msi",
        "attack": refused is not None, "address": MESSAGE[0], "data": MESSAGE[1], "index": INDEX,
        "before": 2, "after": 2 + came, "counters": counters(victim=came), "recipe": "as told",
        "fault_processing_disabled": False,
    }  # fmt: skip
    recording.add("observation", "msi", 0, **{**told, **changes})
    return recording


def own(**changes):
    return recorded(**{"came": 1, "counters": counters(nic=1, guest=1), **changes})


def refused(**changes):
    return recorded(**{"refused": SOURCE_ID, **changes})


def test_its_own_message_that_came_in_both_kernels_passes():
    found = judgement(OWN, own())

    assert (found.outcome, found.landed) == (PASS, True)
    assert not denying(OWN, own())


def test_anothers_message_that_is_refused_and_reported_passes():
    found = judgement(FORGED, refused())

    assert (found.outcome, found.landed) == (PASS, False)
    assert not denying(FORGED, refused())


def test_anothers_message_that_comes_fails_and_has_landed():
    """As without remapping: the counter-proof is red by this."""
    found = judgement(FORGED, recorded(came=1))

    assert (found.outcome, found.landed) == (FAIL, True)


@pytest.mark.parametrize("changes", [
    {"counters": counters(nic=1, guest=0)},       # it came to the platform, and the guest was not told
    {"counters": counters(nic=1, guest=2)},
    {"sent": (MESSAGE[0] + 32, 0)},               # it was another message
    {"announced": 0},
    {"announced": 2},
    {"source_id": "07:00.0"},                     # it was another device
])  # fmt: skip
def test_witnesses_of_its_own_message_that_contradict_each_other_are_an_error(changes):
    assert judge(OWN, own(**changes)) is ERROR


@pytest.mark.parametrize("changes", [
    {"counters": counters(nic=1, victim=0)},      # it came to the NIC's own handler instead
    {"counters": counters(guest=1, victim=0)},
    {"counters": counters(victim=1)},             # it came, and was refused
    {"sent": (MESSAGE[0] + 32, 0)},
    {"announced": 0},
])  # fmt: skip
def test_witnesses_of_a_refusal_that_contradict_each_other_are_an_error(changes):
    assert judge(FORGED, refused(**changes)) is ERROR


def test_a_refusal_for_another_cause_fails():
    assert judge(FORGED, refused(refused=0x22)) is FAIL


def test_its_own_message_that_came_twice_fails():
    assert judge(OWN, own(came=2, counters=counters(nic=2, guest=2))) is FAIL


def test_what_was_never_sent_is_an_error():
    assert judge(FORGED, Recording()) is ERROR


def test_a_message_that_neither_came_nor_was_refused_is_an_error():
    assert judge(FORGED, recorded()) is ERROR
