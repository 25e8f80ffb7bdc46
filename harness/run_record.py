"""Whether the record of a run is whole and one of its plan: what the runner itself writes into each journal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.evidence import Entry
from harness.plan import Plan


def flaws(plan: Plan, entries: Sequence[Entry], *, whole: bool = True) -> Iterator[str]:
    """Tell what is missing of a run that came to its end (or, if not `whole`, to that of a step), or is another's."""
    begun = [(entry.data["id"], entry.data["protection_removed"]) for entry in _of(entries, "runner", "begin")]
    if begun != [(plan.id, plan.protection_removed)]:
        yield f"the plan is that of {plan.id}, the journal that of {begun[0][0] if begun else 'nobody'}"
    yield from _started(entries)
    if plan.refused is None:
        if not _of(entries, "process", "qemu"):
            yield "QEMU's version was not recorded"
        if whole and not _of(entries, "process", "stop"):
            yield "it was not recorded how QEMU ended"
    yield from _steps(plan, entries)


def _started(entries: Sequence[Entry]) -> Iterator[str]:
    started = _of(entries, "process", "start")
    if not started:
        yield "it was not recorded what QEMU was started with"
    elif "-incoming" in started[0].data.get("argv", ()) and not _of(entries, "process", "restored"):
        yield "QEMU was started to restore a machine, but it was not recorded that it did"


def _steps(plan: Plan, entries: Sequence[Entry]) -> Iterator[str]:
    """Tell which entry does not say the step that it stands in; events of QMP come when they like."""
    keywords = {step.index: step.keyword for step in plan.steps}
    current: int | None = None
    for entry in entries:
        if (entry.source, entry.kind) == ("runner", "step-begin"):
            current = entry.step
            planned = None if current is None else keywords.get(current)
            if entry.data.get("keyword", planned) != planned:
                yield f"{entry.ref}: a step '{entry.data['keyword']}', the plan says '{planned}'"
        if entry.step != current and entry.source.rpartition("/")[2] != "qmp":
            yield f"{entry.ref} ({entry.source} {entry.kind}) does not say the step that it stands in"
            return
        if (entry.source, entry.kind) == ("runner", "step-end"):
            current = None


def _of(entries: Sequence[Entry], source: str, kind: str) -> list[Entry]:
    return [entry for entry in entries if (entry.source, entry.kind) == (source, kind)]
