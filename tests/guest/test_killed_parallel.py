"""A run with two workers, interrupted or killed while both boot, restore, make a template or run a step.

As in `test_killed`, the moments are read from the journals, and each worker is halted once it has come there, so that
it is certain what was ended when.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from test_killed import (
    REACHED_S,
    REPOSITORY,
    RUNNING,
    SHARED_MEMORY,
    STARTED,
    Tail,
    alive,
    kill,
    parent,
    state,
    what,
)

from harness.cli import main
from harness.evidence import Entry, read_journal
from harness.images.store import cache_directory
from harness.runner import TEMPLATE_BOOT
from harness.waiting import Deadline, wait_for
from tests.listening import listening

pytestmark = [pytest.mark.guest, pytest.mark.alone]

SCENARIO = "unmapped-write"
VARIANTS = ("image=debian-12", "image=debian-13")
OTHERS = ("image=debian-13-backports",)
IDS = [f"{SCENARIO}[{variant}]" for variant in VARIANTS]
CLI = ("harness.cli", "run", "-j", "2")
PYTEST = ("pytest", "-p", "no:cacheprovider", "-n", "2")

READY = what("process", "ready")
STEP = what("runner", "step-begin")
STEPS_DONE = what("runner", "collected")


@dataclass(frozen=True)
class Moment:
    """Between two entries of a journal below a variant's directory; `options` are what makes a run come there."""

    reached: Callable[[Entry], bool]
    over: Callable[[Entry], bool]
    options: tuple[str, ...] = ()
    journal: str = "journal.jsonl"


BOOTING = Moment(RUNNING, READY, ("--cold",))
IN_A_STEP = Moment(STEP, STEPS_DONE)
MAKING_A_TEMPLATE = Moment(RUNNING, READY, (), f"{TEMPLATE_BOOT}/journal.jsonl")


@dataclass
class Run:
    """A run of both variants as a child that leads a process group, with what it has started."""

    child: subprocess.Popen[bytes]
    runs: Path
    scratch: Path
    output: Path
    shared_memory: set[Path]
    workers: list[int] = field(default_factory=list)
    machines: list[int] = field(default_factory=list)

    def halt_at(self, moment: Moment) -> None:
        """Halt both workers at `moment`, their QEMUs known, and what these listen on."""
        for variant in VARIANTS:
            journal = self.runs / "latest" / SCENARIO / variant / moment.journal
            machine = int(self._entry(journal, STARTED).data["pid"])
            self._entry(journal, moment.reached)
            worker = parent(machine)
            os.kill(worker, signal.SIGSTOP)
            wait_for("the worker to be halted", lambda worker=worker: state(worker) in "TZ", Deadline.after(5))
            assert not any(map(moment.over, read_journal(journal))), f"{variant} was past the moment"
            self.workers.append(worker)
            self.machines.append(machine)
            assert not listening(machine), "a port that could be left behind"
        assert len({*self.workers, self.child.pid}) == len(VARIANTS) + 1, "they do not run in workers"
        # A process in the middle of an exec has no command line; one that is never found could not be missed later.
        found_all = {*self.workers, *self.machines}.issubset
        wait_for("all of them to be found", lambda: found_all(self.processes()), Deadline.after(5))

    def release(self) -> None:
        for worker in self.workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)

    def ended(self, seconds: float) -> int:
        wait_for("the end", lambda: self.child.poll() is not None, Deadline.after(seconds), observed=self.said)
        return self.child.returncode

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    @property
    def directory(self) -> Path:
        return (self.runs / "latest").resolve()

    def outcomes(self) -> dict[str, str]:
        results = json.loads((self.directory / "results.json").read_text())["results"]
        return {each["id"]: each["outcome"] for each in results}

    def logs(self) -> str:
        """What the workers wrote to their stderr."""
        return "".join(log.read_text(errors="replace") for log in self.directory.glob("worker-*.log"))

    def _entry(self, journal: Path, wanted: Callable[[Entry], bool]) -> Entry:
        def gone() -> Exception | None:
            return AssertionError(self.said()) if self.child.poll() is not None else None

        tail = Tail(journal)
        return wait_for("an entry", lambda: tail.first(wanted), Deadline.after(REACHED_S), abort=[gone], every_s=0.001)

    def processes(self) -> list[int]:
        """Everything alive that was started by this run: it inherited its TMPDIR."""
        return alive(self.scratch)

    def kill_all(self) -> None:
        kill(self.processes())
        self.child.wait()

    def expect_nothing_left(self) -> None:
        wait_for("its processes to end", lambda: not self.processes(), Deadline.after(3))
        assert list(self.scratch.iterdir()) == []
        assert set(SHARED_MEMORY.iterdir()) <= self.shared_memory


Start = Callable[..., Run]


