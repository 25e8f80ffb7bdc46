"""Addresses of hosts, and connections to one by the user's keys and known hosts."""

from __future__ import annotations

import paramiko
import pytest

from harness.errors import SshError
from harness.ssh import SshAddress, connected
from tests.ssh_server import SshServer, new_key


@pytest.mark.parametrize(
    ("text", "name", "user", "port"),
    [
        ("ssh://lab7", "lab7", None, None),
        ("ssh://root@lab7.example.org:2222", "lab7.example.org", "root", 2222),
        ("ssh://root@10.0.0.7/", "10.0.0.7", "root", None),
        ("ssh://[fe80::1]:22", "fe80::1", None, 22),
    ],
)
def test_an_address_is_read(text, name, user, port):
    address = SshAddress.parse(text)
    assert (address.name, address.user, address.port) == (name, user, port)
    assert SshAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "lab7", "root@lab7", "http://lab7", "ssh://", "ssh://@lab7", "ssh://root:secret@lab7", "ssh://lab7:x",
        "ssh://lab7/path", "ssh://-oProxyCommand=x", "ssh://lab 7", "ssh://lab7:65536", "ssh://lab7:0", "",
    ],
)  # fmt: skip
def test_everything_else_is_one_clear_error(text):
    with pytest.raises(ValueError, match=r"is not the address of a host: write ssh://|ports are 1 to 65535"):
        SshAddress.parse(text)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    new_key(tmp_path / ".ssh/id_ed25519")
    return tmp_path


@pytest.fixture
def server(home):
    made = SshServer(paramiko.Ed25519Key.from_private_key_file(str(home / ".ssh/id_ed25519")))
    yield made
    made.close()


@pytest.fixture
def address(server):
    return SshAddress("127.0.0.1", "root", server.port)


def refused(address, home):
    with pytest.raises(SshError) as caught, connected(address, home=home):
        pass
    return caught.value


def test_commands_run_on_a_host_that_is_known(server, home, address):
    (home / ".ssh/known_hosts").write_text(server.known_as())
    with connected(address, home=home) as ssh:
        done = ssh.run(["sh", "-c", "cat; echo wrong >&2; exit 3"], stdin=b"through")
    assert (done.status, done.stdout, done.stderr) == (3, b"through", b"wrong\n")


def test_a_host_that_is_not_known_is_refused_and_the_way_to_know_it_told(server, home, address):
    error = refused(address, home)
    assert "the host's key is not known" in error.message
    assert server.key.fingerprint in error.message
    assert f"ssh -p {server.port} root@127.0.0.1 true" in error.hint
    assert not (home / ".ssh/known_hosts").exists()


def test_a_host_with_another_key_than_the_known_one_is_refused(server, home, address):
    other = paramiko.Ed25519Key.from_private_key_file(str(new_key(home / "other")))
    line = f"[127.0.0.1]:{server.port} {other.get_name()} {other.get_base64()}\n"
    (home / ".ssh/known_hosts").write_text(line)
    error = refused(address, home)
    assert "another key than the one that is known" in error.message
    assert "ssh-keygen -R" in error.hint


def test_a_key_that_is_not_let_in_is_told(server, home, address):
    (home / ".ssh/known_hosts").write_text(server.known_as())
    new_key(home / ".ssh/id_ed25519")
    assert "'root' is not let in" in refused(address, home).message


def test_nobody_listening_is_told(home):
    assert "does not answer on port 1:" in refused(SshAddress("127.0.0.1", None, 1), home).message


def test_the_configuration_of_ssh_is_heeded(server, home):
    new_key(home / "elsewhere")
    (home / ".ssh/id_ed25519").rename(home / "elsewhere")
    (home / ".ssh/config").write_text(
        f"Host lab7\n HostName 127.0.0.1\n Port {server.port}\n User root\n IdentityFile {home}/elsewhere\n"
        f" UserKnownHostsFile {home}/known\n HostKeyAlias the-lab\n"
    )
    (home / "known").write_text(f"the-lab {server.key.get_name()} {server.key.get_base64()}\n")
    with connected(SshAddress("lab7"), home=home) as ssh:
        assert ssh.run(["echo", "here"]).stdout == b"here\n"


def test_a_way_that_is_not_heeded_is_told(home):
    (home / ".ssh/config").write_text("Host lab7\n ProxyJump gate\n")
    assert "ProxyCommand: ssh -W %h:%p gate" in refused(SshAddress("lab7"), home).hint
