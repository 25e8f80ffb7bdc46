"""Judging an interrupt message under Linux, on evidence made for each case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness.conformance import Behaviour, Expected
from harness.evidence import Entry
from harness.interruption import judge_message
from harness.judgement import Judgement
from harness.testimony import hear
from harness.verdict import Conformance, Outcome, WitnessVerdict
from tests.judge.recording import Recording

INDEX, ABSENT, SOURCE_ID = 0x1A, 0x22, 0x26
ADDRESS = 0xFEE00018 | INDEX << 5
ROGUE, NOBODY = ("01:00.0", 0x0100), ("ff:1f.7", 0xFFFF)

LANDED = Expected(spec=Behaviour("landed"))
REFUSED = Expected(spec=Behaviour("blocked", (ABSENT,)))
MISBLAMED = Expected(
    spec=Behaviour("blocked", (ABSENT,)), qemu=Behaviour("blocked", (ABSENT,), nobody=True), known=True, why="no ID"
)
LET_THROUGH = Expected(spec=Behaviour("blocked", (SOURCE_ID,)), qemu=Behaviour("landed"), known=True, why="no ID")


@dataclass
class Told:
    """What each witness tells of one message; a refusal is source, reason and index."""

    by: str = "msi"
    came: int = 0
    attack: bool = True
    source_id: str = "01:00.0"
    announced: list[dict[str, Any]] = field(default_factory=list)
    logged: list[tuple[tuple[str, int], int, int]] = field(default_factory=list)
    shown: list[tuple[tuple[str, int], int, int]] = field(default_factory=list)
    traced: list[tuple[tuple[str, int], int, int]] = field(default_factory=list)
    dma_fault: bool = False

    def judged(self, expected: Expected) -> Judgement:
        recording = Recording()
        recording.add("runner", "device", None, name="rogue", source_id="01:00.0")
        recording.begin(0)
        for told in self.announced:
            control = {"purpose": "control"} if told.get("purpose") == "attack" and not self.attack else {}
            recording.add("agent", "dma" if self.by == "dma" else "msi", 0, **{**told, **control})
        for refusal in self.logged:
            recording.log(_line(*refusal), 0)
        for number, refusal in enumerate(self.shown):
            recording.add("console", "line", 0, number=number, text=f"[    1.0] {_line(*refusal)}")
        for (shown, source), reason, index in self.traced:
            text = f"index 0 high {reason << 32 | source:#x} low {index << 48:#x}"
            recording.add("trace", "recorded", 0, source_id=shown, reason=reason, text=text)
        if self.dma_fault:
            recording.add(
                "trace", "fault", 0, source_id="01:00.0", access="write", reason=5, first=0x1000, last=0x1000, count=1
            )
        recording.add(
            "observation", "msi", 0, device="rogue", model="edu", function="0000:01:00.0", source_id=self.source_id,
            by=self.by, attack=self.attack, address=ADDRESS, data=0, index=INDEX, before=3, after=3 + self.came,
            recipe="as told", fault_processing_disabled=False,
        )  # fmt: skip
        recording.end(0)
        entries = [Entry(**entry, line=number) for number, entry in enumerate(recording.entries, start=1)]
        return judge_message(hear(entries).steps[0], expected)


def _line(source: tuple[str, int], reason: int, index: int) -> str:
    return f"DMAR: [INTR-REMAP] Request device [{source[0]}] fault index {index:#x} [fault reason {reason:#04x}] Text"


def announced(by: str = "msi", **changes: Any) -> dict[str, Any]:
    """The announcement of one message."""
    told: dict[str, Any] = {"bdf": "0000:01:00.0", "purpose": "attack"}
    if by == "dma":
        told |= {"address": ADDRESS, "length": 4, "direction": "to-memory"}
    return told | changes


def delivered(by: str = "msi", **changes: Any) -> Told:
    return Told(by=by, came=1, announced=[announced(by)], **changes)


def refused(by: str = "msi", source=ROGUE, reason: int = ABSENT) -> Told:
    refusal = (source, reason, INDEX)
    return Told(by=by, announced=[announced(by)], logged=[refusal], shown=[refusal], traced=[refusal])


def test_a_message_that_must_come_and_came_passes_and_is_no_fault() -> None:
    judged = delivered(attack=False).judged(LANDED)
    assert (judged.outcome, judged.landed, judged.provoked) == (Outcome.PASS, True, ())
    assert all(witness.verdict is WitnessVerdict.CONFIRMS for witness in judged.witnesses)


@pytest.mark.parametrize("by", ["msi", "dma"])
def test_a_refused_message_passes_and_is_told_for_the_atlas(by) -> None:
    judged = refused(by).judged(REFUSED)
    assert (judged.outcome, judged.landed) == (Outcome.PASS, False)
    (fault,) = judged.provoked
    assert (fault.seen, fault.conformance) == ("ir-entry-not-present", Conformance.AS_SPEC)
    assert fault.kernel_line == _line(ROGUE, ABSENT, INDEX)
    assert set(fault.witnesses) == {"announcement", "guest-log", "console", "host-trace", "count", "others"}


@pytest.mark.parametrize(
    ("told", "expected"), [(refused("dma", NOBODY), MISBLAMED), (delivered("dma"), LET_THROUGH)], ids=["blame", "lands"]
)
def test_a_known_deviation_passes_with_its_cause(told, expected) -> None:
    judged = told.judged(expected)
    assert judged.outcome is Outcome.PASS
    assert (judged.provoked[0].conformance, judged.provoked[0].why) == (Conformance.KNOWN_DEVIATION, "no ID")
    unknown = Expected(spec=expected.spec, qemu=expected.qemu, known=False, why=expected.why)
    judged = told.judged(unknown)
    assert judged.outcome is Outcome.FAIL
    assert judged.provoked[0].conformance is Conformance.NEW_DEVIATION


def _other(**changes: Any) -> Callable[[Told], None]:
    def change(told: Told) -> None:
        for name, value in changes.items():
            setattr(told, name, value)

    return change


def _all(*refusals: tuple[tuple[str, int], int, int]) -> Callable[[Told], None]:
    """Let log, console and trace tell these."""
    return _other(logged=[*refusals], shown=[*refusals], traced=[*refusals])


AGAIN = (ROGUE, ABSENT, INDEX)
ELSEWHERE = (ROGUE, ABSENT, INDEX + 1)
STRANGER = (("02:00.0", 0x0200), ABSENT, INDEX)
SPOILED: dict[str, tuple[Callable[[Told], None], Outcome]] = {
    "nobody announced it": (_other(announced=[]), Outcome.ERROR),
    "another device announced it": (_other(announced=[announced(bdf="0000:02:00.0")]), Outcome.ERROR),
    "it was announced twice": (_other(announced=[announced(), announced()]), Outcome.ERROR),
    "it was only staged": (_other(announced=[announced(purpose="staging")]), Outcome.ERROR),
    "the device is another": (_other(source_id="02:00.0"), Outcome.ERROR),
    "the log is silent": (_other(logged=[], shown=[]), Outcome.ERROR),
    "the trace is silent": (_other(traced=[]), Outcome.ERROR),
    "nobody reported it": (_other(logged=[], shown=[], traced=[]), Outcome.ERROR),
    "the console is silent": (_other(shown=[]), Outcome.ERROR),
    "the console shows another reason": (_other(shown=[(ROGUE, SOURCE_ID, INDEX)]), Outcome.ERROR),
    "the trace tells another reason": (_other(traced=[(ROGUE, SOURCE_ID, INDEX)]), Outcome.ERROR),
    "the trace blames another": (_other(traced=[STRANGER]), Outcome.ERROR),
    "all tell another reason": (
        _all((ROGUE, 0x24, INDEX)),
        Outcome.FAIL,
    ),
    "all blame another": (_all(STRANGER), Outcome.FAIL),
    "all blame nobody": (
        _all((NOBODY, ABSENT, INDEX)),
        Outcome.FAIL,
    ),
    "all tell another index": (_all(ELSEWHERE), Outcome.FAIL),
    "it was refused twice": (_all(AGAIN, AGAIN), Outcome.FAIL),
    "another was refused too": (_other(traced=[AGAIN, ELSEWHERE]), Outcome.FAIL),
    "a DMA was refused too": (_other(dma_fault=True), Outcome.FAIL),
    "it came all the same": (_other(came=1), Outcome.ERROR),
    "it came and nobody reported it": (_other(came=1, logged=[], shown=[], traced=[]), Outcome.FAIL),
    "two came": (_other(came=2, logged=[], shown=[], traced=[]), Outcome.FAIL),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_spoiled_refusal_never_passes(what) -> None:
    told = refused()
    spoil, expected = SPOILED[what]
    spoil(told)
    assert told.judged(REFUSED).outcome is expected


@pytest.mark.parametrize(
    "changes", [{"address": ADDRESS + 32}, {"length": 8}, {"direction": "from-memory"}], ids=["place", "length", "way"]
)
def test_another_dma_than_that_of_the_message_does_not_announce_it(changes) -> None:
    told = refused("dma")
    told.announced = [announced("dma", **changes)]
    assert told.judged(REFUSED).outcome is Outcome.ERROR


def test_a_message_that_must_come_and_was_refused_fails() -> None:
    assert refused().judged(LANDED).outcome is Outcome.FAIL


def test_a_message_that_must_come_and_is_nowhere_is_an_error() -> None:
    told = delivered()
    told.came = 0
    assert told.judged(LANDED).outcome is Outcome.ERROR
