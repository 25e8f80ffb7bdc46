"""Forms of what steps observed, by kind; each is written by the step's `run` and read by its `judge`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from harness.forms.shape import (
    By,
    Digest,
    Direction,
    HexBytes,
    Maybe,
    Number,
    Seconds,
    Source,
    Vector,
    either,
    exactly,
    many,
    named,
    shape,
)

_MESSAGE = exactly(2, Number)
_ENTRY = either(shape(address=Number, data=HexBytes))
_REGISTERS = {"gsts": Number, "irta": Number, "cap": Number, "ecap": Number}
_INTERRUPTS = many(shape(count=Number, chip=str))
_NAMED_INTERRUPTS = many(shape(irq=Number, count=Number, chip=str, name=str))
_REFUSAL = shape(reason=str, errno=Number)
_MEMBER = shape(bdf=Source, bridge=bool, driver=either(str))
_LOAD = shape(frames=Number, size=Number)
_MEASURED = shape(
    nic=str,
    load=_LOAD,
    elapsed_s=Seconds,
    round_trips_s=many(Seconds),
    cpu_s=Seconds,
    exits=shape(exits=Number),
)
_PAGES = shape(mapped=Digest, untranslated=Digest)
_UNIT = shape(gsts=Number, rtaddr=Number, irta=Number, iqa=Number, fsts=Number, fectl=Number, fault=Number)
_ISSUED = shape(translated=Number, own=either(Number))
_PCI = shape(bdf=str, group_type=Maybe(either(str)), group_devices=either(many(str)))

OBSERVATIONS: dict[str, Any] = {
    "phase": shape(name=str),
    "phase-end": shape(name=str),
    "recipe": shape(
        address=Maybe(Number),
        home=Maybe(Number),
        bits=Maybe(Number),
        by=Maybe(By),
        device=Maybe(str),
        edits=Maybe(many(str)),
        function=Maybe(Source),
        index=Maybe(Number),
        levels=Maybe(Number),
        model=Maybe(str),
        models=Maybe(named(str)),
        source_id=Maybe(Source),
        translation=Maybe(str),
        unbroken=Maybe(bool),
    ),
    "bytes": shape(
        access=Direction,
        payload=Maybe(HexBytes),
        came_out=Maybe(either(HexBytes)),
        places=many(shape(name=str, gpa=Number, before=HexBytes, after=Maybe(HexBytes))),
    ),
    "pending": shape(
        address=Number, data=Number, vector=Vector, before=many(Vector), after=many(Vector), entry=Maybe(str)
    ),
    "submitted": shape(descriptor=Maybe(HexBytes), gpa=Number, offset=Number, following=Number, sha256=either(Digest)),
    "alive": shape(
        when=str, version=either(Number), exit_status=Maybe(either(int)), stderr=Maybe(str), failure=Maybe(str)
    ),
    "dma": shape(
        access=Direction,
        device=str,
        function=Source,
        source_id=Source,
        at_host=Maybe(either(Source)),
        address=Number,
        physical=Number,
        length=Number,
        target=str,
        payload=Maybe(HexBytes),
        before=Maybe(HexBytes),
        after=Maybe(HexBytes),
        secret=Maybe(HexBytes),
        came_out=Maybe(either(HexBytes)),
        bystanders=named(exactly(2, Digest)),
        broken=Maybe(
            either(shape(translation=str, levels=Number, recipe=str, model=str, fault_processing_disabled=bool))
        ),
    ),
    "msi": shape(
        device=str,
        model=str,
        function=Source,
        source_id=Source,
        by=By,
        attack=bool,
        address=Number,
        data=Number,
        index=Number,
        before=Number,
        after=Number,
        recipe=str,
        fault_processing_disabled=bool,
        counters=Maybe(many(shape(name=str, where=str, owner=bool, before=Number, after=Number))),
    ),
    "delivery": shape(
        device=str,
        function=Source,
        source_id=Source,
        before=Number,
        after=Number,
        counted_before=_INTERRUPTS,
        counted_after=_INTERRUPTS,
        message=_MESSAGE,
        entry=_ENTRY,
        **_REGISTERS,
    ),
    "vectors": shape(
        device=str,
        guest=str,
        source_id=Source,
        platform_before=_NAMED_INTERRUPTS,
        platform_after=_NAMED_INTERRUPTS,
        guest_before=_NAMED_INTERRUPTS,
        guest_after=_NAMED_INTERRUPTS,
        vectors=many(shape(number=Number, message=_MESSAGE, entry=_ENTRY)),
        **_REGISTERS,
    ),
    "traffic": shape(
        device=str,
        source_id=Source,
        load=_LOAD,
        guest=shape(
            elapsed_ns=Maybe(Number),
            received=shape(frames=Number, sha256=Digest),
        ),
        host=shape(sent_sha256=Digest, asked_sha256=Digest, received_sha256=Digest, received_frames=Number),
    ),
    "measured": _MEASURED,
    "warmed-up": _MEASURED,
    "stale": shape(
        when=str,
        source_id=Source,
        domain_id=Number,
        iova=Number,
        physical=Number,
        asked=Seconds,
        began=Seconds,
        ended=Seconds,
        reason=either(Number),
        secret=HexBytes,
        control=HexBytes,
        frames=many(HexBytes),
    ),
    "surprise": shape(window=str, iova=Number, told=Number),
    "unmapped": shape(
        device=str, source_id=Source, domain_id=Number, iova=Number, size=Number, asked=Seconds, answered=Seconds
    ),
    "domain": shape(id=Number),
    "ats": shape(enabled=either(bool), translation_type=Number, ecap=Number),
    "boot-log": shape(lines=Number, logged=many(str), console=many(str)),
    "dmar": shape(
        dmar=HexBytes,
        madt=HexBytes,
        functions=named(Number),
        options=named(Any),
        memory=many(exactly(2, Number)),
        lines=many(str),
    ),
    "groups": shape(functions=named(_PCI), bridges=many(str)),
    "state": shape(
        announced=bool,
        gsts=Number,
        sysfs=shape(groups=named(shape(type=either(str)))),
    ),
    "admission": shape(
        device=str,
        addresses=named(Source),
        refusal=either(_REFUSAL),
        status=shape(group=str, viable=bool, errno=Number, domain=either(str), members=many(_MEMBER)),
    ),
    "assignment": shape(device=str, refusal=either(_REFUSAL), gsts=Number),
    "bounces": shape(
        function=Source,
        before=shape(used=Number),
        bounces=named(shape(count=Number, bytes=Number, lowest=Number, mask=Number)),
        lost=Number,
        slots=Number,
        tracing=bool,
        used=Number,
    ),
    "guest": shape(guest=str, hello=shape(kernel=str, boot_id=str), virtualization=str),
    "assigned": shape(guest=str, device=str, driver=str, address=Source, source_id=Source),
    "translated": shape(
        guest_physical=Number,
        host_physical=Number,
        page=either(Number),
        written=Digest,
        stands=either(Digest),
        ends=shape(read=either(Number), write=either(Number)),
    ),
    "beyond": shape(guest_physical=Number, end=either(Number), reason=either(Number)),
    "killed": shape(
        device=str,
        source_id=Source,
        before=Number,
        after=Number,
        pages=many(Number),
        written=many(Number),
        stained=many(Number),
    ),
    "unplugged": shape(groups_before=named(Any), groups_after=named(Any)),
    "withdrawn": shape(groups=exactly(3, Number), driver=str),
    "received": shape(
        canary=str,
        device=str,
        source_id=Source,
        iova=Number,
        physical=Number,
        before=Digest,
        after=Digest,
        sent=HexBytes,
        led=either(Number),
        others=named(either(Number)),
    ),
    "reset": shape(
        device=str,
        source_id=Source,
        number=Number,
        control=Number,
        asked=Seconds,
        answered=Seconds,
        registers=named(Annotated[list[int | str], Field(min_length=1)]),
    ),
    "echoes": shape(device=str, source_id=Source, frames=many(exactly(5, Any)), guest=shape(frames=Number, ended=bool)),
    "rewritten": shape(device=str, at=Number),
    "rebooted": shape(
        device=str,
        model=str,
        source_id=Source,
        by=str,
        cause=either(str),
        iova=Number,
        mapped=Number,
        kernels=Number,
        boot_ids=exactly(2, str),
        log=shape(first=either(int), records=Number),
        issued=shape(before=_ISSUED, after=_ISSUED),
        before_end=shape(pages=_PAGES),
        at_end=shape(pages=_PAGES, unit=_UNIT, device=named(Number), walk=either(Number)),
        planted=shape(pages=_PAGES, strayed=Maybe(Digest)),
        at_reset=shape(pages=_PAGES, unit=_UNIT),
        after=shape(pages=_PAGES, unit=_UNIT, device=named(Number)),
    ),
}
