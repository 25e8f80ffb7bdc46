"""`index.html`: one page that opens from disk, needs nothing else, and can be attached to a mail."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.evidence import RunDirectory, VariantDirectory, write_whole
from harness.report.bars import WIDTH, DrawnChart, draw
from harness.report.story import VERDICT, State, StepStory, Story, read_json, tell
from harness.report.text import WITNESSES, totals, witness_order
from harness.report.timeline import Timeline, timeline
from harness.result import Result
from harness.verdict import CounterProof, Outcome, Witness, WitnessVerdict

INDEX = "index.html"

#: What is offered for reading, in this order, where it exists.
_RAW = (
    "scenario.yaml",
    "plan.json",
    "verdict.json",
    "journal.jsonl",
    "console.log",
    "trace.log",
    "qemu.argv",
    "qemu.stderr",
    "repro.sh",
    "traceback.txt",
)

_HEADINGS = {
    "announcement": "device announced",
    "guest-log": "guest kernel log",
    "console": "serial console",
    "host-trace": "host trace",
    "bytes": "bytes in memory",
    "others": "everybody else",
}

_PROOF_WORDS = {
    CounterProof.RED: "attack lands",
    CounterProof.VACUOUS: "vacuous",
    CounterProof.NOT_RUN: "not run",
}

#: What needs a reader comes first.
_FIRST = ("error", "fail", "pass", "skip")


@dataclass(frozen=True, slots=True)
class Testimony:
    """One row of the witness table: a step, and what each witness says of it (None: was not asked)."""

    step: StepStory
    cells: tuple[Witness | None, ...]

    @property
    def agreed(self) -> bool:
        """Whether all witnesses that were asked confirm."""
        return all(cell is None or cell.verdict is WitnessVerdict.CONFIRMS for cell in self.cells)


@dataclass(frozen=True, slots=True)
class CounterRun:
    """One counter-proof: what became of it, what was found, and its directory relative to the run (None: no run)."""

    name: str
    proof: CounterProof
    told: str
    link: str | None


@dataclass(frozen=True, slots=True)
class Chapter:
    """Everything the page says of one variant."""

    result: Result
    story: Story
    columns: tuple[tuple[str, str], ...]
    testimonies: tuple[Testimony, ...]
    counter_runs: tuple[CounterRun, ...]
    timeline: Timeline | None
    charts: tuple[DrawnChart, ...]
    walks: tuple[str, ...]
    raw: tuple[str, ...]

    @property
    def outcome(self) -> str:
        """The outcome the page colours this variant by: a vacuous pass is no pass."""
        return "fail" if self.result.outcome is Outcome.PASS and self.result.vacuous else self.result.outcome.value

    @property
    def anchor(self) -> str:
        """A name for the fragment of the page's address."""
        return "".join(c if c.isalnum() or c in "-_" else "." for c in self.result.id).strip(".")


@dataclass(frozen=True, slots=True)
class Proven:
    """The run in numbers: DMAs that had to be blocked, those that all witnesses saw blocked, and counter-proofs."""

    variants: int
    held: int
    attacks: int
    blocked: int
    counter_proofs: int
    red: int


def write_html(run: RunDirectory, host: Mapping[str, Any], results: Sequence[Result]) -> Path:
    """Write the page of `run`; `host` is that of `results.json`."""
    path = run.path / INDEX
    return write_whole(path, render(run, host, results))


