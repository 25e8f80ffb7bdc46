from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.bench.leftovers import Belongings, descendants, files, half_made_templates, private_temp, processes
from harness.lockfile import exclusive_now

SLEEP = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def child(*more, **given):
    return subprocess.Popen([*SLEEP, *more], stdin=subprocess.PIPE, **given)


def test_a_child_that_still_runs_is_told():
    with child("left-behind") as process:
        assert any(f"process {process.pid}: " in line and "left-behind" in line for line in processes("no such words"))
        process.stdin.close()
        process.wait()
    assert not any(f"process {process.pid}:" in line for line in processes("no such words"))


def test_a_grandchild_and_an_orphan_with_the_words_on_its_command_line_are_told():
    script = f"import subprocess, sys; p = subprocess.Popen({[*SLEEP, 'vtd-orphan']!r}); print(p.pid, flush=True)"
    wait = "; sys.stdin.readline()"
    parent = subprocess.Popen(
        [sys.executable, "-c", script + wait], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        grandchild = int(parent.stdout.readline())
        assert grandchild in set(descendants(parent.pid))
        assert any(f"process {grandchild}: " in line for line in processes("no such words"))
        parent.stdin.write("\n")
        parent.stdin.flush()
        # Its parent is gone, and it is no descendant any more; it reads the same pipe, which is still open here.
        parent.wait()
        assert any(f"process {grandchild}: " in line for line in processes("vtd-orphan"))


def test_a_listening_socket_and_an_open_file_are_told():
    before = Belongings.now()
    assert list(Belongings.now().beyond(before)) == []
    with socket.create_server(("127.0.0.1", 0)):
        told = list(Belongings.now().beyond(before))
    assert any(line.startswith("1 open descriptors: socket:") for line in told)
    assert any(line.startswith("a listening socket at 0100007F:") for line in told)
    assert list(Belongings.now().beyond(before)) == []


def test_files_beside_the_expected_ones_are_told(tmp_path, monkeypatch):
    for name in ("run.json", "kept/default/a", "kept/default/b/c", "kept/other/a", ".partial"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    told = files(tmp_path, [Path("run.json"), Path("kept/default")])
    wanted = [f"a file or directory: {tmp_path / name}" for name in (".partial", "kept/other")]
    assert list(told) == wanted
    monkeypatch.chdir(tmp_path.parent)
    assert list(files(Path(tmp_path.name), [Path("run.json"), Path("kept/default")])) == wanted


def test_a_template_that_is_being_made_is_not_told_but_one_that_was_given_up_is(tmp_path):
    making = tmp_path / "templates" / "making" / "abc.x1"
    making.mkdir(parents=True)
    with exclusive_now(tmp_path / "locks" / "template-abc.lock") as held:
        assert held
        assert list(half_made_templates(tmp_path)) == []
    assert list(half_made_templates(tmp_path)) == [f"a half-made template: {making}"]


def test_temporary_files_of_this_process_and_its_children_go_where_they_are_looked_for(tmp_path):
    with private_temp(tmp_path / "tmp") as temp:
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).parent == temp
        there = subprocess.check_output(["mktemp"], text=True).strip()
        assert list(files(temp, [])) == [f"a file or directory: {there}"]
    assert tempfile.gettempdir() != str(temp)
