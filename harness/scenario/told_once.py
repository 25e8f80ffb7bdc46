"""What is wrong in some variants of a matrix, told once and with the variants that it is wrong in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from harness.source.diagnostics import Diagnostic, Span

#: Variants that a message names; it counts the others.
_NAMED = 3


def told_once(found: Mapping[str, Iterable[Diagnostic]], matrix: Span | None) -> list[Diagnostic]:
    """Give each diagnostic of the variants in `found` once.

    One that not all of them have, and that lies outside of the `matrix`, where its line would tell, names those.
    """
    holders: dict[Diagnostic, list[str]] = {}
    for name, diagnostics in found.items():
        for diagnostic in dict.fromkeys(diagnostics):
            holders.setdefault(diagnostic, []).append(name)
    return [
        diagnostic
        if matrix is None or len(names) == len(found) or _within(diagnostic, matrix)
        else replace(diagnostic, message=f"{diagnostic.message} (in {_listed(names)})")
        for diagnostic, names in holders.items()
    ]


def _within(diagnostic: Diagnostic, matrix: Span) -> bool:
    return (matrix.line, matrix.column) <= (diagnostic.line, diagnostic.column) < (matrix.end_line, matrix.end_column)


def _listed(names: Sequence[str]) -> str:
    shown = [f"'{name}'" for name in names[:_NAMED]]
    if len(names) > _NAMED:
        shown.append(f"{len(names) - _NAMED} more")
    *others, last = shown
    return f"variants {', '.join(others)} and {last}" if others else f"variant {last}"
