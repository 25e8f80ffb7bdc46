"""A verdict does not depend on how the machine came up: a variant of every scenario, booted and restored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.equipment import open_host
from harness.plan import plan_all

pytestmark = [pytest.mark.guest, pytest.mark.alone]

ROOT = Path(__file__).parents[2]


def results(runs: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Run scenarios and give their results by id."""
    command = [sys.executable, "-m", "harness.cli", "run", "--runs", str(runs), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((runs / "latest" / "results.json").read_text())
    return {entry["id"]: entry for entry in told["results"]}


def conclusions(entry: dict[str, Any]) -> tuple[str, dict[str, str]]:
    return entry["outcome"], {name: witness["verdict"] for name, witness in entry["witnesses"].items()}


def test_each_scenario_has_the_same_verdict_booted_and_restored(tmp_path) -> None:
    plans = plan_all(sorted(ROOT.glob("scenarios/*.yaml")), open_host(print))
    # Those that are booted whatever is asked for have nothing to be compared with. A platform's guests boot either way,
    # which takes a minute: the other scenarios tell the same of the machine below them.
    restored_ones = [plan for plan in plans if plan.start == "template" and plan.skip is None and not plan.guests]
    chosen = list({plan.scenario: plan.node for plan in restored_ones}.values())
    assert len(chosen) > 20
    booted = results(tmp_path / "cold", "--cold", *chosen)
    restored = results(tmp_path / "template", *chosen)
    assert {entry["start"] for entry in booted.values()} == {"cold"}
    assert {entry["start"] for entry in restored.values()} == {"template"}
    assert {name: conclusions(entry) for name, entry in restored.items()} == {
        name: conclusions(entry) for name, entry in booted.items()
    }
