"""Judging the reset of one function beside the traffic of another, on evidence that is spoiled one thing at a time."""

from __future__ import annotations

from hashlib import sha256

import pytest

from harness.catalog import steps_of
from harness.evidence import Entry
from harness.testimony import hear
from harness.verdict import Outcome
from tests.judge.recording import Recording

FAIL, ERROR, PASS = Outcome.FAIL, Outcome.ERROR, Outcome.PASS
STEP = {"reset": {"device": "vf-a", "beside": "vf-b", "frames": 3}}
ON, OFF = "00000002", "00000000"
A_PLACE, B_PLACE = 0xFE80C028, 0xFE80C068
ASKED, MOMENT, ANSWERED = 13.5, 14.0, 15.9


def digest(number):
    return sha256(bytes([number])).hexdigest()


def of(source, kind):
    return lambda entry: (entry["source"], entry["kind"]) == (source, kind)


def whole():
    """Frame i leaves at 10 + i and is back half a second later; the reset is at 14."""
    recording = Recording()
    recording.add("trace", "watching", 0, events=["pci_cfg_write", "igb_core_vf_reset"])
    recording.add("trace", "watching", 0, events=["vtd_dmar_translate"])
    for when, value in (("before", ON), ("after", OFF)):
        for name, place, content in (("vf-a", A_PLACE, value), ("vf-b", B_PLACE, ON)):
            label = f"receive queue of '{name}' {when}"
            recording.add("memory", "read", 0, label=label, gpa=place, size=4, sha256="", data=content)
    frames = [[i, 10.0 + i, 10.5 + i, digest(i), digest(i)] for i in range(9)]
    recording.add(
        "observation", "echoes", 0, device="vf-b", source_id="01:10.2", guest={"frames": 10, "ended": True},
        frames=frames,
    )  # fmt: skip
    recording.add(
        "observation", "reset", 0, device="vf-a", source_id="01:10.0", number=0, control=0xA8, asked=ASKED,
        answered=ANSWERED, registers={"vf-a": [A_PLACE, ON, OFF], "vf-b": [B_PLACE, ON, ON]},
    )  # fmt: skip
    recording.add("trace", "translated", 0, source_id="01:10.2", count=50, lifted=0)
    recording.add("trace", "config-write", 0, source_id="01:10.0", offset=4, value=0x8400)
    recording.add("trace", "config-write", 0, source_id="01:10.0", offset=0xA8, value=0x8000)
    recording.entries[-1]["t"] = MOMENT
    recording.add("trace", "function-reset", 0, number=0)
    return recording


def judgement(recording):
    definition = {
        "scenario": "x",
        "title": "x",
        "devices": {
            "pf": {"model": "igb"},
            "vf-a": {"model": "igb-vf", "of": "pf"},
            "vf-b": {"model": "igb-vf", "of": "pf"},
        },
        "steps": [STEP],
    }
    opened = Recording()
    opened.begin(0)
    opened.entries += recording.entries
    opened.end(0)
    entries = [Entry(**data, line=number) for number, data in enumerate(opened.entries, start=1)]
    [step] = steps_of(definition)
    return step.judge(hear(entries).steps[0])


def denying(found):
    return {witness.name: witness.verdict.value for witness in found.witnesses if witness.verdict.value != "confirms"}


def test_a_reset_that_the_other_function_does_not_notice_passes():
    found = judgement(whole())

    assert (found.outcome, found.landed) == (PASS, None)
    assert {witness.name for witness in found.witnesses} == {
        "reset", "queue", "other-queue", "frames", "translation", "others",
    }  # fmt: skip
    assert "the slowest in 500 ms" in found.findings[0].text


# -- was it reset? ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", [
    lambda r: r.drop(lambda e: of("trace", "config-write")(e) and e["data"]["offset"] == 0xA8),
    lambda r: r.change(of("trace", "config-write"), value=0x7FFF),
    lambda r: r.change(lambda e: of("trace", "config-write")(e) and e["data"]["offset"] == 0xA8, offset=0xB0),
    lambda r: r.change(lambda e: "pci_cfg_write" in e["data"].get("events", ()), events=["igb_core_vf_reset"]),
    lambda r: r.change(lambda e: "pci_cfg_write" in e["data"].get("events", ()), events=["pci_cfg_write"]),
])  # fmt: skip
def test_a_reset_that_is_not_traced_is_an_error(spoil):
    recording = whole()
    spoil(recording)

    found = judgement(recording)
    assert found.outcome is ERROR
    assert denying(found) == {"reset": "missing"}


def test_a_reset_that_was_asked_for_and_not_done_fails():
    recording = whole()
    recording.drop(of("trace", "function-reset"))

    assert judgement(recording).outcome is FAIL


def test_a_reset_from_before_it_was_asked_for_is_not_that_one():
    recording = whole()
    reset = next(entry for entry in recording.entries if of("trace", "function-reset")(entry))
    recording.entries.remove(reset)
    recording.entries.insert(0, reset)

    assert judgement(recording).outcome is FAIL


@pytest.mark.parametrize("more", [
    ("function-reset", {"number": 1}),
    ("config-write", {"source_id": "01:10.2", "offset": 0xA8, "value": 0x8000}),
])  # fmt: skip
def test_another_function_that_is_reset_too_fails(more):
    recording = whole()
    recording.add("trace", more[0], 0, **more[1])

    found = judgement(recording)
    assert found.outcome is FAIL
    assert denying(found) == {"reset": "denies"}


