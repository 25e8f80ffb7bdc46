"""Words, symbols and colours of the reports that are plain text: the terminal, pytest's failures and JUnit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from harness.report.story import State, Story
from harness.result import Result
from harness.verdict import CounterProof, Outcome, WitnessVerdict

#: Witnesses in the order a reader meets them, with the short names of tables; others follow under their own names.
WITNESSES: Mapping[str, str] = {
    "announcement": "announced",
    "guest-log": "log",
    "console": "console",
    "host-trace": "trace",
    "bytes": "bytes",
    "others": "others",
}

_RED, _GREEN, _YELLOW, _DIM, _BOLD = "31", "32", "33", "2", "1"
COLOUR = {Outcome.PASS: _GREEN, Outcome.FAIL: _RED, Outcome.ERROR: _YELLOW, Outcome.SKIP: _DIM}


@dataclass(frozen=True, slots=True)
class Style:
    """How one stream is written to: with colour or not, with symbols beyond ASCII or not."""

    colour: bool = False
    symbols: bool = False

    @classmethod
    def of(cls, stream: IO[str]) -> Style:
        """Fit `stream`: colour on a terminal unless NO_COLOR is set (no-color.org) or TERM is dumb."""
        encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return cls(colour=stream.isatty() and not plain, symbols=encoding.startswith("utf"))

    def paint(self, text: str, code: str) -> str:
        """Give `text` in a colour, if this stream has any."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def dim(self, text: str) -> str:
        """Give `text` faintly."""
        return self.paint(text, _DIM)

    def bold(self, text: str) -> str:
        """Give `text` boldly."""
        return self.paint(text, _BOLD)

    def outcome(self, outcome: Outcome, text: str | None = None) -> str:
        """Give `text`, or the name of the outcome, in the outcome's colour."""
        return self.paint(text or outcome.value.upper(), COLOUR[outcome])

    def mark(self, outcome: Outcome) -> str:
        """Give the one-character symbol of an outcome."""
        fancy = {Outcome.PASS: "✓", Outcome.FAIL: "✗", Outcome.ERROR: "!", Outcome.SKIP: "·"}
        plain = {Outcome.PASS: "+", Outcome.FAIL: "x", Outcome.ERROR: "!", Outcome.SKIP: "-"}
        return self.outcome(outcome, (fancy if self.symbols else plain)[outcome])

    def witness(self, verdict: WitnessVerdict) -> str:
        """Give the one-character symbol of a witness: confirms, denies, missing."""
        outcome = {WitnessVerdict.CONFIRMS: Outcome.PASS, WitnessVerdict.DENIES: Outcome.FAIL}.get(verdict)
        return self.mark(outcome) if outcome else self.outcome(Outcome.ERROR, "?")

    def counter_proof(self, proof: CounterProof) -> str:
        """Give what became of a counter-proof; red is what is wanted, so it is painted as a success."""
        colour = {CounterProof.RED: _GREEN, CounterProof.VACUOUS: _RED, CounterProof.NOT_RUN: _DIM}[proof]
        return self.paint(proof.value.replace("-", " "), colour)


def witness_order(names: Iterable[str]) -> list[str]:
    """Order the names of witnesses as tables show them."""
    known = list(WITNESSES)
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


def legible(text: str) -> str:
    """Replace what would move a terminal's cursor or change its colours; guests write some of what is shown."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


def totals(results: Sequence[Result]) -> str:
    """Count the outcomes in words: `3 passed, 1 failed, 1 error, 2 skipped; 1 vacuous`."""
    words = {Outcome.PASS: "passed", Outcome.FAIL: "failed", Outcome.ERROR: "error", Outcome.SKIP: "skipped"}
    counts = {outcome: sum(result.outcome is outcome for result in results) for outcome in words}
    told = ", ".join(f"{count} {words[outcome]}" for outcome, count in counts.items() if count) or "nothing ran"
    vacuous = sum(bool(result.vacuous) for result in results)
    return f"{told}; {vacuous} vacuous" if vacuous else told


def story_lines(
    result: Result, story: Story, *, style: Style | None = None, rerun: str = ".venv/bin/harness run"
) -> list[str]:
    """Tell in a screen what went wrong: where, what was expected, what was seen, the evidence, how to repeat it."""
    style = style or Style()
    lines = [f"{style.outcome(result.outcome)} {style.bold(story.node)}", f"  {result.title}", ""]
    turn = story.turning_point
    if turn is None or result.reason not in turn.seen:
        lines += [f"  {legible(line)}" for line in result.reason.splitlines()]
    if turn is not None:
        lines += [f"  step {turn.number} of {len(story.steps)} ({turn.place}): {turn.text}"]
        if turn.expected:
            lines.append(f"    expected: {turn.expected}")
        lines += [f"    seen:     {legible(sentence)}" for sentence in turn.seen]
        if turn.state is State.ENDED_HERE:
            lines.append("    the step began and did not end")
        lines += [
            f"      {style.witness(witness.verdict)} {WITNESSES.get(name, name):<9} {legible(witness.evidence)}"
            for name in witness_order({witness.name for witness in turn.witnesses})
            for witness in turn.witnesses
            if witness.name == name
        ]
    vacuous = [f"  vacuous: it stays green without {name}, so it proves nothing" for name in result.vacuous]
    notes = [f"  note: {note}" for note in story.notes]
    return [
        *lines,
        *vacuous,
        *notes,
        "",
        f"  evidence: {story.directory.path}",
        f"  again:    {rerun} '{story.node}'",
    ]
