"""compare: the same load over several NICs of a nested guest, side by side."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from pydantic import Field

from harness.comparison import measure, medians, nic_of
from harness.judgement import Judgement, StepEvidence, nobody_faulted, single
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session
from harness.traffic import Load, judge_exchange
from harness.verdict import Bar, Chart, Finding, Outcome, WitnessVerdict

#: What is charted: title, unit, and which way is better.
_CHARTS = {
    "frames_per_s": ("Throughput", "frames/s", "more"),
    "round_trip_ms": ("Round trip of one frame", "ms", "less"),
    "exits_per_frame": ("Exits of the virtual processor", "per frame", "less"),
    "cpu_ms_per_frame": ("Processor time of QEMU", "ms per frame", "less"),
}


class CompareBody(Section):
    """Which NICs, and the load."""

    guest: Name = Field(description="The guest that has them all.")
    nics: Annotated[tuple[Name, ...], Field(min_length=2)] = Field(
        description="NICs that it was handed (`devices`) or given (its `nics`), in the order of the chart."
    )
    frames: Annotated[int, Field(ge=10, le=1000)] = Field(default=100, description="Frames each way and round.")
    size: Annotated[int, Field(ge=46, le=1500)] = Field(default=1000, description="Bytes of payload per frame.")
    rounds: Annotated[int, Field(ge=1, le=9)] = Field(default=3, description="Rounds; a chart shows their medians.")


class Compare(Step, keyword="compare"):
    """Measure NICs of a nested guest with the same load, one after the other in each of several rounds.

    Throughput, round trip, exits of the guest's virtual processor and processor time of its QEMU are told as ratios
    within this run; no outcome depends on them. All bytes must arrive, and nobody may fault.
    """

    compare: CompareBody

    def summary(self) -> str:
        """Say in a line what is done."""
        body = self.compare
        return f"compare {', '.join(body.nics)} of guest '{body.guest}': {body.rounds} x {body.frames} frames each way"

    def references(self) -> list[Reference]:
        """Name the guest, and the NICs."""
        names = [Reference.use("guest", self.compare.guest, "compare", "guest")]
        for index, name in enumerate(self.compare.nics):
            names.append(Reference.use(("device", "nic"), name, "compare", "nics", index))
        return names

    def needs_guests(self) -> tuple[str, ...]:
        """Only a guest that runs moves frames."""
        return (self.compare.guest,)

    def needs_nics(self) -> list[tuple[str, str]]:
        """The guest has them, under its own drivers."""
        return [(name, self.compare.guest) for name in self.compare.nics]

    def run(self, session: Session) -> None:
        """Measure each NIC in each round, after one that does not count: code that never ran is translated first."""
        if session.raw:
            return
        body = self.compare
        uplinks = session.nested[body.guest].uplinks
        load = Load(body.frames, body.size)
        for number in range(1 + body.rounds):
            for name in body.nics:
                nic = nic_of(session, body.guest, name, uplinks)
                measure(session, body.guest, nic, load, warm=number > 0)

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Compare the bytes; chart the figures."""
        body = self.compare
        measured = [entry.data for entry in evidence.observations("measured")]
        exchanges = evidence.observations("traffic")
        rounds = Counter(data["nic"] for data in measured if data["round_trips_s"])
        wanted = Counter(dict.fromkeys(body.nics, body.rounds))
        also_warm = Counter(dict.fromkeys(body.nics, body.rounds + 1))
        if rounds != wanted or Counter(entry.data["device"] for entry in exchanges) != also_warm:
            return single(Outcome.ERROR, "the comparison did not come to its end", evidence.index)
        findings = [judge_exchange(evidence, entry.data, entry.ref) for entry in exchanges]
        others = nobody_faulted(evidence)
        if others.verdict is not WitnessVerdict.CONFIRMS:
            findings.append(Finding(outcome=Outcome.FAIL, text=others.evidence, step=evidence.index, refs=others.refs))
        charts = []
        by_nic = {name: medians(measured, name) for name in body.nics}
        for key, (title, unit, better) in _CHARTS.items():
            bars = tuple(
                Bar(label=name, value=by_nic[name][key][0], samples=by_nic[name][key][1]) for name in body.nics
            )
            charts.append(Chart(step=evidence.index, title=title, unit=unit, better=better, bars=bars))
        return Judgement(findings=tuple(findings), witnesses=(others,), charts=tuple(charts))