def render(run: RunDirectory, host: Mapping[str, Any], results: Sequence[Result]) -> str:
    """Give the page's text. What guests wrote is escaped, and the page may run no script but its own."""
    environment = Environment(
        loader=PackageLoader("harness.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = lambda value: "" if value is None else f"{value:.1f} s"
    environment.filters["brief"] = lambda value: "" if value is None else f"{value:.2f} s"
    files = resources.files("harness.report")
    css, script = (files.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    chapters = sorted((_chapter(run, result) for result in results), key=lambda each: _FIRST.index(each.outcome))
    return environment.get_template("template.html.j2").render(
        css=Markup(css),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        policy=f"default-src 'none'; style-src '{_hash(css)}'; script-src '{_hash(script)}'",
        run=run.path.name,
        host=host,
        chapters=chapters,
        proven=_proven(chapters),
        totals=totals(results),
        verdict=_overall(chapters),
        counts={outcome: sum(c.outcome == outcome for c in chapters) for outcome in ("pass", "fail", "error", "skip")},
        tags=sorted({tag for result in results for tag in result.tags}),
        duration_s=sum(result.duration_s for result in results),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        short_names=WITNESSES,
        witness_order=witness_order,
        proof_words=_PROOF_WORDS,
        chart_width=WIDTH,
        State=State,
    )


def _chapter(run: RunDirectory, result: Result) -> Chapter:
    directory = VariantDirectory(run.path / result.evidence)
    story = tell(directory)
    names = witness_order({witness.name for step in story.steps for witness in step.witnesses})
    return Chapter(
        result=result,
        story=story,
        columns=tuple((name, _HEADINGS.get(name, name)) for name in names),
        testimonies=tuple(_testimony(step, names) for step in story.steps if step.witnesses),
        counter_runs=tuple(_counter_run(run, directory, name, proof) for name, proof in result.counter_proofs.items()),
        timeline=timeline(story),
        charts=draw(read_json(directory.file(VERDICT)).get("charts", ())),
        walks=_walks(story),
        raw=tuple(f"{result.evidence}/{name}" for name in _RAW if directory.file(name).exists()),
    )


def _walks(story: Story) -> tuple[str, ...]:
    """Give the first walk through the unit's tables for each device, and the first that was refused."""
    shown: dict[tuple[str, bool], str] = {}
    for entry in story.entries:
        if (entry.source, entry.kind) == ("tables", "walk"):
            text = str(entry.data.get("text"))
            shown.setdefault((str(entry.data.get("device")), "is refused" in text), text)
    return tuple(shown.values())


def _testimony(step: StepStory, names: Sequence[str]) -> Testimony:
    said = {witness.name: witness for witness in step.witnesses}
    return Testimony(step, tuple(said.get(name) for name in names))


def _counter_run(run: RunDirectory, directory: VariantDirectory, name: str, proof: CounterProof) -> CounterRun:
    path = directory.path / "counter" / name
    ref = f"counter/{name}"
    told = [f.text for f in tell(directory).findings if any(place.startswith(ref) for place in f.refs)]
    standing = {
        CounterProof.RED: "without this protection the attack succeeds, as it must",
        CounterProof.VACUOUS: "without this protection nothing changes: the scenario proves nothing",
        CounterProof.NOT_RUN: "not run; PROVE=1 runs it",
    }
    link = str(path.relative_to(run.path)) if path.is_dir() else None
    return CounterRun(name, proof, told[0] if told else standing[proof], link)


def _proven(chapters: Sequence[Chapter]) -> Proven:
    attacks = [
        testimony
        for chapter in chapters
        for testimony in chapter.testimonies
        if any(cell is not None and cell.name == "guest-log" for cell in testimony.cells)
    ]
    proofs = [run.proof for chapter in chapters for run in chapter.counter_runs]
    return Proven(
        variants=len(chapters),
        held=sum(chapter.outcome == "pass" for chapter in chapters),
        attacks=len(attacks),
        blocked=sum(testimony.agreed for testimony in attacks),
        counter_proofs=sum(proof is not CounterProof.NOT_RUN for proof in proofs),
        red=sum(proof is CounterProof.RED for proof in proofs),
    )


def _overall(chapters: Sequence[Chapter]) -> str:
    present = {chapter.outcome for chapter in chapters}
    return next((outcome for outcome in ("error", "fail", "pass") if outcome in present), "skip")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
