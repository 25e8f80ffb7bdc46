"""QEMU's trace of its emulated VT-d unit (hw/i386/trace-events), as the log backend writes it.

With `-msg timestamp=on` a line reads `PID@SECONDS.MICROSECONDS:EVENT TEXT`, and in QEMU 11
`2026-11-24T00:45:49.449745Z EVENT TEXT`, stamped with the clock that also stamps the journal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from harness.vtd.faults import Access, Fault
from harness.vtd.source_id import SourceId

#: Emitted for every refused DMA, before QEMU's single fault record can collapse it (vtd_report_dmar_fault).
DMAR_FAULT = "vtd_dmar_fault"
#: Emitted for every fault that reached the fault record, interrupt faults included (vtd_report_frcd_fault).
FAULT_RECORDED = "vtd_frr_new"
#: Emitted when fault processing is disabled for the context entry (FPD), so that no report follows.
FAULT_DISABLED = "vtd_fault_disabled"

#: Emitted for every DMA that was translated (vtd_iommu_translate); switched on only where translations are counted.
TRANSLATED = "vtd_dmar_translate"

#: Emitted for every fault or invalidation event that is sent as a message (vtd_generate_interrupt).
EVENT_SENT = "vtd_irq_generate"

#: Emitted for every descriptor that the unit takes from the invalidation queue (vtd_process_inv_desc).
DESCRIPTOR_TAKEN = "vtd_inv_desc"

#: Emitted for every interrupt request that reaches the unit's remapping (vtd_interrupt_remap_msi): what it was, and
#: what became of it.
INTERRUPT_REMAPPED = "vtd_ir_remap_msi"

#: Emitted for every write to a function's configuration space (pci_host_config_write_common in hw/pci/pci_host.c).
CONFIG_WRITTEN = "pci_cfg_write"
#: Emitted when an igb resets a virtual function, whoever asked for it (igb_core_vf_reset in hw/net/igb_core.c).
FUNCTION_RESET = "igb_core_vf_reset"

WATCHED = (DMAR_FAULT, FAULT_RECORDED, FAULT_DISABLED)

#: Where the addresses end that a device with 32 address bits can issue.
FOUR_GIB = 1 << 32

_LINE = re.compile(r"(?:\d+@(?P<seconds>\d+\.\d+):|(?P<moment>\d{4}-\d\d-\d\dT[0-9:.]+Z) )(?P<event>\w+) ?(?P<text>.*)")
_RECORDED = re.compile(r"index \d+ high 0x(?P<high>[0-9a-f]+) low 0x[0-9a-f]+")
_TRANSLATED = re.compile(
    r"dev ([0-9a-f]{2}):([0-9a-f]{2})\.([0-9a-f]{2}) iova 0x([0-9a-f]+) -> gpa 0x([0-9a-f]+) mask 0x([0-9a-f]+)"
)
_EVENT_SENT = re.compile(r"addr 0x(?P<address>[0-9a-f]+) data 0x(?P<data>[0-9a-f]+)")
_DESCRIPTOR = re.compile(r"invalidate desc type .+? high 0x(?P<high>[0-9a-f]+) low 0x(?P<low>[0-9a-f]+)")
_REMAPPED = re.compile(r"\(addr 0x([0-9a-f]+), data 0x([0-9a-f]+)\) -> \(addr 0x([0-9a-f]+), data 0x([0-9a-f]+)\)")
_CONFIG_WRITTEN = re.compile(r".+ ([0-9a-f]{2}):([0-9a-f]{2})\.([0-7]) @0x([0-9a-f]+) <- 0x([0-9a-f]+)")
_FUNCTION_RESET = re.compile(r"VF(\d+)")
_DMAR_FAULT = re.compile(
    r"sid 0x(?P<sid>[0-9a-f]+) fault (?P<fault>\d+) addr 0x(?P<addr>[0-9a-f]+) write (?P<write>\d)"
)


@dataclass(frozen=True, slots=True)
class TraceLine:
    """One trace line: seconds since the epoch, event name, and the text of its arguments."""

    t: float
    event: str
    text: str


def trace_line(line: str) -> TraceLine | None:
    """Read one line; None for what is not a trace line (other messages share the log file)."""
    match = _LINE.fullmatch(line.strip())
    if match is None:
        return None
    moment = match["moment"]
    seconds = datetime.fromisoformat(moment).timestamp() if moment else float(match["seconds"])
    return TraceLine(seconds, match["event"], match["text"])


def dmar_fault(line: TraceLine) -> Fault | None:
    """Read a `vtd_dmar_fault` line; its fault code is printed in decimal. None for every other event."""
    match = _DMAR_FAULT.fullmatch(line.text) if line.event == DMAR_FAULT else None
    if match is None:
        return None
    address = int(match["addr"], 16)
    return Fault(
        source=SourceId(int(match["sid"], 16)),
        access=Access.WRITE if match["write"] == "1" else Access.READ,
        reason=int(match["fault"]),
        first=address,
        last=address,
    )


def recorded_fault(line: TraceLine) -> tuple[SourceId, int] | None:
    """Give requester and reason of a `vtd_frr_new` line: fault record bits 79:64 and 103:96 (VT-d spec 11.4.14.3).

    Interrupt faults show here and nowhere else.
    """
    match = _RECORDED.fullmatch(line.text) if line.event == FAULT_RECORDED else None
    if match is None:
        return None
    high = int(match["high"], 16)
    return SourceId(high & 0xFFFF), high >> 32 & 0xFF


def sent_event(line: TraceLine) -> tuple[int, int] | None:
    """Give address and data of a `vtd_irq_generate` line; None for every other event."""
    match = _EVENT_SENT.fullmatch(line.text) if line.event == EVENT_SENT else None
    return None if match is None else (int(match["address"], 16), int(match["data"], 16))


def descriptor(line: TraceLine) -> int | None:
    """Give the lower 128 bits of the descriptor that a `vtd_inv_desc` line shows; None for every other event."""
    match = _DESCRIPTOR.fullmatch(line.text) if line.event == DESCRIPTOR_TAKEN else None
    return None if match is None else int(match["high"], 16) << 64 | int(match["low"], 16)


def remapped_message(line: TraceLine) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Give address and data of an interrupt request, and those that a `vtd_ir_remap_msi` line says it became."""
    match = _REMAPPED.fullmatch(line.text) if line.event == INTERRUPT_REMAPPED else None
    if match is None:
        return None
    address, data, new_address, new_data = (int(number, 16) for number in match.groups())
    return (address, data), (new_address, new_data)


