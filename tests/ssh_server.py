"""An SSH server on loopback that runs what it is asked to on this host: what a lab host is to the harness."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import threading
from pathlib import Path

import paramiko

from harness.ssh import KeyPair


class SshServer:
    """Listens on `port`; `key` is its host key, `allowed` the one client key that it lets in."""

    def __init__(self, allowed: paramiko.PKey) -> None:
        self.key = paramiko.Ed25519Key.from_private_key(io.StringIO(KeyPair.generate().private.decode()))
        self.allowed = allowed
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._transports: list[paramiko.Transport] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def known_as(self) -> str:
        return f"[127.0.0.1]:{self.port} {self.key.get_name()} {self.key.get_base64()}\n"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for transport in self._transports:
            transport.close()
        for thread in self._threads:
            thread.join(10)

    def run(self, channel: paramiko.Channel, command: str) -> None:
        self._threads.append(threading.Thread(target=self._run, args=(channel, command)))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            transport = paramiko.Transport(sock)
            transport.add_server_key(self.key)
            self._transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):  # who does not know the key hangs up
                transport.start_server(server=_Policy(self))

    def _run(self, channel: paramiko.Channel, command: str) -> None:
        """As sshd does: streams over pipes, and the command's input ends with the connection."""
        with subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:

            def take() -> None:
                with contextlib.suppress(OSError):
                    while data := channel.recv(65536):
                        process.stdin.write(data)
                        process.stdin.flush()
                with contextlib.suppress(OSError):
                    process.stdin.close()

            taker = threading.Thread(target=take)
            taker.start()
            with contextlib.suppress(OSError):
                while data := os.read(process.stdout.fileno(), 65536):
                    channel.sendall(data)
                channel.sendall_stderr(process.stderr.read())
            process.wait()
            with contextlib.suppress(OSError, EOFError):
                channel.send_exit_status(process.returncode)
                channel.close()
            taker.join(10)


class _Policy(paramiko.ServerInterface):
    def __init__(self, server: SshServer) -> None:
        self._server = server

    def get_allowed_auths(self, username):  # noqa: ARG002
        return "publickey"

    def check_auth_publickey(self, username, key):  # noqa: ARG002
        right = key == self._server.allowed
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, chanid):  # noqa: ARG002
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        self._server.run(channel, command.decode())
        return True


def new_key(path: Path) -> Path:
    """A new private key in the file `path`, which is given back."""
    path.write_bytes(KeyPair.generate().private)
    path.chmod(0o600)
    return path
