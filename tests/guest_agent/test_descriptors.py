"""Descriptors, written out byte for byte from Intel's datasheets of the 82574 and the 82576."""

from e1000e import E1000E
from igb import IGB

LAST, NOT_LAST = True, False


def test_e1000e_sends_with_legacy_descriptors():
    assert E1000E.transmit_descriptor(0x1122334455667788, 18, NOT_LAST, 82).hex() == "88776655443322111200000a00000000"
    assert E1000E.transmit_descriptor(0x10000, 64, LAST, 82).hex() == "00000100000000004000000b00000000"


def test_e1000e_tells_a_used_descriptor_from_a_fresh_one():
    fresh = E1000E.receive_descriptor(0x20000)
    assert fresh.hex() == "00000200000000000000000000000000"
    assert E1000E.received(fresh) is None
    assert E1000E.received(bytes.fromhex("00000200000000005e00000003000000")) == (94, 3, 0)


def test_igb_sends_with_advanced_descriptors():
    assert IGB.transmit_descriptor(0x10000, 18, NOT_LAST, 82).hex() == "00000100000000001200302a00801400"
    assert IGB.transmit_descriptor(0x10000, 64, LAST, 82).hex() == "00000100000000004000302b00801400"


def test_igb_tells_a_used_descriptor_from_a_fresh_one():
    assert IGB.received(IGB.receive_descriptor(0x20000)) is None
    assert IGB.received(bytes.fromhex("0000000000000000030000005e000000")) == (94, 3, 0)
    assert IGB.received(bytes.fromhex("0000000000000000030000205e000000")) == (94, 3, 0x200)
