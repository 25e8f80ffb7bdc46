"""`harness run` with several workers, over a fake runner: real processes, no machines."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from multiprocessing import Pipe
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "report"))
import fake_runner

from harness import cli
from harness.cli.interrupts import Interrupts
from harness.evidence import RunDirectory, write_json
from harness.report.pace import Pace, in_words, longest_first, usual_durations
from harness.report.results import RUN, write_results
from harness.result import Result
from harness.verdict import Outcome
from harness.waiting import Deadline, wait_for
from harness.workers import pool
from harness.workers.pool import _Worker


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A directory with scenarios for the fake runner and two places for guests; call it to add a scenario."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTD_GUESTS", "2")
    fake_runner.install(monkeypatch.setattr)
    (tmp_path / "scenarios").mkdir()

    def add(name, **given):
        (tmp_path / f"scenarios/{name}.yaml").write_text(json.dumps({"scenario": name, "title": name, **given}))

    return add


def latest():
    return {each["id"]: each for each in json.loads(Path("runs/latest/results.json").read_text())["results"]}


def process_of(name):
    return int(Path("begun", name).read_text())


def test_scenarios_run_at_the_same_time_in_processes_of_their_own(project):
    project("a", meets="b")
    project("b", meets="a")
    assert cli.main(["run"]) == 0
    assert len({process_of("a"), process_of("b"), os.getpid()}) == 3
    assert {each["outcome"] for each in latest().values()} == {"pass"}


def test_one_job_runs_here(project):
    project("a")
    project("b")
    assert cli.main(["run", "-j", "1"]) == 0
    assert process_of("a") == process_of("b") == os.getpid()


def test_reports_are_those_of_a_run_in_one_process(project, capsys):
    project("good", variants=["x=1", "x=2"], proofs={"iommu_off": "red"})
    project("leaks", blocked="leak")
    project("silent", blocked="silent-log")
    project("skipped", skip="needs KVM")
    project("bug", crash=True)
    told = {}
    for jobs in ("1", "2"):
        assert cli.main(["run", "--prove", "-j", jobs]) == 3
        found = latest()
        for each in found.values():
            del each["duration_s"]
        told[jobs] = sorted(found.items()), {path.name for path in Path("runs/latest").iterdir()}
        assert cli.main(["verify"]) == 0
    assert told["1"] == told["2"]
    assert "3 passed" not in capsys.readouterr().err


def test_what_workers_say_reaches_the_user_in_whole_lines(project, capsys):
    for name in "abcd":
        project(name)
    cli.main(["run"])
    lines = capsys.readouterr().out.splitlines()
    assert {f"template {name}: booting" for name in "abcd"} <= set(lines)
    assert [line.split()[0] for line in lines if " s" in line and "/4" in line] == ["1/4", "2/4", "3/4", "4/4"]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"dies": signal.SIGKILL}, "was killed by SIGKILL; the kernel does that where memory runs out"),
        ({"dies": signal.SIGSEGV}, "was killed by SIGSEGV"),
        ({"exits": 7}, "ended with status 7\nso it ends"),
    ],
    ids=["killed", "crashed", "exited"],
)
def test_a_lost_worker_is_an_error_of_one_variant_and_the_others_go_on(project, how, told, capsys):
    project("a", **how)
    for name in "bcd":
        project(name)
    assert cli.main(["run", "-j", "2"]) == 3
    found = latest()
    assert {name: each["outcome"] for name, each in found.items()} == {
        "a": "error",
        "b": "pass",
        "c": "pass",
        "d": "pass",
    }
    assert found["a"]["reason"].startswith(f"the worker process that ran it {told}")
    assert "1 error" in capsys.readouterr().out


def test_when_every_worker_is_lost_each_variant_says_so(project):
    for name in "abcd":
        project(name, dies=signal.SIGKILL)
    assert cli.main(["run"]) == 3
    assert {each["outcome"] for each in latest().values()} == {"error"}
    assert len(latest()) == 4


def test_after_the_first_that_goes_wrong_none_is_begun_and_those_running_end(project):
    project("a", blocked="leak", meets="b")
    project("b", meets="../runs/latest/a/default/result.json")
    project("c")
    project("d")
    assert cli.main(["run", "-x"]) == 1
    assert not {"c", "d"} <= set(latest())
    assert latest()["b"]["outcome"] == "pass"


def test_a_worker_that_does_not_end_in_time_is_told(project, monkeypatch, capsys):
    for name in "ab":
        project(name, meets="never")
    monkeypatch.setattr(pool, "_STOPPED_S", 0.1)  # a fake machine takes half a second

    def interrupt():
        wait_for("both to begin", lambda: all(Path("begun", name).exists() for name in "ab"), Deadline.after(60))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert cli.main(["run"]) == 130
    thread.join()
    assert "worker 1 had not ended 0 s after it was told to: sigterm" in capsys.readouterr().out


def test_who_wants_more_than_there_are_places_is_told_why(project, capsys):
    for name in "abc":
        project(name)
    assert cli.main(["run", "-j", "9"]) == 0
    assert "2 at a time instead of 9: as the test says" in capsys.readouterr().out
    assert len({process_of(name) for name in "abc"}) <= 2


@pytest.mark.parametrize("jobs", ["0", "-1", "two"])
def test_nonsense_is_refused(project, jobs, capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "-j", jobs])
    assert "is not a number, 1 or more" in capsys.readouterr().err


CLI = "import fake_runner, sys; fake_runner.install(); from harness import cli; sys.exit(cli.main(sys.argv[1:]))"


@pytest.fixture
def command(project):
    """Start `harness` over the fake runner as a process that leads a group."""
    started = []

    def start(*arguments):
        path = os.pathsep.join([str(Path(fake_runner.__file__).parent), *filter(None, sys.path)])
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", CLI, *arguments],
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def begun(*names):
    wait_for("scenarios to begin", lambda: all(Path("begun", name).exists() for name in names), Deadline.after(20))
    return [
        wait_for("a process id", lambda name=name: Path("begun", name).read_text(), Deadline.after(5)) for name in names
    ]


def gone(process):
    return not Path("/proc", process).exists()


@pytest.mark.parametrize(
    "end",
    [lambda pid: os.killpg(pid, signal.SIGINT), lambda pid: os.kill(pid, signal.SIGTERM)],
    ids=["SIGINT to all", "SIGTERM to the run"],
)
def test_an_interrupt_ends_all_workers_and_what_ran_is_reported(project, command, end):
    project("a")
    project("b", meets="never")
    project("c", meets="never")
    project("d")
    run = command("run", "-j", "2")
    workers = begun("b", "c")
    end(run.pid)
    out, _ = run.communicate(timeout=15)
    assert run.returncode == 130
    assert all(map(gone, workers))
    found = {name: each["outcome"] for name, each in latest().items()}
    assert found == {"a": "pass", "b": "error", "c": "error"}
    assert "interrupted; 1 passed, 2 error" in out
    assert "1 of 4 were not begun" in out
    assert not list(Path("runs/latest").glob("worker-*.log"))
    assert cli.main(["verify"]) == 0


def test_interrupts_without_end_do_not_cost_the_reports(project, command):
    project("a", meets="never")
    project("b", meets="never")
    run = command("run", "-j", "2")
    workers = begun("a", "b")

    def reported():
        os.killpg(run.pid, signal.SIGINT)
        return Path("runs/latest/manifest.json").exists() or run.poll() is not None

    wait_for("the reports", reported, Deadline.after(20), every_s=0.002)
    out, _ = run.communicate(timeout=15)
    assert run.returncode in (130, -signal.SIGINT), "the last one may come when everything is done"
    assert "interrupted; 2 error" in out
    assert cli.main(["verify"]) == 0
    assert {each["outcome"] for each in latest().values()} == {"error"}
    wait_for("the workers to be gone", lambda: all(map(gone, workers)), Deadline.after(5))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_only_the_work_is_interrupted(number):
    with Interrupts() as interrupts:
        assert not interrupts.ended_early(lambda: None)
        signal.raise_signal(number)
        assert interrupts.ended_early(lambda: signal.raise_signal(number))
        signal.raise_signal(number)


def test_work_is_interrupted_once_and_its_cleaning_up_once():
    noticed = 0

    def work():
        nonlocal noticed
        for _ in range(5):
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                noticed += 1
        raise KeyboardInterrupt

    with Interrupts() as interrupts:
        assert interrupts.ended_early(work)
    assert noticed == 2


def test_workers_do_not_outlive_a_killed_run(project, command):
    project("a", meets="never")
    project("b", meets="never")
    run = command("run", "-j", "2")
    workers = begun("a", "b")
    run.kill()
    wait_for("the workers to be gone", lambda: all(map(gone, workers)), Deadline.after(5))


def test_the_longest_go_first_and_the_unknown_before_them():
    assert longest_first(["a", "b", "c", "d"], {"a": 1.0, "b": 3.0, "d": 2.0}) == [2, 1, 3, 0]
    assert longest_first(["a", "b", "c"], {}) == [0, 1, 2]


def run_kept(name, durations, *, prove=False, start="template"):
    run = RunDirectory(Path("runs", name))
    run.path.mkdir(parents=True)
    write_json(run.path / RUN, {"prove": prove})
    results = [
        Result(id=each, scenario=each, variant="", title="", tags=(), outcome=Outcome.PASS, reason="", start=start,
               duration_s=seconds, evidence="")
        for each, seconds in durations.items()
    ]  # fmt: skip
    return write_results(run, {}, results)


def test_durations_are_those_of_the_newest_runs_like_this_one(project):
    project("a")
    starts = {"a": "template", "b": "template", "c": "template"}

    def usual(*, prove=False, **other):
        return usual_durations(Path("runs"), {**starts, **other}, prove=prove)

    assert usual() == {}
    run_kept("20260101T000000Z-aaaa", {"a": 1.0, "b": 2.0})
    run_kept("20260102T000000Z-bbbb", {"a": 3.0, "skipped": 0.0})
    run_kept("20260103T000000Z-cccc", {"a": 20.0}, prove=True)
    run_kept("20260104T000000Z-dddd", {"a": 30.0}, start="cold")
    run_kept("20260105T000000Z-eeee", {"b": 4.0}).write_text("{}")
    assert usual() == {"a": 3.0, "b": 2.0}
    assert usual(prove=True) == {"a": 20.0}
    assert usual(a="cold") == {"a": 30.0, "b": 2.0}
    cli.main(["run"])
    assert usual() == {"a": latest()["a"]["duration_s"], "b": 2.0}


def test_a_worker_that_ends_in_the_middle_of_a_message_is_lost():
    ours, theirs = Pipe()
    worker = _Worker(1, None, ours, Path("unused"))
    os.write(theirs.fileno(), struct.pack("!i", 100) + b"half of it")
    theirs.close()
    with ours:
        assert worker.told() is None


def test_what_is_left_follows_from_what_was_and_what_ended():
    pace = Pace({"a": 10.0, "b": 4.0, "c": 6.0}, workers=2, waiting={"a", "b", "c"})
    assert pace.left_s({}) == 10.0
    assert pace.left_s({"a": 9.0}) == 6.0
    pace.ended("a", 12.0)
    assert pace.left_s({"b": 9.0}) == 6.0
    assert Pace({}, 1, {"a"}).left_s({}) is None
    assert pace.slow("b", 12.0)
    assert not pace.slow("b", 10.0)
    assert not pace.slow("unknown", 1000.0)


@pytest.mark.parametrize(
    ("seconds", "words"), [(8.4, "8 s"), (80, "1 min 20 s"), (59.7, "1 min 0 s"), (3900, "1 h 5 min")]
)
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words
