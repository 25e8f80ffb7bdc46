"""How QEMU's intel-iommu walks its tables where it chooses or deviates (hw/i386/intel_iommu.c)."""

from __future__ import annotations

from harness.vtd.walk import Habits

#: - vtd_dev_to_context_entry and vtd_iova_to_slpte serve scalable mode too, with the codes of legacy mode.
#: - vtd_qualified_faults lacks 0x0B, 0x50 and 0x58, so FPD does not silence them.
#: - vtd_iova_to_slpte takes a top table that cannot be read for an invalid context entry. Like vtd_iova_to_flpte it
#:   looks at rights before reserved bits.
#: - vtd_get_pe_in_pasid_leaf_table looks at the type of a PASID entry, and only then whether that is present.
#: - vtd_get_pdire_from_pdir_table checks neither the size of the directory nor reserved bits of its entries.
#: - vtd_dev_to_context_entry follows the tables to the PASID entry and reports what is wrong there, before
#:   vtd_ce_get_pasid_fpd looks at any FPD but that of the context entry.
#: - vtd_interrupt_remap_msi passes the compatibility format on; vtd_irte_get takes the reserved SVT for a
#:   mismatch, and the upper byte of a range of buses for its end (bus_max).
QEMU = Habits(
    legacy_codes=True,
    unqualified=frozenset({0x0B, 0x50, 0x58}),
    top_table_unreadable=0x03,
    permission_before_reserved=True,
    type_before_present=True,
    device_tlb_enable_ignored=True,
    directory_size_ignored=True,
    directory_reserved_ignored=True,
    invalid_entries_report=True,
    compatibility_passes=True,
    reserved_validation_is_source=True,
    bus_range_reversed=True,
)
