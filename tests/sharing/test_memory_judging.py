"""Judging that a canary lies in memory of a NIC's own domain, on evidence that is spoiled one thing at a time."""

from __future__ import annotations

from hashlib import sha256

import pytest

from harness.verdict import Outcome
from tests.judge.one_step import judgement
from tests.judge.recording import Recording

FAIL, ERROR, PASS = Outcome.FAIL, Outcome.ERROR, Outcome.PASS
STEP = {"plant": {"canary": "pfs", "of": "pf"}}
PHYSICAL, IOVA = 0x1234_5080, 0xFFE0_0080
SENT, BEFORE = b"\x22" * 1024, b"\x11" * 1024


def digest(data):
    return sha256(data).hexdigest()


def of(source, kind):
    return lambda entry: (entry["source"], entry["kind"]) == (source, kind)


def whole(*, before=BEFORE, after=SENT, **changes):
    recording = Recording()
    recording.add("trace", "watching", 0, events=["vtd_dmar_translate"])
    for label, content in (("before", before), ("after", after)):
        recording.add("memory", "read", 0, label=label, gpa=PHYSICAL, size=1024, sha256=digest(content))
    told = {
        "canary": "pfs", "device": "pf", "source_id": "01:00.0", "iova": IOVA, "physical": PHYSICAL, "led": PHYSICAL,
        "others": {"vf-a": None, "vf-b": None}, "sent": SENT.hex(), "before": digest(before), "after": digest(after),
    }  # fmt: skip
    recording.add("observation", "received", 0, **(told | changes))
    recording.add("trace", "translated", 0, source_id="01:00.0", count=3, lifted=0)
    return recording


def judged(recording):
    found = judgement(STEP, recording, devices=("pf",), model="igb")
    return found, {each.name: each.verdict.value for each in found.witnesses if each.verdict.value != "confirms"}


def test_memory_that_the_nic_wrote_and_no_function_reaches_passes():
    found, denying = judged(whole())

    assert (found.outcome, found.landed, denying) == (PASS, True, {})
    assert {witness.name for witness in found.witnesses} == {"bytes", "walk", "translation", "others"}


@pytest.mark.parametrize(("changes", "outcome", "who"), [
    ({"after": BEFORE}, FAIL, {"bytes": "denies"}),
    ({"after": b"\x33" * 1024}, FAIL, {"bytes": "denies"}),
    ({"before": SENT}, ERROR, {"bytes": "missing"}),              # it stood there before anything was sent
    ({"led": PHYSICAL + 4096}, FAIL, {"walk": "denies"}),
    ({"led": None}, ERROR, {"walk": "missing"}),
    ({"others": {}}, ERROR, {"walk": "missing"}),
    ({"others": {"vf-a": None, "vf-b": 0x5000}}, FAIL, {"walk": "denies"}),
])  # fmt: skip
def test_memory_that_is_not_the_nics_own_is_not_believed(changes, outcome, who):
    found, denying = judged(whole(**changes))

    assert (found.outcome, denying) == (outcome, who)


def test_a_control_that_did_not_land_says_so():
    assert judged(whole(after=BEFORE))[0].landed is False


@pytest.mark.parametrize("which", ["before", "after"])
def test_bytes_that_were_not_read_there_are_an_error(which):
    missing, elsewhere = whole(), whole()
    missing.drop(lambda entry: entry["data"].get("label") == which)
    elsewhere.change(lambda entry: entry["data"].get("label") == which, gpa=PHYSICAL + 64)

    assert judged(missing)[0].outcome is ERROR
    assert judged(elsewhere)[0].outcome is ERROR


def test_a_dma_that_went_around_the_unit_fails():
    recording = whole()
    recording.change(of("trace", "translated"), source_id="01:10.0")

    assert judged(recording)[0].outcome is FAIL


@pytest.mark.parametrize("source", ["01:00.0", "01:10.0"])
def test_a_fault_of_anybody_fails(source):
    recording = whole()
    recording.add("trace", "fault", 0, source_id=source, access="write", reason=5, first=0, last=0, count=1)

    assert judged(recording)[0].outcome is FAIL


@pytest.mark.parametrize("changes", [{"canary": "others"}, {"device": "vf-a"}])
def test_nothing_is_known_of_a_canary_that_was_not_put_there(changes):
    assert judged(whole(**changes))[0].outcome is ERROR
    assert judged(Recording())[0].outcome is ERROR
