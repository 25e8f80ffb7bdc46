"""Edits of the tables that a running Linux made: the entry found by walking from outside, changed, made effective.

The walk goes through the tables as the guest left them, whatever is broken already, so that the order of edits does not
matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError
from harness.machine.outside import walk_tables
from harness.patches import Patch
from harness.pci_config import interrupt_message
from harness.scenario.edit import Edit
from harness.session import AttachedDevice, Session
from harness.vtd.faults import Access
from harness.vtd.interrupts import InterruptRemapEntry, InterruptRequest
from harness.vtd.registers import DEFAULT_BASE, IRTA, RTADDR, InterruptRemapTableAddress, RootTableAddress
from harness.vtd.structure import Structure
from harness.vtd.tables import ContextEntry, PasidEntry, PasidTranslationType
from harness.vtd.walk import Request, Walk


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an entry is: at guest-physical `address`, a `register` of the unit or in memory."""

    address: int
    structure: type[Structure]
    register: bool = False
    interrupts: bool = False

    def __str__(self) -> str:
        return f"{self.structure.__name__} at {self.address:#x}"


def break_entry(session: Session, device: AttachedDevice, edit: Edit, address: int) -> None:
    """Make `edit` on the way of the request of `device` for the bus `address`, effective when this returns.

    HarnessError if the guest's tables have no such entry, or the edit changes nothing in it.
    """
    place = _interrupt_entry(session, device) if edit.entry == "irte" else _entry(session, device, edit, address)
    machine = session.guest.machine
    before = machine.memory.read(place.address, place.structure.SIZE)
    try:
        after = edit.applied(place.structure.decode(before)).encode()
    except (KeyError, ValueError) as problem:
        raise HarnessError(f"{edit} does not fit the {place}: {problem}") from None
    if after == before:
        raise HarnessError(f"{edit} changes nothing: the {place} is so already")
    session.patches.make(
        Patch(
            device=device.name,
            what=str(edit),
            address=place.address,
            old=before,
            new=after,
            register=place.register,
            interrupts=place.interrupts,
            disables_reports=edit.disables_reports,
        )
    )


def tables_of(session: Session, device: AttachedDevice, address: int, request: str) -> dict[str, Any]:
    """Tell for the atlas which tables the `request` of `device` goes through, and what is broken in them for it."""
    broken = session.patches.of(device.name)
    how = f" with {', '.join(patch.what for patch in broken)}" if broken else ""
    return {
        **_shape(walk_of(session, device, address)),
        "model": device.model,
        "recipe": f"{request}{how}",
        "fault_processing_disabled": any(patch.disables_reports for patch in broken),
    }


def interrupt_index(session: Session, device: AttachedDevice) -> int:
    """Give the entry of the interrupt remapping table that the interrupt message of `device` names."""
    message = interrupt_message(session, device)
    request = InterruptRequest.read(message.address, message.data)
    if request is None:
        raise HarnessError(f"the interrupt message of '{device.name}' is not remapped: {message.address:#x}")
    return request.index


def context_of(session: Session, device: AttachedDevice) -> ContextEntry:
    """Give the context entry that the guest made for `device`, found by walking from outside.

    HarnessError where it made none, or has tables of scalable mode.
    """
    seen = walk_of(session, device, 0)
    for step in seen.steps:
        if isinstance(step.entry, ContextEntry):
            return step.entry
    raise HarnessError(f"the guest made no context entry of legacy mode for '{device.name}':\n{seen.explain()}")


def domain_id_of(session: Session, device: AttachedDevice) -> int:
    """Give the number by which the unit knows the domain of `device`: of its context entry, or of its PASID entry.

    HarnessError where the guest made neither.
    """
    seen = walk_of(session, device, 0)
    for step in reversed(seen.steps):
        if isinstance(step.entry, PasidEntry | ContextEntry):
            return step.entry.domain_id
    raise HarnessError(f"the guest has put '{device.name}' into no domain:\n{seen.explain()}")


def walk_of(session: Session, device: AttachedDevice, address: int) -> Walk:
    """Take the way of a write of `device` to the bus `address` through the tables as the guest left them."""
    if device.source is None:
        raise HarnessError(f"'{device.name}' is not plugged in, so nothing translates for it")
    request = Request(device.source, address, Access.WRITE)
    return walk_tables(session.guest.machine, request, session.patches.original)


def _entry(session: Session, device: AttachedDevice, edit: Edit, address: int) -> _Place:
    if edit.entry == "rtaddr":
        return _Place(DEFAULT_BASE + RTADDR, RootTableAddress, register=True)
    seen = walk_of(session, device, address)
    try:
        step = seen.entry(edit.entry)
    except KeyError:
        raise HarnessError(
            f"the tables of '{device.name}' have no entry '{edit.entry}' on the way to {address:#x}:\n{seen.explain()}"
        ) from None
    return _Place(step.address, type(step.entry))


def _interrupt_entry(session: Session, device: AttachedDevice) -> _Place:
    table = InterruptRemapTableAddress(session.guest.machine.register(DEFAULT_BASE + IRTA, 8))
    address = table.table + interrupt_index(session, device) * InterruptRemapEntry.SIZE
    return _Place(address, InterruptRemapEntry, interrupts=True)


def _shape(seen: Walk) -> dict[str, Any]:
    """Give the kind of the tables and the levels of paging, as the last entry before the paging entries says."""
    for step in reversed(seen.steps):
        if isinstance(step.entry, PasidEntry):
            first = step.entry.translation_type == PasidTranslationType.FIRST_STAGE
            levels = 4 + step.entry.first_stage_mode if first else step.entry.address_width + 2
            return {"translation": "first-stage" if first else "second-stage", "levels": levels}
        if isinstance(step.entry, ContextEntry):
            return {"translation": "legacy", "levels": step.entry.address_width + 2}
    return {"translation": "legacy", "levels": 0}
