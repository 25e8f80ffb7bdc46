"""How long a template's machine took on this host, kept beside the template, and the deadlines that follow."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

#: A file of a template's directory: seconds by what took them. Its absence only makes deadlines longer.
TAKEN = "taken.json"


@dataclass(frozen=True, slots=True)
class Within:
    """So many `seconds` are given, and `why` so many."""

    seconds: float
    why: str


def within(took: float | None, what: str, *, factor: float, floor: float, otherwise: float) -> Within:
    """Give `factor` times what it `took` before, at least `floor`; `otherwise` where that is not known."""
    if took is None:
        return Within(otherwise, f"{otherwise:.0f} s are given where {what} was not measured before")
    return Within(max(floor, factor * took), f"{what} took {took:.1f} s before")


def read(directory: Path) -> dict[str, float]:
    """Give the seconds noted in `directory`; what cannot be read is as if it had not been measured."""
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError, RecursionError):
        noted = json.loads((directory / TAKEN).read_text(encoding="utf-8"))
        return {str(what): float(seconds) for what, seconds in noted.items() if 0 <= float(seconds) < float("inf")}
    return {}


def note(directory: Path, what: str, seconds: float) -> None:
    """Note what took how long, the first time; a directory that cannot be written goes without."""
    noted = read(directory)
    if what in noted:
        return
    # Two may note at once, and one of their figures is then measured again by the next.
    with contextlib.suppress(OSError):
        descriptor, name = tempfile.mkstemp(dir=directory, prefix=".taken-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({**noted, what: round(seconds, 3)}, file)
            Path(name).replace(directory / TAKEN)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
