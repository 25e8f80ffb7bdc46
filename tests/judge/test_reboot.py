"""Judging a reboot while a device writes, on evidence made for each case and spoiled one thing at a time."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from harness.rebooting.unit_state import AFTER_RESET
from harness.verdict import Outcome
from tests.judge.one_step import denying, judge, judgement
from tests.judge.recording import Recording

FAIL, ERROR, PASS = Outcome.FAIL, Outcome.ERROR, Outcome.PASS

MAPPED, IOVA = 0x1000_0000, 0x1000_1000
ON = {**AFTER_RESET, "gsts": 0xC700_0000, "rtaddr": 0x4A5_5000, "irta": 0x440_000F, "iqa": 0x101F_3000, "fectl": 0}
LINUX_OFF = {**ON, "gsts": 0x4700_0000}
NIC, NIC_RESET = {"control": 0x400_801A, "head": 11, "tail": 2047}, {"control": 0, "head": 0, "tail": 0}
EDU, EDU_DONE = {"destination": IOVA, "command": 3}, {"destination": IOVA, "command": 2}
OTHER = sha256(b"other").hexdigest()


def pages(mapped: bytes, untranslated: bytes) -> dict[str, str]:
    return {"mapped": sha256(mapped).hexdigest(), "untranslated": sha256(untranslated).hexdigest()}


BEFORE, PLANTED = pages(b"frame", b"fresh"), pages(b"fresh 2", b"fresh 3")
WORDS = {
    "before_end": "before the end",
    "at_end": "at the end",
    "planted": "as planted",
    "at_reset": "at the reset",
    "after": "after the boot",
}


def observed(by: str, model: str) -> dict:
    device, after = (NIC, NIC_RESET) if model == "e1000e" else (EDU, EDU_DONE)
    return {
        "device": "nic", "source_id": "01:00.0", "model": model, "by": by,
        "cause": None if by == "machine" else "guest-reset", "mapped": MAPPED, "iova": IOVA,
        "before_end": {"pages": BEFORE},
        "at_end": {"unit": ON, "device": device, "walk": MAPPED, "pages": BEFORE},
        "planted": {"pages": PLANTED},
        "at_reset": {"unit": AFTER_RESET, "pages": PLANTED},
        "after": {"unit": ON, "device": after, "pages": PLANTED},
        "issued": {
            "before": {"translated": 44, "own": 11 if model == "e1000e" else None},
            "after": {"translated": 0, "own": 0 if model == "e1000e" else None},
        },
        "boot_ids": ["2af29d8a-4eb1", "47791542-8e8c"], "kernels": 1, "log": {"first": 0, "records": 490},
    }  # fmt: skip


def step(by: str = "machine") -> dict:
    return {"reboot": {"device": "nic", "by": by, "reserved": MAPPED}}


def recording(data: dict, *, resets=("host-qmp-system-reset", "guest-reset"), rewritten: int = 3) -> Recording:
    """A step that saw `data`; the bytes that it tells of were read from outside."""
    made = Recording()
    for _ in range(rewritten):
        made.add("observation", "rewritten", 0, device="nic", at=MAPPED)
    for moment, words in WORDS.items():
        for page, place in (("mapped", MAPPED), ("untranslated", IOVA)):
            digest = data[moment]["pages"][page]
            made.add("memory", "read", 0, label=f"{page} {words}", gpa=place, size=4096, sha256=digest)
    for reason in resets:
        made.add("qmp", "event", 0, name="RESET", event={"event": "RESET", "data": {"reason": reason}})
    made.add("observation", "rebooted", 0, **data)
    return made


def changed(path: str, value: object, *, by: str = "machine", model: str = "e1000e") -> dict:
    data = json.loads(json.dumps(observed(by, model)))  # nothing of it is shared
    *way, last = path.split(".")
    place = data
    for key in way:
        place = place[key]
    place[last] = value
    return data


@pytest.mark.parametrize("model", ["e1000e", "edu"])
@pytest.mark.parametrize("by", ["machine", "sysrq", "kernel"])
@pytest.mark.parametrize("resets", [("host-qmp-system-reset",), ("host-qmp-system-reset", "guest-reset")])
def test_a_reboot_of_which_nothing_came_through_passes(by, model, resets):
    found = judgement(step(by), recording(observed(by, model), resets=resets), model=model)

    assert found.outcome is PASS
    assert {witness.name: witness.verdict.value for witness in found.witnesses} == dict.fromkeys(
        ("boot", "unit", "bytes", "translation", "console", "others"), "confirms"
    )
    assert found.findings[0].text == "'nic' wrote nothing after the reset"


STRAYED = sha256(b"dma and what is left of fresh 3").hexdigest()


def strayed(mapped: str, untranslated: str) -> Recording:
    """What a machine with an edu shows whose pages hold these after the boot."""
    data = changed("planted.strayed", STRAYED, model="edu")
    data["after"]["pages"] = {"mapped": mapped, "untranslated": untranslated}
    return recording(data)


def test_a_write_that_qemu_lets_through_after_the_reset_fails_unless_it_is_told_as_a_deviation():
    seen = strayed(PLANTED["mapped"], STRAYED)
    expected = step() | {"expect": "untranslated"}

    assert denying(step(), seen, model="edu") == {"bytes"}
    found = judgement(expected, seen, model="edu")
    assert found.outcome is PASS
    assert found.findings[0].text.startswith(
        "known deviation: after the reset 'nic' wrote to memory at its own address"
    )


@pytest.mark.parametrize(
    ("mapped", "untranslated"),
    [
        (PLANTED["mapped"], PLANTED["untranslated"]),  # nothing came through: no deviation any more
        (PLANTED["mapped"], OTHER),
        (STRAYED, STRAYED),
        (STRAYED, PLANTED["untranslated"]),
    ],
)
def test_a_deviation_is_exactly_what_it_was_told_to_be(mapped, untranslated):
    expected = step() | {"expect": "untranslated"}

    assert judge(expected, strayed(mapped, untranslated), model="edu") is FAIL
    assert denying(expected, strayed(mapped, untranslated), model="edu") == {"bytes"}


def test_what_linux_leaves_to_the_device_before_the_reset_is_told_and_is_no_failure_of_the_reset():
    data = changed("at_end.unit", LINUX_OFF, by="kernel")
    data["at_end"]["pages"] = {**BEFORE, "untranslated": OTHER}

    found = judgement(step("kernel"), recording(data))
    assert found.outcome is PASS
    assert "switched translation off before it" in found.findings[0].text
    assert "wrote to memory at its own addresses" in found.findings[0].text


def test_a_page_that_the_unit_did_not_lead_to_and_that_changed_all_the_same_fails():
    data = changed("at_end.pages", {**BEFORE, "untranslated": OTHER})

    assert judge(step(), recording(data)) is FAIL
    assert denying(step(), recording(data)) == {"bytes"}


@pytest.mark.parametrize(
    ("path", "value", "witness"),
    [
        *((f"at_reset.unit.{name}", ON[name], "unit") for name in ("gsts", "rtaddr", "irta", "iqa", "fectl")),
        ("at_reset.unit.fsts", 2, "unit"),
        ("at_reset.unit.fault", 1, "unit"),
        ("after.unit.gsts", 0, "unit"),
        ("after.unit.gsts", 0x4700_0000, "unit"),  # no translation
        ("after.unit.gsts", 0xC500_0000, "unit"),  # no remapping of interrupts
        ("after.unit.gsts", 0xC300_0000, "unit"),  # no queue
        ("after.unit.fsts", 2, "unit"),
        ("after.unit.fault", 1, "unit"),
        ("at_reset.pages.mapped", OTHER, "bytes"),
        ("at_reset.pages.untranslated", OTHER, "bytes"),
        ("after.pages.mapped", OTHER, "bytes"),
        ("after.pages.untranslated", OTHER, "bytes"),
        ("issued.after.translated", 1, "translation"),
        ("issued.after.own", 1, "translation"),
        ("log.first", 12, "boot"),
        ("log.first", None, "boot"),
        ("log.records", 0, "boot"),
        ("kernels", 2, "boot"),
        ("kernels", 0, "boot"),
    ],
)
def test_one_thing_of_the_old_boot_that_came_through_fails(path, value, witness):
    data = changed(path, value)

    assert judge(step(), recording(data)) is FAIL
    assert denying(step(), recording(data)) == {witness}


@pytest.mark.parametrize("resets", [
    ("guest-reset",), ("guest-reset", "host-qmp-system-reset"), ("host-qmp-system-reset", "guest-panic"),
    ("host-qmp-system-reset", "guest-reset", "guest-reset"),
])  # fmt: skip
def test_resets_that_nobody_asked_for_fail(resets):
    found = recording(observed("machine", "e1000e"), resets=resets)

    assert judge(step(), found) is FAIL
    assert denying(step(), found) == {"boot"}


def test_a_reset_that_was_left_out_fails_by_all_that_it_should_have_done():
    data = observed("machine", "e1000e")
    data |= {"boot_ids": ["2af29d8a"] * 2, "kernels": 0, "log": {"first": 510, "records": 3}}
    data["at_reset"]["unit"] = ON
    data["after"] |= {"device": NIC, "pages": pages(b"frame", b"fresh 3")}
    data["issued"]["after"] = {"translated": 800, "own": 200}

    found = recording(data, resets=())
    assert judge(step(), found) is FAIL
    assert denying(step(), found) == {"boot", "unit", "bytes", "translation"}


def test_a_fault_in_the_log_or_the_trace_fails():
    line = "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x10001000 [fault reason 0x05] PTE Write"
    logged, traced, shown = (recording(observed("machine", "e1000e")) for _ in range(3))
    logged.log(line, 0)
    traced.add("trace", "fault", 0, source_id="01:00.0", access="write", reason=5, first=IOVA, last=IOVA, count=1)
    shown.add("console", "line", 0, number=7, text=line)

    assert [judge(step(), each) for each in (logged, traced, shown)] == [FAIL] * 3
    assert denying(step(), logged) == denying(step(), traced) == {"others"}
    assert denying(step(), shown) == {"console"}, "what the old kernel said last is on its console only"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("issued.before.translated", 0),
        ("issued.before.own", 0),
        ("at_end.device.control", 0),
        ("at_end.device.head", 2047),   # the ring is used up
        ("at_end.walk", None),
        ("at_end.walk", IOVA),
        ("at_end.unit.gsts", 0x4700_0000),
        ("cause", "guest-reset"),
        ("boot_ids", ["2af29d8a"] * 2),
        ("planted.pages.mapped", BEFORE["mapped"]),
        ("planted.pages.untranslated", BEFORE["untranslated"]),
    ],
)  # fmt: skip
def test_what_was_not_in_flight_or_half_seen_is_an_error(path, value):
    assert judge(step(), recording(changed(path, value))) is ERROR


@pytest.mark.parametrize(
    ("path", "value"),
    [("at_end.device.command", 2), ("at_end.device.destination", 0x5000), ("after.device.command", 3)],
)
def test_a_dma_of_edu_that_was_not_pending_at_the_reset_or_still_is_is_an_error(path, value):
    data = changed(path, value, model="edu")

    assert judge(step(), recording(data), model="edu") is ERROR


@pytest.mark.parametrize("by", ["sysrq", "kernel"])
@pytest.mark.parametrize("cause", [None, "guest-shutdown", "guest-panic"])
def test_a_guest_that_did_not_ask_for_its_reset_is_an_error(by, cause):
    assert judge(step(by), recording(changed("cause", cause, by=by))) is ERROR


def test_a_new_boot_without_a_reset_is_an_error():
    assert judge(step(), recording(observed("machine", "e1000e"), resets=())) is ERROR


@pytest.mark.parametrize("rewritten", [0, 2])
def test_a_device_that_was_not_seen_writing_on_is_an_error(rewritten):
    assert judge(step(), recording(observed("machine", "e1000e"), rewritten=rewritten)) is ERROR


@pytest.mark.parametrize("moment", WORDS)
@pytest.mark.parametrize("page", ["mapped", "untranslated"])
def test_a_page_that_was_not_read_from_outside_is_an_error(moment, page):
    label = f"{page} {WORDS[moment]}"
    unread, elsewhere, otherwise = (recording(observed("machine", "e1000e")) for _ in range(3))
    unread.drop(lambda entry: entry["data"].get("label") == label)
    elsewhere.change(lambda entry: entry["data"].get("label") == label, gpa=0x5000)
    otherwise.change(lambda entry: entry["data"].get("label") == label, sha256=OTHER)

    assert [judge(step(), each) for each in (unread, elsewhere, otherwise)] == [ERROR] * 3


def test_nothing_is_known_of_a_reboot_that_was_not_recorded():
    assert judge(step(), Recording()) is ERROR
