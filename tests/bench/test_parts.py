"""Each part once, with the least that makes a record: whether it measures what it says, not how long that takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import runner
from harness.bench import starting, subject, throughput
from harness.bench.collecting import collect_ratio
from harness.bench.faulting import bare_faults_per_second
from harness.bench.goals import has_number
from harness.bench.memory import pss_mib_per_guest
from harness.bench.overhead import overhead
from harness.bench.scaling import _order, cost_per_scenario_s
from harness.bench.setting import Setting
from harness.bench.starting import template_speedup
from harness.bench.throughput import scenarios_per_minute
from harness.machine.spec import MachineSpec


@pytest.fixture(scope="module")
def host():
    return runner.open_host(print)


@pytest.fixture
def setting(host, tmp_path):
    scenarios = tuple(subject.write(tmp_path / "some", variants=2))
    return Setting(host=host, scratch=tmp_path, rounds=1, sizes=(1, 2), guests=2, scenarios=scenarios, tell=print)


def of_value(value):
    return value.values() if isinstance(value, dict) else [value]


@pytest.mark.qemu
def test_collecting(setting):
    figure = collect_ratio(setting, items=60)
    assert {name: len(given) for name, given in figure.samples.items()} == {"variants_s": 1, "trivial_s": 1}
    assert figure.value > 0


@pytest.mark.guest
@pytest.mark.parametrize(
    ("part", "samples"),
    [
        (bare_faults_per_second, {"faults_per_second": 1}),
        (template_speedup, {"cold_s": 1, "template_s": 1, "template_ssh_s": 1}),
        (overhead, {"harness_s": 1, "plain_s": 1}),
        (pss_mib_per_guest, {"1_guests_mib": 1, "2_guests_mib": 1}),
        (scenarios_per_minute, {"per_minute_1": 1, "per_minute_2": 1}),
        (cost_per_scenario_s, {"1_s": 2, "2_s": 1}),
    ],
)
def test_parts(setting, part, samples):
    figure = part(setting)
    assert {name: len(given) for name, given in figure.samples.items()} == samples
    assert all(each > 0 for given in figure.samples.values() for each in given)
    if part is cost_per_scenario_s:
        assert figure.missing == "runs of 10, 100, 1000 were left out"
    else:
        assert all(number > 0 for number in of_value(figure.value))
        assert has_number(figure.value)
    assert {path.name for path in Path(setting.scratch).rglob("journal.jsonl")} == set()


def test_short_runs_lie_around_and_between_the_long_ones():
    assert list(_order((10, 100, 1000))) == [10, 100, 10, 1000, 10, 100, 10]
    assert list(_order((10,))) == [10]


@pytest.mark.parametrize("variants", [1, 50, 51, 120])
def test_the_measured_scenario_has_as_many_variants_as_asked(tmp_path, variants, host):
    from harness import plan as planning

    plans = planning.plan_all(subject.write(tmp_path, variants=variants), host)
    assert len({plan.id for plan in plans}) == variants
    assert {plan.start for plan in plans} == {"template"}


@pytest.mark.parametrize(
    ("places", "value", "ran"), [(1, {"1": 120.0, "2": None}, [1, 1]), (3, {"1": 120.0, "2": 120.0}, [2, 1, 2])]
)
def test_more_workers_than_there_are_places_are_missing(monkeypatch, tmp_path, places, value, ran):
    jobs = []
    monkeypatch.setattr(throughput, "suite_once", lambda _, count, __: jobs.append(count) or (6, 3.0))
    host = SimpleNamespace(slots=SimpleNamespace(count=places, reason="1 core"))
    figure = scenarios_per_minute(
        Setting(host=host, scratch=tmp_path, rounds=1, sizes=(), guests=1, scenarios=(), tell=print)
    )
    assert figure.value == value
    assert set(figure.samples) == {f"per_minute_{number}" for number in ran}
    assert figure.missing == ("no place for 2 guests at once: 1 core" if places == 1 else None)
    assert jobs == ran


def test_a_comma_in_a_path_comes_to_qemu_as_one(monkeypatch, tmp_path, host):
    told = {}
    monkeypatch.setattr(starting.script, "run", lambda _, __, order: told.update(order) or 1.0)
    starting.boot_by_hand(host, MachineSpec(image="debian-13"), tmp_path / "a,b")
    there = str(tmp_path / "a,,b")
    assert [word for word in told["argv"] if "a,b" in word] == []
    assert sum(there in word for word in told["argv"]) == 3
    assert told["console"] == str(tmp_path / "a,b" / "console.log")


def test_a_part_has_an_absolute_directory_wherever_the_run_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = Setting(host=None, scratch=Path("runs/x"), rounds=1, sizes=(), guests=1, scenarios=(), tell=print)
    assert given.directory("part") == tmp_path / "runs" / "x" / "part"
