"""stale: have a NIC read what its kernel driver has just unmapped, and prove whether the unit still translated it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.evidence import Entry
from harness.invalidations import Range, invalidations, watched
from harness.judgement import Judgement, StepEvidence, nobody_faulted, single
from harness.leakage import leaks
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session
from harness.stale_access import StaleReader
from harness.traffic import Load, exchange, judge_exchange, unlike
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.vtd.faults import REASON_BY_NAME
from harness.vtd.source_id import SourceId
from harness.witnesses.host_trace import DESCRIPTOR_TAKEN, TRANSLATED

_PAGE = 0x1000

#: Frames that bring the NIC up.
_LOAD = Load(4, 600)
_READ_REFUSED = REASON_BY_NAME["pte-read"].code


class StaleBody(Section):
    """Which NIC, and whether there must be a window."""

    device: Name = Field(description="An e1000e under its kernel driver.")
    window: Literal["open", "closed"] = Field(
        description="`open` (a lazy domain): the NIC still reaches what was unmapped, until the unit is told of all "
        "together. `closed` (a strict one): once the tables no longer map it, the unit has been told of just that."
    )


class Stale(Step, keyword="stale"):
    """Have a NIC read a buffer that its driver has unmapped, from outside and while the machine stands still.

    The driver sends a frame, unmaps its buffer and goes on. With `window: open` the machine is stopped between that and
    the invalidation: the tables no longer map the address, yet the NIC reads it through the unit's cache. In both cases
    the NIC tries once the unit has been told, and must be refused and reported. A mapped buffer is read each time as
    the positive control. How long Linux leaves the window open (10 ms), it does not measure.
    """

    stale: StaleBody

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"'{self.stale.device}' reads what its driver has unmapped; the window is {self.stale.window}"

    def references(self) -> list[Reference]:
        """Name the NIC."""
        return [Reference.use("device", self.stale.device, "stale", "device")]

    def needs_models(self) -> list[tuple[str, tuple[str, ...]]]:
        """Its rings are known."""
        return [(self.stale.device, ("e1000e",))]

    def needs_kernel_driver(self) -> tuple[str, ...]:
        """The kernel's driver maps and unmaps."""
        return (self.stale.device,)

    @property
    def acts_from_outside(self) -> bool:
        """It lays descriptors and moves the ring's tail."""
        return True

    def run(self, session: Session) -> None:
        """Bring the NIC up with a few frames, then catch a buffer that is unmapped."""
        device = session.device(self.stale.device)
        exchange(session, device, _LOAD)
        with session.watching(DESCRIPTOR_TAKEN, TRANSLATED):
            StaleReader(session, device).catch(window=self.stale.window == "open")

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Weigh the witnesses of each attempt."""
        surprise = evidence.observation("surprise")
        if surprise is not None:
            text = f"the window is {surprise.data['window']}: told {surprise.data['told']} times of what was unmapped"
            return single(Outcome.FAIL, text, evidence.index, surprise.ref)
        found = evidence.observations("stale")
        wanted = ["before", "after"] if self.stale.window == "open" else ["after"]
        attempts = {str(entry.data["when"]): entry for entry in found[-len(wanted) :]}
        if list(attempts) != wanted or len({entry.data["asked"] for entry in attempts.values()}) != 1:
            return single(Outcome.ERROR, "the buffer was not read as often as it must be", evidence.index)
        if not watched(evidence):
            return single(Outcome.ERROR, "QEMU's trace of invalidations was not switched on", evidence.index)
        for entry in attempts.values():
            problem = self._untrue(evidence, entry)
            if problem is not None:
                return single(Outcome.ERROR, problem, evidence.index, entry.ref)
        findings, witnesses = [], []
        for when, entry in attempts.items():
            told = _witnesses(evidence, entry, when, strict=self.stale.window == "closed")
            witnesses += told
            denying = [witness for witness in told if witness.verdict is not WitnessVerdict.CONFIRMS]
            # Without control, or with tables that map the address, nothing is known of a stale translation.
            unknown = any(witness.name in ("control", "tables", "invalidation") for witness in denying)
            outcome = Outcome.ERROR if unknown else Outcome.FAIL if denying else Outcome.PASS
            text = "; ".join(witness.evidence for witness in denying or told)
            findings.append(
                Finding(
                    outcome=outcome, text=f"{when} the invalidation: {text}", step=evidence.index, refs=(entry.ref,)
                )
            )
        findings += [judge_exchange(evidence, entry.data, entry.ref) for entry in evidence.observations("traffic")]
        source = SourceId.parse(str(found[-1].data["source_id"]))
        others = nobody_faulted(evidence, but=source)
        if others.verdict is not WitnessVerdict.CONFIRMS:
            findings.append(Finding(outcome=Outcome.FAIL, text=others.evidence, step=evidence.index, refs=others.refs))
        return Judgement(findings=tuple(findings), witnesses=(*witnesses, others))

    def _untrue(self, evidence: StepEvidence, entry: Entry) -> str | None:
        """Tell why an attempt is not one of this NIC, after it was up, in the time in which it was recorded."""
        about = entry.data
        source = SourceId.parse(str(about["source_id"]))
        if evidence.devices.get(self.stale.device) != source:
            return f"'{self.stale.device}' is not {source}, as the step says"
        wrong = unlike(evidence, self.stale.device, _LOAD)
        if wrong is not None:
            return wrong
        sent = [began for began in _asked_to_send(evidence) if about["asked"] <= began <= about["began"]]
        if len(sent) != 1 or not about["began"] <= about["ended"] <= entry.t:
            return "the times of the attempt are not those of the frame that was sent for it"
        return None


def _asked_to_send(evidence: StepEvidence) -> list[float]:
    """Give when the guest was asked to send: each call says when it was over, and how long it took."""
    return [
        entry.t - entry.data["duration_s"]
        for entry in evidence.entries
        if (entry.source, entry.kind) == ("agent", "call") and entry.data["op"] == "traffic" and "ok" in entry.data
    ]


def _witnesses(evidence: StepEvidence, entry: Entry, when: str, *, strict: bool) -> list[Witness]:
    """Let control, tables, invalidations, bytes, QEMU's trace and the guest's log each say what they saw."""
    about, landed = entry.data, when == "before"
    source, page = SourceId.parse(str(about["source_id"])), Range(about["iova"] & -_PAGE, _PAGE)
    frames = set(about["frames"])
    told = [
        one
        for one in invalidations(evidence)
        if about["asked"] <= one.t <= about["began"] and one.of_domain(about["domain_id"]) and one.touches(page)
    ]
    traced = [
        seen.ref
        for seen in evidence.entries
        if (seen.source, seen.kind) == ("trace", "fault")
        and about["began"] <= seen.t <= about["ended"]
        and (seen.data["source_id"], seen.data["reason"]) == (str(source), _READ_REFUSED)
        and page.first <= seen.data["first"] < page.end
    ]
    logged = [
        fault.ref
        for fault in evidence.logged
        if (fault.source, fault.reason) == (source, _READ_REFUSED) and page.first <= fault.first < page.end
    ]
    came = about["secret"] in frames
    leaked = not landed and any(leaks(bytes.fromhex(frame), bytes.fromhex(about["secret"])) for frame in frames)

    def witness(name: str, text: str, *, right: bool, refs: tuple[str, ...] = ()) -> Witness:
        verdict = WitnessVerdict.CONFIRMS if right else WitnessVerdict.DENIES
        return Witness(name=name, step=evidence.index, verdict=verdict, evidence=text, refs=refs or (entry.ref,))

    mapped = "is not mapped" if about["reason"] is not None else "is mapped"
    return [
        witness("control", f"{len(frames)} frames came", right=about["control"] in frames),
        witness("tables", f"{about['iova']:#x} {mapped} in the tables", right=about["reason"] is not None),
        witness(
            "invalidation",
            f"the unit was told {len(told)} times to forget it since its frame was sent",
            right=any(one.selective for one in told) if strict else bool(told) != landed,
            refs=tuple(one.ref for one in told[:3]),
        ),
        witness(
            "bytes",
            f"what stood there {'came out of' if came else 'did not reach'} the NIC",
            right=came == landed and not leaked,
        ),
        witness(
            "host-trace", f"QEMU traced {len(traced)} refusals of it", right=bool(traced) != landed, refs=(*traced[:3],)
        ),
        # The log has no exact times, and one step tries the address at most twice: the refusal is that of the last try.
        witness(
            "guest-log",
            f"the kernel logged {len(logged)} refusals of it",
            right=landed or bool(logged),
            refs=(*logged[:3],),
        ),
    ]
