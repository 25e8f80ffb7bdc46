"""`harness list`, `validate`, `plan` and `schema`: scenarios as they stand, without running one."""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness import plan as planning
from harness import runner
from harness.cli.commands import add
from harness.cli.running import add_selection
from harness.machine.argv import Channels, command_line
from harness.machine.bare_argv import BareChannels, bare_command_line
from harness.machine.launch import CONSOLE, TRACE
from harness.machine.properties import resolve
from harness.plan import Plan
from harness.report.live import Live
from harness.runner import HostFacts
from harness.scenario.reference import markdown
from harness.scenario.schema import json_schema
from harness.selection import SCENARIOS, chosen, split_names
from harness.source.diagnostics import Diagnostic
from harness.storage import write_text
from harness.suite import ExitCode

if TYPE_CHECKING:
    from harness.cli.commands import Commands

SCHEMA = SCENARIOS / "scenario.schema.json"
REFERENCE = Path("docs/scenarios.md")


def add_to(commands: Commands) -> None:
    """Add the commands."""
    add_selection(add(commands, "list", "name the scenarios there are", list_scenarios))
    validate = add(
        commands,
        "validate",
        "check scenario files as a run would; say all that is wrong, and what is unused",
        validate_files,
    )
    validate.add_argument("names", nargs="*", metavar="NAME", help="file or directory (scenarios)")
    validate.set_defaults(keyword="", tags=[])
    plan = add(commands, "plan", "show a scenario's steps and its exact QEMU command line; starts nothing", show_plan)
    plan.add_argument("names", nargs=1, metavar="ID", help="scenario or scenario[variant]")
    plan.set_defaults(keyword="", tags=[])
    schema = add(
        commands, "schema", f"write the JSON schema of scenario files to {SCHEMA}, and {REFERENCE}", write_schema
    )
    schema.add_argument("--check", action="store_true", help="only say whether the file is what it must be")


@contextmanager
def planned(
    arguments: argparse.Namespace, *, remarks: list[Diagnostic] | None = None
) -> Iterator[tuple[list[Plan], HostFacts]]:
    """Plan what the command line chooses, on this host; `remarks` takes what may not be meant."""
    files, ids = split_names(arguments.names)
    with Live(stream=sys.stderr) as live:
        host = runner.open_host(live.preparing, boots=False)
        plans = planning.plan_all(files, host, remark=None if remarks is None else remarks.append)
        yield chosen(plans, ids, keyword=arguments.keyword, tags=arguments.tags), host


def list_scenarios(arguments: argparse.Namespace) -> int:
    """Print id, tags and title of each."""
    with planned(arguments) as (plans, _):
        width = max((len(plan.id) for plan in plans), default=0)
        for plan in plans:
            tags = f"  [{', '.join(plan.tags)}]" if plan.tags else ""
            skipped = f"  (skipped: {plan.skip})" if plan.skip else ""
            print(f"{plan.id:<{width}}  {plan.title}{tags}{skipped}")
    return ExitCode.PASSED if plans else ExitCode.NOTHING_RAN


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def validate_files(arguments: argparse.Namespace) -> int:
    """Print how many are right; wrong ones end in diagnostics and exit status 2."""
    remarks: list[Diagnostic] = []
    with planned(arguments, remarks=remarks) as (plans, _):
        for remark in remarks:
            print(remark.render())
        files = len({plan.source for plan in plans})
        told = f", {_counted(len(remarks), 'remark')}" if remarks else ""
        print(f"{_counted(len(plans), 'variant')} in {_counted(files, 'file')}: nothing wrong found{told}")
    return ExitCode.PASSED


def show_plan(arguments: argparse.Namespace) -> int:
    """Print steps and command line of each variant of one scenario."""
    with planned(arguments) as (plans, host):
        for plan in plans:
            print(f"{plan.node}\n  {plan.title}")
            for step in plan.steps:
                expected = f"  -> {step.expect_text}" if step.expect_text else ""
                print(f"  {step.index + 1:>3}. {step.text}{expected}  ({plan.source}:{step.line})")
            print(f"  counter-proofs: {', '.join(plan.counter_proofs) or 'none'}")
            if plan.skip:
                print(f"  skipped here: {plan.skip}")
            print("\n" + _wrapped(_argv(plan, host)) + "\n")
    return ExitCode.PASSED


def write_schema(arguments: argparse.Namespace) -> int:
    """Write the schema and the reference page, or compare them with the files."""
    wanted = {SCHEMA: json.dumps(json_schema(), indent=2) + "\n", REFERENCE: markdown()}
    stale = [path for path, text in wanted.items() if _text(path) != text]
    if arguments.check:
        for path in stale:
            print(f"{path} is not what the steps and devices say: run 'harness schema' and commit it", file=sys.stderr)
        return ExitCode.FAILED if stale else ExitCode.PASSED
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        write_text(path, wanted[path])
    print("wrote " + " and ".join(map(str, stale)) if stale else "nothing has changed")
    return ExitCode.PASSED


def _argv(plan: Plan, host: HostFacts) -> list[str]:
    """Give the argv of a run; only the numbers of the descriptors that QEMU inherits are not known before."""
    descriptors = itertools.count(3)
    iommus = [resolve(iommu, host.facts).properties for iommu in plan.machine.iommus]
    if plan.machine.kind == "bare":
        bare = BareChannels(
            memory=next(descriptors),
            rom=next(descriptors),
            qmp=next(descriptors),
            qtest=next(descriptors),
            wires={wire: next(descriptors) for wire in plan.machine.wires},
            trace=TRACE,
        )
        return bare_command_line(plan.machine, iommus, [device.qdev for device in plan.devices], bare, host.qemu)
    channels = Channels.inherited(
        qmp_fd=next(descriptors),
        ssh_fd=next(descriptors),
        host_key_fd=next(descriptors),
        authorized_keys_fd=next(descriptors),
        console=CONSOLE,
        trace=TRACE,
        wire_fds={wire: next(descriptors) for wire in plan.machine.wires},
    )
    return command_line(plan.machine, iommus, channels, host.boot_image(plan.machine), host.qemu)


def _wrapped(argv: list[str]) -> str:
    """Give a command line that can be pasted, an option with its value on each line."""
    lines: list[str] = []
    for word in argv:
        if word.startswith("-") or not lines:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return " \\\n    ".join(lines)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
