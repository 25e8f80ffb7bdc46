"""Judging a stray receive descriptor, on evidence that is spoiled one thing at a time."""

from __future__ import annotations

from hashlib import sha256

import pytest

from harness.straying.judging import told_of
from harness.verdict import Outcome
from tests.judge.one_step import judgement
from tests.judge.recording import Recording

FAIL, ERROR, PASS = Outcome.FAIL, Outcome.ERROR, Outcome.PASS
ATTACK = {"stray": {"device": "nic", "receive": 64, "to": "victim"}, "expect": {"blocked": {"reason": "pte-write"}}}
EARLY = {"stray": {"device": "nic", "receive": 64, "unmapped": True}, "expect": {"blocked": {"reason": "pte-write"}}}
CONTROL = {"stray": {"device": "nic", "receive": 64}, "expect": "landed"}

VICTIM, PLACE, OWN, BUFFER = 0x0882_1000, 0x1FD1_F010, 0xFFFE_9040, 0x05FF_F040
FRAMES = [bytes([number]) * 64 for number in (1, 2, 3)]
BEFORE = b"\x11" * 64
USED = bytes(16)
MAPPINGS = [
    [0xFFFE_9000, 0x1000, 0x05FF_F000, "rw"],
    [0xFFFE_A000, 0x1000, 0x0777_0000, "rw"],
    [0xFFFF_0000, 0x1000, 0x1FD1_F000, "rw"],
]


def led(address: int) -> bytes:
    return address.to_bytes(8, "little") + bytes(8)


def written(address: int, length: int = 64, offset: int = 0) -> dict:
    return {"address": address, "offset": offset, "length": length}


def whole(*, strays=True, unmapped=False, after=None, fault=True, at=PLACE, **changes) -> Recording:
    address, physical = (VICTIM, VICTIM) if strays else (OWN, BUFFER)
    after = after if after is not None else (BEFORE if strays or unmapped else FRAMES[-1])
    descriptors = [led(OWN), led(address), USED]
    recording = Recording()
    recording.add("runner", "device", 0, name="nic", address="0000:01:00.0", source_id="01:00.0")
    recording.add("trace", "watching", 0, events=["e1000e_rx_desc_buff_write"])
    for what, place, content in (
        ("laid", at, descriptors[0]), ("before", physical, BEFORE), ("edited", at, descriptors[1]),
        ("used", at, descriptors[2]), ("after", physical, after),
    ):  # fmt: skip
        digest = sha256(content).hexdigest()
        recording.add("memory", "read", 0, label=what, gpa=place, size=len(content), sha256=digest)
    told = {
        "device": "nic", "model": "e1000e", "source_id": "01:00.0", "strays": strays, "unmapped": unmapped,
        "target": "victim" if strays else "buffer 1 of the driver", "address": address, "physical": physical,
        "length": 64, "own": OWN, "leads": None if strays or unmapped else BUFFER,
        "ring": {"base": 0xFFFF_0000, "count": 256, "head": 255, "tail": 240}, "index": 1, "place": at,
        "descriptors": [content.hex() for content in descriptors], "heads": [0, 1, 2],
        "frames": [frame.hex() for frame in FRAMES],
        "writes": [written(0xFFFE_A040), written(0xFFFE_A840), written(address)],
        "before": BEFORE.hex(), "after": after.hex(),
        "mappings": MAPPINGS[1:] if unmapped else MAPPINGS,
    }  # fmt: skip
    recording.add("observation", "stray", 0, **(told | changes))
    if unmapped:
        entry, gone = (BUFFER & ~0xFFF | 3).to_bytes(8, "little").hex(), bytes(8).hex()
        recording.add("tables", "broken", 0, what="mapping", address=0x5000, old=entry, new=gone)
        recording.add("tables", "healed", 0, what="mapping", address=0x5000, old=gone, new=entry)
    if fault and (strays or unmapped):
        page = address & ~0xFFF
        line = f"DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr {page:#x} [fault reason 0x05] PTE Write"
        seen = {"access": "write", "reason": 5, "first": address, "last": address + 60, "count": 16}
        recording.add("trace", "fault", 0, source_id="01:00.0", **seen)
        recording.log("DMAR: DRHD: handling fault status reg 2", 0)
        recording.log(line, 0)
        recording.add("console", "line", 0, number=7, text=f"[    5.4] {line}")
    return recording


def judged(step, recording):
    found = judgement(step, recording)
    return found.outcome, found.witnesses


def denied(step, recording):
    found = judgement(step, recording)
    return found.outcome, {each.name for each in found.witnesses if each.verdict.value != "confirms"}


def test_a_stray_descriptor_that_was_caught_passes_and_tells_what_was_missed():
    found = judgement(ATTACK, whole())

    assert (found.outcome, found.landed) == (PASS, False)
    assert {w.name for w in found.witnesses} == {
        "announcement", "guest-log", "console", "host-trace", "bytes", "others",
    }  # fmt: skip
    assert found.findings[0].text.endswith(
        "0x8821000 is near no mapping that permits a write: the nearest, 0xfffe9000-0xfffeafff, is 4152131584 bytes "
        "(1013704 pages) away, and it is the physical address of guest memory that this domain does not map"
    )