@pytest.fixture
def cache(tmp_path) -> Path:
    """A cache with all images and no template."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for each in (*cache_directory().glob("images"), *cache_directory().glob("qemu-facts-*")):
        (cache / each.name).symlink_to(each)
    return cache


@pytest.fixture
def start(tmp_path, monkeypatch) -> Iterator[Start]:
    monkeypatch.setenv("VTD_GUESTS", "2")
    (scratch := tmp_path / "scratch").mkdir()
    runs, output = tmp_path / "runs", tmp_path / "output"
    with ExitStack() as stack:

        def start(command: Sequence[str], *arguments: str, **environment: object) -> Run:
            with output.open("wb") as file:
                child = subprocess.Popen(
                    [sys.executable, "-m", *command, "--runs", str(runs), *arguments],
                    cwd=REPOSITORY,
                    env={
                        **os.environ,
                        "TMPDIR": str(scratch),
                        **{key: str(value) for key, value in environment.items()},
                    },
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            run = Run(child, runs, scratch, output, set(SHARED_MEMORY.iterdir()))
            stack.callback(run.kill_all)
            return run

        yield start


def interrupt_all(run: Run) -> None:
    os.killpg(run.child.pid, signal.SIGINT)


def terminate(run: Run) -> None:
    run.child.terminate()


@pytest.mark.parametrize(
    ("moment", "interrupt"),
    [(BOOTING, interrupt_all), (IN_A_STEP, interrupt_all), (IN_A_STEP, terminate)],
    ids=["booting-SIGINT", "step-SIGINT", "step-SIGTERM"],
)
def test_an_interrupted_run_ends_both_machines_and_reports(moment, interrupt, start, capsys) -> None:
    run = start(CLI, *moment.options, *IDS)
    run.halt_at(moment)
    interrupt(run)
    run.release()
    released = time.time()
    assert run.ended(20) == 130, run.said()
    ended_s = time.time() - released
    run.expect_nothing_left()
    assert run.outcomes() == dict.fromkeys(IDS, "error")
    for variant in VARIANTS:
        *_, before, stop = read_journal(run.directory / SCENARIO / variant / "journal.jsonl")
        told = f"the machine was not stopped but lost after {before} and {stop}; {run.said()}{run.logs()}"
        told += f"; released at {released}, the run ended after {ended_s:.1f} s"
        assert (stop.source, stop.kind) == ("process", "stop"), told
    assert main(["verify", str(run.directory)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("moment", [BOOTING, IN_A_STEP], ids=["booting", "step"])
def test_a_killed_run_leaves_only_evidence_that_says_error(moment, start, capsys) -> None:
    run = start(CLI, *moment.options, *IDS)
    run.halt_at(moment)
    run.child.kill()
    run.child.wait()
    run.expect_nothing_left()
    assert main(["report", str(run.directory)]) == 3
    assert run.outcomes() == dict.fromkeys(IDS, "error")
    capsys.readouterr()


def test_an_interrupt_while_templates_are_made_leaves_none_half_made(start, cache) -> None:
    run = start(CLI, *IDS, VTD_CACHE=cache)
    run.halt_at(MAKING_A_TEMPLATE)
    interrupt_all(run)
    run.release()
    assert run.ended(20) == 130, run.said()
    run.expect_nothing_left()
    assert run.outcomes() == dict.fromkeys(IDS, "error")
    assert [path.name for path in (cache / "templates").rglob("*")] == ["making"]


def test_after_a_kill_while_templates_are_made_the_next_run_makes_them(start, cache) -> None:
    run = start(CLI, *IDS, VTD_CACHE=cache)
    run.halt_at(MAKING_A_TEMPLATE)
    run.child.kill()
    run.child.wait()
    run.expect_nothing_left()

    run = start(CLI, *IDS, VTD_CACHE=cache)
    assert run.ended(REACHED_S) == 0, run.said()
    assert list((cache / "templates" / "making").iterdir()) == []
    assert len([path for path in (cache / "templates").iterdir() if path.name != "making"]) == len(IDS)
    run.expect_nothing_left()


def test_a_killed_worker_loses_one_variant_and_the_others_go_on(start) -> None:
    run = start(CLI, *IDS, f"{SCENARIO}[{OTHERS[0]}]")
    run.halt_at(IN_A_STEP)
    os.kill(run.workers[0], signal.SIGKILL)
    run.release()
    assert run.ended(REACHED_S) == 3, run.said()
    run.expect_nothing_left()
    assert run.outcomes() == {IDS[0]: "error", IDS[1]: "pass", f"{SCENARIO}[{OTHERS[0]}]": "pass"}
    assert "the worker process that ran it was killed by SIGKILL" in run.said()


def nodes() -> list[str]:
    return [f"scenarios/{SCENARIO}.yaml::{each}" for each in IDS]


@pytest.mark.parametrize(
    ("moment", "interrupt"), [(BOOTING, interrupt_all), (IN_A_STEP, terminate)], ids=["booting-SIGINT", "step-SIGTERM"]
)
def test_an_interrupted_pytest_ends_both_machines_and_reports(moment, interrupt, start, tmp_path, capsys) -> None:
    run = start(PYTEST, f"--basetemp={tmp_path / 'made-by-pytest'}", *moment.options, *nodes())
    run.halt_at(moment)
    interrupt(run)
    run.release()
    assert run.ended(20) == pytest.ExitCode.INTERRUPTED, run.said()
    run.expect_nothing_left()
    assert run.outcomes() == dict.fromkeys(IDS, "error")
    assert main(["verify", str(run.directory)]) == 0, capsys.readouterr().out


def test_a_killed_pytest_leaves_nothing_running(start, tmp_path) -> None:
    run = start(PYTEST, f"--basetemp={tmp_path / 'made-by-pytest'}", *nodes())
    run.halt_at(IN_A_STEP)
    run.child.kill()
    run.child.wait()
    run.expect_nothing_left()


def test_results_are_those_of_one_worker(start) -> None:
    told = []
    for jobs in ("1", "2"):
        run = start(("harness.cli", "run", "-j", jobs), *IDS, "refused-configuration", "moved-device")
        assert run.ended(2 * REACHED_S) == 0, run.said()
        results = json.loads((run.directory / "results.json").read_text())["results"]
        told.append({each["id"]: (each["outcome"], each["start"], sorted(each["witnesses"])) for each in results})
        run.expect_nothing_left()
    assert told[0] == told[1]
