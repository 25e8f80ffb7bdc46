"""Judging how the interrupts of a NIC in a nested guest were delivered, on evidence made for each case."""

from __future__ import annotations

import pytest

from harness.verdict import Outcome
from harness.vtd.interrupts import InterruptRemapEntry, InterruptRequest
from harness.vtd.registers import GlobalStatus, InterruptRemapTableAddress
from harness.vtd.source_id import SourceId
from tests.judge.one_step import denying, judge
from tests.judge.recording import Recording

NIC = SourceId.parse("01:00.0")
TABLE, OFFERED = 0x4200000, 1 << 3
CAP = 0x00D2_008C_222F_0606
ENABLED = GlobalStatus.of(interrupt_remapping=1).raw
X2APIC, XAPIC, OFF = (
    {"vectors": {"device": "nic", "guest": "alice", "remapping": word}} for word in ("x2apic", "xapic", "off")
)
ALL = "guest-count", "count", "chip", "register", "message", "entry", "host-trace", "others"


def entry(number, **changes):
    told = {"present": 1, "vector": 0x30 + number, "destination": 1, "source_id": NIC.value, "source_validation": 1}
    data = InterruptRemapEntry.of(**{**told, **changes}).encode().hex()
    return {"address": TABLE + (8 + number) * 16, "data": data}


def vector(number, **changes):
    told = {"number": number, "message": InterruptRequest(8 + number).message(), "entry": entry(number)}
    return {**told, **changes}


def plain(number):
    """A vector that is not remapped."""
    return {"number": number, "message": (0xFEE01000, 0x30 + number), "entry": None}


def lines(counts, chip, name):
    return [
        {"irq": 30 + number, "count": count, "chip": chip, "name": name.format(number)}
        for number, count in enumerate(counts)
    ]


def here(*counts, chip="IR-PCI-MSI"):
    return lines(counts, chip, "vfio-msix[{}](0000:01:00.0)")


def there(*counts, chip="PCI-MSI"):
    return lines(counts, chip, "eth1-{}")


def recorded(*, traced=(6, 5, 0), became=(0xFEE01000, 0x30), watching=True, received=32, **changes):
    """Vectors 0 and 1 were used, and 2, which tells of the link, was not."""
    told = {
        "device": "nic", "guest": "alice", "source_id": "01:00.0",
        "platform_before": here(10, 20, 1), "platform_after": here(15, 25, 1),
        "guest_before": there(7, 20, 1), "guest_after": there(12, 24, 1),
        "vectors": [vector(0), vector(1), vector(2)],
        "gsts": ENABLED, "irta": InterruptRemapTableAddress.of(table=TABLE, size=15, extended_mode=1).raw,
        "cap": CAP, "ecap": OFFERED,
    } | changes  # fmt: skip
    recording = Recording()
    if watching:
        recording.add("trace", "watching", 0, events=["vtd_ir_remap_msi"])
    for number, count in enumerate(traced):
        request = told["vectors"][number]["message"]
        message = request if told["vectors"][number]["entry"] is None else (became[0], became[1] + number)
        for _ in range(count):
            recording.add("trace", "remapped", 0, request=request, message=message)
    for frames, size, came in ((1, 64, 1), (32, 1200, received)):
        recording.add(
            "observation", "traffic", 0, device="nic", source_id="01:00.0", load={"frames": frames, "size": size},
            guest={"received": {"frames": came, "sha256": "a"}},
            host={"sent_sha256": "a", "asked_sha256": "b", "received_sha256": "b", "received_frames": frames},
        )  # fmt: skip
    for told_entry in filter(None, (one["entry"] for one in told["vectors"])):
        recording.add(
            "memory", "read", 0, label="entry", gpa=told_entry["address"], size=16, sha256="", data=told_entry["data"]
        )
    recording.add("observation", "vectors", 0, **told)
    return recording


