"""The proof of how the interrupts of a NIC in a nested guest are delivered: pure functions over a `vectors` step.

A vector's message goes from the NIC through the unit to the platform's kernel, which hands it on to the nested guest's.
Its witnesses are `guest-count` and `count` (/proc/interrupts there and here), `chip` (the interrupt chips that both
name), `register`, `message` (the NIC's own MSI-X table), `entry` (the interrupt remapping entries that it names) and
`host-trace`, all but the first three as `harness.delivery` has them, for each vector that was used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.delivery import Delivery, Remapping
from harness.evidence import Entry
from harness.judgement import Judgement, StepEvidence, nobody_faulted, single
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.vtd.registers import ExtendedCapability

_CONFIRMS, _DENIES, _MISSING = WitnessVerdict.CONFIRMS, WitnessVerdict.DENIES, WitnessVerdict.MISSING

#: The platform's handler of a vector that VFIO hands on (vfio_msi_set_vector_signal in Linux' vfio_pci_intrs.c).
_HANDED = re.compile(r"vfio-msix?\[(?P<number>\d+)\]\(")

#: A NIC that sends and receives uses a vector for each.
_WAYS = 2


@dataclass(frozen=True, slots=True)
class VectorCount:
    """By how much the interrupts of one vector rose: in the nested guest, in the platform, and in QEMU's trace."""

    number: int
    guest: int
    platform: int
    traced: int


def judge_vectors(evidence: StepEvidence, remapping: Remapping, summary: str) -> Judgement:
    """Hold each vector that rose to `remapping`; an ERROR where a witness is missing."""
    seen = evidence.observation("vectors")
    if seen is None:
        return single(Outcome.ERROR, "the interrupts were never looked at", evidence.index)
    vectors = _Vectors(evidence, seen, remapping)
    if (problem := vectors.unreadable()) is not None:
        return single(Outcome.ERROR, problem, evidence.index, seen.ref)
    witnesses = (*vectors.witnesses(), nobody_faulted(evidence))
    missing = [witness for witness in witnesses if witness.verdict is _MISSING]
    denying = [witness for witness in witnesses if witness.verdict is _DENIES]
    outcome = Outcome.ERROR if missing else Outcome.FAIL if denying else Outcome.PASS
    told = "; ".join(f"{witness.name}: {witness.evidence}" for witness in missing or denying)
    text = f"{summary}: {told or 'all witnesses agree'}"
    finding = Finding(outcome=outcome, text=text, step=evidence.index, refs=(seen.ref,))
    return Judgement(findings=(finding,), witnesses=witnesses)


def handed_line(lines: Sequence[Mapping[str, Any]], number: int) -> Mapping[str, Any] | None:
    """Find the platform's line of the vector `number`, which VFIO hands on; None if there is not just one."""
    mine = [line for line in lines if (found := _HANDED.match(line["name"])) and int(found["number"]) == number]
    return mine[0] if len(mine) == 1 else None


