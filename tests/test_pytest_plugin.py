from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from harness import cli
from harness.waiting import Deadline, wait_for

pytest_plugins = ["pytester"]

HERE = Path(__file__).parent
CONFTEST = f"""
import sys
sys.path[:0] = [{str(HERE.parent)!r}, {str(HERE / "report")!r}]
import fake_runner
fake_runner.install()
pytest_plugins = ["harness.pytest_plugin"]
"""


@pytest.fixture
def project(pytester):
    """A project with the plugin over a fake runner; call it to add a scenario."""
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\naddopts = --strict-markers -ra\nfilterwarnings = error\n")
    pytester.mkdir("scenarios")

    def add(name, **given):
        path = pytester.path / f"scenarios/{name}.yaml"
        path.write_text(json.dumps({"scenario": name, "title": f"title of {name}", **given}))

    add.run = pytester.runpytest_subprocess
    add.path = pytester.path
    return add


def results(project):
    return json.loads((project.path / "runs/latest/results.json").read_text())["results"]


def test_ids_marks_and_keywords_select(project):
    project("write", variants=["image=debian-12", "image=debian-13"], tags=["hot-plug"])
    project("read", tags=["smoke"])
    first = "scenarios/write.yaml::write[[]image=debian-12[]]"
    project.run("--collect-only", "-q").stdout.fnmatch_lines(["scenarios/read.yaml::read", first])
    project.run("-m", "hot_plug").assert_outcomes(passed=2, deselected=1)
    project.run("-k", "debian-12").assert_outcomes(passed=1, deselected=2)
    project.run("scenarios/write.yaml::write[image=debian-13]").assert_outcomes(passed=1)


def test_outcomes_are_pytests(project):
    project("good")
    project("leaks", blocked="leak")
    project("unknown", blocked="silent-log")
    project("broken", raises="QEMU ended")
    project("bug", crash=True)
    project("skipped", skip="needs KVM; found none")
    ended = project.run()
    ended.assert_outcomes(passed=1, failed=1, errors=3, skipped=1)
    assert ended.ret == 1
    ended.stdout.fnmatch_lines(["*step 5 of 5 (scenarios/leaks.yaml:20): 'rogue' writes 64 bytes to 'victim'"])
    ended.stdout.fnmatch_lines(["*expected: blocked, reason 0x05 pte-write"])
    ended.stdout.fnmatch_lines(["SKIPPED*scenarios/skipped.yaml:1: needs KVM; found none"])
    ended.stdout.fnmatch_lines(["report: */index.html"])
    text = ended.stdout.str()
    assert text.count("Traceback") == 0
    assert "ZeroDivisionError: a bug" in text


def test_a_vacuous_scenario_fails_with_prove(project):
    project("a", proofs={"iommu_off": "vacuous"})
    project.run().assert_outcomes(passed=1)
    ended = project.run("--prove")
    ended.assert_outcomes(failed=1)
    ended.stdout.fnmatch_lines(["*vacuous: it stays green without iommu_off*"])


def test_junit_tells_errors_from_failures_and_carries_properties(project):
    project("leaks", blocked="leak")
    project("unknown", blocked="silent-log")
    project.run("--junit-xml=junit.xml")
    suite = ET.parse(project.path / "junit.xml").getroot().find("testsuite")  # noqa: S314 - our own file
    assert (suite.get("failures"), suite.get("errors")) == ("1", "1")
    assert suite.find("testcase[@name='unknown']/error") is not None
    case = suite.find("testcase[@name='leaks']")
    found = {each.get("name"): each.get("value") for each in case.iter("property")}
    assert found["outcome"] == "fail"
    assert (found["qemu"], found["accelerator"]) == ("10.0.2", "tcg")
    assert (Path(found["evidence"]) / "verdict.json").exists()


def test_the_guests_console_comes_with_a_failure(project):
    project("leaks", blocked="leak")
    project.run().stdout.fnmatch_lines(["*guest console*", "console.log of leaks"])


def test_wrong_scenarios_are_collection_errors_in_their_own_words(project):
    project("good")
    project("bad", wrong="'drvier' is not a field")
    ended = project.run()
    assert ended.ret == pytest.ExitCode.INTERRUPTED
    ended.stdout.fnmatch_lines(
        [
            "scenarios/bad.yaml:1:1: error: 'drvier' is not a field",
            "    1 | scenario: x",
            "*^^^^^^^^ did you mean 'right'?",
        ]
    )
    assert "Traceback" not in ended.stdout.str()
    assert not (project.path / "runs").exists()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_host_that_cannot_be_had_ends_the_session_with_3(project, workers):
    project("a")
    project("b")
    broken = "from harness import equipment, errors\ndef broken(_): raise errors.InfraError('no QEMU')\n"
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text() + "\n" + broken + "equipment.open_host = broken\n")
    ended = project.run("-n", workers, "-rN")
    assert ended.ret == 3
    assert ended.stdout.str().count("no QEMU") == 1


