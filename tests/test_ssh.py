from __future__ import annotations

import io
import socket
from collections.abc import Iterator

import paramiko
import pytest

from harness.errors import InfraError, SshError, WaitTimeout
from harness.ssh import KeyPair, Ssh, SshLine
from harness.waiting import Deadline

IDENT = b"SSH-2.0-dropbear\r\n"
PROPOSAL = b"\0\0\0\x0c" + b"\x07\x14" + bytes(10)
GREETING = IDENT + PROPOSAL


def soon() -> Deadline:
    return Deadline.after(20)


@pytest.fixture
def far() -> Iterator[tuple[SshLine, socket.socket]]:
    """A line, and the end of it that QEMU has."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = SshLine(ours)
        line.settimeout(20)
        theirs.settimeout(20)
        yield line, theirs


def begun(line: SshLine, server: socket.socket) -> None:
    """Bring a session to where the greeting has been read."""
    server.sendall(GREETING)
    line.greeting(soon())
    line.open()
    line.settimeout(20)
    assert line.recv(4096) == GREETING


def test_a_key_pair_is_openssh_and_its_halves_belong_together() -> None:
    pair = KeyPair.generate()
    assert pair.private.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----\n")
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(pair.private.decode()))
    assert pair.public == f"ssh-ed25519 {key.get_base64()}"
    assert KeyPair.generate() != pair


def test_a_greeting_is_complete_with_its_last_byte_however_it_is_cut(far) -> None:
    line, server = far
    for at in range(len(GREETING)):
        with pytest.raises(WaitTimeout, match="to greet"):
            line.greeting(Deadline.after(0))
        server.sendall(GREETING[at : at + 1])
    assert line.greeting(soon()) == GREETING


def test_a_greeting_that_was_waited_for_is_still_to_be_read_and_what_follows_after_it(far) -> None:
    line, server = far
    server.sendall(GREETING)
    assert line.greeting(soon()) == line.greeting(soon()) == GREETING
    line.open()
    server.sendall(b"more")
    assert line.recv(10) == GREETING[:10]
    assert line.recv(4096) == GREETING[10:]
    assert line.recv(4096) == b"more"


def test_a_greeting_from_before_the_save_is_read_first_and_nothing_is_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = SshLine(ours, GREETING)
        assert line.greeting(Deadline.after(0)) == GREETING
        line.open()
        theirs.sendall(b"reply")
        assert (line.recv(4096), line.recv(4096)) == (GREETING, b"reply")


@pytest.mark.parametrize("before", [b"", b"ciphertext"], ids=["before anything else", "later"])
def test_the_next_greeting_ends_the_session_and_begins_the_next(far, before) -> None:
    line, server = far
    begun(line, server)
    if before:
        server.sendall(before)
        assert line.recv(4096) == before
    server.sendall(GREETING[:9])
    assert line.recv(9) == b""
    assert line.recv(4096) == b""
    with pytest.raises(BrokenPipeError, match="session is over"):
        line.send(b"request")
    server.sendall(GREETING[9:])
    assert line.greeting(soon()) == GREETING
    line.open()
    assert line.recv(4096) == GREETING
    assert line.send(b"request") == 7
    assert server.recv(4096) == b"request"


def test_a_closed_session_leaves_the_stream(far) -> None:
    line, server = far
    begun(line, server)
    line.close()
    assert line.recv(4096) == b""
    with pytest.raises(BrokenPipeError):
        line.send(b"request")
    begun(line, server)


def test_a_shut_line_is_closed_for_the_other_end_too(far) -> None:
    line, server = far
    begun(line, server)
    line.shut()
    assert line.recv(4096) == b""
    with pytest.raises(BrokenPipeError):
        line.send(b"request")
    assert server.recv(1) == b""


def test_the_other_ends_end_is_told(far) -> None:
    line, server = far
    server.sendall(GREETING[:20])
    server.close()
    with pytest.raises(SshError, match="QEMU closed the connection"):
        line.greeting(soon())


def test_a_session_ends_with_the_other_end(far) -> None:
    line, server = far
    begun(line, server)
    server.close()
    assert line.recv(4096) == b""


def connect(line: SshLine, **options) -> Ssh:
    return Ssh.connect(line, client=KeyPair.generate(), host_public=KeyPair.generate().public, **options)


def test_a_guest_that_never_greets_is_given_up_at_the_deadline(far) -> None:
    line, _ = far
    with pytest.raises(WaitTimeout, match="SSH server to greet"):
        connect(line, deadline=Deadline.after(0.2))


def test_a_dead_machine_ends_the_wait_for_the_greeting(far) -> None:
    line, _ = far
    asked: list[None] = []

    def ended() -> Exception | None:
        asked.append(None)
        return InfraError("QEMU ended") if len(asked) > 3 else None

    with pytest.raises(InfraError, match="QEMU ended"):
        connect(line, deadline=Deadline.after(60), abort=[ended])


def test_a_server_that_ends_right_after_its_greeting_is_told(far) -> None:
    line, server = far
    server.sendall(GREETING)
    server.shutdown(socket.SHUT_WR)
    with pytest.raises(SshError, match="SSH key exchange failed"):
        connect(line, deadline=Deadline.after(60))


def test_a_line_that_is_renewed_knows_nothing_of_the_server_before(far) -> None:
    line, server = far
    begun(line, server)
    server.sendall(b"half a pack")
    line.renew()
    with pytest.raises(BrokenPipeError):
        line.send(b"to who comes next")
    server.sendall(GREETING)
    assert line.greeting(soon()) == GREETING
    line.open()
    line.settimeout(20)
    assert line.recv(4096) == GREETING
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(1)
