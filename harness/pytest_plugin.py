"""Scenarios as pytest items: `scenarios/x.yaml::scenario[variant]`, with marks from their tags.

A FAIL is a failure, an ERROR an error (also in JUnit), a SKIP a skip with its reason. All scenarios of a pytest run
share one run directory, made when the first of them runs; with pytest-xdist the controller names it and the workers
write into it. Infrastructure that is not there ends the session with exit status 3.
"""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pytest

from harness import plan as planning
from harness.errors import HarnessError, StorageError
from harness.evidence import VariantDirectory
from harness.lone_machines import BOOT_LONE_HELP, booting_lone
from harness.plan import Plan
from harness.process import die_with_parent
from harness.pytest_services import (
    CONTROLLER,
    LACKING,
    SERVICES,
    TOLD,
    Controller,
    Services,
    Signals,
    runs_below,
    slots,
    workerinput,
)
from harness.result import Result, unseen
from harness.verdict import Outcome

_CONSOLE_LINES = 40
_OUTCOME = "outcome"


class ScenarioFailed(Exception):
    """A scenario's verdict is FAIL; the text is its story."""


class ScenarioError(Exception):
    """A scenario's verdict is ERROR: nothing is known of the system under test; the text is its story."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("vtd", "VT-d scenarios")
    group.addoption(
        "--prove", action="store_true", help="run the counter-proofs: without protection, attacks must land"
    )
    group.addoption("--cold", action="store_true", help="boot every machine instead of restoring it from a template")
    group.addoption("--boot-lone", action="store_true", help=BOOT_LONE_HELP)
    group.addoption("--runs", default="runs", metavar="DIR", help="where run directories are made (default: runs)")


def pytest_configure(config: pytest.Config) -> None:
    """Open the services."""
    services = Services(config, prove=bool(config.getoption("--prove")), cold=bool(config.getoption("--cold")))
    config.stash[SERVICES] = services
    signals = Signals()
    config.pluginmanager.register(signals, "vtd-signals")
    if workerinput(config):
        if CONTROLLER in workerinput(config):
            die_with_parent(workerinput(config)[CONTROLLER])
    elif config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(Controller(services, signals), "vtd-controller")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Give as many workers for `-n auto` as guests may run at once."""
    return slots().count


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.File | None:
    """Collect `*.yaml` below a directory called `scenarios`."""
    below = (
        file_path.parts[len(parent.config.rootpath.parts) : -1] if _inside(file_path, parent.config.rootpath) else ()
    )
    if file_path.suffix == ".yaml" and "scenarios" in below:
        return ScenarioFile.from_parent(parent, path=file_path)
    return None


class ScenarioFile(pytest.File):
    """A scenario file; its items are the variants of its scenario."""

    def collect(self) -> Iterable[ScenarioItem]:
        """Plan the file; what is wrong with it is shown as the diagnostics say it."""
        services = self.config.stash[SERVICES]
        try:
            files = [_shown(self.path, self.config.rootpath)]
            plans = planning.plan_all(
                files, services.host(), cold=services.cold, remark=lambda found: services.remark(found.render())
            )
        except HarnessError as error:
            raise self.CollectError(str(error)) from error
        return [ScenarioItem.of(self, plan) for plan in plans]


class ScenarioItem(pytest.Item):
    """One variant of a scenario."""

    plan: Plan

    @classmethod
    def of(cls, parent: ScenarioFile, plan: Plan) -> ScenarioItem:
        """Make the item of `plan`, marked with its tags."""
        item: ScenarioItem = cls.from_parent(parent, name=plan.id)
        item.plan = plan
        for tag in plan.tags:
            mark = tag.replace("-", "_")
            item.config.addinivalue_line("markers", f"{mark}: scenarios tagged '{tag}'")
            item.add_marker(mark)
        return item

    def runtest(self) -> None:
        """Run the plan and turn its outcome into pytest's."""
        from harness import suite  # noqa: PLC0415 - collecting runs and reports nothing
        from harness.report.story import tell  # noqa: PLC0415
        from harness.report.text import story_lines  # noqa: PLC0415

        services = self.config.stash[SERVICES]
        try:
            run, host = services.run(), services.host()
            result = suite.run_one(run, self.plan, host, prove=services.prove, watch=unseen)
        except StorageError as error:
            self._end_session(services, error)
            raise
        directory = VariantDirectory(run.path / result.evidence)
        self._record(result, directory, host.describe())
        text = "\n".join(story_lines(result, tell(directory), rerun="pytest"))
        if result.outcome is Outcome.SKIP:
            pytest.skip(result.reason)
        if result.outcome is Outcome.ERROR:
            raise ScenarioError(text)
        if result.outcome is Outcome.FAIL or result.vacuous:
            raise ScenarioFailed(text)

    def _end_session(self, services: Services, error: StorageError) -> None:
        """Begin no other scenario: none could keep its evidence."""
        services.unwritten = error
        self.session.shouldstop = error.message

    def _record(self, result: Result, directory: VariantDirectory, host: dict[str, Any]) -> None:
        self.user_properties += [
            (_OUTCOME, result.outcome.value),
            ("evidence", str(directory.path)),
            ("qemu", str(host.get("qemu"))),
            ("accelerator", str(host.get("accelerator"))),
        ]
        if result.outcome in (Outcome.FAIL, Outcome.ERROR):
            from harness.report.consoles import telling_console  # noqa: PLC0415

            console = telling_console(directory)
            if console.exists():
                lines = console.read_text(encoding="utf-8", errors="replace").splitlines()[-_CONSOLE_LINES:]
                name = f"guest console, {console.relative_to(directory.path)}"
                self.add_report_section("call", name, "\n".join(lines))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show a verdict as its story, everything else as pytest does."""
        if isinstance(excinfo.value, ScenarioFailed | ScenarioError | HarnessError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Give the place of the scenario: file, line from 0, name."""
        return self.path, max(self.plan.line - 1, 0), self.name


