"""What a host says of itself, and what is made of that."""

from __future__ import annotations

import os

from harness.lab.survey import take_survey
from tests.lab.fake_host import NIC


def test_a_host_tells_what_it_has(ssh, lab):
    lab.device("0000:04:00.0", driver="igb", group=None)
    lab.device("0000:05:00.0", driver="nvme", klass="0x010802", group="9")
    found = take_survey(ssh, root=str(lab.root))

    assert (found.uid, found.kernel) == (os.geteuid(), os.uname().release)
    assert (found.iommus, found.groups, found.vfio, found.memory_mib) == (("dmar0",), 2, True, 2048)
    assert [nic.address for nic in found.nics] == [NIC, "0000:04:00.0"]
    needs = {need.name: need for need in found.nic_needs()}
    assert needs[f"nic {NIC}"].ok
    assert needs[f"nic {NIC}"].found == "8086:10d3, e1000e, group 7"
    assert not needs["nic 0000:04:00.0"].ok
    assert "intel_iommu=on" in needs["nic 0000:04:00.0"].remedy
    assert all(need.ok for need in found.needs())
