"""Where implementations choose or deviate: the order of checks, what they leave unchecked, the codes they report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """The choices of an implementation; the defaults are what the specification says.

    Codes and reports:
    `legacy_codes`: faults of the root, context and second-stage tables of scalable mode are reported as in legacy mode.
    `unqualified` are codes that are reported although fault processing is disabled.
    `invalid_entries_report`: FPD of PASID directory and PASID entry is looked at only when both are valid.
    `interrupt_code_of_unit`: the code for an address that leads to the interrupt range is that of scalable mode where
    the unit offers that, whatever mode its tables have.

    Root table, contexts, PASIDs:
    `mode_bit_only`: of the mode of the root table only the lower bit counts, and only if the unit has scalable mode.
    `both_root_halves_checked`: the half of a scalable root entry that is not present is checked for reserved bits too.
    `unused_table_checked`: so is the pointer to paging tables in a context entry that passes addresses through.
    `pass_through_unlimited`: addresses that are passed through may be wider than those of memory.
    `context_features_ignored`: a context entry may enable kinds of requests that the unit does not offer.
    `rid_pasid_unoffered`: the PASID for requests without one is taken from the context entry of every unit.
    `directory_size_ignored`: that PASID is not held against the size of the directory.
    `directory_reserved_ignored`, `pasid_reserved_ignored`: their reserved bits are not looked at.
    `type_before_present`: a PASID entry is looked at for its type first, so that an empty one is invalid.

    Paging:
    `rights_at_each_entry`: the right is looked for in each entry, before its reserved bits; the specification has the
    rights of all entries together.
    `all_ones_unreadable`: an entry of nothing but ones is taken for one that could not be read.
    `snoop_with_scalable_mode`: a unit with scalable mode takes the snoop bit, offered or not.
    `gigabyte_pages_unoffered`: the first stage has pages of 1 GiB, offered or not.
    `first_stage_width_from_second`: the width of a canonical address is that of the second stage in the PASID entry.
    `one_mark_suffices`: an entry that is marked as accessed is not marked as dirty where it should be, nor one that is
    marked as dirty as accessed.

    Interrupts:
    `compatibility_passes`: interrupt requests in the compatibility format go through, whatever is enabled.
    `request_checked_last`: reserved bits of an interrupt request are looked at when its entry has been found good.
    `index_wraps`: handle and subhandle are added in 16 bits.
    `entry_reserved_before_source`: reserved bits of an entry are looked at before the requester.
    `reserved_validation_is_source`: an entry with the reserved kind of source validation is refused as one that names
    another requester.
    `bus_range_reversed`: the range of buses of an entry is read as last and first instead of first and last.
    `posted_is_remapped`: an entry in the posted format is taken for a remapped one, unless the unit offers posting.
    `destination_reserved_ignored`: bits of the destination that 8-bit destinations leave over are not looked at.
    """

    legacy_codes: bool = False
    unqualified: frozenset[int] = frozenset()
    invalid_entries_report: bool = False
    interrupt_code_of_unit: bool = False

    mode_bit_only: bool = False
    both_root_halves_checked: bool = False
    unused_table_checked: bool = False
    pass_through_unlimited: bool = False
    context_features_ignored: bool = False
    rid_pasid_unoffered: bool = False
    directory_size_ignored: bool = False
    directory_reserved_ignored: bool = False
    pasid_reserved_ignored: bool = False
    type_before_present: bool = False

    rights_at_each_entry: bool = False
    all_ones_unreadable: bool = False
    snoop_with_scalable_mode: bool = False
    gigabyte_pages_unoffered: bool = False
    first_stage_width_from_second: bool = False
    one_mark_suffices: bool = False

    compatibility_passes: bool = False
    request_checked_last: bool = False
    index_wraps: bool = False
    entry_reserved_before_source: bool = False
    reserved_validation_is_source: bool = False
    bus_range_reversed: bool = False
    posted_is_remapped: bool = False
    destination_reserved_ignored: bool = False


#: An implementation that does as the specification says.
SPECIFIED = Habits()
