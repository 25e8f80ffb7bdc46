"""The keeper and its near end, over pipes in the place of an SSH connection: all else is as on another host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import InfraError, LaunchError, SshError
from harness.nested.kept import Job, KeptProcess
from harness.nested.sending import _LOADER
from harness.process import StopRung
from harness.waiting import Deadline, wait_for
from harness.wire import Wire
from tests.pipes import PipeSsh


@pytest.fixture
def ssh():
    made = PipeSsh()
    yield made
    made.close()


def keep(ssh, tmp_path: Path, script: str, **changes) -> KeptProcess:
    job = {
        "argv": [sys.executable, "-I", "-c", script],
        "env": {},
        "streams": {"talk": 40},
        "outputs": {"log": 41, "stderr": 1},
        "data": {42: b"a key"},
        "scratch": 43,
        **changes,
    }
    return KeptProcess(ssh, Job(**job), {"log": tmp_path / "log", "stderr": tmp_path / "stderr"})


def ended(kept: KeptProcess) -> int:
    wait_for("the program to end", lambda: kept.poll() is not None, Deadline.after(10.0))
    return kept.poll()


def test_a_program_has_its_streams_files_and_data(ssh, tmp_path):
    script = (
        "import os,sys\n"
        "os.write(41, b'logged')\nprint('said', flush=True)\nos.write(43, b'\\x01\\x02')\n"
        "right = os.read(40, 9) == b'a word' and os.pread(42, 9, 0) == b'a key'\n"
        "os.write(40, b'!')\nos.read(40, 9)\nsys.exit(7 if right else 1)"
    )
    with keep(ssh, tmp_path, script) as kept:
        kept.streams["talk"].sendall(b"a word")
        kept.streams["talk"].settimeout(10)
        assert kept.streams["talk"].recv(10) == b"!"
        assert kept.scratch(2) == b"\x01\x02"
        kept.streams["talk"].sendall(b"enough")
        assert ended(kept) == 7
        assert (tmp_path / "log").read_text() == "logged"
        assert kept.stderr_text() == "said\n"
        assert kept.stop(quit=None) is StopRung.ALREADY_GONE


def test_a_program_that_cannot_be_started_says_why(ssh, tmp_path):
    with pytest.raises(LaunchError, match="no-such-program"):
        keep(ssh, tmp_path, "", argv=["/no-such-program"])


def test_a_program_is_ended_by_the_mildest_rung_that_works(ssh, tmp_path):
    with keep(ssh, tmp_path, "import os; os.read(40, 1)") as kept:
        assert kept.stop(quit=lambda: kept.streams["talk"].sendall(b"q")) is StopRung.QUIT
    with keep(ssh, tmp_path, "import signal; signal.pause()") as kept:
        assert kept.stop(quit=None) is StopRung.TERM
        assert kept.poll() == -signal.SIGTERM


def test_a_lost_connection_ends_the_program_with_all_its_children(ssh, tmp_path):
    script = "import os,signal\nif not os.fork(): os.write(41, b'%d' % os.getpid())\nsignal.pause()"
    with keep(ssh, tmp_path, script) as kept:
        wait_for("the child to be told of", (tmp_path / "log").read_text, Deadline.after(10.0))
        child = int((tmp_path / "log").read_text())
        ssh.channels[0].cut()
        assert ended(kept) == -signal.SIGKILL
        wait_for("the child to end", lambda: not Path(f"/proc/{child}/stat").exists(), Deadline.after(10.0))
        assert not Path(f"/proc/{kept.pid}").exists()


def test_nothing_can_be_asked_of_a_program_that_has_ended(ssh, tmp_path):
    with keep(ssh, tmp_path, "") as kept:
        assert ended(kept) == 0
        with pytest.raises(SshError, match="ended with 0; no 'scratch'"):
            kept.scratch(2)


def test_datagrams_keep_their_bounds_and_those_that_nobody_takes_are_lost(ssh, tmp_path):
    wire = Wire("w")
    script = (
        "import os\n"
        "for _ in range(2000): os.write(44, b'x' * 1400)\n"
        "got = [os.read(44, 99999), os.read(44, 99999)]\n"
        "os.write(41, b'%d %d' % (len(got[0]), len(got[1])))\n"
        "os.read(40, 1)"
    )
    job = Job(
        argv=[sys.executable, "-I", "-c", script],
        env={},
        streams={"talk": 40},
        datagrams={"w": 44},
        outputs={"log": 41, "stderr": 1},
        data={},
        scratch=43,
    )
    files = {"log": tmp_path / "log", "stderr": tmp_path / "stderr"}
    with wire, KeptProcess(ssh, job, files, {"w": wire.far_end}) as kept:
        wire.send(b"a" * 60)
        wire.send(b"b" * 9000)
        wait_for("both to be told of", (tmp_path / "log").read_text, Deadline.after(10.0))
        assert (tmp_path / "log").read_text() == "60 9000"
        assert {len(frame) for frame in wire.drain()} == {1400}
        kept.streams["talk"].sendall(b"q")
        assert ended(kept) == 0


def test_a_program_that_is_cut_off_on_its_way_ends():
    command = [sys.executable, "-I", "-c", _LOADER, "100"]
    done = subprocess.run(command, input=b"[[", capture_output=True, timeout=20, check=False)
    assert done.returncode == 1
    assert b"the input ended before the program was whole" in done.stderr


def test_a_program_that_is_stopped_is_told_of_and_that_it_goes_on(ssh, tmp_path):
    with keep(ssh, tmp_path, "import time; time.sleep(60)") as kept:
        os.kill(kept.pid, signal.SIGSTOP)
        wait_for("the keeper to tell", lambda: kept.state() == "T", Deadline.after(5.0))
        os.kill(kept.pid, signal.SIGCONT)
        wait_for("the keeper to tell", lambda: kept.state() == "R", Deadline.after(5.0))


def test_no_answer_is_waited_for_when_the_host_of_the_keeper_is_gone(ssh, tmp_path):
    gone = InfraError("that host stands still")
    ssh.abort = (lambda: gone if kept_pids else None,)
    kept_pids: list[int] = []
    with keep(ssh, tmp_path, "import time; time.sleep(60)") as kept:
        keeper = ssh.channels[-1].process.pid
        os.kill(keeper, signal.SIGSTOP)
        kept_pids.append(kept.pid)
        with pytest.raises(InfraError, match="stands still"):
            kept.scratch(1)
        os.kill(keeper, signal.SIGCONT)
