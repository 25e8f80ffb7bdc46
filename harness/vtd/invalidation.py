"""Descriptors of the invalidation queue, by which software tells the unit what to forget (VT-d spec, section 6.5.2).

A queue holds descriptors of 16 bytes, or of 32 where IQA.DW is set; a short one then fills the first half.
"""

from __future__ import annotations

from enum import IntEnum

from harness.vtd.structure import Address, Bits, Structure


class DescriptorType(IntEnum):
    """The type of a descriptor: bits 3:0, and bits 11:9 above them."""

    CONTEXT_CACHE = 1
    IOTLB = 2
    DEVICE_TLB = 3
    INTERRUPT_ENTRY_CACHE = 4
    WAIT = 5
    PASID_IOTLB = 6
    PASID_CACHE = 7
    PASID_DEVICE_TLB = 8
    PAGE_GROUP_RESPONSE = 9


class Granularity(IntEnum):
    """How much is forgotten, from all to what one domain, then device or page, has."""

    GLOBAL = 1
    DOMAIN = 2
    SELECTIVE = 3


class Descriptor(Structure):
    """What all descriptors have."""

    SIZE = 16
    SPEC = "6.5.2"
    type = Bits(3, 0)


class ContextCacheInvalidate(Descriptor):
    """Forget context entries."""

    SPEC = "6.5.2.1"
    type = Bits(3, 0)
    granularity = Bits(5, 4)
    type_high = Bits(11, 9)
    domain_id = Bits(31, 16)
    source_id = Bits(47, 32)
    function_mask = Bits(49, 48)
    RESERVED = (Bits(8, 6), Bits(15, 12), Bits(127, 50))


class IotlbInvalidate(Descriptor):
    """Forget translations."""

    SPEC = "6.5.2.3"
    type = Bits(3, 0)
    granularity = Bits(5, 4)
    drain_writes = Bits(6, 6)
    drain_reads = Bits(7, 7)
    type_high = Bits(11, 9)
    domain_id = Bits(31, 16)
    address_mask = Bits(69, 64)
    invalidation_hint = Bits(70, 70)
    address = Address(127, 76)
    RESERVED = (Bits(8, 8), Bits(15, 12), Bits(63, 32), Bits(75, 71))


class DeviceTlbInvalidate(Descriptor):
    """Make a device forget translations."""

    SPEC = "6.5.2.5"
    type = Bits(3, 0)
    function_high = Bits(15, 12)
    queue_depth = Bits(20, 16)
    type_high = Bits(11, 9)
    source_id = Bits(47, 32)
    function_low = Bits(63, 52)
    size = Bits(64, 64)
    address = Address(127, 76)
    RESERVED = (Bits(8, 4), Bits(31, 21), Bits(51, 48), Bits(75, 65))


class InterruptEntryCacheInvalidate(Descriptor):
    """Forget interrupt remapping entries."""

    SPEC = "6.5.2.7"
    type = Bits(3, 0)
    granularity = Bits(4, 4)
    type_high = Bits(11, 9)
    index_mask = Bits(31, 27)
    index = Bits(47, 32)
    RESERVED = (Bits(8, 5), Bits(26, 12), Bits(127, 48))


class InvalidationWait(Descriptor):
    """Tell software when everything before is done: by a word in memory, by an interrupt, or both."""

    SPEC = "6.5.2.8"
    type = Bits(3, 0)
    interrupt = Bits(4, 4)
    status_write = Bits(5, 5)
    fence = Bits(6, 6)
    page_drain = Bits(7, 7)
    type_high = Bits(11, 9)
    status_data = Bits(63, 32)
    status_address = Bits(127, 66, 2)
    RESERVED = (Bits(8, 8), Bits(31, 12), Bits(65, 64))


class PasidIotlbInvalidate(Descriptor):
    """Forget first-stage translations."""

    SPEC = "6.5.2.4"
    type = Bits(3, 0)
    granularity = Bits(5, 4)
    type_high = Bits(11, 9)
    domain_id = Bits(31, 16)
    pasid = Bits(51, 32)
    address_mask = Bits(69, 64)
    invalidation_hint = Bits(70, 70)
    address = Address(127, 76)
    RESERVED = (Bits(8, 6), Bits(15, 12), Bits(63, 52), Bits(75, 71))


class PasidCacheInvalidate(Descriptor):
    """Forget PASID entries."""

    SPEC = "6.5.2.2"
    type = Bits(3, 0)
    granularity = Bits(5, 4)
    type_high = Bits(11, 9)
    domain_id = Bits(31, 16)
    pasid = Bits(51, 32)
    RESERVED = (Bits(8, 6), Bits(15, 12), Bits(63, 52), Bits(127, 64))


class PasidDeviceTlbInvalidate(Descriptor):
    """Make a device forget translations of a PASID."""

    SPEC = "6.5.2.6"
    type = Bits(3, 0)
    function_low = Bits(15, 12)
    type_high = Bits(11, 9)
    queue_depth = Bits(8, 4)
    source_id = Bits(31, 16)
    pasid = Bits(51, 32)
    function_high = Bits(63, 52)
    all_pasids = Bits(64, 64)
    size = Bits(75, 75)
    address = Address(127, 76)
    RESERVED = (Bits(74, 65),)


DESCRIPTORS: dict[DescriptorType, type[Descriptor]] = {
    DescriptorType.CONTEXT_CACHE: ContextCacheInvalidate,
    DescriptorType.IOTLB: IotlbInvalidate,
    DescriptorType.DEVICE_TLB: DeviceTlbInvalidate,
    DescriptorType.INTERRUPT_ENTRY_CACHE: InterruptEntryCacheInvalidate,
    DescriptorType.WAIT: InvalidationWait,
    DescriptorType.PASID_IOTLB: PasidIotlbInvalidate,
    DescriptorType.PASID_CACHE: PasidCacheInvalidate,
    DescriptorType.PASID_DEVICE_TLB: PasidDeviceTlbInvalidate,
}
