"""A request of a device on a bare machine as the host observes it: its phase, and the bytes wherever it could get to.

A write gets a fresh payload, a read finds a fresh secret at each place, so that what is found tells where it is from.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.vtd.faults import Access

if TYPE_CHECKING:  # planning imports every step, and needs no machine
    from harness.bare.session import BareDevice, BareSession

#: Widths that an address might wrongly be cut to: what a 32-bit device, 3 levels and 4 levels of tables take.
_WIDTHS = (32, 39, 48)


@dataclass(frozen=True, slots=True)
class Aim:
    """Where a DMA goes, which way, and how many bytes of it."""

    address: int
    access: Access
    length: int


@contextmanager
def phase(session: BareSession, name: str) -> Iterator[None]:
    """Around a part of a step: at its end the fault registers are read, and what QEMU traced meanwhile is recorded."""
    session.record("phase", name=name)
    yield
    session.fault_record()
    session.trace()
    session.record("phase-end", name=name)


def whole(session: BareSession, device: BareDevice, aim: Aim, name: str) -> None:
    """Issue the DMA with whole tables and cleared registers, as the phase `name`."""
    session.clear()
    perform(session, device, aim, name)


def perform(session: BareSession, device: BareDevice, aim: Aim, name: str) -> None:
    """Issue the DMA as the phase `name`, and record the bytes at every place it could have reached."""
    places = _places(session, device, aim)
    with phase(session, name):
        purpose = "control" if name in ("control", "healed", "cached") else "attack"
        if aim.access is Access.WRITE:
            _write(session, device, aim, places, purpose)
        else:
            _read(session, device, aim, places, purpose)


def _write(session: BareSession, device: BareDevice, aim: Aim, places: dict[str, int], purpose: str) -> None:
    payload = device.engine.compose(aim.length)
    before = {name: session.read_physical(gpa, aim.length, label=f"{name} before") for name, gpa in places.items()}
    device.engine.write(device, aim.address, payload, purpose=purpose)
    after = {name: session.read_physical(gpa, aim.length, label=f"{name} after") for name, gpa in places.items()}
    session.record(
        "bytes",
        access=aim.access.value,
        payload=payload.hex(),
        places=[
            {"name": name, "gpa": gpa, "before": before[name].hex(), "after": after[name].hex()}
            for name, gpa in places.items()
        ],
    )


def _read(session: BareSession, device: BareDevice, aim: Aim, places: dict[str, int], purpose: str) -> None:
    for gpa in places.values():
        session.write_physical(gpa, secrets.token_bytes(aim.length))
    found = {name: session.read_physical(gpa, aim.length, label=f"{name} secret") for name, gpa in places.items()}
    device.engine.read(device, aim.address, aim.length, purpose=purpose)
    came_out = device.engine.held(device, aim.length)
    session.record(
        "bytes",
        access=aim.access.value,
        came_out=None if came_out is None else came_out.hex(),
        places=[{"name": name, "gpa": gpa, "before": found[name].hex()} for name, gpa in places.items()],
    )


def _places(session: BareSession, device: BareDevice, aim: Aim) -> dict[str, int]:
    """Give every place the DMA could reach: where the tables lead, and where a wrong unit would let it through to.

    `mapped` is the page of the address itself, or the device's own mapped page where nothing maps the address. The
    others are the page at the same physical address, and what is mapped or present at the address cut to a width.
    """
    layout = session.layout
    own = layout.target(aim.address)
    found = {"mapped": layout.target(layout.mapped(device.name)) if own is None else own}
    for name, address in _names(aim.address):
        for said, gpa in ((f"{name}, mapped", layout.target(address)), (name, address)):
            if gpa is not None and layout.free(gpa, aim.length) and gpa not in found.values():
                found[said] = gpa
    return {name: gpa for name, gpa in found.items() if gpa is not None}


def _names(address: int) -> Iterator[tuple[str, int]]:
    yield "untranslated", address
    for width in _WIDTHS:
        if address >> width:
            yield f"cut to {width} bits", address & (1 << width) - 1