def test_a_buffer_that_was_unmapped_too_early_passes_and_tells_that_it_was_mapped():
    found = judgement(EARLY, whole(strays=False, unmapped=True))

    assert (found.outcome, found.landed) == (PASS, False)
    assert (
        "0xfffe9040 is 4032 bytes before the beginning of the mapping 0xfffea000-0xfffeafff" in found.findings[0].text
    )
    assert "the driver had mapped it, to 0x5fff040, and the NIC had still to use it" in found.findings[0].text


def test_a_frame_in_the_drivers_own_buffer_is_the_control():
    found = judgement(CONTROL, whole(strays=False))

    assert (found.outcome, found.landed) == (PASS, True)
    assert {w.name for w in found.witnesses} == {"announcement", "bytes", "others", "walk"}


def test_without_protection_the_stray_frame_lands():
    found = judgement(ATTACK, whole(after=FRAMES[-1], fault=False, mappings=None, leads=VICTIM, at=0xFFFF_0010))

    assert (found.outcome, found.landed) == (FAIL, True)


def test_where_the_address_has_memory_of_the_domain_behind_it_its_bus_address_is_told():
    data = {"mappings": MAPPINGS, "address": BUFFER, "unmapped": False, "physical": BUFFER}

    assert told_of(data).endswith("is the physical address of memory whose bus address is 0xfffe9040")
    assert "this domain does not map" not in told_of(data)


@pytest.mark.parametrize("label", ["laid", "before", "edited", "used", "after"])
@pytest.mark.parametrize(("step", "strays"), [(ATTACK, True), (CONTROL, False)])
def test_bytes_that_were_not_read_from_outside_are_an_error(label, step, strays):
    def named(entry):
        return entry["data"].get("label") == label

    missing, elsewhere, others = (whole(strays=strays) for _ in range(3))
    missing.drop(named)
    elsewhere.change(named, gpa=0x1000)
    others.change(named, sha256="0" * 64)

    assert [judged(step, spoiled)[0] for spoiled in (missing, elsewhere, others)] == [ERROR] * 3


@pytest.mark.parametrize("changes", [
    {"descriptors": [led(OWN + 1).hex(), led(VICTIM).hex(), USED.hex()]},
    {"heads": [0, 1, 1]},
    {"heads": [0, 1]},
    {"heads": [0, 2, 3]},
    {"index": 2},
    {"ring": {"base": 0xFFFF_0000, "count": 256, "head": 254, "tail": 240}},
    {"writes": []},
    {"writes": [written(0xFFFE_A040, 60), written(0xFFFE_A840, 60), written(VICTIM, 60)]},
    {"writes": [written(0xFFFE_A040, 128), written(0xFFFE_A840, 128), written(VICTIM, 128)]},
    {"writes": [written(0xFFFE_A040), written(0xFFFE_A840), written(OWN)]},
    {"writes": [written(VICTIM)]},
    {"writes": [written(0xFFFE_A040), written(VICTIM)]},
    {"writes": [written(0xFFFE_A040), written(VICTIM), written(0xFFFE_A840)]},
    {"writes": [written(0xFFFE_A040), written(0xFFFE_A840, 60), written(VICTIM)]},
    {"writes": [written(0xFFFE_A040), written(0xFFFE_A840), written(VICTIM, offset=8)]},
    {"ring": {"base": 0xFFFF_0000, "count": 257, "head": 256, "tail": 240}},
    {"ring": {"base": 0xFFFF_0000, "count": 256, "head": 255, "tail": 1}},
    {"ring": {"base": 0xFFFF_0000, "count": 256, "head": 255, "tail": -1}},
    {"ring": {"base": 0xFFFF_0000, "count": 264, "head": 263, "tail": 240}, "heads": [0, 1, 2]},
    {"writes": [written(0x7040), written(0xFFFE_A840), written(VICTIM)]},
    {"ring": {"base": 0xFFFF_0010, "count": 256, "head": 255, "tail": 240}},
    {"place": PLACE + 16},
    {"frames": [FRAMES[0].hex(), FRAMES[0].hex(), FRAMES[2].hex()]},
    {"frames": [frame.hex() for frame in FRAMES[:2]]},
    {"frames": [*(frame.hex() for frame in FRAMES[:2]), FRAMES[2][:60].hex()]},
    {"own": VICTIM},
    {"address": VICTIM + 0x1000},
    {"length": 60},
    {"strays": False},
    {"unmapped": True},
    {"device": "other"},
    {"target": "elsewhere"},
    {"model": "edu"},
    {"source_id": "02:00.0"},
    {"ring": None},
    {"leads": VICTIM},
    {"mappings": [[0x0882_1000, 0x1000, 0x1000, "rw"], *MAPPINGS]},
    {"mappings": MAPPINGS[1:]},
    {"mappings": MAPPINGS[:2]},
    {"mappings": [MAPPINGS[1], MAPPINGS[0], MAPPINGS[2]]},
    {"mappings": [MAPPINGS[0], [0xFFFE_A001, 0x1000, 0x0777_0000, "rw"], MAPPINGS[2]]},
    {"mappings": [MAPPINGS[0], [0xFFFE_A000, 0, 0x0777_0000, "rw"], MAPPINGS[2]]},
    {"mappings": [*MAPPINGS[:2], *MAPPINGS[1:]]},
])  # fmt: skip
def test_a_ring_that_does_not_tell_that_the_nic_used_the_address_is_an_error(changes):
    assert judged(ATTACK, whole(**changes))[0] is ERROR


