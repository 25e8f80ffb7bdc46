"""Judging how the interrupts of a NIC in a nested guest were delivered, on evidence made for each case."""

from __future__ import annotations

import pytest

from harness.verdict import Outcome
from tests.judge import test_delivery as one
from tests.judge.one_step import denying, judge
from tests.judge.recording import Recording

#: The messages of three vectors; the third is that of the link, which nobody takes during the step.
MESSAGES = tuple(one.InterruptRequest(one.INDEX + number).message() for number in range(3))
PLAIN = tuple((0xFEE01000, one.VECTOR + number) for number in range(3))
#: By how much each vector rose in the platform, and what QEMU traced of it; the guest's kernel counts less.
ROSE, GUEST_ROSE = (3, 60, 0), (2, 49, 0)


def lines(counts, *, chip, name=""):
    return [
        {"irq": 24 + number, "count": count, "chip": chip, "name": name.format(number)}
        for number, count in enumerate(counts)
    ]


def handed(counts, chip="IR-PCI-MSI"):
    return lines(counts, chip=chip, name="vfio-msix[{}](0000:01:00.0)")


def inside(counts, chip="PCI-MSI"):
    return lines(counts, chip=chip, name="eth0-{}")


def entries(**changes):
    return [
        {
            "address": one.TABLE + (one.INDEX + number) * 16,
            "data": one.entry(vector=one.VECTOR + number, **changes).encode().hex(),
        }
        for number in range(3)
    ]


def step(remapping):
    return {"vectors": {"device": "nic", "guest": "alice", "remapping": remapping, "frames": 32}}


X2APIC, XAPIC, OFF = map(step, ("x2apic", "xapic", "off"))


def moved(recording, *, whole=True):
    """The exchange that caused the interrupts."""
    sent = "a" if whole else "b"
    recording.add(
        "observation", "traffic", 0, device="nic", source_id="01:00.0", load={"frames": 32, "size": 1200},
        host={"sent_sha256": sent, "asked_sha256": "c", "received_frames": 32, "received_sha256": "c"},
        guest={"received": {"frames": 32, "sha256": "a"}},
    )  # fmt: skip


def seen(
    *, watching=True, traced=ROSE, messages=MESSAGES, became=PLAIN, found=None, exchanged=True, whole=True, **changes
):
    recording = Recording()
    if watching:
        recording.add("trace", "watching", 0, events=["vtd_ir_remap_msi"])
    if exchanged:
        moved(recording, whole=whole)
    for message, result, times in zip(messages, became, traced, strict=True):
        for _ in range(times):
            recording.add("trace", "remapped", 0, request=message, message=result)
    told = {
        "device": "nic", "guest": "alice", "source_id": "01:00.0",
        "platform_before": handed((5, 5, 5)), "platform_after": handed([5 + rose for rose in ROSE]),
        "guest_before": inside((1, 1, 1)), "guest_after": inside([1 + rose for rose in GUEST_ROSE]),
        "gsts": one.ENABLED, "irta": one.table(extended_mode=1), "cap": one.CAP, "ecap": one.OFFERED,
    }  # fmt: skip
    vectors = [
        {"number": number, "message": message, "entry": entry}
        for number, (message, entry) in enumerate(zip(messages, found or entries(), strict=True))
    ]
    recording.add("observation", "vectors", 0, vectors=vectors, **{**told, **changes})
    return recording


def plain(**changes):
    """Without remapping."""
    told = {
        "platform_before": handed((5, 5, 5), "PCI-MSI"), "platform_after": handed((8, 65, 5), "PCI-MSI"),
        "gsts": 0, "irta": 0, "messages": PLAIN, "found": [None] * 3,
    }  # fmt: skip
    return seen(**{**told, **changes})


def test_agreement_passes():
    assert judge(X2APIC, seen()) is Outcome.PASS
    assert judge(OFF, plain()) is Outcome.PASS
    assert judge(OFF, plain(ecap=0, traced=(0, 0, 0))) is Outcome.PASS


def test_two_interrupts_that_were_counted_as_one_pass():
    assert judge(X2APIC, seen(traced=(4, 61, 0))) is Outcome.PASS


@pytest.mark.parametrize(("changes", "witness"), [
    ({"guest_after": inside((1, 50, 1))}, "guest-count"),            # only one vector came through
    ({"guest_after": inside((99, 50, 1))}, "guest-count"),           # more than the platform has handed on
    ({"guest_after": inside((3, 50, 2))}, "guest-count"),            # one that the platform never had
    ({"platform_after": handed((8, 65, 5), "PCI-MSI")}, "chip"),
    ({"guest_after": inside((3, 50, 1), "IR-PCI-MSI")}, "chip"),
    ({"gsts": 0}, "register"),
    ({"traced": (2, 60, 0)}, "count"),                               # one came past the unit
    ({"became": (PLAIN[0], (0xFEE02000, one.VECTOR + 1), PLAIN[2])}, "host-trace"),
    ({"found": entries(source_validation=0)}, "entry"),
    ({"found": entries(source_id=0x99)}, "entry"),
    ({"found": entries(present=0)}, "entry"),
])  # fmt: skip
def test_each_witness_can_deny_it(changes, witness):
    assert witness in denying(X2APIC, seen(**changes))
    assert judge(X2APIC, seen(**changes)) is Outcome.FAIL


def test_the_modes_are_told_apart():
    assert "register" in denying(XAPIC, seen())
    assert "register" in denying(X2APIC, seen(irta=one.table()))
    assert denying(OFF, seen()) >= {"register", "message", "chip", "entry"}
    assert denying(X2APIC, plain()) >= {"register", "message", "chip", "entry"}


@pytest.mark.parametrize("changes", [
    {"watching": False},
    {"exchanged": False},
    {"platform_after": []},
    {"platform_after": inside((8, 65, 5))},                          # not VFIO's
    {"guest_after": inside((3, 50))},
])  # fmt: skip
def test_what_is_missing_is_an_error(changes):
    assert judge(X2APIC, seen(**changes)) is Outcome.ERROR


def test_frames_that_came_changed_fail():
    assert denying(X2APIC, seen(whole=False)) == set()
    assert judge(X2APIC, seen(whole=False)) is Outcome.FAIL


def test_nothing_recorded_is_an_error():
    assert judge(X2APIC, Recording()) is Outcome.ERROR


def test_a_fault_meanwhile_fails():
    recording = seen()
    recording.add("trace", "fault", 0, source_id="01:00.0", access="read", reason=6, first=0, last=0, count=1)

    assert denying(X2APIC, recording) == {"others"}
    assert judge(X2APIC, recording) is Outcome.FAIL
