"""How far a run is: its done and running variants against what they took in earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import HarnessError
from harness.evidence import RunDirectory
from harness.report.results import RESULTS, read_results, run_facts

#: A variant is slow when it takes this many times what it took before, and these seconds more.
_SLOW_FACTOR, _SLOW_S = 2.0, 3.0

#: How many runs are looked at for what a variant took.
_RUNS = 8


def usual_durations(runs: Path, starts: Mapping[str, str], *, prove: bool) -> dict[str, float]:
    """Give the seconds that each of the variants in `starts` took when it last ran below `runs`, if that is known.

    Only runs like this one tell that: with counter-proofs or without (`prove`), the machine started in the same way
    (`starts`: `cold` or `template` by id). No more than the newest runs are looked at.
    """
    known: dict[str, float] = {}
    for path in sorted(runs.glob("[0-9]*T[0-9]*Z-*"), reverse=True)[:_RUNS]:
        if run_facts(RunDirectory(path)).get("prove") is not prove:
            continue
        try:
            _, results = read_results(path / RESULTS)
        except HarnessError:  # it was cut off, or is another one's
            continue
        for result in results:
            if result.duration_s > 0 and result.start == starts.get(result.id):
                known.setdefault(result.id, result.duration_s)
    return known


def longest_first(ids: Sequence[str], usual: Mapping[str, float]) -> list[int]:
    """Give the indices of `ids` so that no long one is begun last; those of unknown length come first, as they are."""
    return sorted(range(len(ids)), key=lambda index: -usual.get(ids[index], float("inf")))


@dataclass(slots=True)
class Pace:
    """The time that is left, from `usual` seconds of variants and from those that ended since."""

    usual: Mapping[str, float] = field(default_factory=dict)
    workers: int = 1
    waiting: set[str] = field(default_factory=set)
    _ended: list[float] = field(default_factory=list)

    def ended(self, identifier: str, seconds: float) -> None:
        """Take note of one that ended."""
        self.waiting.discard(identifier)
        self._ended.append(seconds)

    def left_s(self, running: Mapping[str, float]) -> float | None:
        """Give the seconds until the end, None if nothing tells; `running` are those under way, with their seconds."""
        known = [*self._ended, *self.usual.values()]
        if not known:
            return None
        mean = sum(known) / len(known)
        rest = [max(0.0, self.usual.get(each, mean) - running.get(each, 0.0)) for each in self.waiting]
        return max([sum(rest) / self.workers, *rest])

    def slow(self, identifier: str, seconds: float) -> bool:
        """Tell whether a variant takes much longer than it did."""
        usual = self.usual.get(identifier)
        return usual is not None and seconds > _SLOW_FACTOR * usual + _SLOW_S


def in_words(seconds: float) -> str:
    """Give a duration as `8 s`, `1 min 20 s` or `1 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
