"""Single changes to recorded evidence: an entry that goes missing, or one field of it that says something else."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.evidence import Entry

#: What a change does: the whole entry goes, or a field has another value, is not there, is null, is of another type.
DROP, VALUE, MISSING, NULL, TYPE = "drop", "value", "missing", "null", "type"

#: A name that some scenario, device or table chose, and not the form of the entry.
_CHOSEN = re.compile(r"\d+|[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]|dmar\d+")


@dataclass(frozen=True, slots=True)
class Place:
    """What kind of thing is changed, whatever entry it stands in: `what` is SOURCE/KIND, of a call with its operation.

    `path` is the JSON path in the entry, list positions and chosen names as `*`; empty for the entry as a whole.
    """

    what: str
    path: str
    change: str

    def __str__(self) -> str:
        return " ".join(filter(None, (self.what, self.path, self.change)))


@dataclass(frozen=True, slots=True)
class Change:
    """One change: the entry at `position` goes, or becomes `entry`."""

    place: Place
    position: int
    entry: Entry | None
    told: str
    original: Entry

    def applied(self, entries: Sequence[Entry]) -> list[Entry]:
        """Give the journal with this change."""
        put = [] if self.entry is None else [self.entry]
        return [*entries[: self.position], *put, *entries[self.position + 1 :]]


def changes(entries: Sequence[Entry], *, each: int, seed: int = 0) -> list[Change]:
    """Give changes of every place in a journal: of those alike in steps of one keyword, `seed` chooses `each`."""
    keywords = keywords_of(entries)
    alike: dict[tuple[Place, str], list[tuple[int, tuple[str | int, ...], Any]]] = defaultdict(list)
    for position, entry in enumerate(entries):
        for place, path, value in _of(entry):
            alike[place, keywords.get(entry.step, "")].append((position, path, value))
    chosen = random.Random(seed)  # noqa: S311  # which changes are tried must be the same each time
    found = []
    for (place, _), places in alike.items():
        for position, path, value in chosen.sample(places, min(each, len(places))):
            found.append(_change(place, position, entries[position], path, value))
    return found


def keywords_of(entries: Sequence[Entry]) -> dict[int | None, str]:
    """Give the keyword of each step of a journal."""
    return {entry.step: str(entry.data["keyword"]) for entry in entries if entry.kind == "step-begin"}


def what(entry: Entry) -> str:
    """Give SOURCE/KIND, with a nested guest's name as `*`, and the operation of a call."""
    guest, _, channel = entry.source.rpartition("/")
    name = f"{'*/' if guest else ''}{channel}/{entry.kind}"
    return f"{name}({entry.data.get('op')})" if (channel, entry.kind) == ("agent", "call") else name


#: Stands for the value of a field that is taken away.
_GONE = object()


def _of(entry: Entry) -> Iterator[tuple[Place, tuple[str | int, ...], Any]]:
    """Give every change of an entry: its place, the path, and what stands there then."""
    name = what(entry)
    yield Place(name, "", DROP), (), _GONE
    for field in ("t", "step"):
        value = getattr(entry, field)
        for change, new in _instead(value):
            yield Place(name, f"^{field}", change), (f"^{field}",), new
    for path, value in _fields(entry.data, ()):
        shown = _shown(path)
        yield Place(name, shown, MISSING), path, _GONE
        for change, new in _instead(value):
            yield Place(name, shown, change), path, new


def _fields(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if path:
        yield path, value
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from _fields(item, (*path, key))


def _shown(path: tuple[str | int, ...]) -> str:
    parts = ["*" if isinstance(key, int) or _CHOSEN.fullmatch(key) else key for key in path]
    return ".".join(parts)


def _instead(value: Any) -> Iterator[tuple[str, Any]]:
    """Give what may stand there instead: another value of the same type, null, and values of other types."""
    if value is not None:
        yield NULL, None
    if isinstance(value, bool):
        yield from ((VALUE, not value), (TYPE, "no"))
    elif isinstance(value, int):
        yield from ((VALUE, value ^ 1), (VALUE, value + 0x1000), (TYPE, str(value)), (TYPE, [value]))
    elif isinstance(value, float):
        yield from ((VALUE, value - 1000.0), (VALUE, value + 1000.0), (TYPE, str(value)))
    elif isinstance(value, str):
        yield from ((VALUE, _other_text(value)), (TYPE, 1), (TYPE, {"said": value}))
    elif isinstance(value, list):
        yield from ((VALUE, value[:-1] if value else [0]), (TYPE, 1), (TYPE, ""))
    elif isinstance(value, Mapping):
        yield from ((VALUE, {}), (TYPE, 1), (TYPE, []))
    else:
        yield from ((TYPE, 1), (TYPE, "x"))


def _other_text(value: str) -> str:
    """Give a text of the same form: the last digit is another, or the last letter."""
    for place in reversed(range(len(value))):
        if value[place] in "0123456789abcdef":
            other = "1" if value[place] == "0" else "0"
            return value[:place] + other + value[place + 1 :]
    return f"{value}x"


def _change(place: Place, position: int, entry: Entry, path: tuple[str | int, ...], new: Any) -> Change:
    if place.change == DROP:
        return Change(place, position, None, f"{entry.ref} is gone", entry)
    if str(path[0]).startswith("^"):
        field = str(path[0])[1:]
        told = f"{entry.ref}: {field} is {new!r} instead of {getattr(entry, field)!r}"
        return Change(place, position, replace(entry, **{field: new}), told, entry)
    data = json.loads(json.dumps(entry.data))
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    old = holder[path[-1]]
    if new is _GONE:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    where = ".".join(map(str, path))
    told = f"{entry.ref}: {where} is {'gone' if new is _GONE else _short(new)} instead of {_short(old)}"
    return Change(place, position, replace(entry, data=data), told, entry)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
