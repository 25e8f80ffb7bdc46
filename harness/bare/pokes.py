"""Pokes that end some versions of QEMU: each is something that a guest's kernel can do to its vIOMMU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.vtd.invalidation import DescriptorType, InvalidationWait, PasidIotlbInvalidate
from harness.vtd.registers import FECTL, IECTL, VER

if TYPE_CHECKING:  # planning imports every step, and needs no machine
    from harness.bare.session import BareSession

#: Seconds in which an aborting QEMU is gone; it writes no core.
_END_S = 5.0


@dataclass(frozen=True, slots=True)
class Poke:
    """What is done, in words, and how."""

    text: str
    act: Callable[[BareSession], None]


def _eight_bytes(offset: int) -> Callable[[BareSession], None]:
    """Write 8 bytes to a register of 4 (vtd_mem_write in hw/i386/intel_iommu.c asserts the size)."""
    return lambda session: session.machine.set_register(offset, 0, 8)


def _wait_with_both(session: BareSession) -> None:
    """Submit a wait descriptor that asks for a status write and an interrupt (vtd_process_wait_desc)."""
    wait = InvalidationWait.of(
        type=DescriptorType.WAIT, status_write=1, interrupt=1, status_address=session.status_word, status_data=1
    )
    session.open_queue(wide=False)
    session.submit(wait.encode())


def _largest_mask(session: BareSession) -> None:
    """Submit a PASID-based IOTLB descriptor with the largest address mask (vtd_process_piotlb_desc)."""
    whole = PasidIotlbInvalidate.of(type=DescriptorType.PASID_IOTLB, granularity=3, address_mask=63)
    session.open_queue(wide=True)
    session.submit(whole.raw.to_bytes(32, "little"))


POKES: Mapping[str, Poke] = {
    "fectl-8-bytes": Poke("a write of 8 bytes to FECTL, a register of 4", _eight_bytes(FECTL)),
    "iectl-8-bytes": Poke("a write of 8 bytes to IECTL, a register of 4", _eight_bytes(IECTL)),
    "wait-status-and-interrupt": Poke("a wait descriptor with status write and interrupt", _wait_with_both),
    "pasid-iotlb-largest-mask": Poke("a PASID-based IOTLB descriptor with address mask 63", _largest_mask),
}


def poke(session: BareSession, chosen: Poke) -> None:
    """Do it to a machine that answers, and record whether QEMU lives, and what it said if it does not."""
    machine = session.machine
    session.lay()
    session.record("alive", when="before", version=machine.register(VER))
    failure = ""
    try:
        chosen.act(session)
        version: int | None = machine.register(VER)
    except HarnessError as error:
        failure, version = str(error.message), None
    ended = version is None and machine.ended_within(_END_S)
    if version is None and not ended:
        raise HarnessError(f"QEMU neither answers nor ends after {chosen.text}: {failure}")
    session.record(
        "alive",
        when="after",
        version=version,
        exit_status=machine.process.poll(),
        stderr=machine.process.stderr_text()[-2000:] if ended else "",
        failure=failure,
    )
