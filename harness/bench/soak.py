"""The same scenarios over and over: whether a verdict ever flips, and whether anything is left behind."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import suite
from harness.bench.growth import Growth
from harness.bench.leftovers import Belongings, files, half_made_templates, private_temp, processes
from harness.evidence import RunDirectory, write_json
from harness.plan import Plan
from harness.report.pace import in_words
from harness.report.results import RUN
from harness.report.write import write_reports
from harness.result import Progress, Result, unseen
from harness.runner import HostFacts
from harness.suite import ExitCode
from harness.verdict import Outcome
from harness.workers.messages import Job, Said
from harness.workers.pool import Workers

SOAK = "soak.json"
SCHEMA = 1

#: Seconds between two lines of progress.
_TOLD_EVERY_S = 20.0

#: Gives the results of plans as they come; closing it ends what they run with.
Runs = Callable[[Sequence[Plan]], Generator[Result]]


@dataclass(frozen=True, slots=True)
class Flip:
    """A run whose verdict is not that of the variant's first run; `evidence` is its directory, which is kept."""

    id: str
    first: Mapping[str, Any]
    now: Mapping[str, Any]
    reason: str
    evidence: str


@dataclass(slots=True)
class Tally:
    """What came of all runs so far; evidence that tells nothing new is removed from `run`."""

    run: RunDirectory
    first: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    runs: Counter[str] = field(default_factory=Counter)
    flips: list[Flip] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)

    def take(self, variant: str, result: Result) -> None:
        """Compare `result` with the first of `variant`."""
        verdict = verdict_of(result)
        self.runs[variant] += 1
        self.ended.add(result.evidence)
        known = self.first.setdefault(variant, verdict)
        if known is verdict:
            self.kept.append(result.evidence)
        elif known != verdict:
            self.kept.append(result.evidence)
            self.flips.append(Flip(variant, known, verdict, result.reason, result.evidence))
        else:
            shutil.rmtree(self.run.path / result.evidence)

    @property
    def total(self) -> int:
        """How many have run."""
        return self.runs.total()


def verdict_of(result: Result) -> dict[str, Any]:
    """Give what must be the same in every run of a variant."""
    return {
        "outcome": result.outcome.value,
        "witnesses": {name: witness.verdict.value for name, witness in result.witnesses.items()},
        "counter_proofs": {name: proof.value for name, proof in result.counter_proofs.items()},
    }


def lasting(plans: Sequence[Plan]) -> list[Plan]:
    """Give the plans to soak with: those that start from a template and are not tagged as slow."""
    fit = (plan for plan in plans if plan.start == "template" and plan.skip is None and plan.refused is None)
    return [plan for plan in fit if "slow" not in plan.tags]


def in_rounds(plans: Sequence[Plan], count: int) -> list[tuple[str, Plan]]:
    """Give `count` plans, each variant in turn, with the ids they go by; later rounds have directories of their own."""
    turns = []
    for number in range(count):
        plan, turn = plans[number % len(plans)], number // len(plans)
        named = replace(plan, variant=f"{plan.variant or 'default'}+{turn}") if turn else plan
        turns.append((plan.id, named))
    return turns


