"""Outcomes, witnesses and findings: the data of a judgement, without any judging."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """What is known at the end. FAIL is a statement about the system under test; ERROR is the absence of one."""

    PASS = "pass"
    FAIL = "fail"
    ERROR = "error"
    SKIP = "skip"


#: Worst last. ERROR outranks FAIL: where evidence is missing or contradictory, a failure is not proven either. That
#: is so within a step; what is missing after a failed step does not take its failure back (harness.standing).
SEVERITY = (Outcome.SKIP, Outcome.PASS, Outcome.FAIL, Outcome.ERROR)


class WitnessVerdict(StrEnum):
    """What one witness says about what the step expected."""

    CONFIRMS = "confirms"
    DENIES = "denies"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """One witness of one step.

    `name` is the witness (`announcement`, `guest-log`, `console`, `host-trace`, `bytes`, `others`, `translation`,
    `register`, `sysfs`), `evidence` says in a sentence what it saw, `refs` are journal positions (`journal.jsonl:17`)
    or files of the variant's directory.
    """

    name: str
    step: int
    verdict: WitnessVerdict
    evidence: str
    refs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One judged statement. `step` is its index in the plan, None for the run as a whole."""

    outcome: Outcome
    text: str
    step: int | None = None
    refs: tuple[str, ...] = ()


class CounterProof(StrEnum):
    """What became of a scenario once a protection was taken away.

    RED: every DMA that must be blocked reached its target, so the scenario can tell protection from its absence.
    VACUOUS: one of them did not, so its block proves nothing. NOT_RUN: it was not tried, or did not get that far.
    """

    RED = "red"
    VACUOUS = "vacuous"
    NOT_RUN = "not-run"


class Conformance(StrEnum):
    """How what was seen relates to the specification, where an expectation tells both.

    A NEW_DEVIATION is neither what the specification says nor what this implementation is known to do instead.
    """

    AS_SPEC = "as-spec"
    KNOWN_DEVIATION = "known-deviation"
    NEW_DEVIATION = "new-deviation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provoked:
    """One fault that a step provoked on purpose, as the atlas of faults lists it.

    `table` is what was provoked: `legacy`, `second-stage`, `first-stage`, `interrupt`, `queue` or `register`; `levels`
    the depth of the paging tables (0 where there are none). `recipe` says in the scenario's words what was done. `spec`
    and `seen` are names of fault reasons (or of queue errors): what the specification asks for and what was recorded,
    `landed` where it went through, empty for no report. `kernel_line` is the guest's log line, empty where there is no
    kernel. `witnesses` are those that agree.
    """

    step: int
    table: str
    levels: int
    recipe: str
    source: str
    access: str
    spec: str
    seen: str
    fault_processing_disabled: bool
    conformance: Conformance
    why: str = ""
    kernel_line: str = ""
    witnesses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar of a chart: the median of its `samples`, for which `label` stands."""

    label: str
    value: float
    samples: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What was measured of alike things within one step: a characterisation, which no outcome depends on.

    `unit` is that of all its values, `better` whether `more` or `less` of it is.
    """

    step: int
    title: str
    unit: str
    better: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judgement of one variant.

    `reason` is one sentence, `counter_proofs` goes by the protection taken away, `provoked` are the faults that steps
    provoked on purpose and compared with the specification, `charts` is what steps measured.
    """

    outcome: Outcome
    reason: str
    findings: tuple[Finding, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    counter_proofs: Mapping[str, CounterProof] = field(default_factory=dict)
    provoked: tuple[Provoked, ...] = ()
    charts: tuple[Chart, ...] = ()


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The most severe outcome; of nothing at all it is ERROR, because nothing was proven."""
    return max(outcomes, key=SEVERITY.index, default=Outcome.ERROR)
