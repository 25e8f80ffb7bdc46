"""The whole benchmark: each part in turn, what is missing told with its reason, everything kept in a run directory."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.bench.collecting import collect_ratio
from harness.bench.faulting import bare_faults_per_second
from harness.bench.figures import NAMES, Figure, document, write
from harness.bench.memory import pss_mib_per_guest
from harness.bench.overhead import overhead
from harness.bench.page import write_page
from harness.bench.scaling import cost_per_scenario_s
from harness.bench.setting import Setting
from harness.bench.starting import template_speedup
from harness.bench.throughput import scenarios_per_minute
from harness.errors import HarnessError
from harness.evidence import RunDirectory
from harness.runner import HostFacts

Part = Callable[[Setting], Figure]

PARTS: Mapping[str, Part] = {
    "collect_ratio": collect_ratio,
    "bare_faults_per_second": bare_faults_per_second,
    "template_speedup": template_speedup,
    "overhead": overhead,
    "pss_mib_per_guest": pss_mib_per_guest,
    "scenarios_per_minute": scenarios_per_minute,
    "cost_per_scenario_s": cost_per_scenario_s,
}

#: Samples of what is compared, and sizes of runs, in full and where a first impression is enough.
_ROUNDS, _QUICK_ROUNDS = 10, 3
_SIZES, _QUICK_SIZES = (10, 100, 1000), (10,)
_GUESTS = 4


def measure(
    run: RunDirectory,
    host: HostFacts,
    *,
    only: Sequence[str],
    quick: bool,
    scenarios: Sequence[Path],
    note: Callable[[str], None],
    parts: Mapping[str, Part] = PARTS,
) -> dict[str, Any]:
    """Measure what `only` names (all if it is empty); give the contents of `bench.json`, written with its page.

    A part that fails leaves its reason, and the others are measured. What was measured is written also when this ends
    by Ctrl-C, which is raised again.
    """
    figures: dict[str, Figure] = {}
    scratch = run.path / "scratch"
    started = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        for name in only or NAMES:
            note(f"{name}: measuring")
            begun = time.monotonic()
            setting = Setting(
                host=host,
                scratch=scratch / name,
                rounds=_QUICK_ROUNDS if quick else _ROUNDS,
                sizes=_QUICK_SIZES if quick else _SIZES,
                guests=_GUESTS,
                scenarios=tuple(scenarios),
                tell=_telling(name, note),
            )
            figures[name] = _figure(name, parts[name], setting)
            note(f"{name}: {figures[name].missing or 'done'} ({time.monotonic() - begun:.0f} s)")
    finally:
        facts = {"started": started, "host": {**_surroundings(), **host.describe()}, "command": sys.argv[1:]}
        contents = document(figures, quick=quick, facts=facts)
        write(run.path, contents)
        write_page(run.path, contents)
        shutil.rmtree(scratch, ignore_errors=True)
    return contents


def _figure(name: str, part: Part, setting: Setting) -> Figure:
    try:
        return part(setting)
    except HarnessError as error:
        return Figure.absent(name, str(error))


def _telling(name: str, note: Callable[[str], None]) -> Callable[[str], None]:
    return lambda text: note(f"{name}: {text}")


def _surroundings() -> dict[str, Any]:
    return {"machine": platform.machine(), "kernel": platform.release(), "python": platform.python_version()}