@pytest.mark.parametrize(("place", "t"), [(0, 13.0), (0, 17.0)])
def test_a_reset_at_another_time_is_an_error(place, t):
    recording = whole()
    wanted = [e for e in recording.entries if of("trace", "config-write")(e) and e["data"]["offset"] == 0xA8]
    wanted[place]["t"] = t

    assert judgement(recording).outcome is ERROR


@pytest.mark.parametrize(("registers", "outcome", "who"), [
    ({"vf-a": [A_PLACE, ON, ON]}, FAIL, {"queue": "denies"}),
    ({"vf-a": [A_PLACE, OFF, OFF]}, ERROR, {"queue": "missing"}),
    ({"vf-b": [B_PLACE, ON, OFF]}, FAIL, {"other-queue": "denies"}),
    ({"vf-b": [B_PLACE, OFF, ON]}, FAIL, {"other-queue": "denies"}),
    ({"vf-b": [B_PLACE, OFF, OFF]}, FAIL, {"other-queue": "denies"}),
])  # fmt: skip
def test_a_queue_that_is_not_as_the_reset_must_leave_it(registers, outcome, who):
    recording = whole()
    for name, (place, *values) in registers.items():
        read = [entry for entry in recording.entries if entry["data"].get("gpa") == place]
        for entry, value in zip(read, values, strict=True):
            entry["data"]["data"] = value
        reset = next(entry for entry in recording.entries if of("observation", "reset")(entry))
        reset["data"]["registers"][name] = [place, *values]

    found = judgement(recording)
    assert (found.outcome, denying(found)) == (outcome, who)


@pytest.mark.parametrize("spoil", [
    lambda r: r.drop(lambda e: e["data"].get("gpa") == A_PLACE),
    lambda r: r.drop(lambda e: e["data"].get("gpa") == B_PLACE and "after" in e["data"]["label"]),
    lambda r: r.change(lambda e: e["data"].get("gpa") == A_PLACE, gpa=0),
    lambda r: r.change(lambda e: e["data"].get("gpa") == B_PLACE, data=OFF),  # told otherwise than it was read
    lambda r: r.change(of("observation", "reset"), registers={}),
])  # fmt: skip
def test_a_register_that_was_not_read_from_outside_is_an_error(spoil):
    recording = whole()
    spoil(recording)

    assert judgement(recording).outcome is ERROR


# -- was the other disturbed? -----------------------------------------------------------------------------------------


def frames(recording):
    return next(entry for entry in recording.entries if of("observation", "echoes")(entry))["data"]["frames"]


@pytest.mark.parametrize("which", [0, 4, 8])
def test_a_frame_that_is_lost_fails(which):
    recording = whole()
    frames(recording)[which][2::2] = [None, None]

    found = judgement(recording)
    assert found.outcome is FAIL
    assert denying(found) == {"frames": "denies"}
    assert f"the first is {which}" in found.findings[0].text


def test_a_frame_that_comes_back_changed_fails():
    recording = whole()
    frames(recording)[4][4] = digest(200)

    assert judgement(recording).outcome is FAIL


@pytest.mark.parametrize("kept", [slice(0, 0), slice(0, 6), slice(2, 9), (0, 1, 2, 6, 7, 8)])
def test_too_few_frames_before_during_or_after_are_an_error(kept):
    recording = whole()
    all_of_them = frames(recording)
    chosen = all_of_them[kept] if isinstance(kept, slice) else [all_of_them[number] for number in kept]
    all_of_them[:] = chosen

    assert judgement(recording).outcome is ERROR


def test_a_guest_that_ended_too_early_is_an_error():
    recording = whole()
    recording.change(of("observation", "echoes"), guest={"frames": 9, "ended": False})

    assert judgement(recording).outcome is ERROR


def test_frames_that_went_around_the_unit_fail():
    recording = whole()
    recording.change(of("trace", "translated"), count=3)

    assert denying(judgement(recording)) == {"translation": "denies"}
    assert judgement(recording).outcome is FAIL


def test_translations_that_nobody_counted_are_an_error():
    recording = whole()
    recording.drop(lambda entry: "vtd_dmar_translate" in entry["data"].get("events", ()))

    assert judgement(recording).outcome is ERROR


@pytest.mark.parametrize("source", ["01:10.0", "01:10.2", "01:00.0"])
def test_a_fault_of_anybody_fails(source):
    recording = whole()
    recording.add("trace", "fault", 0, source_id=source, access="read", reason=6, first=0, last=0, count=1)

    found = judgement(recording)
    assert found.outcome is FAIL
    assert denying(found) == {"others": "denies"}


@pytest.mark.parametrize("spoil", [
    lambda r: r.drop(of("observation", "reset")),
    lambda r: r.drop(of("observation", "echoes")),
    lambda r: r.change(of("observation", "reset"), device="vf-b"),
    lambda r: r.change(of("observation", "echoes"), device="vf-a"),
])  # fmt: skip
def test_nothing_is_known_of_a_reset_that_did_not_come_to_its_end(spoil):
    recording = whole()
    spoil(recording)

    found = judgement(recording)
    assert found.outcome is ERROR
    assert "did not come to its end" in found.findings[0].text
