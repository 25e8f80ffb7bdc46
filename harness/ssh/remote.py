"""A connection to another host as `ssh` would make it: by the user's known hosts, keys, agent and configuration.

Of ~/.ssh/config these are heeded: HostName, Port, User, IdentityFile, UserKnownHostsFile, HostKeyAlias, ProxyCommand.
A host whose key is not known is refused; nothing is asked and nothing is learned.
"""

from __future__ import annotations

import contextlib
import getpass
import shlex
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko

from harness.errors import SshError
from harness.ssh.address import SshAddress
from harness.ssh.connection import Ssh
from harness.waiting import timeout_scale

#: Seconds for the host to accept a connection, to greet, and to let us in.
_CONNECT_S = 15.0

#: Seconds between two signs of life, so that a connection that is gone is found out (and NAT does not forget it).
_ALIVE_S = 15

_SSH_PORT = 22

#: The keys that OpenSSH tries where its configuration names none.
_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True, slots=True)
class _Way:
    """How an address is reached, all told; `known_as` and `known_port` are what its key is looked up under."""

    name: str
    port: int
    user: str
    known_as: str
    known_port: int
    known_hosts: Sequence[Path]
    identities: Sequence[str]
    proxy: str | None


@contextlib.contextmanager
def connected(address: SshAddress, *, home: Path | None = None) -> Iterator[Ssh]:
    """Connect to `address` for the length of the context; SshError says what stands in the way and what to do.

    `home` is the directory whose `.ssh` is used, the user's own unless it is given.
    """
    way = _way(address, (home or Path.home()) / ".ssh")
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_Refuse(address, way))
    for file in way.known_hosts:
        with contextlib.suppress(OSError):
            client.load_host_keys(str(file))
    try:
        _connect(client, address, way)
        transport = client.get_transport()
        if transport is None:
            raise SshError(f"{address}: the connection was closed as soon as it was made")
        transport.set_keepalive(_ALIVE_S)
        with Ssh(transport, ()) as ssh:
            yield ssh
    finally:
        client.close()


def _connect(client: paramiko.SSHClient, address: SshAddress, way: _Way) -> None:
    seconds = _CONNECT_S * timeout_scale()
    try:
        # paramiko looks a key up under the name it connects to, so it is given that name and the socket beside it.
        sock = _reach(way, seconds)
    except OSError as error:
        raise SshError(
            f"{address}: {way.name} does not answer on port {way.port}: {error}", hint=f"try: {_by_hand(address)}"
        ) from error
    try:
        client.connect(
            way.known_as,
            way.known_port,
            way.user,
            key_filename=list(way.identities),  # type: ignore[arg-type]  # a list will do, as documented
            look_for_keys=False,
            timeout=seconds,
            banner_timeout=seconds,
            auth_timeout=seconds,
            sock=sock,
        )
    except paramiko.BadHostKeyException as error:
        sock.close()
        raise SshError(
            f"{address}: the host proved another key than the one that is known for it; this is refused",
            hint=f"if it was set up anew: ssh-keygen -R {error.hostname}, then {_by_hand(address)}",
        ) from error
    except (paramiko.AuthenticationException, paramiko.PasswordRequiredException) as error:
        sock.close()
        raise SshError(
            f"{address}: '{way.user}' is not let in with the keys of the agent and of ~/.ssh ({error})",
            hint=f"try: {_by_hand(address)} -o PasswordAuthentication=no; it must not ask for anything",
        ) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        sock.close()
        if isinstance(error.__cause__, SshError):
            raise error.__cause__ from None
        said = str(error) or type(error).__name__
        raise SshError(f"{address}: no SSH session: {said}", hint=f"try: {_by_hand(address)}") from error


def _reach(way: _Way, seconds: float) -> socket.socket | paramiko.ProxyCommand:
    if way.proxy is not None:
        return paramiko.ProxyCommand(way.proxy)
    return socket.create_connection((way.name, way.port), timeout=seconds)


def _by_hand(address: SshAddress) -> str:
    """Give the command that a user tries the same with."""
    port = "" if address.port is None else f"-p {address.port} "
    user = "" if address.user is None else f"{address.user}@"
    return f"ssh {port}{user}{address.name} true"


class _Refuse(paramiko.MissingHostKeyPolicy):
    """Refuses a host whose key is not known, and says how it becomes known."""

    def __init__(self, address: SshAddress, way: _Way) -> None:
        self._address, self._way = address, way

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        """Raise what `_connect` hands on."""
        files = ", ".join(map(str, self._way.known_hosts))
        raise paramiko.SSHException(str(self._address)) from SshError(
            f"{self._address}: the host's key is not known ({key.get_name()} {key.fingerprint}); looked for "
            f"'{hostname}' in {files}",
            hint=f"compare the fingerprint, then let ssh remember the key: {_by_hand(self._address)}",
        )


def _way(address: SshAddress, directory: Path) -> _Way:
    file = directory / "config"
    try:
        config = paramiko.SSHConfig.from_path(str(file)) if file.exists() else paramiko.SSHConfig()
        said = config.lookup(address.name)
    except (OSError, paramiko.SSHException, ValueError) as error:
        raise SshError(f"{file} cannot be read: {error}") from error
    name = said.get("hostname", address.name)
    known = said.get("userknownhostsfile")
    files = [Path(part).expanduser() for part in shlex.split(known)] if known else [directory / "known_hosts"]
    proxy = said.get("proxycommand")
    if "proxyjump" in said and proxy is None:
        raise SshError(
            f"{address}: ~/.ssh/config reaches it by ProxyJump, which is not heeded here",
            hint=f"write it as a ProxyCommand: ssh -W %h:%p {said['proxyjump']}",
        )
    port = address.port or int(said.get("port", _SSH_PORT))
    identities = [Path(part).expanduser() for part in said.get("identityfile", [])]
    return _Way(
        name=name,
        port=port,
        user=address.user or said.get("user") or getpass.getuser(),
        known_as=said.get("hostkeyalias", name),
        known_port=_SSH_PORT if "hostkeyalias" in said else port,  # an alias stands in known_hosts without a port
        known_hosts=[*files, Path("/etc/ssh/ssh_known_hosts")],
        identities=[str(key) for key in identities or [directory / name for name in _KEYS] if key.exists()],
        proxy=None if proxy in (None, "none") else proxy,
    )