def soak(
    run: RunDirectory,
    plans: Sequence[Plan],
    host: HostFacts,
    *,
    count: int,
    jobs: int,
    prove: bool,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Run `count` plans by `jobs` workers and give the contents of `soak.json`, which is written."""
    job = Job(run, host, prove)
    runs = _in_turn(job, note) if jobs == 1 else _spread(job, jobs, note)
    return watched(run, in_rounds(plans, count), runs, cache=host.store.cache, jobs=jobs, note=note)


def watched(
    run: RunDirectory,
    turns: Sequence[tuple[str, Plan]],
    runs: Runs,
    *,
    cache: Path,
    jobs: int,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Have `runs` run all `turns`, compare, and look for what is left; Ctrl-C ends it early and is told."""
    variants = {plan.id: variant for variant, plan in turns}
    tally, growth = Tally(run), Growth(warm_up=max(len(set(variants.values())), len(turns) // 10))
    begun, interrupted = time.monotonic(), False
    belongings: Belongings | None = None
    with private_temp(run.path / "tmp") as temp:
        told = begun
        try:
            with contextlib.closing(runs([plan for _, plan in turns])) as results:
                for result in results:
                    tally.take(variants[result.id], result)
                    growth.sample(tally.total)
                    belongings = belongings or Belongings.now()
                    if time.monotonic() - told > _TOLD_EVERY_S:
                        told = time.monotonic()
                        note(_how_far(tally, len(turns), told - begun))
        except KeyboardInterrupt:
            interrupted = True
        seconds = time.monotonic() - begun
        left = [*processes(str(run.path)), *files(temp, [])]
    shutil.rmtree(temp)
    _remove_unfinished(run, tally)
    left += half_made_templates(cache)
    left += files(run.path, [Path(RUN), *map(Path, tally.kept)])
    left += Belongings.now().beyond(belongings) if belongings else []
    left += growth.excess()
    write_reports(run)
    contents = {
        "schema": SCHEMA,
        "asked": len(turns),
        "ran": tally.total,
        "jobs": jobs,
        "interrupted": interrupted,
        "seconds": round(seconds, 1),
        "per_minute": round(60 * tally.total / seconds, 1),
        "variants": {name: {"runs": ran, **tally.first[name]} for name, ran in sorted(tally.runs.items())},
        "flips": tally.flips,
        "left_behind": left,
        "memory": growth.describe(),
    }
    write_json(run.path / SOAK, contents)
    return contents


def summary(contents: Mapping[str, Any]) -> list[str]:
    """Give the result in lines."""
    memory = contents["memory"]
    lines = [f"flip: {flip.id}: {flip.first} and then {flip.now} ({flip.evidence})" for flip in contents["flips"]]
    lines += [f"left behind: {what}" for what in contents["left_behind"]]
    if "reason" not in memory:
        lines.append(
            f"memory: {memory['after_warm_up_mib']} MiB after the warm-up, {memory['end_mib']} MiB at the end, "
            f"{memory['slope_kib_per_run']} KiB for each run"
        )
    outcomes = Counter(variant["outcome"] for variant in contents["variants"].values())
    told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
    lines.append(
        f"{contents['ran']} of {contents['asked']} runs of {len(contents['variants'])} variants ({told}), "
        f"{contents['per_minute']} a minute: {len(contents['flips'])} flips, {len(contents['left_behind'])} left behind"
    )
    return lines


def exit_code(contents: Mapping[str, Any]) -> ExitCode:
    """Give 1 for a flip or a scenario that fails, 3 for an error or something left, 130 if it was interrupted."""
    outcomes = {variant["outcome"] for variant in contents["variants"].values()}
    if contents["left_behind"] or Outcome.ERROR.value in outcomes:
        return ExitCode.ERROR
    if contents["flips"] or Outcome.FAIL.value in outcomes:
        return ExitCode.FAILED
    if contents["interrupted"]:
        return ExitCode.INTERRUPTED
    return ExitCode.PASSED if contents["ran"] else ExitCode.NOTHING_RAN


def _in_turn(job: Job, note: Callable[[str], None]) -> Runs:
    host = job.host.telling(note)

    def runs(plans: Sequence[Plan]) -> Generator[Result]:
        for plan in plans:
            yield suite.run_one(job.run, plan, host, prove=job.prove, watch=unseen)

    return runs


def _spread(job: Job, jobs: int, note: Callable[[str], None]) -> Runs:
    def watch(worker: int, told: Progress | Said) -> None:
        if isinstance(told, Said):
            note(f"worker {worker}: {told.text}")

    def runs(plans: Sequence[Plan]) -> Generator[Result]:
        with Workers(job, jobs, watch) as workers:
            yield from workers.results(plans)

    return runs


def _remove_unfinished(run: RunDirectory, tally: Tally) -> None:
    """Remove the evidence of what was running when Ctrl-C came, and directories that hold nothing any more."""
    for directory in list(run.variants()):
        if str(directory.path.relative_to(run.path)) not in tally.ended:
            shutil.rmtree(directory.path)
    for path in list(run.path.iterdir()):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _how_far(tally: Tally, count: int, seconds: float) -> str:
    left = in_words(seconds / tally.total * (count - tally.total))
    rate = 60 * tally.total / seconds
    return f"{tally.total}/{count}, {rate:.1f} a minute, {left} left, {len(tally.flips)} flips"
