"""Scenarios per minute of the whole suite, run by `harness run` with one worker and with two."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

from harness.bench.figures import KEYS, Figure
from harness.bench.setting import Setting, timed
from harness.errors import InfraError
from harness.evidence import RunDirectory
from harness.host.slots import GUESTS
from harness.report.results import RESULTS, read_results
from harness.verdict import Outcome
from harness.waiting import timeout_scale

_RUN_S = 1800.0

#: How often each number of workers runs the suite; a run takes a minute, so its own length evens moods out.
_RUNS = 2


def scenarios_per_minute(setting: Setting) -> Figure:
    """Run the suite once so that its templates are there, then with each number of workers in turn.

    More workers than the host has places for guests are left out: they would wait for each other.
    """
    keys, places = KEYS["scenarios_per_minute"], setting.host.slots
    jobs = [each for each in keys if int(each) <= places.count]
    left_out = [each for each in keys if each not in jobs]
    home = setting.directory("throughput")
    suite_once(setting.scenarios, int(jobs[-1]), home)
    rates: dict[str, list[float]] = {each: [] for each in jobs}
    for number in range(min(_RUNS, setting.rounds)):
        for each in jobs:
            count, seconds = suite_once(setting.scenarios, int(each), home)
            rates[each].append(60 * count / seconds)
            setting.tell(f"run {number + 1} with {each}: {count} scenarios in {seconds:.1f} s")
    return Figure(
        value={each: statistics.median(rates[each]) if each in rates else None for each in keys},
        samples={f"per_minute_{each}": given for each, given in rates.items()},
        missing=f"no place for {' or '.join(left_out)} guests at once: {places.reason}" if left_out else None,
    )


def suite_once(scenarios: tuple[Path, ...], jobs: int, home: Path) -> tuple[int, float]:
    """Run `scenarios` in a process of its own; how many ran (skipped ones did not) and the seconds of the process.

    The process takes `jobs` for the places that the host has, so it never has fewer workers than asked for. InfraError
    if one does not pass: what fails takes another time.
    """
    argv = [sys.executable, "-m", "harness.cli", "run", "-j", str(jobs), "--runs", str(home), *map(str, scenarios)]
    log = home / "run.log"
    with timed() as watch, log.open("wb") as output:
        done = subprocess.run(
            ["setpriv", "--pdeathsig", "TERM", "--", *argv],
            env={**os.environ, GUESTS: str(jobs)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=_RUN_S * timeout_scale(),
            check=False,
        )
    if done.returncode:
        told = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
        raise InfraError(f"'harness run -j {jobs}' ended with status {done.returncode}:\n{told}", evidence=log)
    run = RunDirectory((home / "latest").resolve())
    outcomes = Counter(result.outcome for result in read_results(run.path / RESULTS)[1])
    shutil.rmtree(run.path)
    return outcomes[Outcome.PASS], watch.seconds
