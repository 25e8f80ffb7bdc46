"""Judging how interrupts were delivered, and that an assignment was refused, on evidence made for each case."""

from __future__ import annotations

import errno

import pytest

from harness.verdict import Outcome
from harness.vtd.interrupts import InterruptRemapEntry, InterruptRequest
from harness.vtd.registers import GlobalStatus, InterruptRemapTableAddress
from harness.vtd.source_id import SourceId
from tests.judge.one_step import denying, judge
from tests.judge.recording import Recording

EDU = SourceId.parse("01:00.0")
INDEX, TABLE, VECTOR = 0x1A, 0x4200000, 0x2D
ENABLED = GlobalStatus.of(interrupt_remapping=1).raw
OFFERED = 1 << 3
CAP = 0x00D2_008C_222F_0606
REMAPPABLE = InterruptRequest(INDEX).message()
COMPATIBLE = (0xFEE01000, VECTOR)


def entry(**changes):
    told = {"present": 1, "vector": VECTOR, "destination": 1, "source_id": EDU.value, "source_validation": 1}
    return InterruptRemapEntry.of(**{**told, **changes})


def table(**changes):
    return InterruptRemapTableAddress.of(table=TABLE, size=15, **changes).raw


class TestDelivery:
    X2APIC, XAPIC, OFF = (
        {"delivery": {"device": "nic", "remapping": word, "messages": 2}} for word in ("x2apic", "xapic", "off")
    )

    def _sent(
        self, *, announced=2, watching=True, traced=2, became=(0xFEE01000, VECTOR), request=REMAPPABLE, **changes
    ):
        recording = Recording()
        if watching:
            recording.add("trace", "watching", 0, events=["vtd_ir_remap_msi"])
        for _ in range(announced):
            recording.add("agent", "msi", 0, bdf="0000:01:00.0", purpose="control")
        for _ in range(traced):
            recording.add("trace", "remapped", 0, request=request, message=became)
        told = {
            "device": "nic", "function": "0000:01:00.0", "source_id": "01:00.0", "before": 3, "after": 5,
            "counted_before": [{"irq": 26, "count": 3, "chip": "IR-PCI-MSI"}],
            "counted_after": [{"irq": 26, "count": 5, "chip": "IR-PCI-MSI"}],
            "gsts": ENABLED, "irta": table(extended_mode=1), "cap": CAP, "ecap": OFFERED, "message": REMAPPABLE,
            "entry": {"address": TABLE + INDEX * 16, "data": entry().encode().hex()},
        }  # fmt: skip
        told |= changes
        if (found := told["entry"]) is not None:
            recording.add(
                "memory", "read", 0, label="entry", gpa=found["address"], size=16, sha256="", data=found["data"]
            )
        recording.add("observation", "delivery", 0, **told)
        return recording

    def _plain(self, **changes):
        """Without remapping."""
        told = {
            "counted_before": [{"irq": 26, "count": 3, "chip": "PCI-MSI"}],
            "counted_after": [{"irq": 26, "count": 5, "chip": "PCI-MSI"}],
            "gsts": 0, "irta": 0, "message": COMPATIBLE, "request": COMPATIBLE, "became": COMPATIBLE, "entry": None,
        }  # fmt: skip
        return self._sent(**{**told, **changes})

    def _found(self, **changes):
        return {"address": TABLE + INDEX * 16, "data": entry(**changes).encode().hex()}

    def test_agreement_passes(self):
        assert judge(self.X2APIC, self._sent(), model="edu") is Outcome.PASS
        assert judge(self.OFF, self._plain(), model="edu") is Outcome.PASS
        assert judge(self.OFF, self._plain(ecap=0, traced=0), model="edu") is Outcome.PASS

    def test_in_xapic_mode_the_destination_is_the_second_byte_of_the_field(self):
        seen = self._sent(irta=table(), entry=self._found(destination=0x100))

        assert judge(self.XAPIC, seen, model="edu") is Outcome.PASS

    @pytest.mark.parametrize(("changes", "witness"), [
        ({"after": 4}, "count"),
        ({"counted_after": [{"irq": 26, "count": 4, "chip": "IR-PCI-MSI"}]}, "count"),
        ({"counted_after": [{"irq": 26, "count": 5, "chip": "PCI-MSI"}]}, "chip"),
        ({"gsts": 0}, "register"),
        ({"traced": 1}, "host-trace"),
        ({"traced": 0}, "host-trace"),
        ({"became": (0xFEE02000, VECTOR)}, "host-trace"),
        ({"became": (0xFEE01000, VECTOR + 1)}, "host-trace"),
        ({"became": (1 << 40 | 0xFEE01000, VECTOR)}, "host-trace"),
    ])  # fmt: skip
    def test_each_witness_can_deny_it(self, changes, witness):
        assert denying(self.X2APIC, self._sent(**changes), model="edu") == {witness}
        assert judge(self.X2APIC, self._sent(**changes), model="edu") is Outcome.FAIL

    @pytest.mark.parametrize("changes", [
        {"present": 0}, {"source_id": 0x99}, {"source_validation": 0}, {"source_qualifier": 3},
    ])  # fmt: skip
    def test_an_entry_that_is_not_for_this_device_alone_is_denied(self, changes):
        assert "entry" in denying(self.X2APIC, self._sent(entry=self._found(**changes)), model="edu")

    def test_an_entry_from_another_place_is_denied(self):
        elsewhere = {**self._found(), "address": TABLE}

        assert "entry" in denying(self.X2APIC, self._sent(entry=elsewhere), model="edu")

    def test_the_modes_are_told_apart_by_register_and_message(self):
        assert "register" in denying(self.XAPIC, self._sent(), model="edu")
        assert "register" in denying(self.X2APIC, self._sent(irta=table()), model="edu")
        assert denying(self.OFF, self._sent(), model="edu") >= {"register", "message", "chip", "entry"}
        assert denying(self.X2APIC, self._plain(), model="edu") >= {"register", "message", "chip", "entry"}

    def test_a_message_that_the_unit_changed_although_it_is_off_is_denied(self):
        assert denying(self.OFF, self._plain(became=(0xFEE01000, 0x99)), model="edu") == {"host-trace"}

    @pytest.mark.parametrize("changes", [{"announced": 1}, {"watching": False}, {"counted_after": []}])
    def test_what_is_missing_is_an_error(self, changes):
        assert judge(self.X2APIC, self._sent(**changes), model="edu") is Outcome.ERROR

    def test_never_sent_is_an_error(self):
        assert judge(self.X2APIC, Recording(), model="edu") is Outcome.ERROR

    def test_a_fault_meanwhile_fails(self):
        recording = self._sent()
        recording.add("trace", "fault", 0, source_id="01:00.0", access="read", reason=6, first=0, last=0, count=1)

        assert denying(self.X2APIC, recording, model="edu") == {"others"}


