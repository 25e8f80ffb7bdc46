"""Registers of a remapping unit: their offsets and their fields (VT-d specification, chapter 11)."""

from __future__ import annotations

from enum import IntEnum

from harness.vtd.structure import Address, Bits, Structure

#: Where QEMU and most chipsets place the first unit; the DMAR table's DRHD says so.
DEFAULT_BASE = 0xFED90000

#: Bytes of the register page.
WINDOW = 0x1000

#: Offsets, in the order of the specification.
VER, CAP, ECAP = 0x00, 0x08, 0x10
GCMD, GSTS, RTADDR, CCMD = 0x18, 0x1C, 0x20, 0x28
FSTS, FECTL, FEDATA, FEADDR, FEUADDR = 0x34, 0x38, 0x3C, 0x40, 0x44
IQH, IQT, IQA, ICS, IECTL, IEDATA, IEADDR, IEUADDR, IQERCD = 0x80, 0x88, 0x90, 0x9C, 0xA0, 0xA4, 0xA8, 0xAC, 0xB0
IRTA = 0xB8


class Version(Structure):
    """VER: the architecture version."""

    SIZE = 4
    SPEC = "11.4.1"
    minor = Bits(3, 0)
    major = Bits(7, 4)


class Capability(Structure):
    """CAP: what the unit offers; `guest_address_width` is one less than the bits of an address, as the field is."""

    SIZE = 8
    SPEC = "11.4.2"
    domains = Bits(2, 0)
    write_buffer_flush = Bits(4, 4)
    protected_low_memory = Bits(5, 5)
    protected_high_memory = Bits(6, 6)
    caching_mode = Bits(7, 7)
    address_widths = Bits(12, 8)
    guest_address_width = Bits(21, 16)
    zero_length_read = Bits(22, 22)
    fault_record_offset = Bits(33, 24)
    second_stage_large_pages = Bits(37, 34)
    page_selective_invalidation = Bits(39, 39)
    fault_records = Bits(47, 40)
    largest_address_mask = Bits(53, 48)
    drain_writes = Bits(54, 54)
    drain_reads = Bits(55, 55)
    first_stage_1gib_pages = Bits(56, 56)
    posted_interrupts = Bits(59, 59)
    first_stage_5_levels = Bits(60, 60)
    enhanced_command = Bits(61, 61)
    enhanced_interrupt_table_pointer = Bits(62, 62)
    enhanced_root_table_pointer = Bits(63, 63)


class ExtendedCapability(Structure):
    """ECAP: what the unit offers beyond CAP."""

    SIZE = 8
    SPEC = "11.4.3"
    coherent = Bits(0, 0)
    queued_invalidation = Bits(1, 1)
    device_tlb = Bits(2, 2)
    interrupt_remapping = Bits(3, 3)
    extended_interrupt_mode = Bits(4, 4)
    pass_through = Bits(6, 6)
    snoop_control = Bits(7, 7)
    iotlb_offset = Bits(17, 8)
    largest_handle_mask = Bits(23, 20)
    nested = Bits(26, 26)
    page_requests = Bits(29, 29)
    supervisor_requests = Bits(31, 31)
    no_write_flag = Bits(33, 33)
    extended_accessed = Bits(34, 34)
    pasid_size = Bits(39, 35)
    pasid = Bits(40, 40)
    device_tlb_throttle = Bits(41, 41)
    page_drain = Bits(42, 42)
    scalable_mode = Bits(43, 43)
    virtual_commands = Bits(44, 44)
    second_stage_access_dirty = Bits(45, 45)
    second_stage = Bits(46, 46)
    first_stage = Bits(47, 47)
    scalable_coherent = Bits(48, 48)
    rid_pasid = Bits(49, 49)
    abort_dma = Bits(52, 52)


class GlobalCommand(Structure):
    """GCMD: one-shot commands and enables; what it holds is read from GSTS."""

    SIZE = 4
    SPEC = "11.4.4"
    compatibility_interrupts = Bits(23, 23)
    set_interrupt_table = Bits(24, 24)
    interrupt_remapping = Bits(25, 25)
    queued_invalidation = Bits(26, 26)
    write_buffer_flush = Bits(27, 27)
    set_root_table = Bits(30, 30)
    translation = Bits(31, 31)


