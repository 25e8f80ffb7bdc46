"""`harness atlas` on runs that exist: exit status, what it tells, and from which runs it writes the page."""

from __future__ import annotations

import pytest

from harness import cli
from harness.atlas.page import PAGE, fingerprint_of
from harness.cli import atlas
from harness.evidence import RunDirectory
from harness.suite import ExitCode
from tests.atlas.made_up import BLOCK, NEW, everything, store

SCENARIO = b"scenario: atlas-x\ntitle: x\ntags: [atlas]\nsteps: []\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A directory whose only scenario of the atlas is SCENARIO."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    files = {"atlas-x.yaml": SCENARIO}
    monkeypatch.setattr(atlas, "atlas_files", lambda: files)
    return files


@pytest.fixture
def whole(run, project):
    store(run, "atlas-x", provoked=tuple(everything()), source=("atlas-x.yaml", SCENARIO))
    return run


def again(run, *options):
    return cli.main(["atlas", "--from", str(run.path), *options])


def test_a_whole_atlas_passes(whole, capsys):
    assert again(whole) == 0
    assert "33 of 33 raisable reasons provoked" in capsys.readouterr().out


def test_a_reason_that_was_not_provoked_fails(run, project, capsys):
    store(run, "atlas-x", provoked=(BLOCK,))
    assert again(run) == 1
    assert "not provoked: 0x01 root-not-present\n" in capsys.readouterr().out


def test_a_new_deviation_fails(whole, capsys):
    store(whole, "atlas-y", provoked=(NEW,))
    assert again(whole) == 1
    assert f"new deviation: {NEW.recipe}: context-invalid instead of {NEW.spec}" in capsys.readouterr().out


def test_what_did_not_pass_is_named(whole, capsys):
    store(whole, "atlas-y", outcome="error", provoked=())
    assert again(whole) == 1
    assert "not proven: atlas-y: because" in capsys.readouterr().out


def test_the_page_is_written_and_later_compared(whole, capsys):
    assert again(whole, "--write") == 0
    assert fingerprint_of(PAGE.read_text())
    assert again(whole) == 0
    assert "says the same" in capsys.readouterr().out
    PAGE.write_text(PAGE.read_text().replace("as the spec", "as the law"))
    assert again(whole) == 0
    assert "says otherwise" in capsys.readouterr().out


def test_no_page_is_written_from_an_incomplete_run(run, project, capsys):
    store(run, "atlas-x", provoked=(BLOCK,), source=("atlas-x.yaml", SCENARIO))
    assert again(run, "--write") == 3
    assert "complete run" in capsys.readouterr().err
    assert not PAGE.exists()


def test_no_page_is_written_from_scenarios_as_they_were(whole, project, capsys):
    project["atlas-x.yaml"] = SCENARIO + b"# another\n"
    assert again(whole, "--write") == 3
    assert "as its scenario files are now" in capsys.readouterr().err
    project["atlas-x.yaml"] = SCENARIO
    project["atlas-y.yaml"] = SCENARIO  # a file that the run had not
    assert again(whole, "--write") == 3
    assert not PAGE.exists()


def test_it_is_this_run_that_is_read_and_not_the_latest(whole, monkeypatch, capsys):
    """Another run in the same directory may begin meanwhile."""
    other = RunDirectory.create(whole.path.parent / "runs")
    monkeypatch.setattr(atlas, "run_and_keep", lambda _: (ExitCode.PASSED, whole))
    assert cli.main(["atlas", "--runs", str(other.path.parent)]) == 0
    assert (whole.path / "atlas.json").exists()
    assert not (other.path / "atlas.json").exists()


def test_what_the_run_says_goes_before_what_the_atlas_says(whole, monkeypatch):
    monkeypatch.setattr(atlas, "run_and_keep", lambda _: (ExitCode.ERROR, whole))
    assert cli.main(["atlas"]) == ExitCode.ERROR
    monkeypatch.setattr(atlas, "run_and_keep", lambda _: (ExitCode.NOTHING_RAN, None))
    assert cli.main(["atlas"]) == ExitCode.NOTHING_RAN
