"""The witness of the bytes: what stood at the target before and after a DMA, as read from outside of the guest.

The journal keeps the bytes themselves, and separately each reading of guest memory with its digest. The judge works the
outcome out of the bytes, and believes no byte that was not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
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

    A write waits first until the guest's log has room for its fault; one that will be `blocked` if it is to be `paced`.
    """
    engine = session.engine(device)
    payload = engine.compose(aimed.length)
    bystanders = {name: _digest(session.contents(name)) for name in leaves}
    before = session.read_physical(aimed.physical, aimed.length, label=f"{aimed.name} before")
    actor, mine = acting(session, device)
    with _with_room(session, blocked=blocked, paced=paced):
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
    with _with_room(session, blocked=blocked, paced=paced):
        purpose = _purpose(blocked=blocked)
        out = session.engine(device).read(actor, mine, aimed.address, aimed.length, purpose=purpose)
    found = {"secret": secret.hex(), "came_out": None if out is None else out.hex()}
    _record(session, device, aimed, access=Access.READ, blocked=blocked, bystanders=bystanders, found=found)


def attempt_of(evidence: StepEvidence, seen: Entry, *, dmas: int = 1) -> Attempt:
    """Work out from the recorded bytes what became of a DMA; ValueError if they are not those that were read.

    What counts is what was read since the observation of the DMA before, where a step issues many.
    """
    data = seen.data
    access = Access(data["access"])
    since = max((entry.line for entry in evidence.observations("dma") if entry.line < seen.line), default=-1)
    window = [entry for entry in evidence.entries if since < entry.line < seen.line]
    moved, intact = (_write if access is Access.WRITE else _read)(window, data)
    for name, digests in data["bystanders"].items():
        _demand_bystander(window, name, *digests)
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


def _with_room(session: Session, *, blocked: bool, paced: bool) -> AbstractContextManager[None]:
    """Issue a DMA when the guest's log has room for its fault: one that must land may be refused, and say so there."""
    if blocked and paced:
        return session.provoking()
    if not blocked:
        session.await_room()
    return nullcontext()


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


def _write(window: Sequence[Entry], data: dict[str, Any]) -> tuple[bool, bool]:
    """Whether the payload arrived, and whether the target is exactly what it was."""
    payload, before, after = (bytes.fromhex(data[name]) for name in ("payload", "before", "after"))
    if before == payload:
        raise ValueError(f"the payload stood in '{data['target']}' before, so that it stands there proves nothing")
    _demand_readings(window, data, before, after)
    return after == payload, after == before


def _read(window: Sequence[Entry], data: dict[str, Any]) -> tuple[bool, bool]:
    """Whether the secret came out whole, and whether nothing of it did."""
    secret = bytes.fromhex(data["secret"])
    _demand_readings(window, data, secret)
    if data["came_out"] is None:
        if not any(entry.source == "wire" and entry.kind == "silent" for entry in window):
            raise ValueError("nothing came out of the device, but nobody looked")
        return False, True
    out = bytes.fromhex(data["came_out"])
    # What the device holds is read where the device put it: the reading of the secret itself says nothing of that.
    elsewhere = [entry for entry in window if entry.source == "memory" and entry.data["gpa"] != data["physical"]]
    held = any((entry.data["sha256"], entry.data["size"]) == (_digest(out), len(out)) for entry in elsewhere)
    sent = any(entry.source == "wire" and data["came_out"] in str(entry.data.get("data")) for entry in window)
    if not held and not sent:
        raise ValueError("what came out of the device was neither read from memory nor seen on its wire")
    return out == secret, not leaks(out, secret)


def _demand_readings(window: Sequence[Entry], data: dict[str, Any], *found: bytes) -> None:
    """ValueError unless each of these bytes was read at the target, one after the other."""
    place = data["physical"], data["length"]
    read = iter([e.data["sha256"] for e in window if e.source == "memory" and (e.data["gpa"], e.data["size"]) == place])
    if not all(_digest(one) in read for one in found):
        raise ValueError(f"the bytes of '{data['target']}' are not those that were read from outside of the guest")


def _demand_bystander(window: Sequence[Entry], name: str, before: str, after: str) -> None:
    """ValueError unless every page of a bystander was read before and after, and told what the digests tell."""
    read = [entry.data["sha256"] for entry in window if entry.source == "memory" and entry.data["label"] == name]
    pages = len(read) // 2
    known = read == [before, after] if pages == 1 else (read[:pages] == read[pages:]) == (before == after)
    if not pages or len(read) % 2 or not known:
        raise ValueError(f"'{name}' was not read from outside of the guest before and after")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