class GlobalStatus(Structure):
    """GSTS: what the unit is doing."""

    SIZE = 4
    SPEC = "11.4.5"
    compatibility_interrupts = Bits(23, 23)
    interrupt_table_set = Bits(24, 24)
    interrupt_remapping = Bits(25, 25)
    queued_invalidation = Bits(26, 26)
    write_buffer_flush = Bits(27, 27)
    root_table_set = Bits(30, 30)
    translation = Bits(31, 31)

    @property
    def translation_enabled(self) -> bool:
        """TES: DMA remapping is on."""
        return bool(self.translation)

    @property
    def interrupt_remapping_enabled(self) -> bool:
        """IRES: interrupt remapping is on."""
        return bool(self.interrupt_remapping)

    @property
    def kept(self) -> int:
        """The enables, as GCMD must repeat them for a one-shot command that is to leave them as they are."""
        enables = GlobalStatus.translation, GlobalStatus.interrupt_remapping, GlobalStatus.queued_invalidation
        return self.raw & (sum(bits.mask for bits in enables) | GlobalStatus.compatibility_interrupts.mask)


class TableMode(IntEnum):
    """The mode of the root table (RTADDR.TTM)."""

    LEGACY = 0
    SCALABLE = 1
    ABORT_DMA = 3


class RootTableAddress(Structure):
    """RTADDR: where the root table is, and which mode its entries have."""

    SIZE = 8
    SPEC = "11.4.6"
    mode = Bits(11, 10)
    table = Address(63, 12)
    RESERVED = (Bits(9, 0),)


class FaultStatus(Structure):
    """FSTS: `overflow` and `queue_error` are cleared by writing ones, `pending` follows the fault records."""

    SIZE = 4
    SPEC = "11.4.7.1"
    overflow = Bits(0, 0)
    pending = Bits(1, 1)
    queue_error = Bits(4, 4)
    completion_error = Bits(5, 5)
    timeout_error = Bits(6, 6)
    page_request_overflow = Bits(7, 7)
    record_index = Bits(15, 8)

    @property
    def reports(self) -> bool:
        """Whether anything is reported: a fault, an overflow, or an error of the invalidation queue."""
        return bool(self.overflow or self.pending or self.queue_error or self.completion_error or self.timeout_error)


class FaultEventControl(Structure):
    """FECTL: whether fault events interrupt, and whether one waits because they don't."""

    SIZE = 4
    SPEC = "11.4.7.2"
    interrupt_pending = Bits(30, 30)
    interrupt_mask = Bits(31, 31)


class InvalidationQueueAddress(Structure):
    """IQA: where the invalidation queue is; it has 2^size pages, and `wide` descriptors of 32 bytes instead of 16."""

    SIZE = 8
    SPEC = "11.4.9.4"
    size = Bits(2, 0)
    wide = Bits(11, 11)
    base = Address(63, 12)
    RESERVED = (Bits(10, 3),)


class InvalidationQueueHead(Structure):
    """IQH: the byte offset of the descriptor that the unit fetches next."""

    SIZE = 8
    SPEC = "11.4.9.1"
    head = Address(18, 4)


class InvalidationQueueTail(Structure):
    """IQT: the byte offset at which software writes the next descriptor."""

    SIZE = 8
    SPEC = "11.4.9.2"
    tail = Address(18, 4)


class InterruptRemapTableAddress(Structure):
    """IRTA: where the interrupt remapping table is; it has 2^(size+1) entries."""

    SIZE = 8
    SPEC = "11.4.11.1"
    size = Bits(3, 0)
    extended_mode = Bits(11, 11)
    table = Address(63, 12)
    RESERVED = (Bits(10, 4),)

    @property
    def entries(self) -> int:
        """How many entries the table has."""
        return 2 << self.size
