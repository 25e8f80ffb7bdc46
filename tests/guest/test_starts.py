"""A verdict does not depend on how the machine came up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from harness.equipment import open_host
from harness.lone_machines import machine_key
from harness.plan import Plan, plan_all

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


def commonest() -> list[Plan]:
    """A variant of each scenario on the machine that most scenarios share: its template is made once.

    Those of the fault atlas differ in the entry that they break: one of them stands for all. The others are restored
    wherever all scenarios are tested, but for those that are booted there since none shares their machine.
    """
    by_machine: dict[str, dict[str, Plan]] = defaultdict(dict)
    for plan in plan_all(sorted(ROOT.glob("scenarios/*.yaml")), open_host(print)):
        if plan.start == "template" and plan.skip is None and not plan.guests:
            name = "atlas" if "atlas" in plan.tags else plan.scenario
            by_machine[machine_key(plan.machine)][name] = plan
    return list(max(by_machine.values(), key=len).values())


def test_scenarios_pass_and_their_witnesses_say_the_same_booted_and_restored(tmp_path) -> None:
    """A pass lacks no witness."""
    plans = commonest()
    assert len(plans) > 15
    nodes = [plan.node for plan in plans]
    booted, restored = results(tmp_path / "cold", "--cold", *nodes), results(tmp_path / "template", *nodes)
    assert {entry["start"] for entry in booted.values()} == {"cold"}
    assert {entry["start"] for entry in restored.values()} == {"template"}
    assert {entry["outcome"] for entry in booted.values()} == {"pass"}
    assert booted.keys() == {plan.id for plan in plans}
    assert {name: conclusions(entry) for name, entry in booted.items()} == {
        name: conclusions(entry) for name, entry in restored.items()
    }
