"""What most likely made a DMA fail: what the scenario's own steps say of its target, before anything else is suspected.

A DMA that must land and is refused was mostly aimed at memory that its domain does not map: a name was mistyped, a step
is missing, or stands in the wrong place. One that must be blocked and lands was mostly mapped. Pure: reads the steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from harness.judgement import Judgement
from harness.scenario.step import IssuedDma, Mapped, Step
from harness.verdict import Outcome


class Placed(Protocol):
    """A step with its line in the scenario file, from 1."""

    @property
    def line(self) -> int:
        """The line."""


@dataclass(frozen=True, slots=True)
class _Mapping:
    """What a step mapped: into which domain, on which line of the scenario, and where it ended (None: it did not)."""

    what: Mapped
    domain: str
    line: int
    gone: str | None = None


@dataclass(slots=True)
class _Books:
    """Who was in which domain since which line, and what was mapped, as the steps say."""

    domains: dict[str, tuple[str, int]] = field(default_factory=dict)
    left: dict[str, tuple[str, int]] = field(default_factory=dict)
    mappings: list[_Mapping] = field(default_factory=list)

    def note(self, step: Step, line: int) -> None:
        """Take in what `step` does."""
        if step.reboots:
            self.domains.clear()
            self._end(f"the guest was rebooted in line {line}")
        for device, domain in step.assignments():
            if device in self.domains:
                self.left[device] = (self.domains[device][0], line)
                self._leave(device, line)
            if domain is not None:
                self.domains[device] = (domain, line)
        for what in step.mappings():
            if what.device in self.domains:
                self.mappings.append(_Mapping(what, self.domains[what.device][0], line))
        for device, buffer in step.unmappings():
            if device in self.domains:
                self._end(f"was unmapped in line {line}", domain=self.domains[device][0], buffer=buffer)

    def _leave(self, device: str, line: int) -> None:
        """A domain ends with its last device, and so do its mappings."""
        domain, _ = self.domains.pop(device)
        if all(other != domain for other, _ in self.domains.values()):
            self._end(f"ended when '{device}' left '{domain}' in line {line}", domain=domain)

    def _end(self, how: str, *, domain: str | None = None, buffer: str | None = None) -> None:
        self.mappings = [
            replace(known, gone=how)
            if known.gone is None and domain in (None, known.domain) and buffer in (None, known.what.buffer)
            else known
            for known in self.mappings
        ]


def likely_cause(steps: Sequence[Step], lines: Sequence[int], index: int, dma: IssuedDma, *, landed: bool) -> str:
    """Say what in the steps explains that `dma` of step `index` landed, or did not; empty where nothing does.

    `lines` are those of the steps in the scenario file.
    """
    books = _Books()
    for step, line in zip(steps[:index], lines, strict=False):
        books.note(step, line)
    if landed:
        return next(_why_landed(books, dma), "")
    later = (
        (line, what)
        for step, line in zip(steps[index:], lines[index:], strict=False)
        for what in step.mappings()
        if _is_target(what, dma)
    )
    return next(_why_refused(books, dma, [line for line, _ in later]), "")


def explained(judgement: Judgement, steps: Sequence[Step], places: Sequence[Placed]) -> Judgement:
    """Add the likely cause to what a judgement of a DMA says that failed."""
    index = judgement.findings[0].step if judgement.findings else None
    if judgement.landed is None or judgement.outcome is not Outcome.FAIL or index is None or index >= len(steps):
        return judgement
    step = steps[index]
    if judgement.landed != step.expects_block:
        return judgement  # what became of the bytes is as expected
    lines = [place.line for place in places]
    causes = (likely_cause(steps, lines, index, dma, landed=judgement.landed) for dma in step.dmas())
    cause = next(filter(None, causes), "")
    if not cause:
        return judgement
    findings = tuple(
        replace(finding, text=f"{finding.text}; likely cause: {cause}") if finding.outcome is Outcome.FAIL else finding
        for finding in judgement.findings
    )
    return replace(judgement, findings=findings)


def _why_refused(books: _Books, dma: IssuedDma, later: Sequence[int]) -> Iterator[str]:
    name, device = dma.place.name, dma.device
    target = f"'{name}'" if name is not None else f"{dma.place.offset:#x}"
    if device not in books.domains:
        if device in books.left:
            domain, line = books.left[device]
            yield f"'{device}' left '{domain}' in line {line}, and is in no domain"
        return
    domain, since = books.domains[device]
    known = [mapping for mapping in books.mappings if _is_target(mapping.what, dma)]
    own = [mapping for mapping in known if mapping.domain == domain]
    live = [mapping for mapping in own if mapping.gone is None]
    if live:
        yield from _not_enough(live, dma, target)
        return  # it is mapped as it must be: the steps do not explain it
    where = f"'{device}' is in '{domain}', line {since}"
    elsewhere = [mapping for mapping in known if mapping.gone is None and mapping.domain != domain]
    for mapping in reversed(own):
        yield f"the mapping of {target} in '{domain}', line {mapping.line}, {mapping.gone}"
    for mapping in elsewhere:
        yield f"{target} is mapped in '{mapping.domain}', line {mapping.line}; {where}"
    for mapping in reversed(known):
        yield f"the mapping of {target} in '{mapping.domain}', line {mapping.line}, {mapping.gone}; {where}"
    for line in later:
        yield f"{target} is mapped no earlier than in line {line}"
    yield f"no step maps {target}; {where}"


def _not_enough(live: Sequence[_Mapping], dma: IssuedDma, target: str) -> Iterator[str]:
    """Tell of a mapping that has not the access, or not the length."""
    letter, verb = ("w", "writing") if dma.length_key == "write" else ("r", "reading")
    if not any(letter in mapping.what.access for mapping in live):
        found = live[-1]
        access = found.what.access
        yield f"{target} is mapped in '{found.domain}', line {found.line}, with access {access}, not for {verb}"
    end = dma.place.offset + dma.length
    if dma.place.name is not None and all(end > mapping.what.size for mapping in live):
        found = live[-1]
        yield f"{found.what.size:#x} bytes of {target} are mapped in line {found.line}, and the DMA ends at {end:#x}"


def _why_landed(books: _Books, dma: IssuedDma) -> Iterator[str]:
    if dma.device not in books.domains:
        return
    domain, since = books.domains[dma.device]
    target = f"'{dma.place.name}'" if dma.place.name is not None else f"{dma.place.offset:#x}"
    for mapping in books.mappings:
        if mapping.domain == domain and mapping.gone is None and _is_target(mapping.what, dma):
            yield f"{target} is mapped in '{domain}', line {mapping.line}, and '{dma.device}' is in that, line {since}"


def _is_target(what: Mapped, dma: IssuedDma) -> bool:
    """Whether it is the buffer that the DMA is aimed at, or has the address."""
    if dma.place.name is not None:
        return what.buffer == dma.place.name
    return what.iova <= dma.place.offset < what.iova + what.size
