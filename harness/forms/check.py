"""Checks entries against their forms, once, when a journal is heard: no judge has to distrust the type of a field."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.evidence import Entry
from harness.forms.channels import ANSWERS, CHANNELS
from harness.forms.observations import OBSERVATIONS


def unreadable(entry: Entry) -> str | None:
    """Tell why an entry cannot be read, naming it; None if it has its form, or is of a kind that no judge reads."""
    problem = None
    if not isinstance(entry.t, int | float) or not (entry.step is None or type(entry.step) is int):
        problem = f"its time is {entry.t!r}, its step {entry.step!r}"
    elif (form := _form(_kind(entry))) is not None:
        problem = _unlike(form, entry.data)
        if problem is None and (entry.source, entry.kind) == ("agent", "call"):
            problem = _unanswered(entry.data)
    return None if problem is None else f"{entry.ref} ({entry.source} {entry.kind}) cannot be read: {problem}"


def _unanswered(call: dict[str, Any]) -> str | None:
    """Tell what is wrong with the answer that a call got."""
    if not call.keys() & {"ok", "error", "told"}:
        return f"the call of '{call['op']}' has no end"
    answer = _answer(call["op"])
    return None if answer is None or "ok" not in call else _unlike(answer, call["ok"])


def readable(entries: Sequence[Entry]) -> tuple[list[Entry], list[tuple[Entry, str]]]:
    """Part the entries that have their form from those that have not, and say of each what is wrong with it."""
    fine: list[Entry] = []
    damaged: list[tuple[Entry, str]] = []
    for entry in entries:
        problem = unreadable(entry)
        if problem is None:
            fine.append(entry)
        else:
            damaged.append((entry, problem))
    return fine, damaged


def has_form(entry: Entry) -> bool:
    """Whether entries of this kind have a form; the others are for people only."""
    return _kind(entry) in CHANNELS or (entry.source == "observation" and entry.kind in OBSERVATIONS)


def _kind(entry: Entry) -> str:
    guest, _, channel = entry.source.rpartition("/")
    return f"{'*/' if guest else ''}{channel}/{entry.kind}"


@cache
def _form(kind: str) -> TypeAdapter[Any] | None:
    """Give the form of a kind, made when the first entry of it is met."""
    shape = (
        OBSERVATIONS.get(kind.removeprefix("observation/")) if kind.startswith("observation/") else CHANNELS.get(kind)
    )
    return None if shape is None else TypeAdapter(shape)


@cache
def _answer(op: str) -> TypeAdapter[Any] | None:
    shape = ANSWERS.get(op)
    return None if shape is None else TypeAdapter(shape)


def _unlike(form: TypeAdapter[Any], data: object) -> str | None:
    """Tell the first thing that is not as the form has it."""
    try:
        form.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        if first["type"] == "missing":
            return f"{where} is missing"
        told = repr(first["input"])
        return (
            f"{where}: {first['msg'][0].lower()}{first['msg'][1:]} ({told if len(told) <= 60 else told[:57] + '...'})"
        )
    return None
