"""A disk that fills up while real machines run: one sentence, status 3, and no machine is left."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from harness import cli, evidence, runner, suite

pytestmark = pytest.mark.qemu

SCENARIO = Path(__file__).parents[2] / "scenarios" / "atlas-legacy.yaml"


@pytest.fixture
def disk(tmp_path):
    """A file system of 200 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def machines_with(place):
    """Give the QEMUs whose files lie below `place`."""
    found = subprocess.run(["pgrep", "-f", f"{place}/.*trace.log"], capture_output=True, text=True, check=False)
    return found.stdout.split()


def test_room_is_looked_for_before_a_run(disk, capfd):
    assert cli.main(["run", str(SCENARIO), "--runs", str(disk / "runs")]) == 3
    said = capfd.readouterr().err
    assert "the evidence of a run cannot be written" in said
    assert "Traceback" not in said
    assert not list(disk.iterdir())


def test_a_real_run_ends_with_one_sentence_and_keeps_what_is_known(disk, capfd, monkeypatch):
    monkeypatch.setattr(evidence, "FLOOR", 0)
    for module in (suite, runner):
        monkeypatch.setattr(module, "LEFT", 0)

    assert cli.main(["run", "-j", "1", str(SCENARIO), "--runs", str(disk / "runs")]) == 3

    out = capfd.readouterr()
    assert "Traceback" not in out.err + out.out
    (told,) = [line for line in out.err.splitlines() if line.startswith("error: ")]
    assert "No space left on device" in told
    assert str(disk) in told
    assert machines_with(disk) == []
    kept = [json.loads(path.read_text())["outcome"] for path in disk.glob("runs/*/*/*/result.json")]
    assert set(kept) <= {"pass", "error"}
