"""Judging what the unit and a device were told to forget, on descriptors made for each case."""

from __future__ import annotations

import pytest

from harness.invalidations import Invalidation, Range, forgotten
from harness.verdict import Outcome
from harness.vtd.invalidation import DeviceTlbInvalidate, Granularity, IotlbInvalidate, PasidIotlbInvalidate
from harness.vtd.source_id import SourceId
from tests.judge.one_step import denying, judge
from tests.judge.recording import Recording

NIC, DOMAIN, IOVA, SIZE = SourceId.parse("01:00.0"), 7, 0x300000, 0x10000
ASKED, ANSWERED = 100.0, 101.0


def pages(address=IOVA, mask=4, domain=DOMAIN, kind=IotlbInvalidate):
    """The unit is to forget 2^mask pages from `address` on."""
    return kind.of(
        type=6 if kind is PasidIotlbInvalidate else 2,
        granularity=Granularity.SELECTIVE, domain_id=domain, address=address, address_mask=mask,
    )  # fmt: skip


def whole(domain=DOMAIN):
    return IotlbInvalidate.of(type=2, granularity=Granularity.DOMAIN, domain_id=domain)


def everything():
    return IotlbInvalidate.of(type=2, granularity=Granularity.GLOBAL)


def device(address=IOVA | 0x7000, source=NIC):
    """The device is to forget the 16 pages from IOVA on: bits 14:12 are ones, bit 15 is the lowest that is not."""
    return DeviceTlbInvalidate.of(type=3, source_id=source.value, size=1, address=address)


def taken(recording, descriptor, t=ASKED + 0.5):
    recording.add("trace", "descriptor", 0, raw=f"{descriptor.raw:#x}")
    recording.entries[-1]["t"] = t


class TestRange:
    def _seen(self, *descriptors):
        return [Invalidation(0.0, descriptor, "") for descriptor in descriptors]

    @pytest.mark.parametrize("told", [
        (pages(),), (everything(),), (whole(),), (device(),), (pages(kind=PasidIotlbInvalidate),),
        (pages(mask=3), pages(IOVA + 0x8000, mask=3)), (pages(IOVA - 0x100000, mask=9),),
    ])  # fmt: skip
    def test_every_page_is_forgotten(self, told):
        assert forgotten(self._seen(*told), Range(IOVA, SIZE))

    @pytest.mark.parametrize("told", [
        (), (pages(mask=3),), (pages(IOVA + 0x10000),), (device(IOVA | 0x3000),),
        (pages(mask=3), pages(IOVA + 0x9000, mask=0)),
    ])  # fmt: skip
    def test_a_page_is_left(self, told):
        assert not forgotten(self._seen(*told), Range(IOVA, SIZE))

    def test_a_device_range_is_told_by_the_lowest_clear_bit(self):
        one = DeviceTlbInvalidate.of(type=3, address=0x5000)
        two = DeviceTlbInvalidate.of(type=3, size=1, address=0x4000)

        [seen_one, seen_two] = self._seen(one, two)

        assert seen_one.touches(Range(0, 0x10000)) == range(0x5000, 0x6000)
        assert seen_two.touches(Range(0, 0x10000)) == range(0x4000, 0x6000)


class TestUnmap:
    STEP = {"unmap": {"device": "nic", "buffer": "lent"}}
    TOLD = {"unmap": {"device": "nic", "buffer": "lent", "device_tlb": "on"}}

    def _unmapped(self, *descriptors, watching=True, moments=None):
        recording = Recording()
        if watching:
            recording.add("trace", "watching", 0, events=["vtd_inv_desc"])
        for number, descriptor in enumerate(descriptors):
            taken(recording, descriptor, moments[number] if moments else ASKED + 0.1 * (number + 1))
        call = {"op": "domain_unmap", "args": {"iova": IOVA, "size": SIZE}, "ok": {"unmapped": SIZE}}
        recording.add("agent", "call", 0, **call, duration_s=ANSWERED - ASKED)
        recording.entries[-1]["t"] = ANSWERED
        recording.add(
            "observation", "unmapped", 0, device="nic", source_id="01:00.0", domain_id=DOMAIN, iova=IOVA, size=SIZE,
            asked=ASKED, answered=ANSWERED,
        )  # fmt: skip
        return recording

    def test_pages_forgotten_in_time_pass(self):
        assert judge(self.STEP, self._unmapped(pages())) is Outcome.PASS
        assert judge(self.TOLD, self._unmapped(pages(), device())) is Outcome.PASS

    @pytest.mark.parametrize("told", [(), (pages(mask=3),), (pages(domain=8),), (whole(8),)])
    def test_pages_that_the_unit_may_still_know_fail(self, told):
        assert denying(self.STEP, self._unmapped(*told)) == {"invalidation"}
        assert judge(self.STEP, self._unmapped(*told)) is Outcome.FAIL

    @pytest.mark.parametrize("moment", [ASKED - 0.1, ANSWERED + 0.1])
    def test_an_invalidation_at_another_time_does_not_count(self, moment):
        assert denying(self.STEP, self._unmapped(pages(), moments=[moment])) == {"invalidation"}

    @pytest.mark.parametrize("told", [
        (pages(),), (pages(), device(source=SourceId.parse("02:00.0"))), (pages(), device(IOVA | 0x3000)),
        (device(), pages()),
    ])  # fmt: skip
    def test_a_device_that_was_not_told_all_or_told_first_fails(self, told):
        assert denying(self.TOLD, self._unmapped(*told)) == {"device-tlb"}

    def test_a_device_that_was_told_too_late_fails(self):
        late = self._unmapped(pages(), device(), moments=[ASKED + 0.1, ANSWERED + 0.1])

        assert denying(self.TOLD, late) == {"device-tlb"}

    def test_a_device_that_must_not_be_told_fails_when_it_is(self):
        assert denying(self.STEP, self._unmapped(pages(), device())) == {"device-tlb"}

    def test_without_trace_or_observation_nothing_is_known(self):
        assert judge(self.STEP, self._unmapped(pages(), watching=False)) is Outcome.ERROR
        assert judge(self.STEP, Recording()) is Outcome.ERROR


