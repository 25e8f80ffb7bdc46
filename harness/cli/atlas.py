"""`harness atlas`: provoke every fault there is, and write down what came of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.atlas.chart import Chart, chart
from harness.atlas.gathered import TAG, gather
from harness.atlas.page import PAGE, fingerprint
from harness.atlas.write import HTML, JSON, MARKDOWN, write_atlas
from harness.cli.commands import add, positive
from harness.cli.running import RUNS, run_and_keep
from harness.errors import HarnessError
from harness.evidence import RunDirectory
from harness.report.manifest import refresh
from harness.scenario.load import load
from harness.storage import write_text
from harness.suite import ExitCode
from harness.verdict import Conformance

if TYPE_CHECKING:
    from harness.cli.commands import Commands

SCENARIOS = Path("scenarios")

_EPILOG = """\
It runs the scenarios tagged 'atlas' and writes atlas.json, atlas.html and atlas.md into the run directory.
VTD_QEMU=qemu-11 takes QEMU 11.1 instead of the pinned one. Exit status 1 tells of a fault that was not provoked in
each mode it exists in, or that deviates anew.
"""


def add_to(commands: Commands) -> None:
    """Add the command."""
    atlas = add(
        commands, "atlas", "provoke every VT-d fault, and compare each report with the spec", run_atlas, epilog=_EPILOG
    )
    atlas.add_argument("--bare", action="store_true", help="only on machines without a guest: seconds, not minutes")
    atlas.add_argument("--prove", action="store_true", help="run counter-proofs too: unbroken, every attack must land")
    atlas.add_argument("--from", dest="source", type=Path, metavar="RUN", help="write it again from an old run")
    atlas.add_argument("--write", action="store_true", help=f"write {PAGE} too")
    atlas.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where run directories are made (runs)")
    atlas.add_argument("-j", "--jobs", type=positive, metavar="N", help="scenarios at once")


def run_atlas(arguments: argparse.Namespace) -> int:
    """Run the atlas, or take an old run, and write its pages."""
    status = ExitCode.PASSED
    run = RunDirectory(arguments.source.resolve()) if arguments.source else None
    if run is None:
        keyword = f"{TAG} and bare" if arguments.bare else TAG
        chosen = {"names": [], "keyword": keyword, "tags": [TAG], "cold": False, "boot_lone": False, "exitfirst": False}
        chosen |= {"host": None, "nics": []}
        ran, run = run_and_keep(argparse.Namespace(**{**vars(arguments), **chosen}))
        status = ExitCode(ran)
        if run is None or status in (ExitCode.INTERRUPTED, ExitCode.NOTHING_RAN, ExitCode.WRONG_INPUT):
            return status
    made = chart(gather(run))
    text = write_atlas(run, made)
    refresh(run, (JSON, HTML, MARKDOWN))
    _tell(run, made)
    _tell_page(made, text, write=arguments.write)
    return status or (ExitCode.PASSED if made.complete else ExitCode.FAILED)


def atlas_files() -> dict[str, bytes]:
    """Give the scenario files of the atlas by name."""
    files = (path for path in sorted(SCENARIOS.glob("*.yaml")) if TAG in load(path)[0].scenario.tags)
    return {path.name: path.read_bytes() for path in files}


def _tell_page(made: Chart, text: str, *, write: bool) -> None:
    """Write the page, or tell whether it says what this run found; HarnessError if it must not be written from it."""
    current = fingerprint(made.gathered.sources) == fingerprint(atlas_files())
    whole = made.complete and not made.gathered.skipped and current
    if write and not whole:
        why = "the whole atlas" if current else "the whole atlas as its scenario files are now"
        raise HarnessError(f"{PAGE} is only written from a complete run of {why}")
    if write:
        write_text(PAGE, text)
        print(f"page:     {PAGE}")
        return
    written = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if whole and written.partition("\n")[0] == text.partition("\n")[0]:
        print(f"page:     {PAGE} {'says the same' if written == text else 'says otherwise: --write writes it anew'}")


def _tell(run: RunDirectory, made: Chart) -> None:
    gathered = made.gathered
    provoked = len(made.raisable) - len(made.missing)
    print()
    print(f"QEMU {gathered.qemu}: {provoked} of {len(made.raisable)} raisable reasons provoked")
    print(
        f"{len(gathered.provocations)} provocations: {gathered.count(Conformance.AS_SPEC)} as the spec, "
        f"{gathered.count(Conformance.KNOWN_DEVIATION)} known deviations, "
        f"{gathered.count(Conformance.NEW_DEVIATION)} new deviations"
    )
    for told in made.told_missing:
        print(f"    not provoked: {told}")
    for name, reason in (*gathered.unproven, *gathered.skipped):
        print(f"    not proven: {name}: {reason}")
    for recipe in made.deviations:
        if recipe.conformance is Conformance.NEW_DEVIATION:
            print(f"    new deviation: {recipe.recipe}: {recipe.seen or 'no report'} instead of {recipe.spec}")
    print(f"atlas:    {run.path / HTML}, {JSON} beside it")
