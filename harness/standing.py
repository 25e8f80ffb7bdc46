"""The first failure of a record that no later hole can take back.

Each step is judged by what was recorded up to its end, and by nothing after it. The first that fails so, behind steps
of which everything is known, stands if the record has no hole until then; so does a fault between two steps that the
guest's log and QEMU's trace agree on. What comes later is not looked at, so that it cannot matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.evidence import Entry
from harness.judgement import Judgement
from harness.scenario.step import Step
from harness.verdict import Outcome

#: Tells something of entries that end with a step.
Tells = Callable[[Sequence[Entry]], bool]

#: Judges the step of an index by entries that end with it.
JudgeStep = Callable[[int, Sequence[Entry]], Judgement | None]

#: Tells what keeps entries that end with a step from being relied on.
FindHoles = Callable[[Sequence[Entry]], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Standing:
    """A failure that stands: its step, from 0 (None: between steps), and the judgements up to it, by index."""

    step: int | None
    judgements: Mapping[int, Judgement | None]


def standing(
    steps: Sequence[Step], entries: Sequence[Entry], *, judge: JudgeStep, strays: Tells, holes: FindHoles
) -> Standing | None:
    """Find the failure that stands; None where no step fails, or where something is not known before or in it.

    `strays` tells whether there was a fault between steps.
    """
    judgements: dict[int, Judgement | None] = {}
    ends = _ends(entries)
    for index in range(len(steps)):
        if index not in ends:
            return None
        before = entries[: ends[index]]
        judgement = judgements[index] = judge(index, before)
        outcome = Outcome.PASS if judgement is None else judgement.outcome
        if outcome not in (Outcome.PASS, Outcome.FAIL):
            return None
        stray = strays(before)
        if stray or outcome is Outcome.FAIL:
            return None if holes(before) else Standing(None if stray else index, judgements)
    return None


def _ends(entries: Sequence[Entry]) -> dict[int, int]:
    """Give, by step, how many entries there are up to the one that says it ended, the first time."""
    ends: dict[int, int] = {}
    for place, entry in enumerate(entries, start=1):
        if (entry.source, entry.kind) == ("runner", "step-end") and entry.step is not None:
            ends.setdefault(entry.step, place)
    return ends