@dataclass(frozen=True, slots=True)
class _Vectors:
    """All vectors of the step's NIC; `seen` is the observation."""

    evidence: StepEvidence
    seen: Entry
    remapping: Remapping

    def unreadable(self) -> str | None:
        """Tell why nothing is known: no vector, or not one line of /proc/interrupts for each, there and here."""
        about = self.seen.data
        numbers = [vector["number"] for vector in about["vectors"]]
        if not numbers:
            return "the NIC's own table has no vector that is not masked"
        for when in ("before", "after"):
            if any(handed_line(about[f"platform_{when}"], number) is None for number in numbers):
                return (
                    f"the platform's /proc/interrupts has not one line of VFIO for each of the {len(numbers)} vectors"
                )
            if len(about[f"guest_{when}"]) != len(numbers):
                lines = len(about[f"guest_{when}"])
                return f"the guest's /proc/interrupts has {lines} lines for {len(numbers)} vectors"
        for where in ("platform", "guest"):
            before, after = (
                [(line["irq"], line["name"]) for line in about[f"{where}_{when}"]] for when in ("before", "after")
            )
            if before != after:
                return f"the {where}'s /proc/interrupts has other lines afterwards than before"
        return None

    def witnesses(self) -> tuple[Witness, ...]:
        """Let each say what it saw; those of the unit speak of each vector that was used."""
        used = [count for count in self._counts() if count.platform]
        return (
            self._guest_count(used),
            self._count(used),
            self._chip(),
            self._delivery(0, 0).register(),
            self._of_each("message", used, Delivery.message),
            self._of_each("entry", used, Delivery.entry),
            self._of_each("host-trace", used, Delivery.trace),
        )

    def _counts(self) -> list[VectorCount]:
        about = self.seen.data
        found = []
        for place, vector in enumerate(about["vectors"]):
            here = [handed_line(about[f"platform_{when}"], vector["number"]) for when in ("after", "before")]
            # A guest's interrupts have ascending numbers in the order of its vectors.
            there = [
                sorted(about[f"guest_{when}"], key=lambda line: line["irq"])[place] for when in ("after", "before")
            ]
            traced = len(self._delivery(place, 0).traced)
            found.append(VectorCount(vector["number"], _rise(there), _rise(here), traced))
        return found

    def _delivery(self, place: int, messages: int) -> Delivery:
        about = {**self.seen.data, **self.seen.data["vectors"][place]}
        return Delivery(
            evidence=self.evidence, about=about, ref=self.seen.ref, messages=messages, remapping=self.remapping
        )

    def _guest_count(self, used: Sequence[VectorCount]) -> Witness:
        came = [count for count in used if count.guest]
        told = ", ".join(f"vector {count.number} by {count.guest}" for count in came) or "nothing"
        strays = [count for count in self._counts() if count.guest > count.platform]
        text = f"in the guest rose {told}" + (", more than in the platform" if strays else "")
        return self._says("guest-count", text, right=len(came) >= _WAYS and not strays)

    def _count(self, used: Sequence[VectorCount]) -> Witness:
        """Each interrupt here is one that the unit passed on; two that come at once may be counted as one."""
        traces = self._remapped or ExtendedCapability(self.seen.data["ecap"]).interrupt_remapping
        strays = [count for count in used if traces and count.platform > count.traced]
        told = ", ".join(f"vector {count.number} by {count.platform}" for count in used) or "nothing"
        text = f"in the platform rose {told}" + (", more than QEMU traced" if strays else "")
        return self._says("count", text, right=len(used) >= _WAYS and not strays)

    def _chip(self) -> Witness:
        about = self.seen.data
        lines = (*about["platform_before"], *about["platform_after"])
        here = {str(line["chip"]) for line in lines if _HANDED.match(line["name"])}
        there = {str(line["chip"]) for line in (*about["guest_before"], *about["guest_after"])}
        right = all(chip.startswith("IR-") == self._remapped for chip in here)
        # The guest has no unit of its own, so nothing is remapped there.
        right &= not any(chip.startswith("IR-") for chip in there)
        text = f"the platform's chip is {_listed(here)}, the guest's {_listed(there)}"
        return self._says("chip", text, right=right and bool(here) and bool(there))

    def _of_each(self, name: str, used: Sequence[VectorCount], ask: Callable[[Delivery], Witness]) -> Witness:
        if not used:
            return self._witness(name, _MISSING, "no vector was used")
        places = {vector["number"]: place for place, vector in enumerate(self.seen.data["vectors"])}
        told = [ask(self._delivery(places[count.number], count.traced)) for count in used]
        wrong = [witness for witness in told if witness.verdict is not _CONFIRMS]
        shown = (wrong or told)[0]
        more = "" if wrong or len(told) == 1 else f", and {len(told) - 1} more alike"
        return self._witness(name, shown.verdict, f"{shown.evidence}{more}", shown.refs)

    @property
    def _remapped(self) -> bool:
        return self.remapping != "off"

    def _says(self, name: str, text: str, *, right: bool) -> Witness:
        return self._witness(name, _CONFIRMS if right else _DENIES, text)

    def _witness(self, name: str, verdict: WitnessVerdict, text: str, refs: tuple[str, ...] = ()) -> Witness:
        return Witness(
            name=name, step=self.evidence.index, verdict=verdict, evidence=text, refs=refs or (self.seen.ref,)
        )


def _rise(lines: Sequence[Mapping[str, Any] | None]) -> int:
    after, before = lines
    return int(after["count"]) - int(before["count"]) if after and before else 0


def _listed(chips: set[str]) -> str:
    return ", ".join(sorted(chips)) or "not told"
