"""What comes from where the harness is attacked, taken apart: whole, bounded, and of the shape that was asked for.

Whoever calls may rely on the shape afterwards. Nothing but an AgentError leaves this module, whatever was sent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness import bounds
from harness.errors import AgentError

#: A type, a tuple of alternatives (None among them), a list of one shape for each item, keys with a shape each (more
#: keys may be there), or `Named`.
Shape = Any


@dataclass(frozen=True, slots=True)
class Named:
    """An object whose keys are names, with one shape for all values."""

    shape: Shape


_FUNCTION = {
    "bdf": str,
    "vendor": int,
    "device": int,
    "class": int,
    "driver": (str, None),
    "iommu_group": (str, None),
    "group_devices": [str],
    "header_type": int,
    "resources": [{"index": int, "start": int, "size": int, "flags": int}],
}
_PAGES = {"pages": [int]}
_DMA = {"dma": int, "registers": Named(int)}
_COUNT = {"count": int}

#: What a call may rely on in the answer of each operation (docs/agent-protocol.md).
ANSWERS: Mapping[str, Shape] = {
    "hello": {"kernel": str, "cmdline": str, "boot_id": str},
    "set_clock": {"behind_ns": int},
    "kmsg": {"entries": [{"seq": int, "priority": int, "facility": int, "us": int, "text": str}], "lost": bool},
    "iommu_state": {
        "groups": Named({"type": str, "devices": [str]}),
        "iommus": Named(Named(str)),
        "dmar_interrupts": (int, None),
    },
    "pci": _FUNCTION,
    "pci_wait": _FUNCTION,
    "pci_list": {"functions": [_FUNCTION]},
    "interrupts": {"interrupts": [{"irq": int, "count": int, "chip": str, "name": str}]},
    "bind": {"driver": (str, None), "netdev": (str, None)},
    "buffer_create": _PAGES,
    "buffer_reserved": _PAGES,
    "buffer_pages": _PAGES,
    "buffer_read": {"hex": bytes},
    "domain_unmap": {"unmapped": int},
    "group_status": {"members": [{"bdf": str, "driver": (str, None), "bridge": bool}], "viable": bool, "errno": int},
    "bounces_watch": {"used": int},
    "bounces_seen": {
        "bounces": Named({"count": int, "mask": int, "lowest": int, "bytes": int}),
        **dict.fromkeys(("used", "slots", "lost"), int),
        "tracing": bool,
    },
    "device_load": {**_DMA, "status": str},
    "device_store": {**_DMA, "status": str, "hex": bytes},
    "device_write": {**_DMA, "status": str},
    "device_read": {**_DMA, "status": str},
    "device_arm_receive": _DMA,
    "device_start_write": _DMA,
    "device_arm_ring": _DMA,
    "device_arm_loop": {"offset": int, "header": int},
    "device_send": {"status": str},
    "device_received": {"dma": int, "done": bool},
    "device_msi_enable": _COUNT,
    "device_msi_count": _COUNT,
    "vector_send": {"vector": int, "own": [int], "sent": [int]},
    "traffic": {
        "elapsed_ns": int,
        "sent": {"frames": int, "sha256": str},
        "received": {
            **dict.fromkeys(("frames", "missing", "duplicates", "foreign"), int),
            "sha256": str,
            "expected_sha256": str,
            "first_missing": [int],
        },
    },
    "echo": {"frames": int, "ended": bool},
    "sriov_enable": {"bdfs": [str]},
}

_ISSUED = {
    **dict.fromkeys(("device", "bdf", "via", "direction", "purpose"), str),
    **dict.fromkeys(("dma", "address", "length", "time_ns"), int),
    "registers": Named(int),
    "doorbell": Named(int),
    "rings": [{"address": int, "length": int, "content": bytes}],
}

#: The announcements there are; an event of another name could pass for another entry of the journal.
EVENTS: Mapping[str, Shape] = {
    "dma": _ISSUED,
    "dma-done": {**_ISSUED, "status": str},
    "msi": {"bdf": str, "purpose": str, "time_ns": int},
    "traffic": {"state": str, "netdev": str, "time_ns": int},
}

#: Keys that a journal gives a meaning of its own.
_RESERVED = frozenset({"t", "guest"})

#: Keys of an answer that the entry it goes into has already.
_TAKEN = {"bounces_seen": frozenset({"function", "before"})}


def read_message(line: str, where: str) -> dict[str, Any]:
    """Give the JSON object in `line`, within the bounds; AgentError with `where` it came if it is none."""
    if len(line) > bounds.LINE_BYTES:
        raise AgentError(f"{where}: a line of more than {bounds.LINE_BYTES:,} characters")
    try:
        message = json.loads(line, parse_constant=_no_number)
    except RecursionError:
        raise AgentError(f"{where}: nested deeper than {bounds.NESTING} levels") from None
    except ValueError as error:
        raise AgentError(f"{where}: a line that is not JSON ({_short(error)}): {_short(line)!r}") from None
    if not isinstance(message, dict):
        raise AgentError(f"{where}: {type(message).__name__} instead of an object")
    problem = _unbounded(message)
    if problem is not None:
        raise AgentError(f"{where}: {problem}")
    return message


def require(value: object, shape: Shape, where: str) -> None:
    """AgentError, with `where` and the place in `value`, if that has not `shape`. Both are bounded in depth."""
    problem = _difference(value, shape, "")
    if problem is not None:
        raise AgentError(f"{where}: {problem}")


def require_event(message: dict[str, Any], where: str) -> None:
    """AgentError if `message` is no announcement that there is."""
    name = message["event"]
    if not isinstance(name, str) or name not in EVENTS:
        raise AgentError(f"{where}: an unknown event {_short(name)!r}")
    if taken := _RESERVED & message.keys():
        raise AgentError(f"{where}: event '{name}' has {', '.join(sorted(taken))}, which the journal says itself")
    require(message, EVENTS[name], f"{where}: event '{name}'")


def require_answer(op: str, answer: dict[str, Any], where: str) -> None:
    """AgentError if `answer` to operation `op` is not what its callers rely on."""
    require(answer, ANSWERS.get(op, {}), f"{where}: the answer to '{op}'")
    if taken := (_RESERVED | _TAKEN.get(op, frozenset())) & answer.keys():
        raise AgentError(f"{where}: the answer to '{op}' has {', '.join(sorted(taken))}, which the journal says itself")
    for entry in answer.get("entries", ()) if op == "kmsg" else ():
        if taken := _RESERVED & entry.keys():
            raise AgentError(f"{where}: a record of the log has {', '.join(sorted(taken))}")


def _difference(value: object, shape: Shape, at: str) -> str | None:  # noqa: PLR0911 - one for each kind of shape
    match shape:
        case tuple():
            told = [_difference(value, each, at) for each in shape]
            return None if None in told else told[0]
        case None:
            return None if value is None else f"{at or 'it'} is {_short(value)}, not null"
        case list():
            if not isinstance(value, list):
                return f"{at or 'it'} is {_short(value)}, not a list"
            items = enumerate(value)
            return next((d for n, item in items if (d := _difference(item, shape[0], f"{at}[{n}]"))), None)
        case Named():
            if not isinstance(value, dict):
                return f"{at or 'it'} is {_short(value)}, not an object"
            return next((d for key in value if (d := _difference(value[key], shape.shape, f"{at}.{key[:40]}"))), None)
        case dict():
            if not isinstance(value, dict):
                return f"{at or 'it'} is {_short(value)}, not an object"
            for key, each in shape.items():
                problem = _difference(value[key], each, f"{at}.{key}") if key in value else f"{at}.{key} is missing"
                if problem is not None:
                    return problem
            return None
    return _other_type(value, shape, at)


def _other_type(value: object, shape: type, at: str) -> str | None:
    if shape is bytes:  # in hexadecimal
        try:
            bytes.fromhex(value if isinstance(value, str) else "?")
        except ValueError:
            return f"{at} is {_short(value)}, not bytes in hexadecimal"
        return None
    if not isinstance(value, shape) or (shape is int and isinstance(value, bool)):
        return f"{at} is {_short(value)}, not of type {shape.__name__}"
    return None


def _unbounded(message: dict[str, Any]) -> str | None:
    """Tell which bound is exceeded, or what is no text or number, None if all is well; works without recursion."""
    values, level, depth = 0, [message], 0
    while level:
        depth += 1
        if depth > bounds.NESTING:
            return f"nested deeper than {bounds.NESTING} levels"
        below: list[Any] = []
        for each in level:
            inner = each.values() if isinstance(each, dict) else each
            values += len(each)
            if values > bounds.VALUES:
                return f"more than {bounds.VALUES:,} values"
            for value in (*each, *inner) if isinstance(each, dict) else inner:
                if isinstance(value, (dict, list)):
                    below.append(value)
                elif (problem := _odd(value)) is not None:
                    return problem
        level = below
    return None


def _odd(value: object) -> str | None:
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return "text with half a character (a lone surrogate)"
    elif isinstance(value, int):
        if value.bit_length() > bounds.INTEGER_BITS:
            return f"an integer of more than {bounds.INTEGER_BITS} bits"
    elif isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no number"
    return None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _short(value: object) -> str:
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return str(value)[:200]
