"""A verdict does not depend on how the machine came up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.equipment import open_host
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


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    """A variant of each scenario that is restored unless it is asked otherwise.

    A platform's guests boot either way, which takes a minute: the others tell the same of the machine below them. Those
    of the fault atlas differ in the entry that they break: one of them stands for all.
    """
    planned = plan_all(sorted(ROOT.glob("scenarios/*.yaml")), open_host(print))
    restored = [plan for plan in planned if plan.start == "template" and plan.skip is None and not plan.guests]
    return list({"atlas" if "atlas" in plan.tags else plan.scenario: plan for plan in restored}.values())


@pytest.fixture(scope="module")
def booted(plans, tmp_path_factory) -> dict[str, dict[str, Any]]:
    return results(tmp_path_factory.mktemp("cold"), "--cold", *(plan.node for plan in plans))


def test_scenarios_pass_on_booted_machines(plans, booted) -> None:
    """Restored they are what `pytest scenarios` runs, and a pass lacks no witness."""
    assert len(plans) > 20
    assert {entry["outcome"] for entry in booted.values()} == {"pass"}
    assert {entry["start"] for entry in booted.values()} == {"cold"}
    assert booted.keys() == {plan.id for plan in plans}


def test_the_witnesses_say_the_same_on_a_restored_machine(plans, booted, tmp_path) -> None:
    """For the scenarios that share the machine of most: its template is made once, each other's would be for one."""
    by_machine = defaultdict(dict)
    for plan in plans:
        by_machine[str(replace(plan.machine, wires=()))][plan.id] = plan.node
    chosen = max(by_machine.values(), key=len)
    assert len(chosen) > 10
    restored = results(tmp_path / "template", *chosen.values())
    assert {entry["start"] for entry in restored.values()} == {"template"}
    assert {name: conclusions(entry) for name, entry in restored.items()} == {
        name: conclusions(booted[name]) for name in chosen
    }
