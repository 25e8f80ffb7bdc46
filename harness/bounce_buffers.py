"""Whether Linux bounced a device's DMA: copied it through memory that the device can reach (kernel/dma/swiotlb.c).

A device with 32 address bits cannot name memory above 4 GiB. With DMA remapping it is given an I/O virtual address
below and reaches that memory itself; without, the kernel copies each of its buffers. Two witnesses of the guest tell,
the trace event of the single copy and the count of slots in use. That the memory really lay above is told by the
addresses of what was copied, or by QEMU's trace of the translations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.judgement import Judgement, StepEvidence, single
from harness.session import AttachedDevice, Session
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.witnesses.host_trace import FOUR_GIB

#: The mask of a device with 32 address bits.
MASK_32 = FOUR_GIB - 1


@contextmanager
def watching_bounces(session: Session, device: AttachedDevice) -> Iterator[None]:
    """Have the guest's kernel trace its bounces meanwhile; the slots are counted while the driver still has its rings.

    What was seen is recorded, unless the body failed.
    """
    before = session.call("bounces_watch")
    yield
    session.record("bounces", function=device.address, before=before, **session.call("bounces_seen"))


def judge_bounces(evidence: StepEvidence, frames: int, *, bounced: bool) -> Judgement:
    """Hold trace, counter, and the addresses that were reached to whether the DMA of `frames` frames was bounced."""
    seen = evidence.observation("bounces")
    if seen is None:
        return single(Outcome.ERROR, "nobody looked whether DMA was bounced", evidence.index)
    witnesses = (
        _trace(evidence, seen.data, frames, seen.ref, bounced=bounced),
        _counter(evidence, seen.data, seen.ref, bounced=bounced),
        *(() if bounced else (_reached(evidence, frames),)),
    )
    verdicts = {witness.verdict for witness in witnesses[:2]}
    missing = [witness for witness in witnesses if witness.verdict is WitnessVerdict.MISSING]
    if verdicts == {WitnessVerdict.DENIES}:
        outcome, text = Outcome.FAIL, "; ".join(witness.evidence for witness in witnesses[:2])
    elif missing:
        outcome, text = Outcome.ERROR, "; ".join(witness.evidence for witness in missing)
    elif len(verdicts) > 1:
        outcome, text = Outcome.ERROR, "contradiction: " + ", but ".join(w.evidence for w in witnesses[:2])
    else:
        outcome, text = Outcome.PASS, "; ".join(witness.evidence for witness in witnesses)
    finding = Finding(outcome=outcome, text=text, step=evidence.index, refs=(seen.ref,))
    return Judgement(findings=(finding,), witnesses=witnesses)


def _trace(evidence: StepEvidence, seen: dict[str, Any], frames: int, ref: str, *, bounced: bool) -> Witness:
    """Read the single copies: each frame takes one, and each must have been made for an address above 4 GiB."""
    own = seen["bounces"].get(seen["function"])
    if not seen["tracing"] or seen["lost"]:
        verdict, text = None, f"the kernel's trace of bounces is incomplete ({seen['lost']} events lost)"
    elif own is None:
        verdict, text = not bounced, "the kernel traced no bounce of the device"
    elif own["mask"] != MASK_32 or own["lowest"] < FOUR_GIB:
        reason = f"mask {own['mask']:#x}, lowest address {own['lowest']:#x}"
        verdict, text = None, f"the kernel bounced DMA that the device could have done itself ({reason})"
    elif own["count"] < frames:
        verdict, text = None, f"the kernel bounced {own['count']} buffers, which is not each of {frames} frames"
    else:
        verdict = bounced
        text = f"the kernel bounced {own['count']} buffers, all from {own['lowest']:#x} on"
    return _witness("bounce-trace", evidence, text, ref, right=verdict)


def _counter(evidence: StepEvidence, seen: dict[str, Any], ref: str, *, bounced: bool) -> Witness:
    """Read the slots in use once the frames are through, when the ring for the next ones is still mapped."""
    used, before, slots = int(seen["used"]), int(seen["before"]["used"]), int(seen["slots"])
    text = f"{used} of {slots} slots of swiotlb are in use, {before} before"
    right = (used > before) == bounced if slots and used >= before else None
    return _witness("bounce-counter", evidence, text, ref, right=right)


def _reached(evidence: StepEvidence, frames: int) -> Witness:
    """Read QEMU's translations: the device reached memory above 4 GiB by addresses below, so a bounce was spared."""
    seen = evidence.observation("traffic")
    source = seen.data["source_id"] if seen is not None else None
    entries = [
        entry
        for entry in evidence.entries
        if entry.source == "trace" and entry.kind == "translated" and entry.data["source_id"] == source
    ]
    lifted = sum(int(entry.data.get("lifted", 0)) for entry in entries)
    count = sum(int(entry.data["count"]) for entry in entries)
    text = f"{lifted} of {count} DMAs reached memory above 4 GiB by an address below"
    if not frames <= lifted == count:
        text += f", of {frames} frames: not all of them would have had to be bounced"
    verdict = WitnessVerdict.CONFIRMS if frames <= lifted == count else WitnessVerdict.MISSING
    return Witness(
        name="reach", step=evidence.index, verdict=verdict, evidence=text, refs=tuple(e.ref for e in entries[:3])
    )


def _witness(name: str, evidence: StepEvidence, text: str, ref: str, *, right: bool | None) -> Witness:
    verdict = {True: WitnessVerdict.CONFIRMS, False: WitnessVerdict.DENIES, None: WitnessVerdict.MISSING}[right]
    return Witness(name=name, step=evidence.index, verdict=verdict, evidence=text, refs=(ref,))
