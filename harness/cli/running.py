"""`harness run`."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from harness import plan as planning
from harness import runner, suite
from harness.cli.commands import add, add_host, positive
from harness.cli.interrupts import Interrupts
from harness.errors import HarnessError, StorageError
from harness.evidence import RunDirectory
from harness.host.slots import GuestSlots
from harness.lab.host import nic_address
from harness.lone_machines import BOOT_LONE_HELP, booting_lone
from harness.plan import Plan
from harness.report.live import Live
from harness.report.pace import in_words, longest_first, usual_durations
from harness.report.results import collect
from harness.report.terminal import closing
from harness.report.write import write_reports
from harness.result import Progress, Result
from harness.runner import HostFacts
from harness.selection import chosen, split_names
from harness.source.diagnostics import Diagnostic
from harness.suite import ExitCode
from harness.verdict import Outcome
from harness.workers.messages import Job, Said
from harness.workers.pool import Workers

if TYPE_CHECKING:
    from harness.cli.commands import Commands

RUNS = Path("runs")


def add_to(commands: Commands) -> None:
    """Add the command."""
    run = add(commands, "run", "run scenarios and keep their evidence", run_scenarios)
    add_selection(run)
    run.add_argument("--prove", action="store_true", help="run counter-proofs: without protection, attacks must land")
    run.add_argument("--cold", action="store_true", help="boot every machine instead of restoring it from a template")
    run.add_argument("--boot-lone", action="store_true", help=BOOT_LONE_HELP)
    add_host(run, "run the machines on another host")
    run.add_argument(
        "--nic",
        action="append",
        type=_nic,
        default=[],
        dest="nics",
        metavar="ADDRESS",
        help="with --host: a NIC of that host which scenarios may hand out, as 0000:03:00.0; may be given again",
    )
    run.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where run directories are made (runs)")
    run.add_argument("-x", "--exitfirst", action="store_true", help="begin no other after the first that does not pass")
    run.add_argument(
        "-j", "--jobs", type=positive, metavar="N", help="scenarios at once (as many as cores and memory bear)"
    )


def add_selection(command: argparse.ArgumentParser) -> None:
    """Add the arguments that choose scenarios."""
    command.add_argument("names", nargs="*", metavar="NAME", help="file, directory, scenario or scenario[variant]")
    command.add_argument(
        "-k", dest="keyword", default="", metavar="EXPR", help="words of ids and tags, as 'dma and not nic'"
    )
    command.add_argument("-t", "--tag", action="append", default=[], dest="tags", help="tag; several mean any of them")


def run_scenarios(arguments: argparse.Namespace) -> int:
    """Run what is chosen and give the exit status."""
    return run_and_keep(arguments)[0]


def run_and_keep(arguments: argparse.Namespace) -> tuple[int, RunDirectory | None]:
    """Run what is chosen, and give the exit status and where the evidence is, None if nothing ran.

    On Ctrl-C the machines are stopped and what ran so far is reported. So it is where evidence cannot be written any
    more, before the StorageError that says so.
    """
    files, ids = split_names(arguments.names)
    if arguments.nics and arguments.host is None:
        raise HarnessError("--nic names a NIC of another host, and no host is named", hint="add --host ssh://USER@NAME")
    with Live() as live:
        host = runner.open_host(live.preparing, lab=arguments.host, nics=arguments.nics)
        remarks: list[Diagnostic] = []
        found = planning.plan_all(files, host, cold=arguments.cold, remark=remarks.append)
        plans = chosen(found, ids, keyword=arguments.keyword, tags=arguments.tags)
        for remark in remarks:
            if remark.path in {plan.source for plan in plans}:
                live.note(remark.render())
        if arguments.boot_lone:
            plans = booting_lone(plans, prove=arguments.prove)
        if not plans:
            live.note("no scenario matches; 'harness list' names them")
            return ExitCode.NOTHING_RAN, None
        jobs = _jobs(arguments.jobs, host.slots, plans, live)
        if jobs > 1:
            _check_images(plans, host)
        usual = usual_durations(arguments.runs, {plan.id: plan.start for plan in plans}, prove=arguments.prove)
        run = suite.begin(arguments.runs, host.describe(), prove=arguments.prove)
        live.expect([plan.id for plan in plans], usual=usual, workers=jobs)
        work = _Work(Job(run, host, arguments.prove), live, exit_first=arguments.exitfirst)
        interrupted, unwritten = False, _Unwritten()
        with Interrupts() as interrupts:
            with unwritten:
                if jobs > 1:
                    order = longest_first([plan.id for plan in plans], usual)
                    interrupted = interrupts.ended_early(lambda: work.spread([plans[index] for index in order], jobs))
                else:
                    interrupted = interrupts.ended_early(lambda: work.in_turn(plans))
            results = collect(run)
            with unwritten:
                write_reports(run)
            for line in closing(run, results, live.style, interrupted=interrupted):
                live.note(line)
            if interrupted and len(results) < len(plans):
                live.note(f"{len(plans) - len(results)} of {len(plans)} were not begun")
            if unwritten.first is not None:
                live.note(f"{len(results)} of {len(plans)} were begun; their verdicts are kept")
                raise unwritten.first
    return ExitCode.INTERRUPTED if interrupted else suite.exit_code(results), run


@dataclass(slots=True)
class _Unwritten:
    """Ends what cannot write any more, and keeps why, so that what ran is told all the same."""

    first: StorageError | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if isinstance(error, StorageError):
            self.first = self.first or error
        return isinstance(error, StorageError)


@dataclass(frozen=True, slots=True)
class _Work:
    """Runs plans and shows each result."""

    job: Job
    live: Live
    exit_first: bool

    def in_turn(self, plans: Sequence[Plan]) -> None:
        """Run `plans` one after the other in this process."""
        for plan in plans:
            result = suite.run_one(self.job.run, plan, self.job.host, prove=self.job.prove, watch=self.live.progress)
            self.live.ended(result)
            if self._is_last(result):
                return

    def spread(self, plans: Sequence[Plan], jobs: int) -> None:
        """Run `plans` in so many processes."""
        with Workers(self.job, jobs, self._show) as workers:
            for result in workers.results(plans):
                self.live.ended(result)
                if self._is_last(result):
                    workers.hand_out_no_more()
        took = in_words(self.live.elapsed_s)
        self.live.note(f"{len(plans)} variants in {took}, {jobs} at a time: {self.job.host.slots.reason}")

    def _show(self, worker: int, told: Progress | Said) -> None:
        if isinstance(told, Said):
            self.live.preparing(told.text, worker)
        else:
            self.live.progress(told, worker)

    def _is_last(self, result: Result) -> bool:
        return self.exit_first and (result.outcome in (Outcome.FAIL, Outcome.ERROR) or bool(result.vacuous))


def _nic(text: str) -> str:
    try:
        return nic_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _jobs(wanted: int | None, slots: GuestSlots, plans: Sequence[Plan], live: Live) -> int:
    """Give the number of scenarios to run at once, and say so where that is less than what is `wanted`."""
    if wanted is not None and wanted > slots.count:
        live.note(f"{slots.count} at a time instead of {wanted}: {slots.reason}")
    return min(wanted or slots.count, slots.count, max(1, sum(plan.skip is None for plan in plans)))


def _check_images(plans: Sequence[Plan], host: HostFacts) -> None:
    """Have the images checked or built once, and not by each worker; what is wrong is told by each variant."""
    for name in sorted({plan.machine.image for plan in plans if plan.skip is None and plan.machine.kind == "linux"}):
        with contextlib.suppress(HarnessError):
            host.image(name)
