"""What a run shows at its end: the stories of what went wrong, the table, and what took the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from harness.evidence import JOURNAL, RunDirectory, VariantDirectory, read_journal
from harness.report.live import first_line
from harness.report.story import tell
from harness.report.text import WITNESSES, Style, story_lines, totals, witness_order
from harness.result import Result
from harness.runner import TEMPLATE_BOOT
from harness.verdict import Outcome

#: How many of the slowest variants are named at the end.
_SLOWEST = 3


def table(results: Sequence[Result], style: Style) -> list[str]:
    """Give the table of all results: result, scenario, witnesses, counter-proofs, seconds."""
    width = max([len("scenario"), *(len(result.id) for result in results)])
    witnessed = [_witnesses(result, style) for result in results]
    span = max([len("witnesses"), *(_visible(text) for text in witnessed)])
    proofs = [_counter_proofs(result, style) for result in results]
    reach = max([len("counter-proofs"), *(_visible(text) for text in proofs)])
    head = f"{'result':<6}  {'scenario':<{width}}  {'witnesses':<{span}}  {'counter-proofs':<{reach}}  seconds"
    lines = [style.bold(head)]
    for result, witnesses, proof in zip(results, witnessed, proofs, strict=True):
        name = style.outcome(result.outcome, f"{result.outcome.value.upper():<6}")
        cells = [name, f"{result.id:<{width}}", _padded(witnesses, span), _padded(proof, reach)]
        lines.append("  ".join([*cells, f"{result.duration_s:>7.1f}"]))
    return lines


def stories(run: RunDirectory, results: Sequence[Result], style: Style) -> list[str]:
    """Tell of every variant that failed, ended in an error or is vacuous."""
    lines: list[str] = []
    for result in results:
        if result.outcome in (Outcome.FAIL, Outcome.ERROR) or result.vacuous:
            story = tell(VariantDirectory(run.path / result.evidence))
            lines += ["", *story_lines(result, story, style=style)]
    return lines


def closing(run: RunDirectory, results: Sequence[Result], style: Style, *, interrupted: bool = False) -> list[str]:
    """Give everything that ends a run: the stories, the table, the totals, and where to look."""
    lines = stories(run, results, style)
    if results:
        lines += ["", *table(results, style)]
    skipped = [result for result in results if result.outcome is Outcome.SKIP]
    lines += ["", *(f"skipped {result.id}: {first_line(result.reason)}" for result in skipped)]
    lines += time_lines(run, results)
    lines += [style.bold(("interrupted; " if interrupted else "") + totals(results))]
    lines += [f"evidence: {run.path}", f"report:   {run.path / 'index.html'}"]
    return lines


def time_lines(run: RunDirectory, results: Sequence[Result]) -> list[str]:
    """Tell which variants took longest, how the machines came up, and what the templates cost."""
    ran = sorted((result for result in results if result.outcome is not Outcome.SKIP), key=lambda each: each.duration_s)
    if not ran:
        return []
    slowest = [f"{result.id} {result.duration_s:.1f} s" for result in ran[: -_SLOWEST - 1 : -1]]
    restored = sum(_tells(run.path / result.evidence / JOURNAL, "restored") for result in ran)
    booted = sum(result.start == "cold" for result in ran)
    starts = f"{restored} from templates, {booted} cold"
    boots = [boot for result in ran for boot in _template_boots(run.path / result.evidence)]
    count = "1 template" if len(boots) == 1 else f"{len(boots)} templates"
    made = f"; {count} made in {sum(boots):.1f} s" if boots else ""
    return [f"slowest:  {', '.join(slowest)}"] * (len(ran) > 1) + [f"started:  {starts}{made}"]


def _template_boots(variant: Path) -> Iterator[float]:
    """Give the seconds of each boot for a template that this variant or a counter-proof of it had to make first."""
    for journal in (*variant.glob(f"{TEMPLATE_BOOT}/{JOURNAL}"), *variant.glob(f"counter/*/{TEMPLATE_BOOT}/{JOURNAL}")):
        with suppress(ValueError):
            if _tells(journal, "saved"):
                times = [entry.t for entry in read_journal(journal)]
                yield max(times) - min(times)


def _tells(journal: Path, kind: str) -> bool:
    """Whether the process of a machine came so far; told of thousands of journals, so they are not parsed for it."""
    return journal.exists() and f'"source": "process", "kind": "{kind}"' in journal.read_text(encoding="utf-8")


def _witnesses(result: Result, style: Style) -> str:
    names = witness_order(result.witnesses)
    return " ".join(f"{WITNESSES.get(n, n)} {style.witness(result.witnesses[n].verdict)}" for n in names) or "-"


def _counter_proofs(result: Result, style: Style) -> str:
    return " ".join(f"{name}: {style.counter_proof(proof)}" for name, proof in result.counter_proofs.items()) or "-"


def _visible(text: str) -> int:
    return len(_plain(text))


def _plain(text: str) -> str:
    """Give `text` without the colours of `Style.paint`."""
    parts = text.split("\x1b[")
    return parts[0] + "".join(part.partition("m")[2] for part in parts[1:])


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _visible(text))