def test_a_run_in_which_everything_was_skipped_is_no_success(project):
    project("a", skip="needs KVM")
    (project.path / "test_other.py").write_text("def test_unit(): pass\n")
    ended = project.run()
    assert ended.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    ended.stdout.fnmatch_lines(["every scenario was skipped: nothing was proven"])
    project("b")
    assert project.run().ret == 0


def test_a_session_without_scenarios_makes_no_run_and_opens_no_host(project):
    project("a")
    (project.path / "test_other.py").write_text("def test_unit(): pass\n")
    ended = project.run("test_other.py")
    assert ended.ret == 0
    assert "looking at QEMU" not in ended.stdout.str()
    assert not (project.path / "runs").exists()


def test_one_run_directory_per_session_with_all_results(project):
    project("a", variants=["x=1", "x=2"])
    project("b", blocked="leak")
    project.run()
    assert len(list((project.path / "runs").iterdir())) == 2  # the run and 'latest'
    assert sorted(result["id"] for result in results(project)) == ["a[x=1]", "a[x=2]", "b"]
    assert (project.path / "runs/latest/manifest.json").exists()


def test_the_header_tells_what_scenarios_run_on(project):
    project("a")
    ended = project.run()
    ended.stdout.fnmatch_lines(["vtd: evidence below */runs, counter-proofs off (--prove)"])
    ended.stdout.fnmatch_lines(["vtd: QEMU 10.0.2, tcg (no /dev/kvm)"])


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]])
def test_a_remark_is_told_once_and_fails_nothing(project, arguments):
    project("a", variants=["x=1", "x=2", "x=3", "x=4"], unused="device 'spare' is not used")

    ended = project.run(*arguments)

    ended.assert_outcomes(passed=4)
    assert ended.stdout.str().count("scenarios/a.yaml:1:1: remark: device 'spare' is not used") == 1


def test_yaml_outside_of_scenarios_is_left_alone(project):
    project("a")
    (project.path / "other.yaml").write_text("wrong: yes\n")
    project.run().assert_outcomes(passed=1)


def test_workers_of_xdist_share_the_run_and_only_the_controller_reports(project):
    project("a", variants=["x=1", "x=2", "x=3"])
    project("b", blocked="leak")
    project("c", raises="QEMU ended")
    project("d", skip="needs KVM")
    ended = project.run("-n", "2")
    ended.assert_outcomes(passed=3, failed=1, errors=1, skipped=1)
    assert len(list((project.path / "runs").iterdir())) == 2
    found = {result["id"]: result["outcome"] for result in results(project)}
    assert found == {"a[x=1]": "pass", "a[x=2]": "pass", "a[x=3]": "pass", "b": "fail", "c": "error", "d": "skip"}
    host = json.loads((project.path / "runs/latest/results.json").read_text())["host"]
    assert host["accelerator"] == "tcg"


def test_the_run_tells_the_command_that_was_given_and_not_a_workers(project):
    project("a")
    project.run("-n", "1", "scenarios/a.yaml")
    command = json.loads((project.path / "runs/latest/run.json").read_text())["command"]
    assert command[-1] == "scenarios/a.yaml"


@pytest.mark.parametrize("before", [False, True], ids=["no run before", "a run before"])
def test_xdist_without_scenarios_leaves_the_runs_as_they_were(project, before):
    (project.path / "test_other.py").write_text("def test_unit(): pass\n")
    runs = project.path / "runs"
    if before:
        project("a")
        project.run("-n", "1", "scenarios")
        assert results(project)
    known = sorted(runs.iterdir()) if before else []
    latest = runs / "latest"
    target = latest.readlink() if before else None
    assert project.run("-n", "1", "test_other.py").ret == 0
    assert (sorted(runs.iterdir()) if before else list(project.path.glob("runs"))) == known
    assert target is None or latest.readlink() == target


def test_a_worker_by_way_of_a_proxy_runs_scenarios_too(project):
    for name in "abcd":
        project(name)
    ended = project.run("--dist", "load", "--px", "popen//id=proxy", "--tx", "popen//via=proxy", "--tx", "popen")
    ended.assert_outcomes(passed=4)


def test_one_scenario_id_in_two_files_is_refused(project):
    project("write")
    (project.path / "scenarios/copy.yaml").write_text(json.dumps({"scenario": "write", "title": "again"}))

    ended = project.run()

    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    ended.stderr.fnmatch_lines(["*scenario 'write' is defined by *copy.yaml and by *write.yaml*"])


