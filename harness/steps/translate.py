"""translate: show where the memory of a nested guest lies, and that its device reaches it there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from harness.address_book import PAGE
from harness.judgement import Judgement, StepEvidence, nobody_faulted, single
from harness.nesting import plant, translate
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session, fresh_bytes
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.vtd.faults import Access

#: The walks that each page takes.
_ACCESSES = {Access.READ.value, Access.WRITE.value}


class TranslateBody(Section):
    """Which device, of which guest, and how much."""

    device: Name = Field(description="A device that the guest was handed.")
    guest: Name = Field(description="The guest that has it.")
    pages: Annotated[int, Field(ge=1, le=64)] = Field(default=4, description="Pages that the guest writes, and walks.")


class Translate(Step, keyword="translate"):
    """Walk the unit's tables from outside: guest-physical of the nested guest to host-physical of the platform.

    The guest writes fresh bytes into pages of its own. For each, the walk for the device must lead to where the
    platform's kernel says that the page lies, and those bytes must stand there; one page beyond the guest's memory must
    lead nowhere. At least one page must lie at another address than the guest's, or nothing would have been translated.
    """

    translate: TranslateBody

    def summary(self) -> str:
        """Say in a line what is done."""
        body = self.translate
        return f"walk the tables of '{body.device}' for {body.pages} pages of guest '{body.guest}'"

    def references(self) -> list[Reference]:
        """Name the device and the guest."""
        return [
            Reference.use("device", self.translate.device, "translate", "device"),
            Reference.use("guest", self.translate.guest, "translate", "guest"),
        ]

    def needs_handed(self) -> list[tuple[str, str]]:
        """The unit translates for who was handed over."""
        return [(self.translate.device, self.translate.guest)]

    def run(self, session: Session) -> None:
        """Have the guest write, walk, and read what stands at the end."""
        if session.raw:
            return
        device, guest = session.device(self.translate.device), self.translate.guest
        for number in range(self.translate.pages):
            content = fresh_bytes(PAGE)
            buffer, inside = plant(session, guest, f"{device.name}-page-{number}", content)
            walks = {access: translate(session, device, inside, access) for access in (Access.READ, Access.WRITE)}
            ends = {access.value: walk.address for access, walk in walks.items()}
            session.journal.record("tables", "walk", device=device.name, text=walks[Access.WRITE].explain())
            stands = None
            if (end := walks[Access.WRITE].address) is not None and session.guest.machine.memory.holds(end, PAGE):
                stands = session.read_physical(end, PAGE, label=f"{buffer.name} where the walk leads")
            session.record(
                "translated",
                guest_physical=inside,
                host_physical=buffer.pages[0],
                ends=ends,
                page=walks[Access.WRITE].page,
                written=hashlib.sha256(content).hexdigest(),
                stands=None if stands is None else hashlib.sha256(stands).hexdigest(),
            )
        beyond = translate(session, device, session.beyond, Access.WRITE)
        session.journal.record("tables", "walk", device=device.name, text=beyond.explain())
        session.record("beyond", guest_physical=session.beyond, end=beyond.address, reason=beyond.reason)

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Compare the walk with the platform's kernel and with the bytes."""
        pages = evidence.observations("translated")
        beyond = evidence.observation("beyond")
        complete = all(set(entry.data["ends"]) == _ACCESSES for entry in pages)
        if len(pages) != self.translate.pages or beyond is None or not complete:
            return single(Outcome.ERROR, "the walks did not come to their end", evidence.index)
        for entry in pages:
            if _unread(evidence, entry.data):
                text = f"what stands at {entry.data['host_physical']:#x} was not read from outside"
                return single(Outcome.ERROR, text, evidence.index, entry.ref)
        problems = [problem for entry in pages for problem in _wrong(entry.data)]
        if all(entry.data["guest_physical"] == entry.data["host_physical"] for entry in pages):
            problems.append("every page lies at the guest's own address: nothing was translated")
        if beyond.data["end"] is not None or not beyond.data["reason"]:
            problems.append(f"{beyond.data['guest_physical']:#x}, beyond the guest's memory, is translated too")
        refs = tuple(entry.ref for entry in pages[:3])
        first = pages[0].data
        shown = f"{first['guest_physical']:#x} -> {first['host_physical']:#x}"
        walked = Witness(
            name="walk",
            step=evidence.index,
            verdict=WitnessVerdict.DENIES if problems else WitnessVerdict.CONFIRMS,
            evidence=problems[0] if problems else f"guest-physical {shown}, and the guest's bytes stand there",
            refs=refs,
        )
        others = nobody_faulted(evidence)
        text = (
            f"{len(pages)} pages of guest '{self.translate.guest}' lie where the unit leads '{self.translate.device}'"
        )
        findings = [_finding(evidence, problems, text, refs)]
        if others.verdict is not WitnessVerdict.CONFIRMS:
            findings.append(_finding(evidence, [others.evidence], "", others.refs))
        return Judgement(findings=tuple(findings), witnesses=(walked, others))


def _unread(evidence: StepEvidence, data: dict[str, Any]) -> bool:
    """Whether a walk leads to the page, but the bytes there are not among those that were read from outside."""
    outside = data["host_physical"]
    read = {e.data["sha256"] for e in evidence.entries if e.source == "memory" and e.data["gpa"] == outside}
    return bool(data["ends"][Access.WRITE.value] == outside and data["stands"] not in read)


def _wrong(data: dict[str, Any]) -> Iterable[str]:
    """Tell what is wrong with the walk to one page."""
    inside, outside = data["guest_physical"], data["host_physical"]
    for access, end in data["ends"].items():
        if end is None:
            yield f"a {access} of {inside:#x} is refused"
        elif end != outside:
            yield f"a {access} of {inside:#x} leads to {end:#x}; the platform's kernel has the page at {outside:#x}"
    if data["stands"] != data["written"]:
        yield f"other bytes than the guest wrote stand at {outside:#x}"


def _finding(evidence: StepEvidence, problems: list[str], text: str, refs: tuple[str, ...]) -> Finding:
    outcome = Outcome.FAIL if problems else Outcome.PASS
    return Finding(outcome=outcome, text=problems[0] if problems else text, step=evidence.index, refs=refs)
