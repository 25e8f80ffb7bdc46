"""`docs/fault-atlas.md`: the atlas as a page that two runs of the same scenarios write alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.atlas import chart as chart_module
from harness.atlas import raisable
from harness.atlas.chart import Chart, Code, Recipe, causes
from harness.verdict import Conformance
from harness.vtd import faults

PAGE = Path("docs/fault-atlas.md")

_SHOWN = {
    Conformance.AS_SPEC: "as the spec",
    Conformance.KNOWN_DEVIATION: "known deviation",
    Conformance.NEW_DEVIATION: "NEW DEVIATION",
}
_MARK = "<!-- made from "


def page(chart: Chart) -> str:
    """Give the page."""
    body = "\n".join(_lines(chart)) + "\n"
    title = f"# Fault atlas of QEMU {chart.gathered.qemu}"
    mark = f"{_MARK}{fingerprint(chart.gathered.sources)} by `make atlas`, text {_digest(body)}; do not edit -->"
    return f"{title}\n\n{mark}\n{body}"


def fingerprint(scenarios: Mapping[str, bytes]) -> str:
    """Give the digest of what shapes the page but QEMU and the kernels: reasons, this code, and `scenarios` by name."""
    digest = hashlib.sha256()
    modules = [Path(str(module.__file__)) for module in (faults, raisable, chart_module)] + [Path(__file__)]
    for name, text in (*sorted(scenarios.items()), *((path.name, path.read_bytes()) for path in modules)):
        digest.update(name.encode() + b"\0" + text + b"\0")
    return digest.hexdigest()


def fingerprint_of(text: str) -> str:
    """Give the digest of its sources that a page carries, empty if it has none."""
    _, found, rest = text.partition(_MARK)
    return rest.split(" ", 1)[0] if found else ""


def as_written(text: str) -> bool:
    """Whether a page is what was written, and was not edited since."""
    mark, _, body = text.partition(_MARK)[2].partition("\n")
    return f"text {_digest(body)};" in mark


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _lines(chart: Chart) -> Iterator[str]:
    gathered = chart.gathered
    yield ""
    yield (
        "Every fault that QEMU's intel-iommu can raise for the devices it emulates, provoked, witnessed and held "
        "against the VT-d specification. Each row stands for provocations that agree: the fault record, QEMU's trace "
        "and the bytes in memory on machines without a guest, and the guest's log and console besides under a kernel. "
        "The same request landed before and after its tables were broken."
    )
    yield ""
    provoked = len(chart.raisable) - len(chart.missing)
    counts = ", ".join(f"{gathered.count(kind)} {_SHOWN[kind]}" for kind in Conformance)
    yield (
        f"**Coverage: {provoked} of {len(chart.raisable)} raisable reasons provoked**, in "
        f"{len(gathered.provocations)} provocations: {counts}."
    )
    for told in chart.told_missing:
        yield f"- not provoked: {told}"
    for name, reason in (*gathered.unproven, *gathered.skipped):
        yield f"- not proven: {name}: {reason}"
    yield ""
    yield "## Reasons"
    yield ""
    yield "| code | reason | it says | provoked | compared |"
    yield "| --- | --- | --- | --- | --- |"
    for code in chart.codes:
        if not code.unraisable:
            name = code.reason.name
            link = f"[{name}](#{name})"
            yield f"| {code.reason.code:#04x} | {link} | {code.reason.meaning} | {code.count} | {_compared(code)} |"
    for code in chart.codes:
        if code.recipes:
            yield from _section(code)
    yield from _others(chart.others)
    yield from _deviations(chart.deviations)
    yield ""
    yield "## What cannot be raised"
    yield ""
    yield "| code | reason | why |"
    yield "| --- | --- | --- |"
    for code in chart.codes:
        if code.unraisable:
            yield f"| {code.reason.code:#04x} | {code.reason.name} | {code.unraisable} |"


def _section(code: Code) -> Iterator[str]:
    yield ""
    yield f"### {code.reason.name}"
    yield ""
    yield f"{code.reason.code:#04x}, {code.reason.mode}: {code.reason.meaning}. {_silence(code)}"
    yield ""
    for image, line in code.kernel_lines.items():
        yield f"    {image}: {line}"
    if code.kernel_lines:
        yield ""
    yield from _table(code.recipes)


def _silence(code: Code) -> str:
    named = code.reason.kernel_text != "Unknown"
    said = f'Linux calls it "{code.reason.kernel_text}".' if named else "Linux has no name for it."
    return f"{'FPD silences it.' if code.reason.qualified else 'FPD does not silence it.'} {said}"


def _others(recipes: Sequence[Recipe]) -> Iterator[str]:
    if recipes:
        yield ""
        yield "### Without a reason"
        yield ""
        yield "Refusals that FPD keeps silent, errors of the invalidation queue, and what QEMU lets pass."
        yield ""
        yield from _table(recipes)


def _table(recipes: Sequence[Recipe]) -> Iterator[str]:
    yield "| recipe | where | by | spec | seen | compared | witnesses |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for recipe in recipes:
        yield (
            f"| {recipe.recipe} | {', '.join(recipe.where)} | {', '.join(recipe.sources)} "
            f"| {recipe.spec or 'no report'} | {recipe.seen or 'no report'} | {_SHOWN[recipe.conformance]} "
            f"| {', '.join(recipe.witnesses)} |"
        )


def _compared(code: Code) -> str:
    """Tell how many provocations were as the specification says, and how many were not."""
    counts = {kind: sum(recipe.count for recipe in code.recipes if recipe.conformance is kind) for kind in Conformance}
    return ", ".join(f"{count} {_SHOWN[kind]}" for kind, count in counts.items() if count)


def _deviations(recipes: Sequence[Recipe]) -> Iterator[str]:
    yield ""
    yield "## Deviations"
    yield ""
    if not recipes:
        yield "None."
        return
    yield "| why | spec | QEMU | versions | provoked |"
    yield "| --- | --- | --- | --- | --- |"
    for cause in causes(recipes):
        yield f"| {cause.why} | {cause.spec} | {cause.seen} | {cause.versions} | {cause.count} |"