@pytest.mark.parametrize(("arguments", "start"), [([], "template"), (["--cold"], "cold"), (["--cold", "-n1"], "cold")])
def test_a_whole_session_can_be_cold(project, arguments, start):
    project("a")
    ended = project.run(*arguments)
    assert ended.ret == 0
    assert results(project)[0]["start"] == start
    ended.stdout.fnmatch_lines(
        [f"started:  {'1 from templates, 0' if start == 'template' else '0 from templates, 1'} cold"]
    )


@pytest.mark.parametrize("arguments", [[], ["-n2"]], ids=["alone", "two workers"])
def test_what_is_lone_is_told_by_what_was_chosen(project, arguments):
    for name, machine in (("a", "common"), ("b", "odd"), ("c", "common"), ("d", "odd")):
        project(name, machine=[machine])
    assert project.run("--boot-lone", "-k", "not d", *arguments).ret == 0
    started = {result["id"]: result["start"] for result in results(project)}
    assert started == {"a": "template", "b": "cold", "c": "template"}


@pytest.mark.parametrize(("arguments", "start"), [([], "cold"), (["--prove"], "template")])
def test_a_machine_that_a_counter_proof_has_too_is_lone_only_if_none_is_run(project, arguments, start):
    project("a", machine=["common"], proofs={"iommu_off": "red"})
    project("b", machine=["iommu_off"])
    assert project.run("--boot-lone", *arguments).ret == 0
    assert {result["start"] for result in results(project)} == {start}


@pytest.mark.parametrize("arguments", [[], ["-n2"]], ids=["alone", "two workers"])
def test_what_is_being_prepared_reaches_the_user(project, arguments):
    project("a")
    project("b")
    lines = project.run(*arguments).stdout.lines
    assert [sum(f"template {name}: booting" in line for line in lines) for name in "ab"] == [1, 1]


def test_the_header_tells_how_many_guests_run_at_once_and_auto_is_as_many(project, monkeypatch):
    project("a")
    monkeypatch.setenv("VTD_GUESTS", "3")
    ended = project.run("-n", "auto")
    ended.stdout.fnmatch_lines(["vtd: at most 3 guests at once (asked for by VTD_GUESTS)", "3 workers *"])
    monkeypatch.setenv("VTD_GUESTS", "many")
    ended = project.run("-n", "auto")
    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    ended.stderr.fnmatch_lines(["*VTD_GUESTS is 'many'*"])


@pytest.fixture
def session(project):
    """Start pytest with two workers as a process that leads a group, and wait until both run a scenario."""
    for name in ("a", "b"):
        project(name, meets="never")
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2"]
    with subprocess.Popen(
        argv, cwd=project.path, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            begun = [project.path / "begun" / name for name in ("a", "b")]
            wait_for(
                "both to begin", lambda: all(path.exists() and path.read_text() for path in begun), Deadline.after(60)
            )
            yield process, [Path("/proc", path.read_text()) for path in begun]
        finally:
            process.kill()


@pytest.mark.parametrize(
    "signals", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT,) * 9], ids=["INT", "TERM", "INTs"]
)
def test_an_interrupt_ends_the_workers_and_what_ran_is_reported(project, session, signals):
    process, workers = session
    for number in signals:
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, out
    assert not [path for path in workers if path.exists()]
    assert {each["outcome"] for each in results(project)} == {"error"}
    assert len(list(project.path.glob("runs/latest/*/default/stopped"))) == 2
    assert cli.main(["verify", str(project.path / "runs/latest")]) == 0


def test_workers_do_not_outlive_a_killed_session(session):
    process, workers = session
    process.kill()
    wait_for("the workers to be gone", lambda: not [path for path in workers if path.exists()], Deadline.after(5))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_disk_that_fills_up_ends_the_session_with_3_and_keeps_its_verdicts(project, disk, workers):
    given = "from harness import evidence, suite\nevidence.FLOOR = suite.LEFT = 0\n"
    project.path.joinpath("conftest.py").write_text(CONFTEST + given)
    for number in range(40):
        project(f"s{number:02}")
    ended = project.run("-n", workers, "--runs", str(disk / "runs"), "-p", "no:cacheprovider")
    text = ended.stdout.str() + ended.stderr.str()
    assert ended.ret == 3
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text
    told = [line for line in text.splitlines() if "error: " in line]
    assert len(told) == 1, text
    assert told[0].startswith("error: ")
    assert f"cannot be written to {disk}" in told[0]
    assert "No space left on device" in told[0]
    assert "are free there" in told[0] or "are missing" in told[0]
    kept = [json.loads(path.read_text()) for path in disk.glob("runs/*/*/*/result.json")]
    passed = [result["id"] for result in kept if result["outcome"] == "pass"]
    assert passed
    assert len(kept) < 40
    for name in passed:
        assert name in text
