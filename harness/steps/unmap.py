"""unmap: take a buffer away from a device's domain."""

from __future__ import annotations

import time
from typing import Any

from pydantic import Field

from harness.errors import InfraError
from harness.evidence import Entry
from harness.invalidations import Invalidation, Range, forgotten, invalidations, watched
from harness.judgement import Judgement, StepEvidence, single
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name, OnOff
from harness.session import Session
from harness.table_edit import domain_id_of
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.vtd.source_id import SourceId
from harness.witnesses.host_trace import DESCRIPTOR_TAKEN


class UnmapBody(Section):
    """What is taken away from whom."""

    device: Name = Field(description="A device of the domain that loses the mapping.")
    buffer: Name = Field(description="The buffer to unmap.")
    device_tlb: OnOff = Field(
        default="off", description="Whether the device must be told as well (ATS), by a device-TLB invalidation."
    )


class Unmap(Step, keyword="unmap"):
    """Unmap a buffer from a device's protection domain; its memory stays, so that a late write would show.

    The unit must have been told to forget each page of it before the unmap returns, by QEMU's trace of the invalidation
    queue. With `device_tlb: on` the device must have been told after that, and with `off` not at all. What a device
    with ATS does about it is not seen: no device that QEMU emulates keeps translations by itself.
    """

    unmap: UnmapBody

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"unmap '{self.unmap.buffer}' from '{self.unmap.device}'"

    def references(self) -> list[Reference]:
        """Name the device and the buffer."""
        return [
            Reference.use("device", self.unmap.device, "unmap", "device"),
            Reference.use("buffer", self.unmap.buffer, "unmap", "buffer"),
        ]

    def unmappings(self) -> list[tuple[str, str]]:
        """The one buffer."""
        return [(self.unmap.device, self.unmap.buffer)]

    def needs_assigned(self) -> tuple[str, ...]:
        """A domain is there once a device is in it."""
        return (self.unmap.device,)

    def run(self, session: Session) -> None:
        """Unmap it, make sure that as much was unmapped as had been mapped, and record what the unit took meanwhile."""
        device = session.device(self.unmap.device)
        domain = session.domain_of(device)
        known = session.book.live_range(domain, self.unmap.buffer)
        if not session.raw:
            domain_id = domain_id_of(session, device)
            with session.watching(DESCRIPTOR_TAKEN):
                asked = time.time()
                answer = session.call("domain_unmap", domain=domain, iova=known.iova, size=known.size)
                answered = time.time()
            if answer["unmapped"] != known.size:
                raise InfraError(f"{answer['unmapped']} of {known.size} bytes were unmapped at {known.iova:#x}")
            session.record(
                "unmapped",
                device=device.name,
                source_id=str(device.source),
                domain_id=domain_id,
                iova=known.iova,
                size=known.size,
                asked=asked,
                answered=answered,
            )
        session.book.unmapped(domain, known.iova)

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Look for the invalidations between the request and its answer."""
        seen = evidence.observation("unmapped")
        if seen is None:
            return single(Outcome.ERROR, "the buffer was never unmapped", evidence.index)
        if not watched(evidence):
            return single(Outcome.ERROR, "QEMU's trace of invalidations was not switched on", evidence.index)
        call = _call(evidence, seen.data)
        if call is None:
            text = "the guest's kernel did not say that it unmapped just this"
            return single(Outcome.ERROR, text, evidence.index, seen.ref)
        begun, over = max(seen.data["asked"], call.t - call.data["duration_s"]), min(seen.data["answered"], call.t)
        told = [one for one in invalidations(evidence) if begun <= one.t <= over]
        witnesses = (self._unit(evidence.index, told, seen.data), self._device(evidence.index, told, seen.data))
        denying = [witness for witness in witnesses if witness.verdict is not WitnessVerdict.CONFIRMS]
        text = "; ".join(witness.evidence for witness in denying or witnesses)
        outcome = Outcome.FAIL if denying else Outcome.PASS
        finding = Finding(outcome=outcome, text=text, step=evidence.index, refs=(seen.ref,))
        return Judgement(findings=(finding,), witnesses=witnesses)

    def _unit(self, index: int, told: list[Invalidation], about: dict[str, Any]) -> Witness:
        mine = [one for one in told if one.of_domain(about["domain_id"])]
        right = forgotten(mine, Range(about["iova"], about["size"]))
        how = "each page" if right else "not each page"
        text = f"the unit was told to forget {how} of it before the unmap returned ({len(mine)} IOTLB invalidations)"
        return _witness("invalidation", index, text, mine, right=right)

    def _device(self, index: int, told: list[Invalidation], about: dict[str, Any]) -> Witness:
        """Find it after the IOTLB invalidation: told before, the device could get the stale translation once more."""
        source = SourceId.parse(str(about["source_id"]))
        mine = [one for one in told if one.of_device(source)]
        if self.unmap.device_tlb == "off":
            text = f"the device was told {len(mine)} times" if mine else "no device-TLB invalidation named the device"
            return _witness("device-tlb", index, text, mine, right=not mine)
        first = min((one.t for one in told if one.of_domain(about["domain_id"])), default=None)
        late = [one for one in mine if first is not None and one.t >= first]
        right = forgotten(late, Range(about["iova"], about["size"]))
        how = "was told to forget each page of it" if right else "was not told to forget each page of it"
        text = f"the device {how} after the unit, before the unmap returned ({len(mine)} device-TLB invalidations)"
        return _witness("device-tlb", index, text, mine, right=right)


def _call(evidence: StepEvidence, about: dict[str, Any]) -> Entry | None:
    """Find the one call that unmapped the buffer; it says itself when it was over, and how long it took."""
    calls = [
        entry
        for entry in evidence.entries
        if (entry.source, entry.kind) == ("agent", "call") and entry.data["op"] == "domain_unmap"
    ]
    wanted = (about["iova"], about["size"], {"unmapped": about["size"]})
    told = [(call.data["args"].get("iova"), call.data["args"].get("size"), call.data.get("ok")) for call in calls]
    return calls[0] if told == [wanted] and "duration_s" in calls[0].data else None


def _witness(name: str, index: int, text: str, told: list[Invalidation], *, right: bool) -> Witness:
    verdict = WitnessVerdict.CONFIRMS if right else WitnessVerdict.DENIES
    refs = tuple(one.ref for one in told[:3])
    return Witness(name=name, step=index, verdict=verdict, evidence=text, refs=refs)
