"""QEMU versions as scenarios write them, compared as numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from harness.scenario.section import complaint

_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+){1,2}")


def _check(value: Any) -> Any:
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        raise complaint("{written} is not a version", value=value, suggestion='write e.g. "10.0" or "10.0.13"')
    return value


#: A version such as `10.0` or `10.0.13`, in quotes: YAML takes 10.0 for a number.
Version = Annotated[
    str, BeforeValidator(_check), WithJsonSchema({"type": "string", "pattern": f"^{_VERSION.pattern}$"})
]


def numbers(text: str) -> tuple[int, ...]:
    """Give the numbers of a version: (10, 0, 2) of `10.0.2`."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def in_range(version: str, since: str | None, until: Sequence[str]) -> bool:
    """Whether `version` is one from `since` on, and not one in which it was mended.

    Each of `until` mends its own stable series from there on, and the newest of them all that follow it: of
    ("10.0.13", "11.1"), 10.0.12 and 10.2.2 are unmended, 10.0.13 and 11.1.0 are.
    """
    found = numbers(version)[:3]
    if since is not None and found < numbers(since):
        return False
    mended = [numbers(text) for text in until]
    own_series = any(found[:2] == fix[:2] and found >= fix for fix in mended)
    return not own_series and not (mended and found >= max(mended))


def satisfies(version: str, bound: str) -> bool:
    """Whether `version` is within a bound such as `>=10.0`, as far as that tells numbers."""
    match = re.fullmatch(r"(>=|<=|==|>|<) ?([0-9.]+)", bound)
    if match is None:
        raise ValueError(f"'{bound}' is not a version bound")
    wanted = numbers(match[2])
    found = numbers(version)[: len(wanted)]
    return {
        ">=": found >= wanted,
        "<=": found <= wanted,
        "==": found == wanted,
        ">": found > wanted,
        "<": found < wanted,
    }[match[1]]
