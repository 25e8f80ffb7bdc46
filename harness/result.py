"""The result of one variant as other programs read it, and the progress that is told while it comes about.

One `Result` is one entry of `results.json` (docs/results.md); the same object lies alone in the variant's directory as
`result.json`, so that a run that was cut off can still be reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from harness.verdict import CounterProof, Outcome, Witness, WitnessVerdict

#: File name of a variant's own result.
RESULT = "result.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessSummary:
    """What one witness said over all steps of a variant; `evidence` is the sentence of the step that decided it."""

    verdict: WitnessVerdict
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of one variant.

    `id` is `scenario` or `scenario[variant]`, `duration_s` the seconds from start to verdict, counter-proofs included,
    `start` how the machine came up (`cold` or `template`), `evidence` its directory relative to the run's.
    """

    id: str
    scenario: str
    variant: str
    title: str
    tags: tuple[str, ...]
    outcome: Outcome
    reason: str
    duration_s: float
    start: str
    witnesses: Mapping[str, WitnessSummary] = field(default_factory=dict)
    counter_proofs: Mapping[str, CounterProof] = field(default_factory=dict)
    evidence: str

    @property
    def vacuous(self) -> tuple[str, ...]:
        """The protections that could be taken away without the scenario noticing."""
        return tuple(name for name, what in self.counter_proofs.items() if what is CounterProof.VACUOUS)


@dataclass(frozen=True, slots=True)
class Progress:
    """Something to show while a plan runs: `phase` is `booting` or `step 3/6 ...`; `outcome` once it is over."""

    id: str
    phase: str
    outcome: Outcome | None = None


#: Receives progress, in the thread that makes it.
Watcher = Callable[[Progress], None]


def unseen(event: Progress) -> None:
    """Show nothing, for those who show progress of their own."""


#: A witness that denies outranks one that is missing: it has seen something.
_RANK = (WitnessVerdict.CONFIRMS, WitnessVerdict.MISSING, WitnessVerdict.DENIES)


def summarise(witnesses: Iterable[Witness]) -> dict[str, WitnessSummary]:
    """Fold the witnesses of all steps by name, the least favourable one of each name deciding."""
    summary: dict[str, WitnessSummary] = {}
    for witness in witnesses:
        known = summary.get(witness.name)
        if known is None or _RANK.index(witness.verdict) > _RANK.index(known.verdict):
            summary[witness.name] = WitnessSummary(verdict=witness.verdict, evidence=witness.evidence)
    return summary
