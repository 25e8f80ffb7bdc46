"""Judging what a NIC could read of an unmapped buffer, on evidence made for each case."""

from __future__ import annotations

import pytest

from harness.verdict import Outcome
from harness.vtd.invalidation import Granularity, IotlbInvalidate
from tests.judge.one_step import denying, judge, judgement
from tests.judge.recording import Recording

DOMAIN, IOVA, PAGE = 9, 0xFFFF8C02, 0xFFFF8000
SECRET, CONTROL, ZEROS = "5e" * 128, "c0" * 112, "00" * 128
#: When the frame was asked for, when the unit was told, and the tries before and after that.
ASKED, BEFORE, TOLD, AFTER = 100.0, 101.0, 102.0, 103.0

WHOLE = IotlbInvalidate.of(type=2, granularity=Granularity.DOMAIN, domain_id=DOMAIN)
PAGES = IotlbInvalidate.of(type=2, granularity=Granularity.SELECTIVE, domain_id=DOMAIN, address=PAGE)


def _step(window):
    return {"stale": {"device": "nic", "window": window}}


OPEN, CLOSED = _step("open"), _step("closed")


def _attempt(recording, when, frames, **changes):
    began = BEFORE if when == "before" else AFTER
    about = {
        "when": when, "source_id": "01:00.0", "domain_id": DOMAIN, "iova": IOVA, "physical": 0x1000, "asked": ASKED,
        "began": began, "ended": began + 0.1, "reason": 5, "secret": SECRET, "control": CONTROL, "frames": frames,
    }  # fmt: skip
    recording.add("observation", "stale", 0, **{**about, **changes})
    _at(recording, began + 0.2)


def _at(recording, t):
    recording.entries[-1]["t"] = t


def _told(recording, descriptor, t=TOLD):
    recording.add("trace", "descriptor", 0, raw=f"{descriptor.raw:#x}")
    _at(recording, t)


def _refused(recording, *, address=IOVA, reason=6, source="01:00.0", t=AFTER + 0.05, logged=True):
    recording.add(
        "trace", "fault", 0, source_id=source, access="read", reason=reason, first=address, last=address + 64, count=9
    )
    _at(recording, t)
    if logged:
        line = (
            f"DMAR: [DMA Read NO_PASID] Request device [{source}] fault addr {address & ~0xFFF:#x} [fault reason 0x06]"
        )
        recording.log(f"{line} PTE Read access is not set", 0)


def _opened(*, watching=True):
    recording = Recording()
    if watching:
        recording.add("trace", "watching", 0, events=["vtd_inv_desc", "vtd_dmar_translate"])
    recording.add(
        "observation", "traffic", 0, device="nic", source_id="01:00.0", load={"frames": 4, "size": 600},
        guest={"received": {"frames": 4, "sha256": "aa"}},
        host={"sent_sha256": "aa", "asked_sha256": "bb", "received_frames": 4, "received_sha256": "bb"},
    )  # fmt: skip
    for asked in (ASKED - 50, ASKED):
        recording.add("agent", "call", 0, op="traffic", args={}, ok={}, duration_s=0.5)
        _at(recording, asked + 0.6)
    return recording


def _lazy(*, before=(SECRET, CONTROL), after=(ZEROS, CONTROL), descriptor=WHOLE, told=TOLD, refused=True, **changes):
    recording = _opened(watching=changes.pop("watching", True))
    _attempt(recording, "before", list(before), **changes)
    _told(recording, descriptor, told)
    if refused:
        _refused(recording)
    _attempt(recording, "after", list(after), **changes)
    return recording


def _strict(*, after=(ZEROS, CONTROL), descriptor=PAGES, told=TOLD, refused=None, **changes):
    recording = _opened()
    _told(recording, descriptor, told)
    _refused(recording, **(refused or {}))
    _attempt(recording, "after", list(after), **changes)
    return recording


def test_what_is_expected_of_each_passes():
    assert judge(OPEN, _lazy()) is Outcome.PASS
    assert judge(CLOSED, _strict()) is Outcome.PASS


def test_a_try_that_was_missed_halfway_does_not_count():
    recording = _opened()
    _attempt(recording, "before", [CONTROL], asked=ASKED - 50)
    recording.entries += [entry for entry in _lazy().entries if entry["kind"] not in ("traffic", "call")]

    assert judge(OPEN, recording) is Outcome.PASS


@pytest.mark.parametrize("step", [OPEN, CLOSED])
def test_a_window_that_is_otherwise_fails(step):
    recording = _opened()
    recording.add("observation", "surprise", 0, window="closed" if step is OPEN else "open", iova=IOVA, told=0)

    assert judge(step, recording) is Outcome.FAIL


def test_a_stale_read_that_brought_other_bytes_fails():
    assert denying(OPEN, _lazy(before=(ZEROS, CONTROL))) == {"bytes"}
    assert judge(OPEN, _lazy(before=(ZEROS, CONTROL))) is Outcome.FAIL


def test_a_read_that_still_lands_once_the_unit_was_told_fails():
    assert denying(CLOSED, _strict(after=(SECRET, CONTROL))) == {"bytes"}
    assert judge(OPEN, _lazy(after=(SECRET, CONTROL))) is Outcome.FAIL


@pytest.mark.parametrize("refused", [
    {"address": 0x5000, "logged": False}, {"reason": 5}, {"t": TOLD}, {"source": "02:00.0", "logged": False},
])  # fmt: skip
def test_a_refusal_that_qemu_did_not_trace_for_it_fails(refused):
    assert "host-trace" in denying(CLOSED, _strict(refused=refused))
    assert judge(CLOSED, _strict(refused=refused)) is Outcome.FAIL


def test_a_refusal_that_the_kernel_did_not_log_fails():
    assert denying(CLOSED, _strict(refused={"logged": False})) == {"guest-log"}


def test_a_window_in_which_qemu_refused_fails():
    recording = _lazy()
    _refused(recording, t=BEFORE + 0.05, logged=False)

    assert denying(OPEN, recording) == {"host-trace"}


def test_someone_else_who_faults_fails():
    recording = _strict()
    _refused(recording, source="02:00.0")

    assert denying(CLOSED, recording) == {"others"}


@pytest.mark.parametrize("changes", [
    {"descriptor": WHOLE}, {"told": AFTER + 1}, {"told": ASKED - 1}, {"after": (ZEROS,)}, {"reason": None},
    {"descriptor": PAGES.replaced(address=0x5000)}, {"descriptor": PAGES.replaced(domain_id=8)},
])  # fmt: skip
def test_without_control_tables_or_invalidation_nothing_is_known(changes):
    assert judge(CLOSED, _strict(**changes)) is Outcome.ERROR


@pytest.mark.parametrize("changes", [
    {"told": BEFORE - 0.5}, {"told": AFTER + 1}, {"before": (SECRET,)}, {"reason": None}, {"watching": False},
])  # fmt: skip
def test_nor_in_a_lazy_domain(changes):
    assert judge(OPEN, _lazy(**changes)) is Outcome.ERROR


def test_one_try_is_not_two():
    assert judge(OPEN, _strict()) is Outcome.ERROR
    assert judge(CLOSED, _opened()) is Outcome.ERROR
    assert judgement(CLOSED, _strict()).witnesses
