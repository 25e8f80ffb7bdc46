"""How QEMU's intel-iommu walks its tables where it chooses or deviates (hw/i386/intel_iommu.c)."""

from __future__ import annotations

from harness.vtd.walk import Habits

#: Codes and reports:
#: - vtd_dev_to_context_entry and vtd_iova_to_slpte serve scalable mode too, with the codes of legacy mode.
#: - vtd_qualified_faults lacks 0x0B, 0x50 and 0x58, so FPD does not silence them.
#: - vtd_dev_to_context_entry follows the tables to the PASID entry and reports what is wrong there, before
#:   vtd_ce_get_pasid_fpd looks at any FPD but that of the context entry.
#: - vtd_do_iommu_translate chooses the code for an address that leads to the interrupt range by x-scalable-mode.
#:
#: Root table, contexts, PASIDs:
#: - vtd_update_scalable_state looks at one bit of the mode (VTD_RTADDR_SMT), and only with x-scalable-mode.
#: - vtd_root_entry_rsvd_bits_check checks both halves, vtd_context_entry_rsvd_bits_check the pointer of pass-through.
#: - vtd_dev_to_context_entry compares DTE, PASIDE and PRE with nothing. No address that is passed through is checked.
#: - VTD_CE_GET_RID2PASID is used whatever ECAP says, and vtd_get_pdire_from_pdir_table checks neither the size of the
#:   directory nor reserved bits of its entries.
#: - vtd_get_pe_in_pasid_leaf_table looks at the type of a PASID entry, and only then whether that is present; it checks
#:   no reserved bits.
#:
#: Paging:
#: - vtd_iova_to_slpte and vtd_iova_to_flpte look at the rights of each entry by itself, before its reserved bits.
#: - vtd_get_pte returns all ones for an entry that cannot be read.
#: - vtd_init takes SNP out of the reserved bits with x-scalable-mode, and has those of a 1 GiB page whatever fs1gp is.
#: - vtd_iova_fl_check_canonical takes the limit of vtd_iova_limit, from the AW field of the PASID entry.
#: - vtd_set_flag_in_pte writes nothing if any of the flags is set.
#:
#: Interrupts:
#: - vtd_interrupt_remap_msi passes the compatibility format on, adds handle and subhandle in a uint16_t, and looks at
#:   the reserved bits of the data after vtd_remap_irq_get.
#: - vtd_irte_get looks at reserved bits before the requester, takes the reserved SVT for a mismatch, and the upper byte
#:   of a range of buses for its end (bus_max). It knows neither the posted format nor reserved bits of the destination.
QEMU = Habits(
    legacy_codes=True,
    unqualified=frozenset({0x0B, 0x50, 0x58}),
    invalid_entries_report=True,
    interrupt_code_of_unit=True,
    mode_bit_only=True,
    both_root_halves_checked=True,
    unused_table_checked=True,
    pass_through_unlimited=True,
    context_features_ignored=True,
    rid_pasid_unoffered=True,
    directory_size_ignored=True,
    directory_reserved_ignored=True,
    pasid_reserved_ignored=True,
    type_before_present=True,
    rights_at_each_entry=True,
    all_ones_unreadable=True,
    snoop_with_scalable_mode=True,
    gigabyte_pages_unoffered=True,
    first_stage_width_from_second=True,
    one_mark_suffices=True,
    compatibility_passes=True,
    request_checked_last=True,
    index_wraps=True,
    entry_reserved_before_source=True,
    reserved_validation_is_source=True,
    bus_range_reversed=True,
    posted_is_remapped=True,
    destination_reserved_ignored=True,
)
