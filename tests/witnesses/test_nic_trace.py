"""Where QEMU says that its NICs write a frame."""

from __future__ import annotations

import pytest

from harness.witnesses.host_trace import TraceLine
from harness.witnesses.nic_trace import BufferWrite, buffer_write

TEXT = "buffer #0, addr: 0x8821000, offset: 64, from: 0x7f5c1c0d2b60, length: 256"


@pytest.mark.parametrize("event", ["e1000e_rx_desc_buff_write", "igb_rx_desc_buff_write"])
@pytest.mark.parametrize("text", [TEXT, TEXT.replace("#", "")])
def test_address_offset_and_length_are_read(event, text):
    assert buffer_write(TraceLine(1.0, event, text)) == BufferWrite(0x8821000, 64, 256)


@pytest.mark.parametrize(("event", "text"), [
    ("vtd_dmar_fault", TEXT),
    ("e1000e_rx_desc_buff_write", TEXT + " more"),
    ("e1000e_rx_desc_buff_write", TEXT.replace("length: 256", "length: 0x100")),
    ("e1000e_rx_desc_buff_write", ""),
])  # fmt: skip
def test_nothing_is_read_into_another_line(event, text):
    assert buffer_write(TraceLine(1.0, event, text)) is None
