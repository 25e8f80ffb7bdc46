"""A run with real machines whose disk is full, or fills up: one sentence, status 3, verdicts kept, no QEMU left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.waiting import Deadline, wait_for

pytestmark = pytest.mark.qemu

ROOT = Path(__file__).parents[1]

#: Variants whose machines boot nothing, each done within a second or two.
BARE = ("atlas-legacy", "atlas-second-stage", "atlas-first-stage")


def started(runs: Path, *chosen: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "harness.cli", "run", "--runs", str(runs), *chosen]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def using(place: Path) -> list[str]:
    """Give the command lines of the processes that name `place`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if str(place) in words and path.parent.name != str(os.getpid()):
            found.append(words)
    return found


def filled(place: Path) -> bool:
    """Leave 64 KiB there; False where others wrote meanwhile."""
    with (place / "filler").open("wb", buffering=0) as filler:
        filler.truncate(0)
        try:
            os.posix_fallocate(filler.fileno(), 0, os.statvfs(place).f_bavail * 4096 - (64 << 10))
        except OSError:
            return False
    return True


def sentence(said: str) -> str:
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if "error: " in line]
    assert len(errors) == 1, said
    return errors[0]


def test_a_run_onto_a_small_disk_is_refused(disk, qemu_build):
    with started(disk / "runs", "unmapped-write") as run:
        said = run.communicate(timeout=120)[0]
    assert run.returncode == 3
    told = sentence(said)
    assert "the evidence of a run cannot be written" in told
    assert "are missing" in told
    assert not list(disk.iterdir())


def test_a_disk_that_fills_up_under_a_machine_ends_the_run(disk, qemu_build):
    subprocess.run(["mount", "-o", "remount,size=70m", disk], check=True)
    with started(disk / "runs", *BARE) as run:
        try:
            wait_for("a verdict", lambda: any(disk.glob("runs/*/*/*/result.json")), Deadline.after(120))
            wait_for(
                "a machine", lambda: [words for words in using(disk) if "qemu-system" in words], Deadline.after(60)
            )
            wait_for("the disk to be full", lambda: filled(disk), Deadline.after(10))
            said = run.communicate(timeout=120)[0]
        finally:
            run.kill()
    assert run.returncode == 3
    told = sentence(said)
    assert "cannot be written to" in told
    assert str(disk) in told
    assert "are free there" in told or "are missing" in told
    assert not using(disk)
    kept = [json.loads(path.read_text()) for path in disk.glob("runs/*/*/*/result.json")]
    passed = [result["id"] for result in kept if result["outcome"] == "pass"]
    assert passed
    for name in passed:
        assert name in said
