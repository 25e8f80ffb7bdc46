"""The structures in memory by which a remapping unit translates: from the root table to the last paging entry.

Sections are those of the VT-d specification, revision 4.1, chapter 9.
"""

from __future__ import annotations

from enum import IntEnum

from harness.vtd.structure import Address, Bits, Structure


class RootEntry(Structure):
    """One of 256 in the root table, by bus number; names the context table of the bus."""

    SIZE = 16
    SPEC = "9.1"
    present = Bits(0, 0)
    context_table = Address(63, 12)
    RESERVED = (Bits(11, 1), Bits(127, 64))


class ScalableRootEntry(Structure):
    """A root entry of scalable mode: the lower half is for devices 0 to 15 of the bus, the upper for 16 to 31."""

    SIZE = 16
    SPEC = "9.2"
    lower_present = Bits(0, 0)
    lower_context_table = Address(63, 12)
    upper_present = Bits(64, 64)
    upper_context_table = Address(127, 76)
    RESERVED = (Bits(11, 1), Bits(75, 65))


class TranslationType(IntEnum):
    """The translation type of a context entry (TT)."""

    SECOND_STAGE = 0
    WITH_DEVICE_TLB = 1
    PASS_THROUGH = 2
    RESERVED = 3


class ContextEntry(Structure):
    """One of 256 in a context table, by device and function; names the second-stage table of the domain."""

    SIZE = 16
    SPEC = "9.3"
    present = Bits(0, 0)
    fault_processing_disable = Bits(1, 1)
    translation_type = Bits(3, 2)
    second_stage_table = Address(63, 12)
    address_width = Bits(66, 64)
    available = Bits(70, 67)
    domain_id = Bits(87, 72)
    RESERVED = (Bits(11, 4), Bits(71, 71), Bits(127, 88))


class ScalableContextEntry(Structure):
    """One of 128 in a context table of scalable mode; names the PASID directory of the function."""

    SIZE = 32
    SPEC = "9.4"
    present = Bits(0, 0)
    fault_processing_disable = Bits(1, 1)
    device_tlb_enable = Bits(2, 2)
    pasid_enable = Bits(3, 3)
    page_request_enable = Bits(4, 4)
    pasid_directory_size = Bits(11, 9)
    pasid_directory = Address(63, 12)
    rid_pasid = Bits(83, 64)
    rid_privilege = Bits(84, 84)
    RESERVED = (Bits(8, 5), Bits(127, 85), Bits(255, 128))


class PasidDirectoryEntry(Structure):
    """One for each 64 PASIDs; names the PASID table that holds them."""

    SIZE = 8
    SPEC = "9.5"
    present = Bits(0, 0)
    fault_processing_disable = Bits(1, 1)
    pasid_table = Address(63, 12)
    RESERVED = (Bits(11, 2),)


class PasidTranslationType(IntEnum):
    """How a PASID entry translates (PGTT)."""

    FIRST_STAGE = 1
    SECOND_STAGE = 2
    NESTED = 3
    PASS_THROUGH = 4


class PasidEntry(Structure):
    """The translation of one PASID of a function: the tables of its stages, and its domain."""

    SIZE = 64
    SPEC = "9.6"
    present = Bits(0, 0)
    fault_processing_disable = Bits(1, 1)
    address_width = Bits(4, 2)
    translation_type = Bits(8, 6)
    second_stage_access_dirty = Bits(9, 9)
    second_stage_table = Address(63, 12)
    domain_id = Bits(79, 64)
    supervisor_request_enable = Bits(128, 128)
    execute_request_enable = Bits(129, 129)
    first_stage_mode = Bits(131, 130)
    write_protect = Bits(132, 132)
    first_stage_table = Address(191, 140)
    RESERVED = (Bits(11, 10), Bits(86, 80), Bits(139, 136), Bits(511, 192))


class SecondStageEntry(Structure):
    """A paging entry of the second stage, of any level; `page_size` ends the walk above the last level."""

    SIZE = 8
    SPEC = "9.8"
    read = Bits(0, 0)
    write = Bits(1, 1)
    execute = Bits(2, 2)
    page_size = Bits(7, 7)
    accessed = Bits(8, 8)
    dirty = Bits(9, 9)
    snoop = Bits(11, 11)
    address = Address(51, 12)
    transient_mapping = Bits(62, 62)


class FirstStageEntry(Structure):
    """A paging entry of the first stage, of any level, as a CPU's; `page_size` ends the walk above the last level."""

    SIZE = 8
    SPEC = "9.7"
    present = Bits(0, 0)
    write = Bits(1, 1)
    user = Bits(2, 2)
    accessed = Bits(5, 5)
    dirty = Bits(6, 6)
    page_size = Bits(7, 7)
    global_page = Bits(8, 8)
    extended_accessed = Bits(10, 10)
    address = Address(51, 12)
    execute_disable = Bits(63, 63)
