"""What the unit of a running machine holds for interrupts: its registers, and the entry that a message names."""

from __future__ import annotations

from typing import Any

from harness.pci_config import InterruptMessage
from harness.session import Session
from harness.vtd.interrupts import InterruptRemapEntry, InterruptRequest
from harness.vtd.registers import CAP, DEFAULT_BASE, ECAP, GSTS, IRTA, InterruptRemapTableAddress


def unit_registers(session: Session) -> dict[str, int]:
    """Read the registers that tell how the unit remaps interrupts, by the names that the judge knows them under."""
    register = session.guest.machine.register
    return {
        "gsts": register(DEFAULT_BASE + GSTS),
        "irta": register(DEFAULT_BASE + IRTA, 8),
        "cap": register(DEFAULT_BASE + CAP, 8),
        "ecap": register(DEFAULT_BASE + ECAP, 8),
    }


def entry_named(session: Session, message: InterruptMessage) -> dict[str, Any] | None:
    """Read the entry of the interrupt remapping table that `message` names; None where it names none."""
    request = InterruptRequest.read(message.address, message.data)
    if request is None:
        return None
    table = InterruptRemapTableAddress(session.guest.machine.register(DEFAULT_BASE + IRTA, 8))
    address = table.table + request.index * InterruptRemapEntry.SIZE
    data = session.read_physical(address, InterruptRemapEntry.SIZE, label="interrupt remapping entry")
    return {"address": address, "data": data.hex()}
