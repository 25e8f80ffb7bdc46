"""QEMU's trace of its emulated Intel NICs: where they write a frame that arrives (hw/net/trace-events).

The line is written before the DMA is issued, whatever the remapping unit makes of that (e1000e_write_to_rx_buffers in
hw/net/e1000e_core.c, igb_write_to_rx_buffers in hw/net/igb_core.c).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.witnesses.host_trace import TraceLine

#: The event of each model.
BUFFER_WRITTEN = {"e1000e": "e1000e_rx_desc_buff_write", "igb": "igb_rx_desc_buff_write"}

_WRITTEN = re.compile(
    r"buffer #?\d+, addr: 0x(?P<address>[0-9a-f]+), offset: (?P<offset>\d+), from: \S+, length: (?P<length>\d+)"
)


@dataclass(frozen=True, slots=True)
class BufferWrite:
    """A piece of `length` bytes of a frame, put `offset` bytes behind the `address` that a descriptor has."""

    address: int
    offset: int
    length: int


def buffer_write(line: TraceLine) -> BufferWrite | None:
    """Read a line of one of the events `BUFFER_WRITTEN`; None for every other event."""
    match = _WRITTEN.fullmatch(line.text) if line.event in BUFFER_WRITTEN.values() else None
    return None if match is None else BufferWrite(int(match["address"], 16), int(match["offset"]), int(match["length"]))
