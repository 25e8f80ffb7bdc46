"""A verdict does not depend on how the machine came up: every scenario, booted and restored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.guest

ROOT = Path(__file__).parents[2]


def results(runs: Path, *options: str) -> dict[str, dict[str, Any]]:
    """Run all scenarios and give their results by id."""
    command = [sys.executable, "-m", "harness.cli", "run", "--runs", str(runs), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((runs / "latest" / "results.json").read_text())
    return {entry["id"]: entry for entry in told["results"]}


def conclusions(entry: dict[str, Any]) -> tuple[str, dict[str, str]]:
    return entry["outcome"], {name: witness["verdict"] for name, witness in entry["witnesses"].items()}


def test_every_scenario_has_the_same_verdict_booted_and_restored(tmp_path) -> None:
    booted = results(tmp_path / "cold", "--cold")
    restored = results(tmp_path / "template")
    assert {entry["start"] for entry in booted.values()} == {"cold"}
    by_template = {name for name, entry in restored.items() if entry["start"] == "template"}
    assert len(by_template) > len(restored) / 3
    assert {name: conclusions(entry) for name, entry in restored.items()} == {
        name: conclusions(entry) for name, entry in booted.items()
    }