class TestRefusedAssignment:
    WORDS = "No interrupt remapping support"
    STEP = {"assign": "nic", "expect": {"refused": {"words": WORDS}}}
    PERMISSION = {"errno": errno.EPERM, "reason": "set the container's IOMMU: Operation not permitted"}

    def _tried(self, *, refusal, said=WORDS, gsts=0):
        recording = Recording()
        recording.add("kmsg", "line", 0, seq=9, text=f"vfio_iommu_type1_attach_group: {said}.")
        recording.add("observation", "assignment", 0, device="nic", refusal=refusal, gsts=gsts)
        return recording

    def test_a_refusal_that_is_explained_passes(self):
        assert judge(self.STEP, self._tried(refusal=self.PERMISSION)) is Outcome.PASS

    def test_an_assignment_fails(self):
        assert judge(self.STEP, self._tried(refusal=None, said="", gsts=ENABLED)) is Outcome.FAIL
        assert judge(self.STEP, self._tried(refusal=None, said="")) is Outcome.FAIL

    def test_an_assignment_that_the_log_says_was_refused_is_an_error(self):
        assert judge(self.STEP, self._tried(refusal=None)) is Outcome.ERROR

    @pytest.mark.parametrize(("changes", "witness"), [
        ({"refusal": {"errno": errno.EBUSY, "reason": "busy"}}, "answer"), ({"said": "out of memory"}, "guest-log"),
        ({"gsts": ENABLED}, "register"),
    ])  # fmt: skip
    def test_a_refusal_for_another_cause_is_an_error(self, changes, witness):
        seen = self._tried(**{"refusal": self.PERMISSION, **changes})

        assert denying(self.STEP, seen) == {witness}
        assert judge(self.STEP, seen) is Outcome.ERROR

    def test_never_tried_is_an_error(self):
        assert judge(self.STEP, Recording()) is Outcome.ERROR
