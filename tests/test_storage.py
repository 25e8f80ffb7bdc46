"""Evidence and caches that cannot be written: one sentence, status 3, and the verdicts so far stay."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "report"))
import fake_runner

from harness import bounds, cli, evidence, suite
from harness.errors import BoundExceeded, StorageError
from harness.evidence import Journal, RunDirectory, VariantDirectory, read_journal, write_json
from harness.lockfile import exclusive
from harness.process import Process
from harness.report.html import write_html
from harness.report.junit import write_junit
from harness.report.manifest import write_manifest
from harness.report.results import write_results
from harness.storage import storage_error

ERRNOS = [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTD_GUESTS", "2")
    fake_runner.install(monkeypatch.setattr)
    (tmp_path / "scenarios").mkdir()
    for number in range(40):
        name = f"s{number:02}"
        (tmp_path / f"scenarios/{name}.yaml").write_text(json.dumps({"scenario": name, "title": name}))


def no_floor(monkeypatch):
    monkeypatch.setattr(evidence, "FLOOR", 0)
    monkeypatch.setattr(suite, "LEFT", 0)


def one_sentence(said):
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    return errors[0]


def test_a_disk_without_room_is_told_before_a_run(disk, project, capfd):
    assert cli.main(["run", "--runs", str(disk / "runs")]) == 3
    told = one_sentence(capfd.readouterr().err)
    assert "the evidence of a run cannot be written" in told
    assert str(disk) in told
    assert "63.8 MiB are missing" in told
    assert not list(disk.iterdir())


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_disk_that_fills_up_ends_the_run_and_keeps_its_verdicts(disk, project, capfd, monkeypatch, jobs):
    no_floor(monkeypatch)
    if jobs == "2":  # a worker looks for LEFT itself
        subprocess.run(["mount", "-o", "remount,size=1400k", disk], check=True)
    assert cli.main(["run", "-j", jobs, "--runs", str(disk / "runs")]) == 3
    out = capfd.readouterr()
    told = one_sentence(out.err)
    assert "No space left on device" in told
    assert "free" in told
    assert str(disk) in told
    kept = [json.loads(path.read_text()) for path in disk.glob("runs/*/*/*/result.json")]
    passed = [result for result in kept if result["outcome"] == "pass"]
    assert passed
    assert len(kept) < 40
    for result in passed:
        assert result["id"] in out.err + out.out


def test_results_that_cannot_be_replaced_stay(disk, monkeypatch):
    run = RunDirectory(disk)
    write_results(run, {}, [])
    before = (disk / "results.json").read_bytes()
    (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096))
    with pytest.raises(StorageError, match="No space left") as caught:
        write_results(run, {"much": "x" * 100_000}, [])
    assert caught.value.needed > 100_000
    assert "missing" in str(caught.value)
    assert (disk / "results.json").read_bytes() == before
    assert not list(disk.glob(".*partial"))


def test_a_journal_on_a_full_disk_holds_whole_entries(disk):
    def fill():
        with Journal(disk / "journal.jsonl") as journal:
            while True:
                journal.record("runner", "x", filler="y" * 1000)

    with pytest.raises(StorageError) as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.needed > 1000
    entries = read_journal(disk / "journal.jsonl")
    assert len(entries) > 100
    assert (disk / "journal.jsonl").read_bytes().endswith(b"}\n")


class TestJournal:
    @pytest.fixture
    def failing(self, tmp_path, request):
        """A journal whose next write fails."""
        journal = Journal(tmp_path / "journal.jsonl")
        journal.record("runner", "begin")
        real, number = journal._file, request.param

        class Failing:
            closed = False

            def write(self, _data):
                raise OSError(number, os.strerror(number))

            truncate = staticmethod(real.truncate)
            close = staticmethod(real.close)

        journal._file = Failing()
        yield journal
        real.close()

    @pytest.mark.parametrize("failing", ERRNOS, indirect=True)
    def test_a_failed_write_is_raised_at_once_and_again(self, failing):
        for _ in range(2):
            with pytest.raises(StorageError, match=r"journal\.jsonl cannot be written"):
                failing.record("runner", "x")

    @pytest.mark.parametrize("failing", ERRNOS, indirect=True)
    def test_a_failure_in_a_thread_reaches_the_run(self, failing):
        thread = threading.Thread(target=failing.record, args=("qmp", "event"))
        thread.start()
        thread.join()
        assert isinstance(failing.failure(), StorageError)
        with pytest.raises(StorageError):
            failing.record("runner", "end")

    @pytest.mark.parametrize("failing", [errno.EIO], indirect=True)
    def test_a_failure_of_the_last_entry_in_a_thread_is_raised_at_the_end(self, failing):
        thread = threading.Thread(target=failing.record, args=("qmp", "event"))
        thread.start()
        thread.join()
        with pytest.raises(StorageError), failing:
            pass

    def test_one_beyond_its_bound_still_tells_how_the_run_ended(self, tmp_path, monkeypatch):
        monkeypatch.setattr(bounds, "JOURNAL_BYTES", 2000)
        with Journal(tmp_path / "journal.jsonl") as journal:
            for _ in range(10):
                journal.record("kmsg", "line", text="x" * 100)
            with pytest.raises(BoundExceeded, match="more than 2,000 bytes on its journal"):
                journal.record("kmsg", "line", text="x" * 1000)
            journal.record("runner", "error", message="flooded")
            assert isinstance(journal.failure(), BoundExceeded)
        entries = read_journal(tmp_path / "journal.jsonl")
        assert entries[-1].kind == "error"
        assert len(entries) < 20


def _link(place):
    RunDirectory(place / "run").become_latest()


def _lock(place):
    with exclusive(place / "x.lock", "it", print):
        pass


def _process(place):
    Process(["true"], stderr=place / "qemu.stderr").stop(quit=None)


PLACES = {
    "journal": lambda place: Journal(place / "journal.jsonl"),
    "plan, verdict, result": lambda place: VariantDirectory(place).write_json("verdict.json", {}),
    "run.json": lambda place: suite.describe(RunDirectory(place), {}, prove=False),
    "scenario, argv": lambda place: VariantDirectory(place).write_text("qemu.argv", "x"),
    "results": lambda place: write_results(RunDirectory(place), {}, []),
    "junit": lambda place: write_junit(RunDirectory(place), {}, []),
    "page": lambda place: write_html(RunDirectory(place), {}, []),
    "manifest": lambda place: write_manifest(RunDirectory(place), {}),
    "latest": _link,
    "directory": lambda place: RunDirectory(place).variant("a", "b"),
    "counter-proof": lambda place: VariantDirectory(place).counter("x"),
    "nested guest": lambda place: VariantDirectory(place).guest("x"),
    "lock": _lock,
    "stderr of a process": _process,
}


@pytest.mark.parametrize("number", [*ERRNOS, errno.ENOENT])
@pytest.mark.parametrize("place", PLACES)
def test_every_write_tells_what_where_and_what_to_do(tmp_path, monkeypatch, place, number):
    if place == "lock" and number == errno.ENOENT:
        return

    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, mode="r", *a, **k: (real if "r" in mode else fail)(self, mode, *a, **k)
    )
    for name in ("mkdir", "symlink_to", "write_bytes", "write_text"):
        monkeypatch.setattr(Path, name, fail)
    with pytest.raises(StorageError, match="cannot be written to") as caught:
        PLACES[place](tmp_path)
    monkeypatch.undo()
    assert caught.value.errno == number
    assert str(tmp_path) in caught.value.message
    assert caught.value.hint


def test_an_error_goes_whole_from_a_worker_to_its_run():
    error = storage_error(OSError(errno.ENOSPC, ""), "it", Path("/there"), needed=5)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - it is our own
    assert (str(again), again.path, again.errno, again.needed) == (str(error), Path("/there"), errno.ENOSPC, 5)


def test_a_document_is_whole_or_old(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", 1)

    def fail(*_):
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError):
        write_json(tmp_path / "a.json", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == 1


def test_standard_output_that_is_full_is_told(project, monkeypatch, capfd):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main(["list"]) == 3
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space"):
            full.close()
    assert "cannot be written" in one_sentence(capfd.readouterr().err)
