"""The proof that one function's reset does not disturb another: pure functions over the evidence of a step.

The reset must have reached the function (QEMU traced the write that asks for it and the reset, the function's queue is
off), and no other; the other's frames, before, during and after it, must all have come back as they were sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.evidence import Entry
from harness.judgement import Judgement, StepEvidence, nobody_faulted, single
from harness.sharing.queues import ENABLED
from harness.traffic import path_taken
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.vtd.source_id import SourceId
from harness.witnesses.host_trace import CONFIG_WRITTEN, FUNCTION_RESET

_CONFIRMS, _DENIES, _MISSING = WitnessVerdict.CONFIRMS, WitnessVerdict.DENIES, WitnessVerdict.MISSING

#: In the device control register: Initiate Function Level Reset (PCI Express Base Specification 5.0, 7.5.3.4).
INITIATE_RESET = 1 << 15


@dataclass(frozen=True, slots=True)
class _Echo:
    """One frame, as `Stream` has it."""

    number: int
    sent: float
    came: float | None
    payload: str
    back: str | None


def judge_reset(evidence: StepEvidence, device: str, beside: str, frames: int) -> Judgement:
    """Judge that `device` was reset and `beside` not disturbed; `frames` of its are demanded before and after."""
    reset, echoes = evidence.observation("reset"), evidence.observation("echoes")
    if reset is None or echoes is None or (reset.data["device"], echoes.data["device"]) != (device, beside):
        text = f"the reset of '{device}' beside '{beside}' did not come to its end"
        return single(Outcome.ERROR, text, evidence.index)
    sent = [_Echo(*frame) for frame in echoes.data["frames"]]
    moment, traced = _traced(evidence, reset.data)
    cleared, kept = _queue_of(evidence, reset, device), _queue_kept(evidence, reset, beside)
    came = _came_back(evidence, sent, echoes)
    through = path_taken(evidence, {str(echoes.data["source_id"])}, 2 * len(sent), translated=True)
    others = nobody_faulted(evidence)
    witnesses = (traced, cleared, kept, came, through, others)
    findings = [_as_finding(evidence, witness) for witness in witnesses if witness.verdict is not _CONFIRMS]
    untimely = None if moment is None else _untimely(reset.data, sent, moment, frames)
    if untimely is not None:
        findings.append(Finding(outcome=Outcome.ERROR, text=untimely, step=evidence.index, refs=(echoes.ref,)))
    if not findings:
        longest = max(echo.came - echo.sent for echo in sent if echo.came is not None)
        text = (
            f"'{device}' was reset, and {len(sent)} frames over '{beside}' before, during and after that came back "
            f"as they were sent, the slowest in {1e3 * longest:.0f} ms"
        )
        findings.append(Finding(outcome=Outcome.PASS, text=text, step=evidence.index, refs=(reset.ref, echoes.ref)))
    return Judgement(findings=tuple(findings), witnesses=witnesses)


def _as_finding(evidence: StepEvidence, witness: Witness) -> Finding:
    outcome = Outcome.FAIL if witness.verdict is _DENIES else Outcome.ERROR
    return Finding(outcome=outcome, text=witness.evidence, step=evidence.index, refs=witness.refs)


def _traced(evidence: StepEvidence, reset: dict[str, Any]) -> tuple[float | None, Witness]:
    """Witness that QEMU was asked to reset this function and did, and give when; others must not have been reset."""

    def witness(verdict: WitnessVerdict, text: str, *refs: str) -> Witness:
        return Witness(name="reset", step=evidence.index, verdict=verdict, evidence=text, refs=refs)

    name, number, source = reset["device"], reset["number"], SourceId.parse(reset["source_id"])
    trace = [entry for entry in evidence.entries if entry.source == "trace"]
    watched = {event for entry in trace if entry.kind == "watching" for event in entry.data["events"]}
    if not {CONFIG_WRITTEN, FUNCTION_RESET} <= watched:
        return None, witness(_MISSING, "QEMU's trace of resets was not switched on")
    asked = [entry for entry in trace if entry.kind == "config-write" and _asks_for_reset(entry, reset["control"])]
    done = [entry for entry in trace if entry.kind == "function-reset"]
    strangers = [
        *(entry for entry in asked if SourceId.parse(entry.data["source_id"]) != source),
        *(entry for entry in done if entry.data["number"] != number),
    ]
    if strangers:
        text = f"another function than '{name}' was reset too"
        return None, witness(_DENIES, text, *(entry.ref for entry in strangers[:3]))
    if not asked:
        return None, witness(_MISSING, f"QEMU traced no write that asks for a reset of '{name}'")
    followed = [entry for entry in done if entry.line > asked[0].line]
    if not followed:
        return None, witness(_DENIES, f"a reset of '{name}' was asked for, and QEMU did none", asked[0].ref)
    text = f"QEMU traced the write that asks for a reset of '{name}' ({source}), and that of VF{number}"
    return asked[0].t, witness(_CONFIRMS, text, asked[0].ref, followed[0].ref)


def _asks_for_reset(entry: Entry, control: int) -> bool:
    return bool(entry.data["offset"] == control and entry.data["value"] & INITIATE_RESET)


def _queue_of(evidence: StepEvidence, reset: Entry, name: str) -> Witness:
    """Witness that the queue of the function which was reset was on before, and is off."""
    states = _states(evidence, reset, name)
    if states is None or not states[0]:
        text = f"the receive queue of '{name}' was not {'read' if states is None else 'on'} before its reset"
        return Witness(name="queue", step=evidence.index, verdict=_MISSING, evidence=text, refs=(reset.ref,))
    text = f"the receive queue of '{name}', on before, is {'still on' if states[1] else 'off'} after its reset"
    verdict = _DENIES if states[1] else _CONFIRMS
    return Witness(name="queue", step=evidence.index, verdict=verdict, evidence=text, refs=(reset.ref,))


def _queue_kept(evidence: StepEvidence, reset: Entry, name: str) -> Witness:
    """Witness that the queue of the function which was not reset stays on."""
    states = _states(evidence, reset, name)
    verdict, text = _CONFIRMS, "stays on"
    if states is None:
        verdict, text = _MISSING, "was not read before and after"
    elif states != (True, True):
        verdict, text = _DENIES, f"is off {'after' if states[0] else 'before'} the reset of another"
    text = f"the receive queue of '{name}' {text}"
    return Witness(name="other-queue", step=evidence.index, verdict=verdict, evidence=text, refs=(reset.ref,))


def _states(evidence: StepEvidence, reset: Entry, name: str) -> tuple[bool, bool] | None:
    """Whether the queue of a function was on before and after; None if the registers were not so read from outside."""
    place, *values = reset.data["registers"].get(name, [None])
    read = [entry.data["data"] for entry in evidence.entries if entry.source == "memory" and entry.data["gpa"] == place]
    if len(values) != 2 or read != values:
        return None
    before, after = (bool(int.from_bytes(bytes.fromhex(value), "little") & ENABLED) for value in values)
    return before, after


def _came_back(evidence: StepEvidence, sent: list[_Echo], echoes: Entry) -> Witness:
    """Witness that each frame came back with the bytes that it was sent with."""
    lost = [echo.number for echo in sent if echo.came is None]
    changed = [echo.number for echo in sent if echo.came is not None and echo.back != echo.payload]
    verdict, text = _CONFIRMS, f"{len(sent)} frames came back as they were sent"
    if not sent:
        verdict, text = _MISSING, "not one frame was sent"
    elif lost:
        verdict, text = _DENIES, f"{len(lost)} of {len(sent)} frames did not come back, the first is {lost[0]}"
    elif changed:
        verdict, text = _DENIES, f"{len(changed)} of {len(sent)} frames came back changed, the first is {changed[0]}"
    elif not echoes.data["guest"]["ended"]:
        verdict, text = _MISSING, "the guest ended its part before the frames did"
    return Witness(name="frames", step=evidence.index, verdict=verdict, evidence=text, refs=(echoes.ref,))


def _untimely(reset: dict[str, Any], sent: list[_Echo], moment: float, frames: int) -> str | None:
    """Tell where too few frames were sent before, during or after the reset, which happened at `moment`."""
    asked, answered = reset["asked"], reset["answered"]
    if not asked <= moment <= answered:
        return "the reset that QEMU traced is not the one that was asked for: it was at another time"
    back = [(echo.sent, echo.came) for echo in sent if echo.came is not None]
    before = sum(came < moment for _, came in back)
    after = sum(begun > moment for begun, _ in back)
    during = sum(begun >= asked and came <= answered for begun, came in back)
    if before < frames or after < frames or not during:
        return f"of the frames that came back {before} did before the reset, {during} during it, {after} after it"
    return None