@dataclass(frozen=True, slots=True)
class ConfigWrite:
    """A write of `value` to `offset` of the configuration space of `function`."""

    function: SourceId
    offset: int
    value: int


def config_write(line: TraceLine) -> ConfigWrite | None:
    """Read a `pci_cfg_write` line; None for every other event."""
    match = _CONFIG_WRITTEN.fullmatch(line.text) if line.event == CONFIG_WRITTEN else None
    if match is None:
        return None
    bus, device, function, offset, value = (int(number, 16) for number in match.groups())
    return ConfigWrite(SourceId(bus << 8 | device << 3 | function), offset, value)


def function_reset(line: TraceLine) -> int | None:
    """Give the number of the virtual function that an `igb_core_vf_reset` line tells of; None for other events."""
    match = _FUNCTION_RESET.fullmatch(line.text) if line.event == FUNCTION_RESET else None
    return None if match is None else int(match[1])


def read_trace(texts: Iterable[str]) -> tuple[list[TraceLine], list[str]]:
    """Read log lines: the trace lines among them, and those that speak of a watched event in an unknown way."""
    lines: list[TraceLine] = []
    unknown: list[str] = []
    for text in texts:
        line = trace_line(text)
        if line is not None:
            lines.append(line)
        for event, read in _READERS.items():
            if event in text and _names(event, text) and (line is None or read(line) is None):
                unknown.append(text)
    return lines, unknown


def _names(event: str, text: str) -> bool:
    """Whether `text` has the name of the event, not just one that begins with it (`vtd_inv_desc_iotlb_pages`)."""
    return re.search(rf"{event}\b", text) is not None


@dataclass(frozen=True, slots=True)
class Translation:
    """A DMA of `source` to the page at `iova` that QEMU translated to `physical`; both have `size` bytes."""

    source: SourceId
    iova: int
    physical: int
    size: int

    @property
    def lifted(self) -> bool:
        """Whether a 32-bit address reached memory that takes more bits to name."""
        return self.iova < FOUR_GIB <= self.physical


def translation(line: TraceLine) -> Translation | None:
    """Read a `vtd_dmar_translate` line; None for every other event."""
    match = _TRANSLATED.fullmatch(line.text) if line.event == TRANSLATED else None
    if match is None:
        return None
    bus, device, function, iova, physical, mask = (int(number, 16) for number in match.groups())
    return Translation(SourceId(bus << 8 | device << 3 | function), iova, physical, mask + 1)


def folded(faults: Iterable[tuple[TraceLine, Fault]]) -> Iterator[tuple[TraceLine, Fault]]:
    """Fold runs of faults of one source, access and reason into one, with the first line, address range and count.

    QEMU's memory core retries a refused access in pieces, so one DMA shows as a fault for every four bytes or so.
    """
    current: tuple[TraceLine, Fault] | None = None
    for line, fault in faults:
        if current is not None and _alike(current[1], fault):
            known = current[1]
            merged = Fault(
                source=known.source,
                access=known.access,
                reason=known.reason,
                first=min(known.first, fault.first),
                last=max(known.last, fault.last),
                count=known.count + fault.count,
            )
            current = (current[0], merged)
            continue
        if current is not None:
            yield current
        current = (line, fault)
    if current is not None:
        yield current


def _alike(a: Fault, b: Fault) -> bool:
    return (a.source, a.access, a.reason) == (b.source, b.access, b.reason)


_READERS: dict[str, Callable[[TraceLine], object]] = {
    DMAR_FAULT: dmar_fault,
    FAULT_RECORDED: recorded_fault,
    TRANSLATED: translation,
    EVENT_SENT: sent_event,
    DESCRIPTOR_TAKEN: descriptor,
    INTERRUPT_REMAPPED: remapped_message,
    CONFIG_WRITTEN: config_write,
    FUNCTION_RESET: function_reset,
}
