from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness import process as process_module
from harness.errors import MonitorError
from harness.process import Process, StopRung, group_members
from harness.waiting import Deadline, wait_for


def refuse() -> None:
    raise MonitorError("gone", command="quit")


def shell(script: str, stderr: Path, **options) -> Process:
    return Process(["sh", "-c", script], stderr=stderr, **options)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "stderr"


def started(process: Process) -> Process:
    wait_for("the script's first line", lambda: "up" in process.stderr_text(), Deadline.after(5))
    return process


def test_each_rung_of_the_ladder_is_recorded(output, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(process_module, "REFUSED_S", 0.3)
    monkeypatch.setattr(process_module, "TERM_S", 0.3)
    with shell("exit 3", output) as ended:
        wait_for("the end", lambda: ended.poll() is not None, Deadline.after(5))
        assert ended.stop(quit=None) == StopRung.ALREADY_GONE
        assert ended.poll() == 3
    flag = tmp_path / "quit"
    with started(shell(f"echo up; until [ -e {flag} ]; do sleep 0.02; done", tmp_path / "a")) as polite:
        assert polite.stop(quit=flag.touch) == StopRung.QUIT
        assert polite.stop(quit=flag.touch) == StopRung.ALREADY_GONE
    with started(shell("echo up; sleep 60", tmp_path / "b")) as deaf:
        assert deaf.stop(quit=refuse) == StopRung.TERM
    with started(shell("trap '' TERM; echo up; while :; do sleep 0.05; done", tmp_path / "c")) as stubborn:
        assert stubborn.stop(quit=None) == StopRung.KILL
        assert stubborn.poll() == -signal.SIGKILL


def test_what_it_leaves_in_its_group_is_killed(output) -> None:
    with shell("sleep 60 & echo up", output) as leaving:
        wait_for("the end", lambda: leaving.poll() is not None, Deadline.after(5))
        assert group_members(leaving.pid), "nothing was left behind, so this test shows nothing"
        leaving.stop(quit=None)
        assert group_members(leaving.pid) == []


def test_leaving_the_block_by_an_error_stops_it(output) -> None:
    with pytest.raises(RuntimeError), started(shell("echo up; sleep 60", output)) as process:
        raise RuntimeError
    assert process.poll() is not None
    assert group_members(process.pid) == []


def test_it_outlives_the_thread_that_asked_for_it(output) -> None:
    made: list[Process] = []
    thread = threading.Thread(target=lambda: made.append(shell("echo up; sleep 60", output)))
    thread.start()
    thread.join()
    with started(made[0]) as process:
        # Had the asking thread forked it, the kernel would have killed it when that thread ended.
        assert process.poll() is None


def test_it_dies_with_a_killed_harness(tmp_path) -> None:
    program = (
        "import sys, signal; from pathlib import Path; from harness.process import Process\n"
        "p = Process(['sleep', '60'], stderr=Path(sys.argv[1])); print(p.pid, flush=True); signal.pause()"
    )
    harness = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "e")], stdout=subprocess.PIPE, text=True)
    assert harness.stdout
    pid = int(harness.stdout.readline())
    assert group_members(pid) == [pid]
    harness.kill()
    harness.wait()
    harness.stdout.close()
    wait_for("the child to die", lambda: not group_members(pid), Deadline.after(2))


def test_a_child_whose_harness_is_already_gone_does_not_start() -> None:
    not_my_parent = str(os.getppid())
    done = subprocess.run(
        ["sh", "-c", process_module._GUARD, not_my_parent, "echo", "started"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")


def test_descriptors_and_environment_reach_it(output) -> None:
    fd = os.memfd_create("passed")
    os.write(fd, b"through a descriptor")
    try:
        script = f'cat /proc/self/fd/{fd}; echo " $VTD_TEST"'
        with shell(script, output, pass_fds=[fd], env={"VTD_TEST": "set"}) as child:
            wait_for("the end", lambda: child.poll() is not None, Deadline.after(5))
            assert child.stderr_text() == "through a descriptor set\n"
    finally:
        os.close(fd)


def test_a_program_that_is_not_there_says_so(output) -> None:
    with Process(["/nonexistent/qemu"], stderr=output) as process:
        wait_for("the end", lambda: process.poll() is not None, Deadline.after(5))
        assert process.poll() == 127
        assert "/nonexistent/qemu" in process.stderr_text()


INTERRUPTED_IN_A_CALLBACK = """
import signal, threading, weakref
from harness.process import heed_every_interrupt
{heed}
class Task: pass
task = Task()
dropped = weakref.ref(task, lambda _: signal.raise_signal(signal.SIGINT))
try:
    del task
    threading.Event().wait(2)
    print("lost")
except KeyboardInterrupt:
    print("heeded")
"""


@pytest.mark.parametrize(("heed", "said"), [("heed_every_interrupt()", "heeded"), ("", "lost")])
def test_an_interrupt_is_heeded_where_python_ignores_it(heed, said) -> None:
    script = INTERRUPTED_IN_A_CALLBACK.format(heed=heed)
    ran = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=20)
    assert "Exception ignored in" in ran.stderr, "it was raised where it could be caught, so this test shows nothing"
    assert ran.stdout.split() == [said]


def test_a_process_is_given_the_time_it_was_asked_to_end_in(output, monkeypatch) -> None:
    monkeypatch.setattr(process_module, "QUIT_S", 0.05)
    script = "trap 'sleep 0.5; exit 0' USR1; echo up; while :; do sleep 0.05; done"
    with started(shell(script, output)) as slow:
        assert slow.stop(quit=lambda: os.kill(slow.pid, signal.SIGUSR1), quit_s=10) == StopRung.QUIT
