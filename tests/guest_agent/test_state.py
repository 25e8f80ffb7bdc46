"""Fault interrupts as /proc/interrupts of a guest shows them."""

import state

TABLE = """           CPU0       CPU1
  0:         42          0   IO-APIC   2-edge      timer
 24:          3          4  DMAR-MSI   0-edge      dmar0
 25:          9          0   PCI-MSI   0-edge      eth0
"""


def test_fault_interrupts_are_summed_over_cpus_without_the_vector_index():
    assert state.count_dmar_interrupts(TABLE) == 7


def test_without_an_iommu_there_are_none():
    assert state.count_dmar_interrupts(TABLE.replace("DMAR-MSI", "PCI-MSI")) == 0
