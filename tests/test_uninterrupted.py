"""An interrupt that comes while paramiko has taken a lock and could not yet see to giving it back."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading

import paramiko
import pytest

from harness.ssh import KeyPair
from harness.ssh.channel import Channel
from harness.uninterrupted import interrupt, uninterrupted
from harness.waiting import Deadline
from tests.ssh_server import SshServer


@pytest.fixture(autouse=True)
def _interrupted():
    before = signal.signal(signal.SIGINT, interrupt)
    yield
    signal.signal(signal.SIGINT, before)


class InterruptingLock:
    """A lock after whose first taking by the main thread this process is interrupted."""

    def __init__(self, lock):
        self._lock, self.interrupted = lock, False

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *_):
        self.release()

    def acquire(self, *arguments):
        taken = self._lock.acquire(*arguments)
        if not self.interrupted and threading.current_thread() is threading.main_thread():
            self.interrupted = True
            os.kill(os.getpid(), signal.SIGINT)
        return taken

    def release(self):
        self._lock.release()


@pytest.fixture
def cat():
    """`cat` at the other end of a real connection, and paramiko's channel to it."""
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(KeyPair.generate().private.decode()))
    with contextlib.closing(SshServer(key)) as server, paramiko.SSHClient() as client:
        client.get_host_keys().add(f"[127.0.0.1]:{server.port}", server.key.get_name(), server.key)
        client.connect("127.0.0.1", server.port, pkey=key, look_for_keys=False, allow_agent=False)
        session = client.get_transport().open_session()
        session.exec_command("cat")
        yield Channel(session, "cat"), session


def test_an_interrupt_in_the_middle_of_sending_leaves_a_channel_that_can_be_closed(cat):
    channel, session = cat
    session.lock = InterruptingLock(session.lock)
    with pytest.raises(KeyboardInterrupt):
        channel.send_line("hello")
    assert session.lock.interrupted
    assert channel.read_line(Deadline.after(20)) == "hello"
    channel.close()
    assert session.lock.acquire(False)
    session.lock.release()  # paramiko closes a channel once more when it is collected


def test_an_interrupt_comes_once_and_at_the_end_of_the_outermost_section():
    reached = []

    def interrupted_twice():
        with uninterrupted():
            with uninterrupted():
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert reached == ["the end"]
    with uninterrupted():
        reached.append("again")


def test_an_interrupt_goes_before_the_error_of_the_section():
    def failing():
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            raise OSError

    with pytest.raises(KeyboardInterrupt):
        failing()


def test_outside_of_a_section_an_interrupt_comes_at_once():
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_section_of_another_thread_holds_nothing_back():
    inside, over = threading.Event(), threading.Event()

    def section():
        with uninterrupted():
            inside.set()
            over.wait(20)

    thread = threading.Thread(target=section)
    thread.start()
    try:
        assert inside.wait(20)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        over.set()
        thread.join()
