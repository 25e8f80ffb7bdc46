"""The raw files beside a journal: what QEMU and the console wrote themselves, held against what was read of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.evidence import Entry, VariantDirectory
from harness.witnesses.host_trace import dmar_fault, read_trace


def disagreements(directory: VariantDirectory, entries: Sequence[Entry]) -> list[str]:
    """Tell where `trace.log` and `console.log` do not say what the journal says they do."""
    lines, _ = read_trace(_lines(directory.file("trace.log")))
    raw = sum(dmar_fault(line) is not None for line in lines)
    told = sum(int(entry.data["count"]) for entry in entries if entry.source == "trace" and entry.kind == "fault")
    problems = [] if raw == told else [f"trace.log holds {raw} faults, the journal tells {told}"]
    shown = set(_lines(directory.file("console.log")))
    problems += [
        f"{entry.ref}: console.log has no such line: {entry.data['text']}"
        for entry in entries
        if (entry.source, entry.kind) == ("console", "line") and entry.data["text"] not in shown
    ]
    return problems


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
