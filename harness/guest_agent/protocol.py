"""The line protocol between harness and guest: one JSON object per line, answered in order.

Host to guest: `{"id": n, "op": name, "args": {...}}`. Guest to host: `{"id": n, "ok": {...}}` or
`{"id": n, "error": {"reason": text, "errno": number}}`, and announcements `{"event": kind, ...}` in between.
Nothing in here knows what the operations do; docs/agent-protocol.md lists them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

#: Raised by one whenever an operation, an argument or an answer changes its meaning.
PROTOCOL_VERSION = 1

#: An operation takes keyword-only arguments and returns the object that becomes its answer.
Operation = Callable[..., dict[str, Any]]
#: Writes one announcement and flushes it before returning.
Emit = Callable[[dict[str, Any]], None]

_ENCODER = json.JSONEncoder(separators=(",", ":"))

_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
    "list[str]": (list,),
    "dict[str, Any]": (dict,),
}


class Refused(Exception):
    """An operation could not be done. `errno` is the failed system call's, 0 where none failed."""

    def __init__(self, reason: str, errno: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.errno = errno


@contextmanager
def attempting(what: str) -> Iterator[None]:
    """Turn an OSError of the body into a Refused that says `what` was attempted, on which path."""
    try:
        yield
    except OSError as error:
        path = f" ({error.filename})" if error.filename and str(error.filename) not in what else ""
        raise Refused(f"{what}{path}: {os.strerror(error.errno or 0)}", error.errno or 0) from error


def check_arguments(operation: Operation, arguments: dict[str, Any]) -> None:
    """Refuse missing, unknown and wrongly typed `arguments`, judged by the operation's own signature.

    The signature is read from the code object because importing `inspect` costs a third of a second under TCG.
    """
    function: Any = getattr(operation, "__func__", operation)
    code = function.__code__
    known: tuple[str, ...] = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    defaults: dict[str, Any] = function.__kwdefaults__ or {}
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise Refused(f"unknown argument {', '.join(unknown)}; known: {', '.join(known) or 'none'}")
    missing = [name for name in known if name not in arguments and name not in defaults]
    if missing:
        raise Refused(f"missing argument {', '.join(missing)}")
    for name, value in arguments.items():
        wanted: str = function.__annotations__[name]
        if isinstance(value, bool) or not isinstance(value, _JSON_TYPES[wanted]):
            raise Refused(f"argument {name} must be {wanted}, not {type(value).__name__}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise Refused(f"argument {name} must be a list of str")


def answer(line: bytes, operations: dict[str, Operation]) -> dict[str, Any]:
    """The answer to one request `line`; whatever goes wrong becomes an error answer, never an exception."""
    number: Any = None
    try:
        try:
            request = json.loads(line.decode())
        except ValueError as error:
            raise Refused(f"not a line of JSON: {error}") from error
        if not isinstance(request, dict):
            raise Refused("a request is a JSON object")
        number = request.get("id")
        return {"id": number, "ok": _perform(request, operations)}
    except Refused as refusal:
        return {"id": number, "error": {"reason": refusal.reason, "errno": refusal.errno}}
    except OSError as error:
        return {"id": number, "error": {"reason": str(error), "errno": error.errno or 0}}
    except Exception as error:  # noqa: BLE001 - a bug in one operation must not take the guest channel down with it
        return {"id": number, "error": {"reason": f"bug in the guest agent: {_origin(error)}", "errno": 0}}


def _perform(request: dict[str, Any], operations: dict[str, Operation]) -> dict[str, Any]:
    name, arguments = request.get("op"), request.get("args", {})
    unknown = sorted(set(request) - {"id", "op", "args"})
    if unknown:
        raise Refused(f"unknown request field {', '.join(unknown)}")
    if not isinstance(name, str) or name not in operations:
        raise Refused(f"unknown operation {name!r}")
    if not isinstance(arguments, dict):
        raise Refused("args is a JSON object")
    operation = operations[name]
    check_arguments(operation, arguments)
    return operation(**arguments)


def _origin(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}: " if trace else ""
    return f"{place}{type(error).__name__}: {error}"


def emit(message: dict[str, Any]) -> None:
    """Write one line to standard output and flush it."""
    sys.stdout.write(_ENCODER.encode(message) + "\n")
    sys.stdout.flush()


def serve(lines: Iterable[bytes], operations: dict[str, Operation], *, last: str) -> None:
    """Answer each of `lines` until they end or the operation named `last` has been answered."""
    for line in lines:
        if not line.strip():
            continue
        reply = answer(line, operations)
        emit(reply)
        if "ok" in reply and reply["ok"].get("stopped") == last:
            return


def from_hex(text: str) -> bytes:
    """The bytes written as hex in `text`; Refused if it is not hex."""
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise Refused(f"not hex: {error}") from error
