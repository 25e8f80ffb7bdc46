"""`harness report`, `judge` and `verify`: an old run, without QEMU."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.commands import add
from harness.cli.running import RUNS
from harness.errors import HarnessError
from harness.evidence import RunDirectory
from harness.judge import UNREADABLE, judge_variant
from harness.report.manifest import MANIFEST, verify
from harness.report.story import Story, tell
from harness.report.terminal import closing
from harness.report.text import Style
from harness.report.write import write_reports
from harness.selection import Unselectable
from harness.suite import ExitCode, exit_code

if TYPE_CHECKING:
    from harness.cli.commands import Commands


def add_to(commands: Commands) -> None:
    """Add the commands."""
    for name, text, command in (
        ("report", "make the reports of a run again and show its table", report),
        ("judge", "judge the evidence of a run again and compare with its verdicts", judge),
        ("verify", "compare the files of a run with the digests of its manifest", verify_files),
    ):
        made = add(commands, name, text, command)
        made.add_argument("run", nargs="?", type=Path, default=RUNS / "latest", help="run directory (runs/latest)")


def report(arguments: argparse.Namespace) -> int:
    """Write the reports; the exit status is the run's own."""
    run = _run(arguments.run)
    _warn_of_changes(run)
    results = write_reports(run)
    print("\n".join(closing(run, results, Style.of(sys.stdout))))
    return exit_code(results)


def judge(arguments: argparse.Namespace) -> int:
    """Print old and new verdict of each variant; 1 if any differs, 3 if evidence was changed or cannot be judged."""
    run, style = _run(arguments.run), Style.of(sys.stdout)
    ended = ExitCode.ERROR if _warn_of_changes(run) else ExitCode.PASSED
    for directory in run.variants():
        try:
            story = tell(directory)
            verdict = judge_variant(directory)
        except (HarnessError, *UNREADABLE) as error:
            # A damaged record: other variants can still be judged.
            print(f"? {directory.path.relative_to(run.path)}: cannot be judged: {error}")
            ended = ExitCode.ERROR
            continue
        same = story.outcome is verdict.outcome and story.reason == verdict.reason
        print(f"{style.mark(verdict.outcome)} {story.id}: {verdict.reason}{'' if same else _before(story)}")
        if not same and ended is ExitCode.PASSED:
            ended = ExitCode.FAILED
    if ended is not ExitCode.ERROR:
        print("every verdict is what it was" if ended is ExitCode.PASSED else "not every verdict is what it was")
    return ended


def verify_files(arguments: argparse.Namespace) -> int:
    """Print every file that changed, is missing or was added; 1 if there is any."""
    run = _run(arguments.run)
    differences = verify(run)
    for what in ("changed", "missing", "added"):
        for name in getattr(differences, what):
            print(f"{what:<8} {name}")
    print(f"{run.path}: " + ("not as recorded" if differences else "every file is as recorded"))
    return ExitCode.FAILED if differences else ExitCode.PASSED


def _warn_of_changes(run: RunDirectory) -> bool:
    """Say so if the files of the run are not those that it recorded; an unfinished run has recorded none."""
    if not (run.path / MANIFEST).exists():
        return False
    differences = verify(run)
    touched = [*differences.changed, *differences.missing]
    if touched:
        text = f"warning: {len(touched)} files are not as the run recorded them, such as {touched[0]}"
        print(f"{text}; 'harness verify' names them all", file=sys.stderr)
    return bool(touched)


def _run(path: Path) -> RunDirectory:
    if not path.is_dir():
        raise Unselectable(f"there is no run at {path}", hint="'harness run' makes one; runs/latest is the newest")
    run = RunDirectory(path.resolve())
    if not any(run.variants()):
        raise Unselectable(f"{path} holds no variant: it is not a run directory, or nothing ran")
    return run


def _before(story: Story) -> str:
    return f"  (was {story.outcome.value}: {story.reason})" if story.outcome else "  (had no verdict)"
