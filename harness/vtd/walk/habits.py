"""Where implementations choose or deviate: the order of checks, and the codes that are reported."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """The choices of an implementation; the defaults are what the specification says, or the first of what it leaves.

    `legacy_codes`: faults of the root, context and second-stage tables of scalable mode are reported as in legacy mode.
    `unqualified` are codes that are reported although fault processing is disabled.
    `top_table_unreadable` is the code for a second-stage table that a context or PASID entry names but that cannot be
    read, None for that of all others.
    `permission_before_reserved`: a paging entry without the right is refused for that first.
    `type_before_present`: a PASID entry is looked at for its type first, so that an empty one is invalid.
    `device_tlb_enable_ignored`: a context entry may enable ATS requests that the unit does not offer.
    `directory_size_ignored`: the PASID for requests without one is not held against the size of the directory.
    `directory_reserved_ignored`: reserved bits of a PASID directory entry are not looked at.
    `invalid_entries_report`: FPD of PASID directory and PASID entry is looked at only when both are valid.
    `compatibility_passes`: interrupt requests in the compatibility format go through, whatever is enabled.
    `reserved_validation_is_source`: an IRTE with the reserved kind of source validation is refused as one that names
    another requester.
    `bus_range_reversed`: the range of buses of an IRTE is read as last and first instead of first and last.
    """

    legacy_codes: bool = False
    unqualified: frozenset[int] = frozenset()
    top_table_unreadable: int | None = None
    permission_before_reserved: bool = False
    type_before_present: bool = False
    device_tlb_enable_ignored: bool = False
    directory_size_ignored: bool = False
    directory_reserved_ignored: bool = False
    invalid_entries_report: bool = False
    compatibility_passes: bool = False
    reserved_validation_is_source: bool = False
    bus_range_reversed: bool = False


#: An implementation that does as the specification says.
SPECIFIED = Habits()
