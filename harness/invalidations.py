"""What the unit was told to forget during a step: the descriptors that QEMU traced, read by our own structures.

Pure functions over the evidence of a step. QEMU stamps each descriptor as the unit takes it from the queue, with the
clock that also stamps the journal, so that it can be ordered against what the guest was asked and answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.judgement import StepEvidence
from harness.vtd.invalidation import (
    Descriptor,
    DescriptorType,
    DeviceTlbInvalidate,
    Granularity,
    IotlbInvalidate,
    PasidIotlbInvalidate,
)
from harness.vtd.source_id import SourceId
from harness.witnesses.host_trace import DESCRIPTOR_TAKEN

_PAGE = 1 << 12


@dataclass(frozen=True, slots=True)
class Range:
    """A range of I/O virtual addresses: its first byte and how many there are."""

    first: int
    size: int

    @property
    def end(self) -> int:
        """The byte behind it."""
        return self.first + self.size


@dataclass(frozen=True, slots=True)
class Invalidation:
    """One descriptor: when the unit took it (seconds since the epoch), what it says, the place of the evidence."""

    t: float
    descriptor: IotlbInvalidate | PasidIotlbInvalidate | DeviceTlbInvalidate
    ref: str

    @property
    def selective(self) -> bool:
        """Whether it is about some addresses, not about all that a domain has."""
        told = self.descriptor
        return isinstance(told, DeviceTlbInvalidate) or told.granularity == Granularity.SELECTIVE

    def of_domain(self, domain_id: int) -> bool:
        """Whether the unit's own cache forgets something of the domain with that number for it."""
        told = self.descriptor
        if isinstance(told, DeviceTlbInvalidate):
            return False
        return told.granularity == Granularity.GLOBAL or told.domain_id == domain_id

    def of_device(self, source: SourceId) -> bool:
        """Whether the device with that source ID must forget something in its own cache for it."""
        return isinstance(self.descriptor, DeviceTlbInvalidate) and self.descriptor.source_id == source.value

    def touches(self, pages: Range) -> range:
        """Give those of the addresses of `pages` that it makes forgotten."""
        told = self.descriptor
        if isinstance(told, DeviceTlbInvalidate):
            first, size = _device_range(told)
        elif self.selective:
            size = _PAGE << told.address_mask
            first = told.address & -size
        else:
            return range(pages.first, pages.end)
        return range(max(first, pages.first), min(first + size, pages.end))


def _device_range(told: DeviceTlbInvalidate) -> tuple[int, int]:
    """With S set, the lowest clear bit of the address from bit 12 on tells the size (VT-d spec, section 6.5.2.5)."""
    if not told.size:
        return told.address, _PAGE
    ones = 0
    while told.address >> 12 + ones & 1:
        ones += 1
    size = _PAGE << ones + 1
    return told.address & -size, size


#: Those that make a translation forgotten. A global one of the PASID kind there is none.
_KINDS: dict[DescriptorType, type[IotlbInvalidate | PasidIotlbInvalidate | DeviceTlbInvalidate]] = {
    DescriptorType.IOTLB: IotlbInvalidate,
    DescriptorType.PASID_IOTLB: PasidIotlbInvalidate,
    DescriptorType.DEVICE_TLB: DeviceTlbInvalidate,
}


def watched(evidence: StepEvidence) -> bool:
    """Whether QEMU's trace of descriptors was on during the step, so that silence means that there was none."""
    return any(
        entry.source == "trace" and entry.kind == "watching" and DESCRIPTOR_TAKEN in entry.data["events"]
        for entry in evidence.entries
    )


def invalidation(t: float, raw: int, ref: str) -> Invalidation | None:
    """Read a descriptor; None for one that makes no translation forgotten."""
    kind = _KINDS.get(DescriptorType(Descriptor(raw).type))
    return None if kind is None else Invalidation(t, kind(raw), ref)


def invalidations(evidence: StepEvidence) -> list[Invalidation]:
    """Give the invalidations of translations that the unit took during the step, in order."""
    entries = [entry for entry in evidence.entries if (entry.source, entry.kind) == ("trace", "descriptor")]
    found = [invalidation(entry.t, int(str(entry.data["raw"]), 16), entry.ref) for entry in entries]
    return [told for told in found if told is not None]


def forgotten(told: Iterable[Invalidation], pages: Range) -> bool:
    """Whether `told` together make every page of `pages` forgotten."""
    missing = set(range(pages.first, pages.end, _PAGE))
    for one in told:
        touched = one.touches(pages)
        missing -= set(range(touched.start, touched.stop, _PAGE))
    return not missing