class TestPolicy:
    def _judged(self, policy, *descriptors, **changes):
        step = {"traffic": {"device": "nic", "frames": 4, "size": 100, "invalidation": policy}}
        recording = Recording()
        recording.add("trace", "watching", 0, events=["vtd_dmar_translate"])
        if changes.get("watching", True):
            recording.add("trace", "watching", 0, events=["vtd_inv_desc"])
        for descriptor in descriptors:
            taken(recording, descriptor)
        same = {"frames": 4, "sha256": "aa"}
        host = {"sent_sha256": "aa", "asked_sha256": "bb", "received_frames": 4, "received_sha256": "bb"}
        load = {"frames": 4, "size": 100}
        recording.add(
            "observation", "traffic", 0, device="nic", source_id="01:00.0", load=load, guest={"received": same},
            host=host,
        )  # fmt: skip
        recording.add("trace", "translated", 0, source_id="01:00.0", count=30)
        if changes.get("domain", True):
            recording.add("observation", "domain", 0, id=DOMAIN)
        return judge(step, recording)

    def test_one_for_each_buffer_is_strict(self):
        assert self._judged("strict", *[pages(mask=0)] * 4) is Outcome.PASS

    def test_few_for_all_are_lazy(self):
        assert self._judged("lazy", whole()) is Outcome.PASS
        assert self._judged("lazy", *[everything()] * 3) is Outcome.PASS

    @pytest.mark.parametrize("told", [
        (), [pages(mask=0)] * 3, [whole()] * 4, [pages(mask=0, domain=8)] * 4, [device()] * 4,
    ])  # fmt: skip
    def test_fewer_or_others_are_not_strict(self, told):
        assert self._judged("strict", *told) is Outcome.FAIL

    @pytest.mark.parametrize("told", [(), [whole(8)], [whole(), pages(mask=0)], [whole()] * 4])
    def test_none_or_one_for_each_is_not_lazy(self, told):
        assert self._judged("lazy", *told) is Outcome.FAIL

    def test_without_trace_or_domain_nothing_is_known(self):
        assert self._judged("strict", *[pages(mask=0)] * 4, watching=False) is Outcome.ERROR
        assert self._judged("strict", *[pages(mask=0)] * 4, domain=False) is Outcome.ERROR


class TestAts:
    ON, OFF = ({"ats": {"device": "nic", "enabled": word}} for word in ("on", "off"))
    OFFERED = 1 << 2

    def _state(self, *, enabled, kind, ecap):
        recording = Recording()
        recording.add("observation", "ats", 0, enabled=enabled, translation_type=kind, ecap=ecap)
        return recording

    def test_agreement_passes(self):
        assert judge(self.ON, self._state(enabled=True, kind=1, ecap=self.OFFERED)) is Outcome.PASS
        assert judge(self.OFF, self._state(enabled=False, kind=0, ecap=self.OFFERED)) is Outcome.PASS
        assert judge(self.OFF, self._state(enabled=None, kind=0, ecap=0)) is Outcome.PASS

    @pytest.mark.parametrize(("enabled", "kind", "ecap", "witness"), [
        (False, 1, 4, "config"), (None, 1, 4, "config"), (True, 0, 4, "context"), (True, 2, 4, "context"),
        (True, 1, 0, "register"),
    ])  # fmt: skip
    def test_each_witness_can_deny_it(self, enabled, kind, ecap, witness):
        assert denying(self.ON, self._state(enabled=enabled, kind=kind, ecap=ecap)) == {witness}

    @pytest.mark.parametrize(("enabled", "kind", "witness"), [(True, 0, "config"), (False, 1, "context")])
    def test_what_is_on_is_not_off(self, enabled, kind, witness):
        assert denying(self.OFF, self._state(enabled=enabled, kind=kind, ecap=4)) == {witness}

    def test_never_read_is_an_error(self):
        assert judge(self.ON, Recording()) is Outcome.ERROR
