"""Interrupts of one function as /proc/interrupts of a guest shows them."""

import interrupts

TABLE = """           CPU0       CPU1
  2:         42          0   IO-APIC   2-edge      timer
 26:          3          4  IR-PCI-MSI-0000:01:00.0   0-edge      vfio-msi[0](0000:01:00.0)
126:          9          0   PCI-MSI 524288-edge      eth0
ERR:          0
"""


def test_each_interrupt_is_summed_over_cpus_and_tells_its_chip():
    assert interrupts.lines_of(TABLE, {"26"}) == [
        {"irq": 26, "count": 7, "chip": "IR-PCI-MSI-0000:01:00.0", "name": "vfio-msi[0](0000:01:00.0)"}
    ]


def test_one_without_a_handler_has_no_name():
    bare = TABLE.replace("      eth0", "")

    assert [found["name"] for found in interrupts.lines_of(bare, {"126"})] == [""]


def test_a_number_is_not_part_of_another():
    assert [found["irq"] for found in interrupts.lines_of(TABLE, {"126", "6"})] == [126]


def test_without_numbers_there_are_none():
    assert interrupts.lines_of(TABLE, set()) == []
