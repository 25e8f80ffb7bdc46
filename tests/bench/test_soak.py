from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.bench import growth, soak
from harness.evidence import RunDirectory, write_json
from harness.machine.spec import MachineSpec
from harness.plan import Plan
from harness.report.results import RUN, store
from harness.result import Result, WitnessSummary
from harness.verdict import Outcome, WitnessVerdict


def plan(scenario, variant="", **given):
    return Plan(
        scenario=scenario, variant=variant, title=scenario, tags=(), source=f"{scenario}.yaml", line=1,
        machine=MachineSpec(image="debian-13"), devices=(), steps=(), counter_proofs=(), definition={}, text="",
        **({"start": "template"} | given),
    )  # fmt: skip


@pytest.fixture
def run(tmp_path):
    made = RunDirectory.create(tmp_path / "runs")
    write_json(made.path / RUN, {"schema": 1, "host": {}})
    return made


def result_of(run, plan, outcome=Outcome.PASS, log=WitnessVerdict.CONFIRMS):
    directory = run.variant(plan.scenario, plan.variant)
    directory.write_json("plan.json", plan)
    result = Result(
        id=plan.id, scenario=plan.scenario, variant=plan.variant, title=plan.title, tags=(), outcome=outcome,
        reason="for a test", duration_s=1.0, start="template",
        witnesses={"guest-log": WitnessSummary(verdict=log, evidence=f"seen in {plan.id}")},
        evidence=str(directory.path.relative_to(run.path)),
    )  # fmt: skip
    store(directory, result)
    return result


def watched(run, plans, count, make, cache=None):
    def runs(turns):
        for number, each in enumerate(turns):
            yield make(number, each)

    cache = cache or run.path.parent / "cache"
    contents = soak.watched(run, soak.in_rounds(plans, count), runs, cache=cache, jobs=1, note=print)
    assert json.loads((run.path / "soak.json").read_text())["ran"] == contents["ran"]
    return contents


def test_runs_that_agree_leave_the_evidence_of_the_first_alone(run):
    contents = watched(run, [plan("a"), plan("b", "x=1")], 7, lambda _, each: result_of(run, each))
    assert (contents["asked"], contents["ran"], contents["interrupted"]) == (7, 7, False)
    assert contents["flips"] == contents["left_behind"] == []
    assert {name: variant["runs"] for name, variant in contents["variants"].items()} == {"a": 4, "b[x=1]": 3}
    assert sorted(path.parent.name for path in run.path.glob("*/*/plan.json")) == ["default", "x=1"]
    assert soak.exit_code(contents) == 0
    assert "0 flips, 0 left behind" in soak.summary(contents)[-1]


@pytest.mark.parametrize("odd", [{"outcome": Outcome.FAIL}, {"log": WitnessVerdict.MISSING}])
def test_a_verdict_that_flips_is_told_and_its_evidence_kept(run, odd):
    contents = watched(run, [plan("a")], 5, lambda number, each: result_of(run, each, **(odd if number == 3 else {})))
    (flip,) = contents["flips"]
    assert (flip.id, flip.evidence) == ("a", "a/default+3")
    assert flip.first != flip.now
    assert (run.path / flip.evidence / "plan.json").exists()
    assert contents["left_behind"] == []
    assert soak.exit_code(contents) == 1


def test_a_process_that_is_left_is_told(run):
    left = []

    def make(number, each):
        if number == 1:
            words = [sys.executable, "-c", "import sys; sys.stdin.read()", "left-behind"]
            left.append(subprocess.Popen(words, stdin=subprocess.PIPE))
        return result_of(run, each)

    contents = watched(run, [plan("a")], 3, make)
    left[0].communicate()
    assert any("left-behind" in line for line in contents["left_behind"])
    assert soak.exit_code(contents) == 3


def test_files_and_templates_that_are_left_are_told(run, tmp_path):
    def make(number, each):
        (run.path / "worker-1.log").write_text("what is this")
        return result_of(run, each)

    making = tmp_path / "cache" / "templates" / "making" / "abc.x1"
    making.mkdir(parents=True)
    contents = watched(run, [plan("a")], 2, make, cache=tmp_path / "cache")
    assert contents["left_behind"] == [
        f"a half-made template: {making}",
        f"a file or directory: {run.path / 'worker-1.log'}",
    ]


def test_an_interrupted_soak_is_summed_up(run):
    def make(number, each):
        if number == 2:
            run.variant(each.scenario, each.variant).write_json("plan.json", each)
            raise KeyboardInterrupt
        return result_of(run, each)

    contents = watched(run, [plan("a")], 5, make)
    assert (contents["ran"], contents["interrupted"], contents["left_behind"]) == (2, True, [])
    assert soak.exit_code(contents) == 130


def test_scenarios_that_boot_cold_are_slow_or_run_nothing_are_left_out():
    fit = plan("fit")
    others = [plan("cold", start="cold"), plan("lacking", skip="needs KVM"), plan("refused", refused="no")]
    slow = SimpleNamespace(start="template", skip=None, refused=None, tags=("slow",))
    assert soak.lasting([*others, fit, slow]) == [fit]


def test_memory_that_grows_beyond_what_is_allowed_is_told(monkeypatch):
    resident = {"kib": 60_000.0}
    monkeypatch.setattr(growth, "_resident", lambda: {1: resident["kib"]})
    leaking, steady = growth.Growth(warm_up=10), growth.Growth(warm_up=10)
    for runs in range(1, 1001):
        steady.sample(runs)
    assert list(steady.excess()) == []
    for runs in range(1, 1001):
        resident["kib"] += 100
        leaking.sample(runs)
    assert leaking.describe()["slope_kib_per_run"] == pytest.approx(100)
    assert len(list(leaking.excess())) == 1
    assert "reason" in growth.Growth(warm_up=10).describe()


def test_the_memory_of_this_process_is_seen():
    own = growth._resident()
    assert all(kib > 1024 for kib in own.values())
    assert Path("/proc/self").resolve().name in map(str, own)
