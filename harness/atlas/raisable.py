"""Which fault reasons QEMU's intel-iommu can raise for the devices it emulates, and why it cannot raise the others.

Read from hw/i386/intel_iommu.c and hw/i386/intel_iommu_internal.h (enum VTDFaultReason) of QEMU 10.0 and 11.1.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.vtd.faults import REASONS

_TABLES = "QEMU reports faults of root and context entries with the codes of legacy mode (vtd_dev_to_context_entry)"
_SECOND = "QEMU reports faults of the second stage with the codes of legacy mode (vtd_iova_to_slpte)"
_PASID = "no emulated device sends requests with PASID"
_UNDEFINED = "not defined in QEMU (enum VTDFaultReason)"

#: Code -> why QEMU cannot raise it; all others it can.
UNRAISABLE: Mapping[int, str] = {
    0x0D: "defined, but never returned: QEMU takes what is wrong with a translation type for 0x03 (vtd_ce_type_check)",
    0x25: "never raised: compatibility-format interrupts pass (vtd_interrupt_remap_msi), which is a known deviation",
    0x30: _UNDEFINED,
    0x31: f"an internal answer that is never recorded (vtd_dev_get_pe_from_pasid), and {_PASID}",
    0x38: _TABLES,
    0x39: _TABLES,
    0x3A: _TABLES,
    0x40: _TABLES,
    0x41: _TABLES,
    0x42: _TABLES,
    0x43: _TABLES,
    0x44: _UNDEFINED,
    0x45: f"{_UNDEFINED}, and {_PASID}",
    0x46: f"{_UNDEFINED}, and {_PASID}",
    0x47: "since QEMU 10.2, for page requests (vtd_pri_request_page); no emulated device sends one",
    0x48: "not defined in QEMU, which does not hold a PASID against the size of its directory",
    0x52: "not defined in QEMU, which does not look at reserved bits of a PASID directory entry",
    0x5A: "not defined in QEMU, which does not look at reserved bits of a PASID entry",
    0x5C: f"{_UNDEFINED}, and no emulated device asks to execute",
    0x5D: f"{_UNDEFINED}, and no emulated device sends privileged requests",
    0x78: _SECOND,
    0x79: _SECOND,
    0x7A: _SECOND,
    0x7B: _SECOND,
    0x82: f"{_UNDEFINED}, and no emulated device asks to execute",
    0x83: _SECOND,
    0x84: _SECOND,
    0x86: "not defined in QEMU: a first-stage entry that is present can be read (vtd_iova_to_flpte)",
    0x90: _UNDEFINED,
}

RAISABLE = tuple(reason for reason in REASONS if reason.code not in UNRAISABLE)

_LEGACY, _SECOND_STAGE, _FIRST_STAGE, _INTERRUPT = "legacy", "second-stage", "first-stage", "interrupt"
_ENTRIES = (_LEGACY, _SECOND_STAGE, _FIRST_STAGE)
_WALK = (_LEGACY, _SECOND_STAGE)
_PASID_TABLES = (_SECOND_STAGE, _FIRST_STAGE)

#: Code -> the tables that QEMU raises it for, by the names of `Provoked.table`: root and context entries are looked at
#: in every mode (vtd_dev_to_context_entry), second-stage tables in two (vtd_iova_to_slpte), PASID tables in scalable
#: mode; 0x0e becomes 0x87 where the unit offers scalable mode, whatever its tables are (vtd_do_iommu_translate).
TABLES: Mapping[int, tuple[str, ...]] = {
    **dict.fromkeys((0x01, 0x02, 0x08, 0x09, 0x0A, 0x0B), _ENTRIES),
    **dict.fromkeys((0x03, 0x04, 0x05, 0x06, 0x07, 0x0C), _WALK),
    0x0E: (_LEGACY,),
    **dict.fromkeys((0x20, 0x21, 0x22, 0x23, 0x24, 0x26), (_INTERRUPT,)),
    **dict.fromkeys((0x50, 0x51, 0x58, 0x59, 0x5B), _PASID_TABLES),
    0x87: _ENTRIES,
    **dict.fromkeys((0x70, 0x71, 0x72, 0x73, 0x80, 0x81, 0x85, 0x91), (_FIRST_STAGE,)),
}
