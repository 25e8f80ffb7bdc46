"""Fault reasons, the fault record, capabilities and interrupt messages, against values that were read from QEMU."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.vtd.fault_record import FaultRecord, record_offset
from harness.vtd.faults import REASON_BY_CODE, REASON_BY_NAME, REASONS, Access, Mode, describe
from harness.vtd.interrupts import InterruptRequest
from harness.vtd.registers import Capability, ExtendedCapability, GlobalStatus, InterruptRemapTableAddress
from harness.vtd.source_id import SourceId
from harness.vtd.unit import Unit

#: QEMU 10.0.2 with 48 address bits, and with scalable mode and first-stage tables.
CAP_48, ECAP_48 = 0xD2008C222F0606, 0xF00F4A
CAP_FIRST_STAGE, ECAP_FIRST_STAGE = 0x1D2008C222F0606, 0x880000F00F4A


def test_codes_and_names_are_unique():
    assert len(REASON_BY_CODE) == len(REASON_BY_NAME) == len(REASONS)


@pytest.mark.parametrize(
    ("code", "mode", "text"),
    [
        (0x05, Mode.LEGACY, "PTE Write access is not set"),
        (0x26, Mode.INTERRUPT, "Blocked an interrupt request due to source-id verification failure"),
        (0x41, Mode.SCALABLE, "SM: Present bit in Context Entry is clear"),
        (0x71, Mode.SCALABLE, "SM: Present bit in first-level paging entry is clear"),
        (0x91, Mode.SCALABLE, "Unknown"),
    ],
)
def test_a_reason_has_the_words_of_the_kernel(code, mode, text):
    assert (REASON_BY_CODE[code].mode, REASON_BY_CODE[code].kernel_text) == (mode, text)


def test_faults_of_the_root_table_cannot_be_silenced():
    # There is no context entry yet whose FPD bit could.
    assert not any(REASON_BY_CODE[code].qualified for code in (0x01, 0x08, 0x09, 0x0A, 0x39))
    assert REASON_BY_CODE[0x05].qualified


def test_an_unlisted_code_is_told():
    assert describe(0x99) == "0x99 unlisted"


def test_a_recorded_write_is_read():
    record = FaultRecord.from_halves(0x20000, 0x80FF_FF05_0000_0020)
    fault = record.as_fault()
    assert (record.fault, record.pasid, record.pasid_present) == (1, 0xFFFF, 0)
    assert (fault.source, fault.access, fault.reason, fault.first) == (SourceId(0x20), Access.WRITE, 5, 0x20000)


def test_a_recorded_read_is_read():
    assert FaultRecord.from_halves(0x5000, 0xC0FF_FF06_0000_0100).as_fault().access is Access.READ


def test_a_recorded_interrupt_is_no_dma():
    record = FaultRecord.from_halves(2 << 48, 0x8000_0022_0000_0020)
    assert record.is_interrupt
    assert record.interrupt_index == 2
    with pytest.raises(ValueError, match="no refused DMA"):
        record.as_fault()


def test_a_cleared_record_is_no_fault():
    with pytest.raises(ValueError, match="no refused DMA"):
        FaultRecord.from_halves(0x20000, 0x00FF_FF05_0000_0020).as_fault()


def test_the_offers_of_a_unit_are_read():
    unit = Unit.from_registers(Capability(CAP_48), ExtendedCapability(ECAP_48))
    assert (unit.levels, unit.address_width, unit.large_levels) == ({3, 4}, 48, {2, 3})
    assert (unit.scalable_mode, unit.first_stage, unit.second_stage, unit.pass_through) == (False, False, True, True)
    assert record_offset(Capability(CAP_48)) == 0x220


def test_the_offers_of_a_scalable_unit_are_read():
    unit = Unit.from_registers(Capability(CAP_FIRST_STAGE), ExtendedCapability(ECAP_FIRST_STAGE))
    assert (unit.scalable_mode, unit.first_stage, unit.second_stage, unit.first_stage_1gib_pages) == (
        True,
        True,
        False,
        True,
    )


def test_a_one_shot_command_keeps_what_is_enabled():
    assert GlobalStatus(0xC600_0000).kept == 0x8600_0000


def test_an_interrupt_table_has_a_power_of_two_of_entries():
    assert InterruptRemapTableAddress.of(size=0xF).entries == 65536
    assert InterruptRemapTableAddress.of(size=3).entries == 16


def test_an_interrupt_message_is_composed_as_in_the_specification():
    assert InterruptRequest(0x7FF0 | 1 << 15).message() == (0xFEE0_0000 | 0x7FF0 << 5 | 1 << 4 | 1 << 2, 0)
    assert InterruptRequest(1, 15).message() == (0xFEE0_0038, 15)
    assert InterruptRequest(1, 15).index == 16


@given(st.integers(0, 0xFFFF), st.none() | st.integers(0, 0xFFFF))
def test_a_composed_interrupt_message_is_read_back(handle, subhandle):
    request = InterruptRequest(handle, subhandle)
    assert InterruptRequest.read(*request.message()) == request


def test_other_writes_are_no_remappable_interrupts():
    assert InterruptRequest.read(0xFEE0_0000, 0x41) is None
    with pytest.raises(ValueError, match="not in the interrupt range"):
        InterruptRequest.read(0xFED9_0000, 0)
