"""Holding what was seen against what was asked for, once nothing keeps it from being known."""

from __future__ import annotations

from collections.abc import Iterable

from harness.conformance import Behaviour, Expected
from harness.verdict import Conformance, Outcome

#: Outcome, what it says, and how it relates to the specification; None where that is not known.
Weighed = tuple[Outcome, str, Conformance | None]


def first_that_applies(rules: Iterable[tuple[bool, Outcome, str]]) -> Weighed | None:
    """Give the first rule that applies: something that keeps the outcome from being compared with anything."""
    return next(((outcome, text, None) for applies, outcome, text in rules if applies), None)


def held(expected: Expected, seen: Behaviour, told: str) -> Weighed:
    """Compare `seen`, which `told` puts into words, with what was asked for."""
    conformance = expected.compare(seen)
    match conformance:
        case Conformance.AS_SPEC:
            return Outcome.PASS, told, conformance
        case Conformance.KNOWN_DEVIATION:
            text = f"known deviation: {told}, where the specification asks for: {expected.spec}"
            return Outcome.PASS, text, conformance
        case Conformance.NEW_DEVIATION:
            return Outcome.FAIL, f"{told}; expected: {expected}", conformance
