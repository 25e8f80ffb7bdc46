"""What a NIC that is told to send does not do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.errors import InfraError
from harness.ring_attack import DescriptorRings, LoopbackRings
from harness.session import AttachedDevice

NIC = AttachedDevice(name="nic", model="e1000e", slot=0, qdev={})


@pytest.mark.parametrize("rings", [DescriptorRings(), LoopbackRings()])
def test_transmit_descriptors_that_stay_unused_are_told(rings) -> None:
    answers = {
        "device_arm_loop": {"offset": 0, "header": 18},
        "device_read": {"status": "running", "header": "00", "registers": {"head": 0, "tail": 2}},
    }
    wire = SimpleNamespace(drain=lambda: None, receive=pytest.fail)
    session = SimpleNamespace(call=lambda op, **_: answers[op], wire=lambda _: wire)
    with pytest.raises(InfraError, match="'nic' did not use its transmit descriptors: it stands at 0 of 2"):
        rings.read(session, NIC, 0x1000, 64, purpose="attack")
