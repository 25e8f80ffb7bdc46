"""The witness of the bytes: what stood at the target before and after a DMA, as read from outside of the guest.

The journal keeps the bytes themselves, and separately each reading of guest memory with its digest. The judge works the
outcome out of the bytes, and believes no byte that was not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from harness.address_book import AimedAt
from harness.blocking import Attempt
from harness.evidence import Entry
from harness.judgement import StepEvidence
from harness.leakage import leaks
from harness.nesting import acting
from harness.session import AttachedDevice, Session
from harness.table_edit import tables_of
from harness.vtd.faults import Access
from harness.vtd.source_id import SourceId


def record_write(
    session: Session,
    device: AttachedDevice,
    aimed: AimedAt,
    *,
    blocked: bool,
    leaves: Sequence[str] = (),
    paced: bool = True,
) -> None:
    """Have `device` write a fresh payload, and record the target and every bystander before and after.

    `paced` is whether a write that will be `blocked` waits first until the guest's log has room for it.
    """
    engine = session.engine(device)
    payload = engine.compose(aimed.length)
    bystanders = {name: _digest(session.contents(name)) for name in leaves}
    before = session.read_physical(aimed.physical, aimed.length, label=f"{aimed.name} before")
    actor, mine = acting(session, device)
    with session.provoking() if blocked and paced else nullcontext():
        engine.write(actor, mine, aimed.address, payload, purpose=_purpose(blocked=blocked))
    after = session.read_physical(aimed.physical, aimed.length, label=f"{aimed.name} after")
    found = {"payload": payload.hex(), "before": before.hex(), "after": after.hex()}
    _record(session, device, aimed, access=Access.WRITE, blocked=blocked, bystanders=bystanders, found=found)


def record_read(
    session: Session,
    device: AttachedDevice,
    aimed: AimedAt,
    *,
    blocked: bool,
    leaves: Sequence[str] = (),
    paced: bool = True,
) -> None:
    """Have `device` read the target, and record what stands there and what came out of the device."""
    bystanders = {name: _digest(session.contents(name)) for name in leaves}
    secret = session.read_physical(aimed.physical, aimed.length, label=f"{aimed.name} as it stands")
    actor, mine = acting(session, device)
    with session.provoking() if blocked and paced else nullcontext():
        purpose = _purpose(blocked=blocked)
        out = session.engine(device).read(actor, mine, aimed.address, aimed.length, purpose=purpose)
    found = {"secret": secret.hex(), "came_out": None if out is None else out.hex()}
    _record(session, device, aimed, access=Access.READ, blocked=blocked, bystanders=bystanders, found=found)


def attempt_of(evidence: StepEvidence, seen: Entry, *, dmas: int = 1) -> Attempt:
    """Work out from the recorded bytes what became of a DMA; ValueError if they are not those that were read."""
    data = seen.data
    access = Access(data["access"])
    moved, intact = (_write if access is Access.WRITE else _read)(evidence, data)
    changed = [name for name, (before, after) in data["bystanders"].items() if before != after]
    return Attempt(
        device=data["device"],
        function=SourceId.parse(data["function"]),
        source=SourceId.parse(data["source_id"]),
        access=access,
        address=data["address"],
        length=data["length"],
        target=data["target"],
        bytes_moved=moved,
        intact=intact,
        bystanders=tuple(changed),
        refs=(seen.ref,),
        dmas=dmas,
        at_host=SourceId.parse(data["at_host"]) if data.get("at_host") else None,
    )


def _purpose(*, blocked: bool) -> str:
    return "attack" if blocked else "control"


def _record(
    session: Session,
    device: AttachedDevice,
    aimed: AimedAt,
    *,
    access: Access,
    blocked: bool,
    bystanders: Mapping[str, str],
    found: Mapping[str, str | None],
) -> None:
    session.record(
        "dma",
        device=device.name,
        function=acting(session, device)[1].address,
        source_id=str(device.source),
        access=access.value,
        address=aimed.address,
        physical=aimed.physical,
        length=aimed.length,
        target=aimed.name,
        at_host=None if device.at_host is None else str(device.at_host),
        bystanders={name: [before, _digest(session.contents(name))] for name, before in bystanders.items()},
        broken=_broken(session, device, aimed, access, blocked=blocked),
        **found,
    )


def _broken(
    session: Session, device: AttachedDevice, aimed: AimedAt, access: Access, *, blocked: bool
) -> dict[str, Any] | None:
    """Tell for the atlas by which tables a DMA is to be refused, None for one that goes through whole tables."""
    if session.raw or device.at_host is not None or not (blocked or session.patches.of(device.name)):
        return None
    preposition = "to" if access is Access.WRITE else "of"
    request = f"'{device.name}' {access}s {aimed.length} bytes {preposition} '{aimed.name}'"
    return tables_of(session, device, aimed.address, request)


def _write(evidence: StepEvidence, data: dict[str, Any]) -> tuple[bool, bool]:
    """Whether the payload arrived, and whether the target is exactly what it was."""
    payload, before, after = (bytes.fromhex(data[name]) for name in ("payload", "before", "after"))
    for found in (before, after):
        _demand_reading(evidence, data, found)
    return after == payload, after == before


def _read(evidence: StepEvidence, data: dict[str, Any]) -> tuple[bool, bool]:
    """Whether the secret came out whole, and whether nothing of it did."""
    secret = bytes.fromhex(data["secret"])
    _demand_reading(evidence, data, secret)
    if data["came_out"] is None:
        if not any(entry.source == "wire" and entry.kind == "silent" for entry in evidence.entries):
            raise ValueError("nothing came out of the device, but nobody looked")
        return False, True
    out = bytes.fromhex(data["came_out"])
    held = any(entry.source == "memory" and entry.data.get("sha256") == _digest(out) for entry in evidence.entries)
    sent = any(entry.source == "wire" and data["came_out"] in str(entry.data.get("data")) for entry in evidence.entries)
    if not held and not sent:
        raise ValueError("what came out of the device was neither read from memory nor seen on its wire")
    return out == secret, not leaks(out, secret)


def _demand_reading(evidence: StepEvidence, data: dict[str, Any], found: bytes) -> None:
    for entry in evidence.entries:
        if entry.source == "memory" and (entry.data["gpa"], entry.data["sha256"]) == (data["physical"], _digest(found)):
            return
    raise ValueError(f"the bytes of '{data['target']}' are not those that were read from outside of the guest")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
