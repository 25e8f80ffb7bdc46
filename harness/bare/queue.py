"""A descriptor given to the invalidation queue of a bare machine, and what the unit makes of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.bare.attack import phase
from harness.bare.layout import QUEUE
from harness.machine.spec import HOLE
from harness.vtd.invalidation import DescriptorType, Granularity, IotlbInvalidate
from harness.vtd.registers import IQT

if TYPE_CHECKING:  # planning imports every step, and needs no machine
    from harness.bare.session import BareSession


@dataclass(frozen=True, slots=True)
class Submission:
    """A descriptor, where the tail is set to (behind it if None), and whether the queue lies where no memory is."""

    descriptor: bytes
    tail: int | None = None
    in_hole: bool = False


def good_descriptor(bits: int) -> bytes:
    """Give one that every unit takes: forget all translations."""
    whole = IotlbInvalidate.of(type=DescriptorType.IOTLB, granularity=Granularity.GLOBAL)
    return whole.raw.to_bytes(bits // 8, "little")


def submit(session: BareSession, submission: Submission, name: str) -> None:
    """Submit it to a fresh queue as the phase `name`, and record what the unit makes of it."""
    base = HOLE if submission.in_hole else QUEUE
    session.open_queue(wide=len(submission.descriptor) == 32, base=base)
    session.clear()
    with phase(session, name):
        _put(session, submission, in_memory=not submission.in_hole)


def mend(session: BareSession, good: Submission) -> None:
    """Put a good descriptor in the place of the bad one, and let the queue go on."""
    session.clear()
    with phase(session, "healed"):
        _put(session, good, in_memory=True)


def _put(session: BareSession, submission: Submission, *, in_memory: bool) -> None:
    length = len(submission.descriptor)
    if in_memory:
        session.write_physical(QUEUE, submission.descriptor)
        session.read_physical(QUEUE, length, label="the descriptor")
    session.record(
        "submitted",
        gpa=QUEUE,
        offset=0,
        following=length,
        descriptor=submission.descriptor.hex(),
        sha256=hashlib.sha256(submission.descriptor).hexdigest() if in_memory else None,
    )
    tail = length if submission.tail is None else submission.tail
    session.machine.set_register(IQT, tail, 8)
    session.queue_state()
