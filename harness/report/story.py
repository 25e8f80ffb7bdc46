"""What happened in one variant, read from its directory: each step with what it expected and what was seen.

Everything here is tolerant: a run that was cut off, or whose files are damaged, still has a story, and the damage is
part of it (`notes`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.evidence import Entry, VariantDirectory
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict, worst

PLAN, VERDICT = "plan.json", "verdict.json"


class State(StrEnum):
    """How far a step came. HELD: judged and good; DONE: ran, nothing to judge; ENDED_HERE: began and never ended."""

    HELD = "held"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    ENDED_HERE = "ended-here"
    NOT_REACHED = "not-reached"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStory:
    """One step: `number` counts from 1 as people do, `index` is its place in the plan; `place` is `file:line`."""

    index: int
    keyword: str
    text: str
    expected: str
    place: str
    began: float | None
    ended: float | None
    findings: tuple[Finding, ...]
    witnesses: tuple[Witness, ...]

    @property
    def number(self) -> int:
        """The step's number for people, from 1."""
        return self.index + 1

    @property
    def duration_s(self) -> float | None:
        """Seconds the step took, None if it did not end."""
        return None if self.began is None or self.ended is None else self.ended - self.began

    @property
    def state(self) -> State:
        """How far the step came and what was found."""
        judged = worst(finding.outcome for finding in self.findings) if self.findings else None
        if judged in (Outcome.FAIL, Outcome.ERROR):
            return State.FAILED if judged is Outcome.FAIL else State.UNKNOWN
        if self.began is None:
            return State.NOT_REACHED
        if self.ended is None:
            return State.ENDED_HERE
        return State.HELD if judged is Outcome.PASS else State.DONE

    @property
    def seen(self) -> tuple[str, ...]:
        """What was found, the bad before the good, each sentence once."""
        ranked = sorted(self.findings, key=lambda finding: finding.outcome is Outcome.PASS)
        return tuple(dict.fromkeys(finding.text for finding in ranked))


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One variant (or one counter-proof of it) as its directory tells it."""

    directory: VariantDirectory
    id: str
    scenario: str
    variant: str
    title: str
    tags: tuple[str, ...]
    source: str
    line: int
    start: str
    outcome: Outcome | None
    reason: str
    steps: tuple[StepStory, ...]
    findings: tuple[Finding, ...]
    planned_counter_proofs: tuple[str, ...]
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]

    @property
    def node(self) -> str:
        """What names this variant on a command line."""
        return f"{self.source}::{self.id}" if self.source else self.id

    @property
    def turning_point(self) -> StepStory | None:
        """The step where it went wrong: of a failure the first that failed, else the first that did not end well."""
        wrong = [step for step in self.steps if step.state in (State.FAILED, State.UNKNOWN, State.ENDED_HERE)]
        failed = [step for step in wrong if step.state is State.FAILED and self.outcome is Outcome.FAIL]
        return next(iter([*failed, *wrong]), None)


def tell(directory: VariantDirectory) -> Story:
    """Read the story of the variant in `directory`."""
    notes: list[str] = []
    plan, verdict = read_json(directory.file(PLAN)), read_json(directory.file(VERDICT))
    if not plan:
        notes.append(f"{PLAN} is missing or damaged")
    if not verdict:
        notes.append(f"there is no {VERDICT}: the run ended before this was judged")
    try:
        entries = tuple(directory.entries())
    except (ValueError, TypeError, OSError) as error:
        entries = ()
        notes.append(f"the journal cannot be read: {error}")
    findings, witnesses = _findings(verdict), _witnesses(verdict)
    scenario = str(plan.get("scenario") or directory.path.parent.name)
    variant = str(plan.get("variant") or "")
    source = str(plan.get("source") or "")
    return Story(
        directory=directory,
        id=f"{scenario}[{variant}]" if variant else scenario,
        scenario=scenario,
        variant=variant,
        title=str(plan.get("title") or scenario),
        tags=tuple(plan.get("tags", ())),
        source=source,
        line=int(plan.get("line", 0)),
        start=str(plan.get("start") or "cold"),
        outcome=Outcome(verdict["outcome"]) if verdict.get("outcome") in list(Outcome) else None,
        reason=str(verdict.get("reason", "")),
        steps=tuple(_step(step, source, entries, findings, witnesses) for step in plan.get("steps", ())),
        findings=tuple(finding for finding in findings if finding.step is None),
        planned_counter_proofs=tuple(plan.get("counter_proofs", ())),
        entries=entries,
        notes=tuple(notes),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Give the object in a JSON file; empty if there is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _step(
    step: Mapping[str, Any],
    source: str,
    entries: tuple[Entry, ...],
    findings: list[Finding],
    witnesses: list[Witness],
) -> StepStory:
    index = int(step["index"])
    marks = {entry.kind: entry.t for entry in entries if entry.source == "runner" and entry.step == index}
    line = step.get("line")
    return StepStory(
        index=index,
        keyword=str(step.get("keyword", "")),
        text=str(step.get("text", "")),
        expected=str(step.get("expect_text") or ""),
        place=f"{source}:{line}" if line else source,
        began=marks.get("step-begin"),
        ended=marks.get("step-end"),
        findings=tuple(finding for finding in findings if finding.step == index),
        witnesses=tuple(witness for witness in witnesses if witness.step == index),
    )


def _findings(verdict: Mapping[str, Any]) -> list[Finding]:
    return [
        Finding(
            outcome=Outcome(each["outcome"]), text=each["text"], step=each.get("step"), refs=tuple(each.get("refs", ()))
        )
        for each in verdict.get("findings", ())
    ]


def _witnesses(verdict: Mapping[str, Any]) -> list[Witness]:
    return [
        Witness(
            name=each["name"],
            step=each["step"],
            verdict=WitnessVerdict(each["verdict"]),
            evidence=each["evidence"],
            refs=tuple(each.get("refs", ())),
        )
        for each in verdict.get("witnesses", ())
    ]
