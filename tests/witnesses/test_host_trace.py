"""QEMU's trace lines."""

from __future__ import annotations

import pytest

from harness.vtd.faults import Access
from harness.witnesses.host_trace import (
    config_write,
    descriptor,
    dmar_fault,
    folded,
    function_reset,
    read_trace,
    recorded_fault,
    remapped_message,
    trace_line,
    translation,
)

LINE = "26022@1795336826.592933:vtd_dmar_fault sid 0x100 fault 5 addr 0x7bee000 write 1"


def test_a_fault_is_read_with_its_decimal_code():
    fault = dmar_fault(trace_line("1@2.5:vtd_dmar_fault sid 0x2a8 fault 11 addr 0x5000 write 0"))

    assert (str(fault.source), fault.reason, fault.access, fault.first) == ("02:15.0", 11, Access.READ, 0x5000)


def test_the_time_is_kept():
    assert trace_line(LINE).t == pytest.approx(1795336826.592933)


@pytest.mark.parametrize(
    "line",
    ["", "qemu-system-x86_64: warning: something", "vtd_dmar_fault sid 0x100 fault 5 addr 0x0 write 1", "1@x:y"],
)
def test_other_lines_of_the_log_are_passed_over(line):
    assert trace_line(line) is None


def test_another_event_is_no_fault():
    assert dmar_fault(trace_line("1@2.5:vtd_frr_new index 0 high 0x1 low 0x2")) is None


def _faults(*texts):
    lines = [trace_line(f"1@{number}.0:vtd_dmar_fault {text}") for number, text in enumerate(texts)]
    return [(line, dmar_fault(line)) for line in lines]


def test_a_run_of_alike_faults_is_folded_with_its_range_and_count():
    run = _faults(*(f"sid 0x100 fault 5 addr {0x1000 + 4 * i:#x} write 1" for i in range(16)))

    [(line, fault)] = folded(run)

    assert (line.t, fault.first, fault.last, fault.count) == (0.0, 0x1000, 0x103C, 16)


@pytest.mark.parametrize(
    "other",
    [
        "sid 0x108 fault 5 addr 0x1000 write 1",
        "sid 0x100 fault 6 addr 0x1000 write 1",
        "sid 0x100 fault 5 addr 0x1000 write 0",
    ],
)
def test_a_fault_of_another_kind_is_never_folded_in(other):
    alike = "sid 0x100 fault 5 addr 0x1000 write 1"

    assert [fault.count for _, fault in folded(_faults(alike, other, alike))] == [1, 1, 1]


def test_a_translation_names_its_requester():
    line = trace_line("1@2.5:vtd_dmar_translate dev 02:1f.07 iova 0xfffff000 -> gpa 0x7bee000 mask 0xfff")

    seen = translation(line)

    assert (str(seen.source), seen.iova, seen.physical) == ("02:1f.7", 0xFFFFF000, 0x7BEE000)


@pytest.mark.parametrize(
    ("iova", "physical", "lifted"),
    [(0xFFFFF000, 1 << 32, True), (0xFFFFF000, 0xFFFFF000, False), (1 << 32, 1 << 32, False)],
)
def test_only_what_an_address_below_4_gib_reaches_above_is_lifted(iova, physical, lifted):
    line = trace_line(f"1@2.5:vtd_dmar_translate dev 01:00.00 iova {iova:#x} -> gpa {physical:#x} mask 0xfff")

    assert translation(line).lifted is lifted


def test_a_recorded_fault_names_requester_and_reason():
    line = trace_line("1@2.5:vtd_frr_new index 0 high 0xffff0500000108 low 0x7bee000")

    source, reason = recorded_fault(line)

    assert (str(source), reason) == ("01:01.0", 5)


@pytest.mark.parametrize(
    "text",
    [
        "1@2.5:vtd_dmar_fault sid=0x100 fault=5",
        "vtd_dmar_fault sid 0x100 fault 5 addr 0x0 write 1",
        "1@2.5:vtd_frr_new 0x1",
        "1@2.5:vtd_dmar_translate 01:00.0",
        "1@2.5:vtd_inv_desc iotlb",
        "1@2.5:vtd_ir_remap_msi addr 0x0",
    ],
)
def test_a_watched_event_in_other_words_is_told(text):
    assert read_trace([text])[1] == [text]


def test_what_is_no_watched_event_is_not_told():
    assert read_trace(["qemu-system-x86_64: warning: x", "1@2.5:vtd_inv_desc_iotlb_global iotlb", LINE])[1] == []


def test_a_descriptor_is_the_number_of_both_halves():
    line = trace_line("1@2.5:vtd_inv_desc invalidate desc type iotlb high 0x300004 low 0x70032")

    assert descriptor(line) == 0x300004 << 64 | 0x70032


def test_a_remapped_interrupt_is_told_with_what_it_became():
    line = trace_line("1@2.5:vtd_ir_remap_msi (addr 0xfee00358, data 0x0) -> (addr 0xfee01000, data 0x2d)")

    assert remapped_message(line) == ((0xFEE00358, 0), (0xFEE01000, 0x2D))


def test_a_write_to_configuration_space_is_read_with_its_function():
    written = config_write(trace_line("1@2.5:pci_cfg_write igbvf 01:10.2 @0xa8 <- 0x8000"))

    assert (str(written.function), written.offset, written.value) == ("01:10.2", 0xA8, 0x8000)
    assert config_write(trace_line("1@2.5:pci_cfg_read igbvf 01:10.2 @0xa8 -> 0x8000")) is None


def test_the_reset_of_a_virtual_function_is_read_with_its_number():
    assert function_reset(trace_line("1@2.5:igb_core_vf_reset VF3")) == 3
    assert function_reset(trace_line("1@2.5:vtd_frr_new VF3")) is None


@pytest.mark.parametrize("text", ["pci_cfg_write igbvf 01:10.2 @0xa8 = 0x8000", "igb_core_vf_reset function 3"])
def test_a_reset_in_unknown_words_is_told(text):
    assert read_trace([f"1@2.5:{text}"])[1] == [f"1@2.5:{text}"]
