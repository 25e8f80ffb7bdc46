"""What is sent to a lab host: whole or not at all, once, and nothing left of what was cut off."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest

from harness.errors import InfraError, SshError
from harness.lab import shelf as module
from harness.lab.shelf import SHELF, Shelf
from harness.ssh import Completed


class HereChannel:
    """A command on this host with its input."""

    def __init__(self, argv, breaks):
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        self.breaks = breaks

    def send(self, data, _deadline):
        if self.breaks:
            self.process.stdin.write(data[:100])
            self.process.stdin.close()
            raise SshError("the connection was lost")
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except OSError as error:
            raise SshError(f"no input is taken any more: {error}") from error

    def send_eof(self):
        self.process.stdin.close()

    def status(self, _deadline):
        status = self.process.wait(20)
        if self.breaks:
            raise SshError("no exit status came")
        return status

    def stderr_text(self):
        return self.process.stderr.read().decode()

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(20)
        self.process.stderr.close()


class HereSsh:
    """As much of a connection as a shelf needs; `sent` counts what was sent, the first `breaks` of it in vain."""

    def __init__(self):
        self.sent = 0
        self.breaks = 0

    def run(self, argv):
        done = subprocess.run(argv, capture_output=True, check=False)
        return Completed(done.returncode, done.stdout, done.stderr)

    def open(self, argv):
        self.sent += 1
        return HereChannel(argv, self.sent <= self.breaks)


@pytest.fixture
def content(tmp_path):
    directory = tmp_path / "content"
    directory.mkdir()
    (directory / "kernel").write_bytes(bytes(range(256)) * 400)
    (directory / "other").write_text("not asked for")
    return directory


@pytest.fixture
def ssh():
    return HereSsh()


@pytest.fixture
def shelf(ssh, tmp_path):
    return Shelf(ssh, str(tmp_path / "home"), lambda _text: None)


def entries(tmp_path):
    return sorted(path.name for path in (tmp_path / "home" / SHELF).iterdir())


def test_what_is_there_is_not_sent_again(shelf, ssh, content, tmp_path):
    there = shelf.place("debian-13", "0123456789abcdef0", content, ["kernel"])
    assert shelf.place("debian-13", "0123456789abcdef0", content, ["kernel"]) == there
    assert ssh.sent == 1
    assert entries(tmp_path) == ["debian-13-0123456789abcdef"]
    assert [path.name for path in (tmp_path / "home" / SHELF / there.name).iterdir()] == ["kernel"]
    assert (tmp_path / "home" / SHELF / there.name / "kernel").read_bytes() == (content / "kernel").read_bytes()


def test_nothing_is_left_of_what_was_cut_off(shelf, ssh, content, tmp_path):
    ssh.breaks = 1
    with pytest.raises(SshError, match="the connection was lost"):
        shelf.place("debian-13", "0123456789abcdef0", content)
    assert entries(tmp_path) == []
    shelf.place("debian-13", "0123456789abcdef0", content)
    assert entries(tmp_path) == ["debian-13-0123456789abcdef"]


def test_another_run_that_was_faster_keeps_its_entry(shelf, content, tmp_path, monkeypatch):
    whole = tmp_path / "home" / SHELF / "debian-13-0123456789abcdef"
    monkeypatch.setattr(module.Shelf, "_send", faster(module.Shelf._send, whole))
    shelf.place("debian-13", "0123456789abcdef0", content)
    assert entries(tmp_path) == ["debian-13-0123456789abcdef"]
    assert [path.name for path in whole.iterdir()] == ["theirs"]


def faster(send, whole):
    def both(*arguments):
        whole.mkdir(parents=True)
        (whole / "theirs").touch()
        send(*arguments)

    return both


@pytest.mark.parametrize("size", [10, 30_000_000])
def test_a_host_that_cannot_unpack_is_told(shelf, content, tmp_path, size):
    (content / "more").write_bytes(os.urandom(size))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".cache").write_text("in the way")
    with pytest.raises(InfraError, match="cannot be unpacked on the lab host"):
        shelf.place("debian-13", "0123456789abcdef0", content)