def unremapped(**changes):
    told = {
        "vectors": [plain(0), plain(1), plain(2)], "gsts": 0, "irta": 0,
        "platform_before": here(10, 20, 1, chip="PCI-MSI"), "platform_after": here(15, 25, 1, chip="PCI-MSI"),
    }  # fmt: skip
    return recorded(**{**told, **changes})


def test_agreement_passes():
    assert judge(X2APIC, recorded()) is Outcome.PASS
    assert judge(OFF, unremapped()) is Outcome.PASS
    assert judge(OFF, unremapped(ecap=0, traced=(0, 0, 0))) is Outcome.PASS


def test_in_xapic_mode_the_destination_is_the_second_byte_of_the_field():
    irta = InterruptRemapTableAddress.of(table=TABLE, size=15).raw
    vectors = [vector(number, entry=entry(number, destination=0x100)) for number in range(3)]

    assert judge(XAPIC, recorded(irta=irta, vectors=vectors)) is Outcome.PASS


@pytest.mark.parametrize(("changes", "witness"), [
    ({"guest_after": there(7, 20, 1)}, "guest-count"),
    ({"guest_after": there(12, 20, 1)}, "guest-count"),        # what is sent or what is received interrupts nobody
    ({"guest_after": there(13, 24, 1)}, "guest-count"),        # more than the platform had to hand on
    ({"traced": (4, 5, 0)}, "count"),
    ({"traced": (6, 0, 0)}, "host-trace"),
    ({"became": (0xFEE02000, 0x30)}, "host-trace"),
    ({"became": (0xFEE01000, 0x99)}, "host-trace"),
    ({"platform_after": here(15, 25, 1, chip="PCI-MSI")}, "chip"),
    ({"guest_after": there(12, 24, 1, chip="IR-PCI-MSI")}, "chip"),
    ({"gsts": 0}, "register"),
])  # fmt: skip
def test_each_witness_can_deny_it(changes, witness):
    assert witness in denying(X2APIC, recorded(**changes))
    assert judge(X2APIC, recorded(**changes)) is Outcome.FAIL


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("changes", [
    {"present": 0}, {"source_id": 0x99}, {"source_validation": 0}, {"source_qualifier": 3},
])  # fmt: skip
def test_an_entry_of_a_used_vector_that_is_not_for_the_nic_alone_is_denied(number, changes):
    vectors = [vector(0), vector(1), vector(2)]
    vectors[number]["entry"] = entry(number, **changes)

    assert "entry" in denying(X2APIC, recorded(vectors=vectors))


def test_the_modes_are_told_apart():
    assert denying(XAPIC, recorded()) == {"register"}
    assert denying(OFF, recorded()) >= {"register", "message", "chip", "entry"}
    assert denying(X2APIC, unremapped()) >= {"register", "message", "chip", "entry"}


def test_frames_that_did_not_arrive_fail():
    assert judge(X2APIC, recorded(received=7)) is Outcome.FAIL


def test_a_fault_of_anybody_fails():
    recording = recorded()
    recording.add("trace", "fault", 0, source_id="07:00.0", access="read", reason=6, first=0, last=0, count=1)

    assert denying(X2APIC, recording) == {"others"}


@pytest.mark.parametrize("changes", [
    {"platform_after": here(15, 25)}, {"guest_before": there(7, 20)}, {"watching": False},
    {"platform_before": here(15, 25, 1)},                      # no vector was used
    {"traced": (), "vectors": [], "guest_before": [], "guest_after": []},
])  # fmt: skip
def test_what_is_missing_is_an_error(changes):
    assert judge(X2APIC, recorded(**changes)) is Outcome.ERROR


def test_what_was_never_looked_at_is_an_error():
    for kind in ("vectors", "traffic"):
        recording = recorded()
        recording.drop(lambda entry, kind=kind: (entry["source"], entry["kind"]) == ("observation", kind))
        assert judge(X2APIC, recording) is Outcome.ERROR
