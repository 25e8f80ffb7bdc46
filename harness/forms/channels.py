"""Forms of what the channels tell: runner, processes, logs, trace, memory, registers, wires, and the guest's agent."""

from __future__ import annotations

from typing import Any

from harness.forms.shape import (
    Digest,
    Direction,
    DmaDirection,
    HexBytes,
    HexNumber,
    Maybe,
    Number,
    Seconds,
    Source,
    either,
    exactly,
    many,
    shape,
)

_LOG_LINE = shape(seq=Number, priority=Maybe(int), facility=Maybe(Number), us=Maybe(int), text=str)
_HELLO = shape(cmdline=str)
_MESSAGE = exactly(2, Number)

#: By SOURCE/KIND; `*/` stands for the name of a nested guest.
CHANNELS: dict[str, Any] = {
    "runner/begin": shape(id=str, protection_removed=either(str)),
    "runner/end": shape(),
    "runner/error": shape(type=Maybe(str), message=str),
    "runner/started": shape(),
    "runner/refused": shape(exit_status=either(int), stderr=str, after_s=Seconds),
    "runner/collected": shape(),
    "runner/step-begin": shape(keyword=Maybe(str), text=Maybe(str), line=Maybe(Number), marker=str),
    "runner/step-end": shape(marker=str, duration_s=Maybe(Seconds)),
    "runner/device": shape(name=str, address=Maybe(Source), source_id=Source),
    "runner/buffer": shape(name=str, size=Number, pages=many(Number)),
    "runner/paced": shape(waited_s=Seconds),
    "process/start": shape(pid=Maybe(int), argv=Maybe(many(str))),
    "process/qemu": shape(version=str),
    "process/restored": shape(template=str),
    "process/ready": shape(boot_s=Maybe(Seconds), hello=_HELLO),
    "process/reset": shape(reason=str),
    "process/stop": shape(rung=str, exit_status=either(int)),
    "*/process/qemu": shape(version=str),
    "*/process/ready": shape(boot_s=Maybe(Seconds)),
    "*/process/stop": shape(rung=str, exit_status=either(int)),
    "qmp/event": shape(name=str, event=shape(event=str)),
    "kmsg/line": _LOG_LINE,
    "kmsg/lost": shape(),
    "*/kmsg/line": _LOG_LINE,
    "*/kmsg/lost": shape(),
    "*/kmsg/mark": shape(marker=str),
    "host-kmsg/line": _LOG_LINE,
    "host-kmsg/lost": shape(),
    "host-kmsg/mark": shape(marker=str),
    "lab/lent": shape(address=Source, driver=either(str)),
    "lab/returned": shape(address=Source, driver=either(str), kept=bool),
    "console/line": shape(number=Maybe(Number), text=str),
    "console/unmarked": shape(marker=str),
    "trace/watching": shape(events=many(str)),
    "trace/unread": shape(text=str),
    "trace/fault": shape(source_id=Source, access=Direction, reason=Number, first=Number, last=Number, count=Number),
    "trace/recorded": shape(source_id=Source, reason=Number, text=str),
    "trace/disabled": shape(count=Maybe(Number), text=Maybe(str)),
    "trace/event": shape(address=Number, data=Number),
    "trace/translated": shape(source_id=Source, count=Number, lifted=Maybe(Number)),
    "trace/descriptor": shape(raw=HexNumber),
    "trace/remapped": shape(request=_MESSAGE, message=_MESSAGE),
    "trace/config-write": shape(source_id=Source, offset=Number, value=Number),
    "trace/function-reset": shape(number=Number),
    "memory/read": shape(label=str, gpa=Number, size=Number, sha256=Digest, data=Maybe(HexBytes)),
    "register/fault": shape(fsts=Number, low=Number, high=Number, fectl=Number),
    "register/queue": shape(fsts=Number, head=Number, tail=Number),
    "wire/frame": shape(size=Maybe(Number), data=HexBytes),
    "wire/silent": shape(),
    "agent/call": shape(
        op=str, args=dict, ok=Maybe(dict), error=Maybe(str), told=Maybe(bool), duration_s=Maybe(Seconds)
    ),
    "agent/dma": shape(
        bdf=Source,
        address=Number,
        length=Number,
        direction=DmaDirection,
        purpose=str,
        device=Maybe(str),
        registers=Maybe(dict),
        rings=Maybe(list),
    ),
    "agent/msi": shape(bdf=Source, purpose=str),
    "agent/interrupt": shape(bdf=Source, address=Number, message=Number, purpose=str),
}

#: What the agent answers, by operation, where a judge reads the answer itself.
ANSWERS: dict[str, Any] = {
    "kmsg": shape(entries=many(_LOG_LINE), lost=bool),
    "domain_unmap": shape(unmapped=Number),
}
