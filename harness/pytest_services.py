"""What all scenarios of one pytest process share, and what pytest-xdist makes of that for several processes."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from harness import equipment
from harness.equipment import HostFacts
from harness.errors import HarnessError, InfraError, StorageError
from harness.evidence import RunDirectory
from harness.host.slots import GuestSlots
from harness.images.store import cache_directory
from harness.result import Result
from harness.storage import writing
from harness.uninterrupted import interrupt
from harness.verdict import Outcome

#: What a worker tells the controller when it had no host to run on.
LACKING = "vtd_lacking"

#: In a worker's input: the process id of the controller, if that is its parent.
CONTROLLER = "vtd_controller"

#: Seconds in which a second interrupt is the first one said again; later on, the first one has been lost.
_REPEATED_S = 5.0

#: In a report: lines that a worker's user would miss otherwise.
TOLD = "vtd_told"


@dataclass(slots=True)
class Services:
    """What all scenarios of one pytest process share; each is opened when the first scenario needs it."""

    config: pytest.Config
    prove: bool
    cold: bool
    opened: HostFacts | None = None
    lacking: bool = False
    unwritten: StorageError | None = None
    unreported: StorageError | None = None
    directory: RunDirectory | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)

    def host(self) -> HostFacts:
        """Give the host with QEMU ready; InfraError if it cannot be had, which is tried once and told once."""
        if self.lacking:
            raise InfraError("the scenarios have no host to run on, as told above")
        if self.opened is None:
            try:
                self.opened = equipment.open_host(self._tell)
            except InfraError:
                self.lacking = True
                raise
        return self.opened

    def run(self) -> RunDirectory:
        """Give the run directory; a worker uses the controller's."""
        if self.unwritten is not None:
            raise self.unwritten
        if self.directory is None:
            from harness import suite  # noqa: PLC0415 - collecting runs and reports nothing
            from harness.report.results import RUN  # noqa: PLC0415

            given = workerinput(self.config).get("vtd_run")
            self.directory = RunDirectory(Path(given)) if given else self._begin()
            if given and not (self.directory.path / RUN).exists():
                with writing("the evidence of a run", self.directory.path, alone=True):
                    self.directory.path.mkdir(parents=True, exist_ok=True)  # another worker may be about the same
                self.directory.become_latest()
                command = workerinput(self.config)["mainargv"]
                suite.describe(self.directory, self.host().describe(), prove=self.prove, command=command)
        return self.directory

    def _begin(self) -> RunDirectory:
        from harness import suite  # noqa: PLC0415 - collecting runs and reports nothing

        return suite.begin(runs_below(self.config), self.host().describe(), prove=self.prove)

    def remark(self, text: str) -> None:
        """Write what is right and may not be meant; of several workers, which all collect the same, the first does."""
        if workerinput(self.config).get("workerid", "gw0") == "gw0":
            self._tell(text)

    def _tell(self, text: str) -> None:
        """Write a line, or keep it for the next report that goes from this worker to the controller.

        So with workers the user is told afterwards, with the scenario: pytest-xdist's controller ends a worker that
        sends it an event it does not know, and its terminal is written to between reports only.
        """
        if workerinput(self.config):
            self.untold.append(text)
        else:
            self.write_line(text)

    def write_line(self, text: str) -> None:
        """Write a line to the terminal of this process, also in the middle of a test."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        if reporter is not None:
            with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
                reporter.write_line(text)


SERVICES = pytest.StashKey[Services]()


class Signals:
    """SIGTERM is Ctrl-C, also for the workers; another of either does not interrupt the end of the session."""

    def __init__(self) -> None:
        self.workers: dict[str, int] = {}
        self._before: dict[int, Any] = {}
        self._deaf_until = 0.0
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._interrupt)

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Let the session end in peace: the workers stop their machines, and what ran is reported."""
        self._deaf_until = math.inf

    def pytest_unconfigure(self) -> None:
        """Leave the signals as they were found."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        if time.monotonic() < self._deaf_until:
            return
        self._deaf_until = time.monotonic() + _REPEATED_S
        if number == signal.SIGTERM:
            for worker in self.workers.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGINT)
        interrupt()


class Controller:
    """What only pytest-xdist asks for; its hooks are unknown without it."""

    def __init__(self, services: Services, signals: Signals) -> None:
        self._services, self._signals = services, signals

    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where to write, and learn which process it is.

        One that this process did not start (on another host, or by way of a proxy) is left to pytest-xdist.
        """
        if self._services.directory is None:
            self._services.directory = RunDirectory.named(runs_below(self._services.config))
        node.workerinput["vtd_run"] = str(self._services.directory.path)
        asked = node.gateway.remote_exec("import os; channel.send((os.getpid(), os.getppid()))")
        worker, parent = asked.receive()
        asked.waitclose()
        if parent == os.getpid():
            node.workerinput[CONTROLLER] = parent
            self._signals.workers[node.gateway.id] = worker

    def pytest_testnodedown(self, node: Any) -> None:
        """Learn from a worker that ended (not from one that was lost) whether it had no host to run on."""
        self._signals.workers.pop(node.gateway.id, None)
        self._services.lacking |= bool(getattr(node, "workeroutput", {}).get(LACKING))

    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Report a scenario whose worker was lost as an error, as `pytest_runtest_makereport` would."""
        if crashitem.partition("::")[0].endswith(".yaml"):
            report.when = "setup"


def slots() -> GuestSlots:
    """Give the places for guests on this host; UsageError if the environment says nonsense of them."""
    try:
        return GuestSlots.of(cache_directory())
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error


def workerinput(config: pytest.Config) -> dict[str, Any]:
    """Give what pytest-xdist's controller told this worker; empty outside of a worker."""
    given: dict[str, Any] = getattr(config, "workerinput", {})
    return given


def runs_below(config: pytest.Config) -> Path:
    """Give the directory that run directories are made in."""
    return config.rootpath / str(config.getoption("--runs"))
