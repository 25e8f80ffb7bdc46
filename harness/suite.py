"""One run of many plans, as both front ends make it: the run directory, each variant's result, the exit code.

It decides nothing about outcomes; the runner does, and `exit_code` only sums up.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

from harness import runner
from harness.errors import HarnessError, StorageError
from harness.evidence import RunDirectory, VariantDirectory, write_json
from harness.plan import Plan
from harness.report.manifest import digest
from harness.report.results import IMAGE, RUN, store
from harness.report.story import PLAN, VERDICT
from harness.result import Result, Watcher
from harness.runner import HostFacts
from harness.storage import LEFT, require_room
from harness.verdict import CounterProof, Outcome, Verdict

#: In a variant's directory where a bug of the harness ended it.
TRACEBACK = "traceback.txt"


class ExitCode(IntEnum):
    """How `harness` ends; where several apply, WRONG_INPUT goes before ERROR and ERROR before FAILED."""

    PASSED = 0
    FAILED = 1
    WRONG_INPUT = 2
    ERROR = 3
    NOTHING_RAN = 4
    INTERRUPTED = 130


def begin(runs: Path, host: Mapping[str, Any], *, prove: bool) -> RunDirectory:
    """Make the run directory and write down what the run is made with."""
    run = RunDirectory.create(runs)
    describe(run, host, prove=prove)
    return run


def describe(run: RunDirectory, host: Mapping[str, Any], *, prove: bool, command: Sequence[str] | None = None) -> None:
    """Write `run.json`: what the run is made with; `command` is this process's own if it is not given."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {
        "schema": 1,
        "started": started,
        "command": list(command or sys.argv),
        "prove": prove,
        "host": {**_surroundings(), **host},
    }
    write_json(run.path / RUN, facts)


def run_one(run: RunDirectory, plan: Plan, host: HostFacts, *, prove: bool, watch: Watcher) -> Result:
    """Run one plan and keep its result. Whatever the runner could not turn into a verdict is an ERROR.

    StorageError if its evidence cannot be written, which no other plan of the run could do without either. The ERROR is
    kept where there is room for that.

    The plan is written first of all, so that a variant that was begun can never be missing from the results.
    """
    directory = run.variant(plan.scenario, plan.variant)
    directory.write_json(PLAN, plan)
    try:
        require_room(run.path, LEFT, "evidence")
        if plan.skip is None and plan.machine.kind == "linux":
            directory.write_json(IMAGE, _image(plan, host))
        result = runner.run_plan(plan, directory, host, prove=prove, progress=watch)
    except StorageError as error:
        if not error.path.absolute().is_relative_to(run.path.absolute()):
            result = _error(run, plan, directory, str(error))
        else:
            with contextlib.suppress(StorageError):  # there may be room for so little
                store(directory, _error(run, plan, directory, str(error)))
            raise
    except HarnessError as error:
        result = _error(run, plan, directory, str(error))
    except Exception as error:  # noqa: BLE001 - a bug of ours must become an ERROR, and other plans can still run
        directory.write_text(TRACEBACK, traceback.format_exc())
        told = f"a bug of the harness: {type(error).__name__}: {error} (see {TRACEBACK})"
        result = _error(run, plan, directory, told)
    store(directory, result)
    return result


def lost(run: RunDirectory, plan: Plan, reason: str, *, duration_s: float) -> Result:
    """Keep and give an ERROR for a plan whose process ended without a result."""
    directory = run.variant(plan.scenario, plan.variant)
    directory.write_json(PLAN, plan)
    result = replace(_error(run, plan, directory, reason), duration_s=round(duration_s, 3))
    store(directory, result)
    return result


def exit_code(results: Sequence[Result]) -> ExitCode:
    """Sum up: 3 where something is not known, else 1 where one failed or is vacuous, 4 where nothing ran."""
    outcomes = {result.outcome for result in results}
    if Outcome.ERROR in outcomes:
        return ExitCode.ERROR
    if Outcome.FAIL in outcomes or any(result.vacuous for result in results):
        return ExitCode.FAILED
    return ExitCode.PASSED if Outcome.PASS in outcomes else ExitCode.NOTHING_RAN


def _error(run: RunDirectory, plan: Plan, directory: VariantDirectory, reason: str) -> Result:
    verdict = Verdict(outcome=Outcome.ERROR, reason=reason)
    directory.write_json(VERDICT, verdict)
    return Result(
        id=plan.id,
        scenario=plan.scenario,
        variant=plan.variant,
        title=plan.title,
        tags=plan.tags,
        outcome=verdict.outcome,
        reason=reason,
        duration_s=0.0,
        start=plan.start,
        counter_proofs=dict.fromkeys(plan.counter_proofs, CounterProof.NOT_RUN),
        evidence=str(directory.path.relative_to(run.path)),
    )


def _image(plan: Plan, host: HostFacts) -> dict[str, str]:
    image = host.image(plan.machine.image)
    return {
        "name": image.name,
        "kernel_release": image.kernel_release,
        "digest": image.digest,
        "kernel_sha256": digest(image.kernel),
        "initrd_sha256": digest(image.initrd),
    }


def _surroundings() -> dict[str, Any]:
    return {
        "os": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
    }
