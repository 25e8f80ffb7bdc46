"""The workers of a run: started, given one plan after the other, listened to, and ended.

A worker leads a session of its own, so Ctrl-C comes to the run alone, which then interrupts each worker exactly once;
the kernel kills it when the run ends in whatever way (`harness.process`), and a worker's QEMU when the worker does.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Self

from harness import suite
from harness.errors import StorageError
from harness.plan import Plan
from harness.process import LADDER_S, Process, StopRung
from harness.result import Progress, Result
from harness.workers.messages import Job, Said, unheard

#: Receives what the worker of this number tells, in the thread that asks for results.
Watch = Callable[[int, Progress | Said], None]

#: Until it listens to its run a worker has nothing to clean up, and dies of SIGINT without a word.
_MAIN = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); from harness.workers.worker import main; main()"

_LOG_LINES = 5

#: Seconds for an interrupted worker to end: its QEMU may take the whole ladder, and evidence is written then.
_STOPPED_S = LADDER_S + 5.0


@dataclass(slots=True)
class _Worker:
    number: int
    process: Process
    link: Connection
    log: Path
    plan: Plan | None = None
    begun: float = field(default_factory=time.monotonic)

    def give(self, plan: Plan) -> None:
        self.plan, self.begun = plan, time.monotonic()
        with suppress(BrokenPipeError):  # it was lost, which is found out when nothing comes from it
            self.link.send(plan)

    def told(self) -> Progress | Said | Result | StorageError | None:
        """Give its next message, None if it was lost."""
        try:
            message: Progress | Said | Result | StorageError = self.link.recv()
        except (EOFError, OSError):  # OSError: in the middle of a message
            return None
        return message


class Workers:
    """Up to `count` processes that run plans for `job`; `watch` is told what they do.

    A context manager: leaving it ends them all. Those that still run a plan are interrupted first, so that they stop
    their machines; leaving it again by Ctrl-C while that takes its time kills them.
    """

    def __init__(self, job: Job, count: int, watch: Watch) -> None:
        self._job = Job(job.run, job.host.telling(unheard), job.prove)
        self._count, self._watch = count, watch
        self._workers: list[_Worker] = []
        self._waiting: deque[Plan] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for worker in self._workers:
                if worker.plan is not None:
                    with suppress(ProcessLookupError):
                        os.kill(worker.process.pid, signal.SIGINT)
            for worker in self._workers:
                rung = worker.process.stop(quit=_nothing_more, quit_s=_STOPPED_S)
                if rung in (StopRung.TERM, StopRung.KILL):
                    text = f"worker {worker.number} had not ended {_STOPPED_S:.0f} s after it was told to: {rung}"
                    self._watch(worker.number, Said(text))
        except BaseException:
            for worker in self._workers:
                worker.process.kill()
                worker.process.stop(quit=None)
            raise
        finally:
            for worker in self._workers:
                worker.link.close()
                _tidy(worker.log)

    def results(self, plans: Sequence[Plan]) -> Iterator[Result]:
        """Hand out `plans` in their order and give each result as it comes.

        A plan whose worker was lost is an ERROR that says how; another worker takes its place. StorageError where the
        evidence of one cannot be written.
        """
        self._waiting.extend(plans)
        for number in range(1, self._count + 1):
            self._start(number)
        while busy := {worker.link: worker for worker in self._workers if worker.plan is not None}:
            for link in wait(list(busy)):
                worker = busy[link]  # type: ignore[index]  # `wait` gives back what it was given
                told = worker.told()
                if told is None:
                    yield self._lost(worker)
                elif isinstance(told, Result):
                    self._give(worker)
                    yield told
                elif isinstance(told, StorageError):
                    worker.plan = None
                    raise told
                else:
                    self._watch(worker.number, told)

    def hand_out_no_more(self) -> None:
        """Let the running plans end and begin no other."""
        self._waiting.clear()

    def _start(self, number: int) -> None:
        if not self._waiting:
            return
        log = self._job.run.path / f"worker-{number}.log"
        ours, theirs = Pipe()
        with theirs:
            process = Process(
                [sys.executable, "-P", "-X", "faulthandler", "-c", _MAIN, str(theirs.fileno())],
                stderr=log,
                pass_fds=(theirs.fileno(),),
                env={"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
            )
        worker = _Worker(number, process, ours, log)
        self._workers.append(worker)
        with suppress(BrokenPipeError):
            ours.send(self._job)
        self._give(worker)

    def _give(self, worker: _Worker) -> None:
        worker.plan = None
        if self._waiting:
            worker.give(self._waiting.popleft())
        else:
            worker.link.close()

    def _lost(self, worker: _Worker) -> Result:
        plan, ran_s = worker.plan, time.monotonic() - worker.begun
        assert plan is not None  # noqa: S101  # only busy workers are listened to
        worker.process.stop(quit=_nothing_more)
        lines = worker.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        reason = "\n".join([f"the worker process that ran it {_ended(worker.process.poll())}", *lines])
        worker.plan = None
        worker.link.close()
        self._workers.remove(worker)
        _tidy(worker.log)
        self._start(worker.number)
        return suite.lost(self._job.run, plan, reason, duration_s=ran_s)


def _ended(status: int | None) -> str:
    if status is None or status >= 0:
        return f"ended with status {status}"
    why = "; the kernel does that where memory runs out" if -status == signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-status).name}{why}"


def _nothing_more() -> None:
    """Leave a process to end by itself: its socket is closed, or it has been interrupted."""


def _tidy(log: Path) -> None:
    """Keep only a log that says something."""
    with suppress(FileNotFoundError):
        if not log.stat().st_size:
            log.unlink()
