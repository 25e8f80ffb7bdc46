"""`harness bench` and `harness soak`: what the harness costs, and whether it holds out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness import plan as planning
from harness import runner, suite
from harness.bench import running, soak
from harness.bench.figures import NAMES
from harness.bench.goals import has_number, table
from harness.bench.page import PAGE
from harness.cli.commands import add, positive
from harness.cli.running import RUNS, add_selection
from harness.evidence import RunDirectory
from harness.report.live import Live
from harness.selection import SCENARIOS, Unselectable, chosen, split_names
from harness.suite import ExitCode

if TYPE_CHECKING:
    from harness.cli.commands import Commands


def add_to(commands: Commands) -> None:
    """Add the commands."""
    bench = add(commands, "bench", "measure what the harness costs beside the plain way", measure)
    bench.add_argument("--only", default="", metavar="A,B", help=f"some of: {', '.join(NAMES)}")
    bench.add_argument("--quick", action="store_true", help="few samples, for a first impression")
    bench.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where run directories are made (runs)")
    lasting = add(commands, "soak", "run scenarios over and over: no verdict may flip, nothing may stay behind", endure)
    lasting.add_argument("count", type=positive, metavar="N", help="runs, of all variants in turn")
    add_selection(lasting)
    lasting.add_argument("--prove", action="store_true", help="with the counter-proofs of each")
    lasting.add_argument("-j", "--jobs", type=positive, metavar="N", help="at once (as many as the host bears)")
    lasting.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where run directories are made (runs)")


def measure(arguments: argparse.Namespace) -> int:
    """Measure, write bench.json and its page, and print the figures; 3 if one that was asked for could not be had."""
    only = [name.strip() for name in arguments.only.split(",") if name.strip()]
    for name in only:
        if name not in NAMES:
            raise Unselectable(f"there is no figure '{name}'", hint=f"there are: {', '.join(NAMES)}")
    with Live() as live:
        host = runner.open_host(live.preparing)
        run = RunDirectory.create(arguments.runs)
        contents = running.measure(run, host, only=only, quick=arguments.quick, scenarios=[SCENARIOS], note=live.note)
        for line in table(contents):
            live.note(line)
        live.note(f"page: {run.path / PAGE}")
    return ExitCode.PASSED if all(has_number(contents[name]) for name in only or NAMES) else ExitCode.ERROR


def endure(arguments: argparse.Namespace) -> int:
    """Soak what is chosen, without what boots cold or is slow, and print what flipped or was left behind."""
    files, ids = split_names(arguments.names)
    with Live() as live:
        host = runner.open_host(live.preparing)
        plans = chosen(planning.plan_all(files, host), ids, keyword=arguments.keyword, tags=arguments.tags)
        plans = soak.lasting(plans)
        if not plans:
            live.note("no scenario that starts from a template matches; 'harness list' names them")
            return ExitCode.NOTHING_RAN
        run = suite.begin(arguments.runs, host.describe(), prove=arguments.prove)
        jobs = min(arguments.jobs or host.slots.count, host.slots.count, arguments.count)
        live.note(f"{arguments.count} runs of {len(plans)} variants, {jobs} at a time, in {run.path}")
        contents = soak.soak(run, plans, host, count=arguments.count, jobs=jobs, prove=arguments.prove, note=live.note)
        for line in soak.summary(contents):
            live.note(line)
    return soak.exit_code(contents)
