"""What every part of a benchmark is given, and how it interleaves what it compares."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import plan as planning
from harness.bench import subject
from harness.plan import Plan
from harness.runner import HostFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One benchmark's surroundings.

    `scratch` is a directory for what need not be kept, `rounds` how often each thing is measured, `sizes` the numbers
    of variants whose cost is compared, `guests` how many guests run at once at most, `tell` gets a line about progress.
    """

    host: HostFacts
    scratch: Path
    rounds: int
    sizes: tuple[int, ...]
    guests: int
    scenarios: tuple[Path, ...]
    tell: Callable[[str], None]

    def directory(self, name: str) -> Path:
        """Make a directory for one part; absolute, since the plain scripts run in directories of their own."""
        path = self.scratch.absolute() / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def subject(self) -> Plan:
        """Plan the one scenario that machines and overhead are measured with."""
        return planning.plan_all(subject.write(self.directory("subject"), variants=1), self.host)[0]


def interleaved(setting: Setting, what: Mapping[str, Callable[[int], float]]) -> dict[str, list[float]]:
    """Measure each of `what` in turn, round after round, so that a change of the host's mood comes to all of them.

    Each is given the number of the round, from 0, and returns its sample, which becomes one of its samples by name.
    """
    samples: dict[str, list[float]] = {name: [] for name in what}
    for number in range(setting.rounds):
        for name, measure in what.items():
            samples[name].append(measure(number))
        newest = ", ".join(f"{name} {each[-1]:.3f}" for name, each in samples.items())
        setting.tell(f"{number + 1}/{setting.rounds}: {newest}")
    return samples


@dataclass(slots=True)
class Stopwatch:
    """Seconds that a block took."""

    seconds: float = 0.0


@contextmanager
def timed() -> Iterator[Stopwatch]:
    """Measure the block."""
    watch = Stopwatch()
    begun = time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - begun
