from __future__ import annotations

import json
import os
import pty
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "report"))
import fake_runner

from harness import cli
from harness.cli.shell import pump
from harness.errors import HarnessError
from harness.selection import Unselectable, expression


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A directory with scenarios whose outcomes the fake runner reads from them; call it to add one."""
    monkeypatch.chdir(tmp_path)
    fake_runner.install(monkeypatch.setattr)
    (tmp_path / "scenarios").mkdir()

    def add(name, **given):
        (tmp_path / f"scenarios/{name}.yaml").write_text(json.dumps({"scenario": name, "title": name, **given}))

    return add


def latest():
    return json.loads(Path("runs/latest/results.json").read_text())["results"]


@pytest.mark.parametrize(
    ("others", "status"),
    [
        ([{}], 0),
        ([{}, {"skip": "needs KVM"}], 0),
        ([{"blocked": "leak"}], 1),
        ([{"raises": "QEMU ended"}], 3),
        ([{"blocked": "silent-log"}, {"blocked": "leak"}], 3),
        ([{"skip": "needs KVM"}], 4),
        ([{"wrong": "'drvier' is no field"}, {"raises": "QEMU ended"}, {"blocked": "leak"}], 2),
    ],
)
def test_exit_status_is_the_worst_in_the_order_2_3_1(project, others, status):
    for number, given in enumerate(others):
        project(f"s{number}", **given)
    assert cli.main(["run"]) == status


@pytest.mark.parametrize(("proof", "status"), [("red", 0), ("vacuous", 1)])
def test_a_vacuous_counter_proof_fails_the_run(project, proof, status):
    project("a", proofs={"iommu_off": proof})
    assert cli.main(["run", "--prove"]) == status
    assert latest()[0]["counter_proofs"] == {"iommu_off": proof}


def test_without_prove_counter_proofs_are_reported_as_not_run(project):
    project("a", proofs={"iommu_off": "vacuous"})
    assert cli.main(["run"]) == 0
    assert latest()[0]["counter_proofs"] == {"iommu_off": "not-run"}


@pytest.mark.parametrize(("arguments", "start"), [([], "template"), (["--cold"], "cold")])
def test_a_whole_run_can_be_cold(project, arguments, start):
    project("a")
    assert cli.main(["run", *arguments]) == 0
    assert latest()[0]["start"] == start


def test_a_lone_machine_boots_if_that_was_asked_for(project):
    for name, machine in (("a", "common"), ("b", "odd"), ("c", "common")):
        project(name, machine=[machine])
    assert cli.main(["run", "--boot-lone"]) == 0
    assert {result["id"]: result["start"] for result in latest()} == {"a": "template", "b": "cold", "c": "template"}
    assert cli.main(["run", "--boot-lone", "a", "b"]) == 0
    assert {result["id"]: result["start"] for result in latest()} == {"a": "cold", "b": "cold"}


@pytest.mark.parametrize(("arguments", "start"), [([], "cold"), (["--prove"], "template")])
def test_a_machine_that_a_counter_proof_has_too_is_lone_only_if_none_is_run(project, arguments, start):
    project("a", machine=["common"], proofs={"iommu_off": "red"})
    project("b", machine=["iommu_off"])
    assert cli.main(["run", "--boot-lone", *arguments]) == 0
    assert {result["start"] for result in latest()} == {start}


def test_a_run_leaves_all_reports_and_latest_points_at_it(project):
    project("a")
    cli.main(["run"])
    assert {path.name for path in Path("runs/latest").iterdir()} == {
        "a", "run.json", "results.json", "junit.xml", "index.html", "manifest.json",
    }  # fmt: skip
    assert json.loads(Path("runs/latest/run.json").read_text())["host"]["qemu"] == "10.0.2"
    assert cli.main(["verify"]) == 0


def test_the_first_that_goes_wrong_ends_the_run_with_x(project):
    for name, blocked in (("a", "all"), ("b", "leak"), ("c", "all")):
        project(name, blocked=blocked)
    assert cli.main(["run", "-x"]) == 1
    assert [result["id"] for result in latest()] == ["a", "b"]


def test_an_interrupt_reports_what_ran(project, capsys):
    project("a")
    project("b", interrupt=True)
    project("c")
    assert cli.main(["run"]) == 130
    assert [(result["id"], result["outcome"]) for result in latest()] == [("a", "pass"), ("b", "error")]
    assert "interrupted; 1 passed, 1 error" in capsys.readouterr().out


def test_a_bug_of_the_harness_is_an_error_with_its_traceback_as_evidence(project, capsys):
    project("a", crash=True)
    project("b")
    assert cli.main(["run"]) == 3
    assert [result["outcome"] for result in latest()] == ["error", "pass"]
    assert "ZeroDivisionError: a bug" in capsys.readouterr().out
    assert "Traceback" in Path("runs/latest/a/default/traceback.txt").read_text()


def test_an_error_of_the_harness_is_a_result_and_others_still_run(project, capsys):
    project("a", raises="QEMU ended with status 1")
    project("b")
    assert cli.main(["run"]) == 3
    assert [(result["id"], result["outcome"]) for result in latest()] == [("a", "error"), ("b", "pass")]
    out = capsys.readouterr()
    assert "QEMU ended with status 1" in out.out
    assert "Traceback" not in out.out + out.err


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ([], ["nic-traffic", "write[x=1]", "write[x=2]"]),
        (["write"], ["write[x=1]", "write[x=2]"]),
        (["write[x=2]"], ["write[x=2]"]),
        (["scenarios/write.yaml::write[x=1]"], ["write[x=1]"]),
        (["scenarios/write.yaml"], ["write[x=1]", "write[x=2]"]),
        (["-k", "not write"], ["nic-traffic"]),
        (["-k", "WRITE and x=1"], ["write[x=1]"]),
        (["-t", "smoke"], ["write[x=1]", "write[x=2]"]),
        (["-t", "smoke", "-t", "nic"], ["nic-traffic", "write[x=1]", "write[x=2]"]),
    ],
)
def test_selection(project, capsys, arguments, ids):
    project("write", variants=["x=1", "x=2"], tags=["smoke"])
    project("nic-traffic", tags=["nic"])
    assert cli.main(["list", *arguments]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ids


@pytest.mark.parametrize("arguments", [["-k", "nothing"], ["-t", "nothing"]])
def test_when_nothing_matches_nothing_ran(project, arguments):
    project("a")
    assert cli.main(["run", *arguments]) == 4
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["unmaped"], "did you mean 'unmapped'?"),
        (["scenarios/none.yaml"], "there is no scenarios/none.yaml"),
        (["-k", "a and"], "cannot be read at its end"),
        (["-k", "(a"], "cannot be read at its end"),
        (["-k", "a b"], "cannot be read before 'b'"),
    ],
)
def test_what_the_command_line_gets_wrong_is_told_with_status_2(project, capsys, arguments, told):
    project("unmapped")
    assert cli.main(["run", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_diagnostics_are_shown_as_they_are_and_nothing_runs(project, capsys):
    project("a")
    project("b", wrong="'drvier' is not a field")
    for command in ("run", "validate"):
        assert cli.main([command]) == 2
        assert capsys.readouterr().err.removeprefix("looking at QEMU\n") == (
            "scenarios/b.yaml:1:1: error: 'drvier' is not a field\n"
            "    1 | scenario: x\n"
            "      | ^^^^^^^^ did you mean 'right'?\n"
            "1 error in scenarios/b.yaml\n"
        )
    assert not Path("runs").exists()


def test_remarks_are_shown_by_validate_and_by_a_run_of_theirs_and_stop_nothing(project, capsys):
    project("right")
    project("odd", unused="device 'spare' is not used")
    shown = "scenarios/odd.yaml:1:1: remark: device 'spare' is not used\n    1 | scenario: x\n"

    assert cli.main(["validate"]) == 0
    told = capsys.readouterr().out
    assert shown in told
    assert told.endswith("2 variants in 2 files: nothing wrong found, 1 remark\n")

    for arguments, there in (([], True), (["-k", "right"], False), (["-k", "odd"], True)):
        assert cli.main(["run", *arguments]) == 0
        assert (shown in capsys.readouterr().out) is there


@pytest.mark.parametrize(
    ("text", "words", "matches"),
    [
        ("", "a", True),
        ("a or b and c", "a", True),
        ("(a or b) and c", "a", False),
        ("not not a", "a", True),
        ("not a or b", "a b", True),
        ("not (a or b)", "a b", False),
        ("x[y=1]", "s.yaml::x[y=1] tag", True),
    ],
)
def test_keyword_expressions_bind_as_in_pytest(text, words, matches):
    assert expression(text)(words) is matches


@pytest.mark.parametrize("text", ["and", "a or", "not", ")", "()", "a ( b"])
def test_malformed_keyword_expressions_are_refused(text):
    with pytest.raises(Unselectable):
        expression(text)


def test_report_makes_the_reports_again_and_gives_the_runs_status(project, capsys):
    project("a", blocked="leak")
    cli.main(["run"])
    Path("runs/latest/index.html").unlink()
    assert cli.main(["report", "runs/latest"]) == 1
    assert Path("runs/latest/index.html").exists()
    assert "was not blocked" in capsys.readouterr().out
    assert cli.main(["verify"]) == 0


def test_verify_names_what_changed(project, capsys):
    project("a")
    cli.main(["run"])
    with Path("runs/latest/a/default/journal.jsonl").open("a") as journal:
        journal.write("{}\n")
    assert cli.main(["verify"]) == 1
    assert "changed  a/default/journal.jsonl" in capsys.readouterr().out


def test_judge_says_whether_verdicts_are_what_they_were(project, capsys, monkeypatch):
    from harness.cli import records
    from harness.report.story import tell
    from harness.verdict import Outcome, Verdict

    project("a")
    project("b", blocked="leak")
    cli.main(["run"])
    again = lambda directory: Verdict(outcome=tell(directory).outcome, reason=tell(directory).reason)  # noqa: E731
    monkeypatch.setattr(records, "judge_variant", again)
    assert cli.main(["judge"]) == 0
    monkeypatch.setattr(records, "judge_variant", lambda _: Verdict(outcome=Outcome.PASS, reason="fine"))
    capsys.readouterr()
    assert cli.main(["judge"]) == 1
    assert "b: fine  (was fail: " in capsys.readouterr().out
    monkeypatch.setattr(records, "judge_variant", lambda _: json.loads("damaged"))
    assert cli.main(["judge"]) == 3


@pytest.mark.parametrize("command", ["report", "judge", "verify"])
@pytest.mark.usefixtures("project")
def test_a_run_that_is_not_there_is_wrong_input(capsys, command):
    assert cli.main([command, "runs/none"]) == 2
    assert "there is no run at runs/none" in capsys.readouterr().err


def test_an_error_before_anything_ran_is_one_message(project, capsys, monkeypatch):
    from harness import runner

    def broken(_, **_there):
        raise HarnessError("no apt here", hint="set VTD_QEMU")

    project("a")
    monkeypatch.setattr(runner, "open_host", broken)
    assert cli.main(["run"]) == 3
    assert capsys.readouterr().err == "error: no apt here\n  hint: set VTD_QEMU\n"


@pytest.mark.usefixtures("project")
def test_schema_check_tells_a_stale_file():
    assert cli.main(["schema", "--check"]) == 1
    assert cli.main(["schema"]) == 0
    assert cli.main(["schema", "--check"]) == 0
    stale = Path("scenarios/scenario.schema.json")
    stale.write_text(stale.read_text() + " ")
    assert cli.main(["schema", "--check"]) == 1


def test_shell_refuses_to_start_without_a_terminal(project, capsys, monkeypatch):
    project("a")
    with Path(os.devnull).open() as nowhere:
        monkeypatch.setattr(sys, "stdin", nowhere)
        assert cli.main(["shell", "a"]) == 2
    assert "needs a terminal" in capsys.readouterr().err


class PipeTerminal:
    """The guest's end of a session, as a pair of pipes."""

    def __init__(self):
        self.out_read, self.out_write = os.pipe()
        self.sent = b""

    def fileno(self):
        return self.out_read

    def receive(self):
        return os.read(self.out_read, 100)

    def send(self, data):
        self.sent += data
        if data.endswith(b"\x04"):
            os.write(self.out_write, b"logout")
            os.close(self.out_write)


def test_keys_go_to_the_guest_and_its_output_to_the_screen():
    guest, (master, keyboard), (screen, screen_write) = PipeTerminal(), pty.openpty(), os.pipe()
    import tty

    tty.setraw(keyboard)
    os.write(master, b"\x03ls\r")
    carrying = threading.Thread(target=pump, args=(guest, keyboard, screen_write), daemon=True)
    carrying.start()
    os.write(guest.out_write, b"\x1b[1m# ")
    assert os.read(screen, 100) == b"\x1b[1m# "
    os.write(master, b"\x04")
    carrying.join(timeout=5)
    assert not carrying.is_alive()
    assert guest.sent == b"\x03ls\r\x04"
    assert os.read(screen, 100) == b"logout"
