"""SIGKILL of the harness, of QEMU and of a pytest worker, at each stage of a real run, leaves nothing but evidence.

The moments are read from the journal. The harness is halted (SIGSTOP) as soon as one is there, so that it is certain
what was killed when; a halted harness that is already past the moment is let go, and another run is tried.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from harness.cli import main
from harness.evidence import Entry, read_journal
from harness.waiting import Deadline, wait_for
from tests.listening import listening

pytestmark = [pytest.mark.guest, pytest.mark.alone]

REPOSITORY = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev") / "shm"
SCENARIO = "unmapped-write"
VARIANT = "image=debian-13"
NODE = f"scenarios/{SCENARIO}.yaml::{SCENARIO}[{VARIANT}]"
LAST_STEP = len(yaml.safe_load((REPOSITORY / f"scenarios/{SCENARIO}.yaml").read_text())["steps"]) - 1
#: A short scenario for the worker that replaces a killed one.
NEXT = "scenarios/refused-configuration.yaml::refused-configuration[aw-bits]"

CLI = ("harness.cli", "run", f"{SCENARIO}[{VARIANT}]")
PYTEST = ("pytest", "-p", "no:cacheprovider", "-n", "1")

#: More than a busy host needs for a boot, and how often a moment may be missed before that is a defect of this test.
REACHED_S, ATTEMPTS = 90, 5


@dataclass(frozen=True)
class Moment:
    """Between the entry with which it has come and the one with which it is over."""

    reached: Callable[[Entry], bool]
    over: Callable[[Entry], bool]


def what(source: str, kind: str, **data: object) -> Callable[[Entry], bool]:
    return lambda entry: (
        (entry.source, entry.kind) == (source, kind) and all(entry.data.get(key) == data[key] for key in data)
    )


def step_end(index: int) -> Callable[[Entry], bool]:
    return lambda entry: entry.source == "runner" and entry.kind == "step-end" and entry.step == index


STARTED = what("process", "start")
RUNNING = what("qmp", "command", command="cont")
MOMENTS = {
    "starting": Moment(STARTED, RUNNING),
    "booting": Moment(RUNNING, what("process", "ready")),
    "dma": Moment(what("agent", "dma", purpose="attack"), what("agent", "dma-done", purpose="attack")),
    "teardown": Moment(step_end(LAST_STEP), what("process", "stop")),
}


@dataclass
class FrontEnd:
    """A front end that runs as a child process; `worker` is the process that runs the scenario, itself or its child."""

    child: subprocess.Popen[bytes]
    runs: Path
    scratch: Path
    output: Path
    shared_memory: set[Path]
    qemu: int = 0
    worker: int = 0

    def wait_for(self, moment: Moment) -> bool:
        """Halt the worker at `moment`, with QEMU known; False if it was missed."""
        found = self._entry(STARTED)
        self.qemu = int(found.data["pid"])
        self.worker = self.child.pid if parent(self.qemu) == self.child.pid else parent(self.qemu)
        if moment.reached is not STARTED:
            self._entry(RUNNING)
            assert not listening(self.qemu), "a port that could be left behind"
            self._entry(moment.reached)
        os.kill(self.worker, signal.SIGSTOP)
        wait_for("the worker to be halted", lambda: state(self.worker) in "TZ", Deadline.after(5))
        if any(moment.over(entry) for entry in self.entries()):
            return False
        # A process in the middle of an exec has no command line; one that is never found could not be missed later.
        found_all = {self.worker, self.qemu}.issubset
        wait_for("both to be found", lambda: found_all(self.processes()), Deadline.after(5))
        return True

    def release(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.worker, signal.SIGCONT)

    def ended(self, seconds: float) -> int:
        wait_for(
            "the end of the run", lambda: self.child.poll() is not None, Deadline.after(seconds), observed=self.said
        )
        return self.child.returncode

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    @property
    def directory(self) -> Path:
        return (self.runs / "latest").resolve()

    @property
    def variant(self) -> Path:
        return self.directory / SCENARIO / VARIANT

    def result(self) -> dict[str, object]:
        (result,) = (
            each
            for each in json.loads((self.directory / "results.json").read_text())["results"]
            if each["id"] == f"{SCENARIO}[{VARIANT}]"
        )
        return result

    def entries(self) -> list[Entry]:
        path = self.variant / "journal.jsonl"
        return read_journal(path) if path.exists() else []

    def _entry(self, wanted: Callable[[Entry], bool]) -> Entry:
        def gone() -> Exception | None:
            return AssertionError(self.said()) if self.child.poll() is not None else None

        journal = self.variant / "journal.jsonl"
        tail = Tail(journal)
        return wait_for("an entry", lambda: tail.first(wanted), Deadline.after(REACHED_S), abort=[gone], every_s=0.001)

    def processes(self) -> list[int]:
        """Everything alive that was started by this run: it names the run, or inherited its TMPDIR."""
        return alive(self.scratch, self.runs)

    def kill_all(self) -> None:
        """Leave no leftovers of a test that found some."""
        kill(self.processes())
        self.child.wait()

    def expect_nothing_left(self) -> None:
        """Wait a little: processes end one after the other."""
        wait_for("its processes to end", lambda: not self.processes(), Deadline.after(3))
        assert list(self.scratch.iterdir()) == []
        assert set(SHARED_MEMORY.iterdir()) <= self.shared_memory


@dataclass
class Tail:
    """A journal that is being written, each line read once."""

    path: Path
    offset: int = 0

    def first(self, wanted: Callable[[Entry], bool]) -> Entry | None:
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.offset += len(line)
                if wanted(entry := Entry(**json.loads(line))):
                    return entry
        return None


def status(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def state(pid: int) -> str:
    return status(pid)[0]


def alive(scratch: Path, *named: Path) -> list[int]:
    """Every other process that inherited `scratch` as its TMPDIR, or has one of `named` on its command line."""
    mark, found = f"TMPDIR={scratch}\0".encode(), []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            with suppress(OSError):
                words = (process / "cmdline").read_bytes()
                if mark in (process / "environ").read_bytes() or any(os.fsencode(path) in words for path in named):
                    found.append(int(process.name))
    return found


def kill(processes: Sequence[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def parent(pid: int) -> int:
    return int(status(pid)[1])


Start = Callable[[Sequence[str]], FrontEnd]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """One place for all runs, so that each is the next run of one that was killed."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def start(runs, tmp_path) -> Iterator[Start]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with ExitStack() as stack:

        def start(command: Sequence[str]) -> FrontEnd:
            (runs / "latest").unlink(missing_ok=True)
            output = tmp_path / "output"
            with output.open("wb") as file:
                child = subprocess.Popen(
                    [sys.executable, "-m", *command, "--runs", str(runs)],
                    cwd=REPOSITORY,
                    env={**os.environ, "TMPDIR": str(scratch)},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            front_end = FrontEnd(child, runs, scratch, output, set(SHARED_MEMORY.iterdir()))
            stack.callback(front_end.kill_all)
            return front_end

        yield start


def halted_at(moment: Moment, start: Start, command: Sequence[str]) -> FrontEnd:
    for _ in range(ATTEMPTS):
        run = start(command)
        if run.wait_for(moment):
            return run
        run.release()
        run.ended(REACHED_S)
    pytest.fail(f"the moment was missed {ATTEMPTS} times")


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_killed_harness_leaves_only_evidence_that_says_error(moment, start, capsys) -> None:
    run = halted_at(moment, start, CLI)
    run.child.kill()
    assert run.child.wait() == -signal.SIGKILL
    run.expect_nothing_left()

    assert main(["report", str(run.directory)]) == 3
    assert run.result()["outcome"] == "error"
    assert str(run.result()["reason"]).startswith("the run ended before this variant had a result")
    capsys.readouterr()
    assert main(["judge", str(run.directory)]) == 1
    judged = capsys.readouterr().out.splitlines()[0]
    assert re.match(rf"! {re.escape(f'{SCENARIO}[{VARIANT}]')}: .*cut off.*\(had no verdict\)$", judged), judged


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_killed_qemu_ends_the_run_at_once_as_an_error_that_names_it(moment, start, capsys) -> None:
    run = halted_at(moment, start, CLI)
    os.kill(run.qemu, signal.SIGKILL)
    run.release()
    assert run.ended(8) == 3
    run.expect_nothing_left()

    reason = str(run.result()["reason"])
    assert run.result()["outcome"] == "error"
    assert re.search(r"QEMU .*(ended|killed)", reason), reason
    assert str(-signal.SIGKILL) in reason, reason
    assert "waited" not in reason
    assert run.entries()[-1].kind == "end"
    assert all((run.variant / name).exists() for name in ("verdict.json", "qemu.argv", "qemu.stderr", "repro.sh"))
    capsys.readouterr()
    assert main(["judge", str(run.directory)]) == 0
    assert "every verdict is what it was" in capsys.readouterr().out


def test_a_killed_pytest_worker_loses_one_item_and_the_next_one_runs(start, tmp_path) -> None:
    others = f"--basetemp={tmp_path / 'made-by-pytest-xdist'}"
    run = halted_at(MOMENTS["dma"], start, (*PYTEST, others, NODE, NEXT))
    assert run.worker != run.child.pid, "pytest runs the scenario itself"
    os.kill(run.worker, signal.SIGKILL)
    assert run.ended(REACHED_S) == 1, run.said()
    run.expect_nothing_left()

    assert f"crashed while running '{NODE}'" in run.said()
    assert re.search(rf"^ERROR {re.escape(NODE)}", run.said(), re.MULTILINE), "it tells nothing about the system"
    assert re.search(r"\b1 passed, 1 error\b", run.said())
    assert run.result()["outcome"] == "error"


def test_the_next_run_works(start) -> None:
    run = start(CLI)
    assert run.ended(REACHED_S) == 0, run.said()
    assert run.result()["outcome"] == "pass"
    run.expect_nothing_left()
