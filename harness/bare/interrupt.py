"""An interrupt request of a device on a bare machine, by what waits in the local APIC before and after it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.bare.attack import phase
from harness.errors import InfraError
from harness.vtd.interrupts import FIXED, InterruptRemapEntry, InterruptRequest, SourceValidation

if TYPE_CHECKING:  # planning imports every step, and needs no machine
    from harness.bare.session import BareDevice, BareSession, Edit

#: Vectors for devices; those below are exceptions, and the fault event has one of its own.
_VECTORS = range(0x50, 0xF0)

_IRR = re.compile(r"^IRR\s+(?P<vectors>.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request of one device: which entry it names, or, in compatibility format, the processor by itself."""

    index: int
    by_dma: bool = False
    compatibility: bool = False
    subhandle: int | None = None
    data: int | None = None

    def message(self, vector: int) -> tuple[int, int]:
        """Give address and data of the write."""
        if self.compatibility:
            return FIXED << 20, vector
        address, data = InterruptRequest(self.index, self.subhandle).message()
        return address, data if self.data is None else self.data


def own_index(session: BareSession, device: str) -> int:
    """Give the index of the entry that a device's own requests name; entry 0 stays unused."""
    return 1 + list(session.devices).index(device)


def perform(
    session: BareSession, device: BareDevice, request: Request, name: str, *, edits: Sequence[Edit] = ()
) -> None:
    """Make the request as the phase `name`, for a vector that nothing waits for; `edits` break the device's entry."""
    before = waiting(session)
    vector = next(number for number in _VECTORS if number not in before)
    register = session.interrupt_register
    entry = InterruptRemapEntry.of(
        present=1,
        vector=vector,
        source_id=device.source.value,
        source_validation=SourceValidation.SOURCE_ID,
    )
    for edit in edits:
        if edit.entry == "irte":
            entry = edit.applied(entry)
        else:
            register = edit.applied(register)
    session.lay_interrupts({own_index(session, device.name): entry}, register)
    address, data = request.message(vector)
    if request.by_dma:
        device.engine.carry(device, data.to_bytes(4, "little"))
    session.clear()
    with phase(session, name):
        if request.by_dma:
            device.engine.write(device, address, data.to_bytes(4, "little"), purpose="attack")
        else:
            device.engine.interrupt(device, address, data)
        session.record(
            "pending",
            vector=vector,
            address=address,
            data=data,
            entry=entry.encode().hex(),
            register=register.raw,
            before=before,
            after=waiting(session),
        )


def waiting(session: BareSession) -> list[int]:
    """Give the vectors that wait in the processor's local APIC (its IRR, as QEMU's monitor shows it)."""
    told = session.machine.monitor.execute_raw("human-monitor-command", {"command-line": "info lapic"})
    found = _IRR.search(str(told))
    if found is None:
        raise InfraError(f"QEMU's monitor does not show the local APIC: {str(told)[:200]}")
    return [int(word) for word in found["vectors"].split() if word.isdecimal()]
