"""What a scenario costs when few or many run in one process: nothing may grow with their number."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path

from harness import plan as planning
from harness import suite
from harness.bench import subject
from harness.bench.figures import KEYS, Figure
from harness.bench.setting import Setting, timed
from harness.errors import InfraError
from harness.evidence import RunDirectory
from harness.report.write import write_reports
from harness.result import Result, unseen
from harness.verdict import Outcome

#: Scenarios between two lines of progress.
_TOLD_EVERY = 50


def cost_per_scenario_s(setting: Setting) -> Figure:
    """Compare seconds per scenario, from the files to the reports, for runs of the sizes that `setting` asks for.

    Short runs are spread between and around the long ones, so that a change of the host's mood comes to all of them.
    """
    samples: dict[str, list[float]] = {str(size): [] for size in setting.sizes}
    for number, size in enumerate(_order(setting.sizes)):
        home = setting.directory(f"scaling/{number}")
        samples[str(size)].append(run_of(setting, size, home))
        setting.tell(f"{size} scenarios: {samples[str(size)][-1]:.3f} s each")
        shutil.rmtree(home)
    costs = {key: statistics.median(samples[key]) if samples.get(key) else None for key in KEYS["cost_per_scenario_s"]}
    left_out = [key for key, cost in costs.items() if cost is None]
    missing = f"runs of {', '.join(left_out)} were left out" if left_out else None
    return Figure(value=costs, samples={f"{key}_s": given for key, given in samples.items()}, missing=missing)


def run_of(setting: Setting, size: int, home: Path) -> float:
    """Run `size` variants in this process and give the seconds for each; InfraError if one does not pass."""
    paths = subject.write(home, variants=size)
    with timed() as watch:
        plans = planning.plan_all(paths, setting.host)
        run = suite.begin(home / "runs", setting.host.describe(), prove=False)
        for number, plan in enumerate(plans, start=1):
            _passed(suite.run_one(run, plan, setting.host, prove=False, watch=unseen), run)
            if not number % _TOLD_EVERY:
                setting.tell(f"{size} scenarios: {number} have run")
        write_reports(run)
    return watch.seconds / size


def _order(sizes: tuple[int, ...]) -> Iterator[int]:
    """Give each size in turn, the smaller ones also before, between and after the larger ones: 10 100 10 1000 10 ..."""
    if not sizes:
        return
    *smaller, largest = sizes
    yield from _order(tuple(smaller))
    yield largest
    yield from _order(tuple(smaller))


def _passed(result: Result, run: RunDirectory) -> None:
    if result.outcome is not Outcome.PASS:
        raise InfraError(f"{result.id}: {result.outcome.value}: {result.reason}", evidence=run.path / result.evidence)