FIELDS = [
    "device", "model", "source_id", "strays", "unmapped", "target", "address", "physical", "length", "own", "leads",
    "ring", "index", "place", "descriptors", "heads", "frames", "writes", "before", "after", "mappings",
]  # fmt: skip


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, "gone"])
@pytest.mark.parametrize("name", FIELDS)
def test_no_field_that_is_damaged_leaves_a_pass_or_ends_in_a_traceback(name, value):
    recording = whole()
    if value == "gone":
        recording.change(lambda entry: entry["kind"] == "stray", dummy=0)
        for entry in recording.entries:
            if entry["kind"] == "stray":
                entry["data"].pop(name)
    else:
        recording.change(lambda entry: entry["kind"] == "stray", **{name: value})

    if (name, value) == ("leads", None):
        return  # as it stands there
    assert judged(ATTACK, recording)[0] is ERROR


def of(source, kind):
    return lambda entry: (entry["source"], entry["kind"]) == (source, kind)


@pytest.mark.parametrize(("gone", "who"), [
    (of("trace", "watching"), {"announcement"}),
    (of("trace", "fault"), {"host-trace"}),
    (of("console", "line"), {"console"}),
    (of("observation", "stray"), set()),
])  # fmt: skip
def test_a_witness_that_is_missing_is_an_error(gone, who):
    recording = whole()
    recording.drop(gone)

    assert denied(ATTACK, recording) == (ERROR, who)


def test_bytes_that_changed_although_it_was_refused_are_a_contradiction():
    assert denied(ATTACK, whole(after=FRAMES[-1])) == (ERROR, {"bytes"})
    assert denied(ATTACK, whole(after=b"\x77" * 64)) == (ERROR, {"bytes"})


def test_bytes_that_changed_unreported_are_a_failure():
    assert judged(ATTACK, whole(after=FRAMES[-1], fault=False))[0] is FAIL


@pytest.mark.parametrize(("changes", "outcome"), [
    ({"reason": 7}, ERROR),           # log and trace disagree
    ({"first": 0x5000, "last": 0x5000}, ERROR),
    ({"access": "read"}, ERROR),
    ({"source_id": "02:00.0"}, FAIL),  # somebody else faulted
])  # fmt: skip
def test_a_fault_that_is_not_that_of_the_frame_is_not_taken_for_it(changes, outcome):
    recording = whole()
    recording.change(of("trace", "fault"), **changes)

    assert judged(ATTACK, recording)[0] is outcome


@pytest.mark.parametrize("kind", ["broken", "healed"])
def test_a_mapping_that_was_not_taken_out_and_put_back_is_an_error(kind):
    missing, elsewhere, kept = (whole(strays=False, unmapped=True) for _ in range(3))
    missing.drop(of("tables", kind))
    elsewhere.change(of("tables", kind), address=0x6000)
    kept.change(of("tables", kind), new=bytes([1] * 8).hex())

    assert [judged(EARLY, spoiled)[0] for spoiled in (missing, elsewhere, kept)] == [ERROR] * 3


def test_a_mapping_of_another_page_that_was_taken_out_is_an_error():
    recording, other = whole(strays=False, unmapped=True), (0x9003).to_bytes(8, "little").hex()
    recording.change(of("tables", "broken"), old=other)
    recording.change(of("tables", "healed"), new=other)

    assert judged(EARLY, recording)[0] is ERROR


def test_two_pieces_of_a_frame_and_its_check_sequence_are_one():
    pieces = [
        written(place, *piece) for place in (0xFFFE_A040, 0xFFFE_A840, VICTIM) for piece in ((14,), (50, 14), (4, 64))
    ]

    assert judged(ATTACK, whole(writes=pieces))[0] is PASS


def test_a_control_that_did_not_land_is_no_pass():
    found = judgement(CONTROL, whole(strays=False, after=BEFORE))

    assert (found.outcome, found.landed) == (ERROR, False)


@pytest.mark.parametrize("changes", [
    {"leads": None},
    {"leads": BUFFER + 0x1000},
    {"mappings": [[0xFFFE_9000, 0x1000, 0x0600_0000, "rw"], *MAPPINGS[1:]]},
    {"mappings": MAPPINGS[1:]},
])  # fmt: skip
def test_a_control_whose_tables_lead_elsewhere_is_an_error(changes):
    assert denied(CONTROL, whole(strays=False, **changes)) == (ERROR, {"walk"})


def test_a_control_during_which_somebody_faulted_is_a_failure():
    recording = whole(strays=False)
    recording.add("trace", "fault", 0, source_id="02:00.0", access="write", reason=5, first=0, last=0, count=1)

    assert denied(CONTROL, recording) == (FAIL, {"others"})