def pytest_collection_finish(session: pytest.Session) -> None:
    """Choose what boots, now that it is known what runs.

    The garbage collector is told that what was collected stays, so that it does not look at it at the end again.
    """
    items = [item for item in session.items if isinstance(item, ScenarioItem)]
    if session.config.getoption("--boot-lone"):
        prove = session.config.stash[SERVICES].prove
        for item, plan in zip(items, booting_lone([item.plan for item in items], prove=prove), strict=True):
            item.plan = plan
    if items:
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse one scenario id in two files: evidence goes by it, and a run of both would mix it up."""
    files: dict[str, Path] = {}
    for item in items:
        if isinstance(item, ScenarioItem):
            known = files.setdefault(item.plan.scenario, item.path)
            if known != item.path:
                raise pytest.UsageError(f"scenario '{item.plan.scenario}' is defined by {known} and by {item.path}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report everything but a FAIL as an error, because it tells nothing about the system under test.

    JUnit and the terminal know errors only outside of the call phase, hence the phase. A skip is shown at the
    scenario's line, not at ours.
    """
    report = yield
    services = item.config.stash[SERVICES]
    if services.untold:
        setattr(report, TOLD, services.untold[:])
        services.untold.clear()
    if isinstance(item, ScenarioItem) and isinstance(report.longrepr, tuple):
        report.longrepr = (str(item.path), item.plan.line, report.longrepr[2])
    failed = call.excinfo is not None and call.excinfo.errisinstance(ScenarioFailed)
    if isinstance(item, ScenarioItem) and report.when == "call" and report.failed and not failed:
        report.when = "setup"
    return report


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start counting outcomes where all reports arrive: the controller, or the only process."""
    if not workerinput(session.config):
        session.config.pluginmanager.register(_Tally(session.config.stash[SERVICES]), "vtd-tally")


class _Tally:
    def __init__(self, services: Services) -> None:
        self._services = services

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for text in getattr(report, TOLD, ()):
            self._services.write_line(text)
        if report.when != "teardown":
            known = dict(report.user_properties)
            if _OUTCOME in known and "evidence" in known:
                self._services.outcomes.append(Outcome(str(known[_OUTCOME])))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Tell where evidence will be."""
    services = config.stash[SERVICES]
    proofs = "counter-proofs on" if services.prove else "counter-proofs off (--prove)"
    places = slots()
    return [
        f"vtd: evidence below {runs_below(config)}, {proofs}",
        f"vtd: at most {places.count} {'guest' if places.count == 1 else 'guests'} at once ({places.reason})",
    ]


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Tell what the scenarios will run on, known once some were collected."""
    opened = config.stash[SERVICES].opened
    if opened is None:
        return []
    host = opened.describe()
    return [f"vtd: QEMU {host['qemu']}, {host['accelerator']} ({host['accelerator_reason']})"]


@pytest.hookimpl(trylast=True)  # pytest-xdist waits for its workers before
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the reports; a run whose scenarios were all skipped is no success."""
    services = session.config.stash[SERVICES]
    if services.lacking or services.unwritten is not None:
        from harness import suite  # noqa: PLC0415 - collecting runs and reports nothing

        session.exitstatus = suite.ExitCode.ERROR
    if workerinput(session.config):
        session.config.workeroutput[LACKING] = services.lacking or services.unwritten is not None  # type: ignore[attr-defined]  # made by pytest-xdist
        return
    if services.directory is None or not services.directory.path.exists():  # workers had no scenario to run
        return
    from harness.report.write import write_reports  # noqa: PLC0415 - collecting runs and reports nothing

    try:
        services.results = write_reports(services.directory)
    except StorageError as error:
        from harness.report.results import collect  # noqa: PLC0415
        from harness.suite import ExitCode  # noqa: PLC0415

        services.results = collect(services.directory)
        services.unreported = error
        session.exitstatus = ExitCode.ERROR
    if exitstatus == pytest.ExitCode.OK and services.outcomes and set(services.outcomes) == {Outcome.SKIP}:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the table and the path of the page."""
    services = config.stash[SERVICES]
    if services.unreported is not None:
        terminalreporter.write_line(f"error: {services.unreported}")
    if services.directory is None or not services.results:
        return
    from harness.report.terminal import table, time_lines  # noqa: PLC0415 - collecting runs and reports nothing
    from harness.report.text import Style, totals  # noqa: PLC0415

    terminalreporter.section("VT-d scenarios")
    for line in table(services.results, Style(symbols=True)):
        terminalreporter.write_line(line)
    for line in [*time_lines(services.directory, services.results), totals(services.results)]:
        terminalreporter.write_line(line)
    if services.outcomes and set(services.outcomes) == {Outcome.SKIP}:
        terminalreporter.write_line("every scenario was skipped: nothing was proven")
    terminalreporter.write_line(f"report: {services.directory.path / 'index.html'}")


def _inside(path: Path, root: Path) -> bool:
    return path.is_relative_to(root)


def _shown(path: Path, root: Path) -> Path:
    return path.relative_to(root) if _inside(path, root) and root == Path.cwd() else path
