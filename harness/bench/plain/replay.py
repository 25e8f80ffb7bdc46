"""Do what a scenario did, without journal, judge and report: `replay.py JSON`; prints the seconds that QEMU lived.

JSON: argv, environment, files (descriptor number to text), qmp, ssh, memory (descriptor numbers in argv and actions),
port (the agent's), greeting (what the SSH server has said already), client, host_key, and actions:
{"qmp", "arguments"} or {"agent", "args", "ok"}, in order.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import paramiko
from qemu.qmp import QMPClient

_PAGE = 4096


class Greeted:
    """A socket whose other end said `greeting` before it was here."""

    def __init__(self, sock: socket.socket, greeting: bytes) -> None:
        """Read `greeting` first."""
        self._sock, self._greeting = sock, greeting

    def recv(self, size: int) -> bytes:
        """As that of a socket."""
        data, self._greeting = self._greeting[:size], self._greeting[size:]
        return data or self._sock.recv(size)

    def __getattr__(self, name: str) -> Any:
        """Leave the rest to the socket."""
        return getattr(self._sock, name)


class Replay:
    """One QEMU and what is asked of it and of its guest."""

    def __init__(self, order: dict[str, Any]) -> None:
        """Make the descriptors that QEMU inherits, under the numbers its argv has."""
        self._order = order
        self._loop = asyncio.new_event_loop()
        self._monitor = QMPClient("plain")
        self._qmp, theirs = socket.socketpair()
        self._ssh, servers = socket.socketpair()
        self._agent: paramiko.Channel | None = None
        self._pages: dict[int, int] = {}
        self._calls = 0
        for number, text in order["files"].items():
            self._memfd(int(number), text.encode())
        self._memfd(order["memory"], b"")
        os.dup2(theirs.detach(), order["qmp"])
        os.dup2(servers.detach(), order["ssh"])

    def run(self) -> float:
        """Start QEMU, take every action, and wait for QEMU's end, which the last action asks for."""
        order = self._order
        inherited = [*map(int, order["files"]), order["memory"], order["qmp"], order["ssh"]]
        begun = time.perf_counter()
        qemu = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *order["argv"]],
            env={**os.environ, **order["environment"]},
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
        )
        try:
            os.close(order["qmp"])
            os.close(order["ssh"])
            self._loop.run_until_complete(self._monitor.connect(self._qmp))
            for action in order["actions"]:
                if "qmp" in action:
                    self._command(action["qmp"], action["arguments"])
                else:
                    self._call(action["agent"], action["args"], action["ok"])
            qemu.wait()
            return time.perf_counter() - begun
        finally:
            qemu.kill()
            qemu.wait()

    def _memfd(self, number: int, data: bytes) -> None:
        descriptor = os.memfd_create("plain")
        os.write(descriptor, data)
        os.dup2(descriptor, number)
        os.close(descriptor)

    def _command(self, command: str, arguments: dict[str, Any]) -> None:
        if command == "pmemsave":
            os.ftruncate(self._order["memory"], 0)
        answer = self._execute(command, arguments)
        while command == "query-migrate" and answer["status"] not in ("completed", "failed"):
            time.sleep(0.002)
            answer = self._execute(command, arguments)
        if command == "pmemsave":
            os.pread(self._order["memory"], arguments["size"], 0)

    def _execute(self, command: str, arguments: dict[str, Any]) -> Any:
        moved = self._moved(arguments)
        return self._loop.run_until_complete(self._monitor.execute(command, moved or None))

    def _call(self, operation: str, args: dict[str, Any], before: dict[str, Any]) -> None:
        self._calls += 1
        if operation == "set_clock":
            args = {**args, "realtime_ns": time.time_ns()}
        request = {"id": self._calls, "op": operation, "args": self._moved(args)}
        agent = self._agent = self._agent or self._connected()
        agent.sendall(json.dumps(request).encode() + b"\n")
        for line in self._lines:
            message = json.loads(line) if line.strip() else {}
            if message.get("id") == self._calls:
                if "ok" not in message:
                    raise RuntimeError(f"'{operation}': {line.strip()}")
                self._pages.update(zip(before.get("pages", ()), message["ok"].get("pages", ()), strict=True))
                return
        raise RuntimeError(f"the agent's channel ended during '{operation}'")

    def _connected(self) -> paramiko.Channel:
        """Log in and connect to the agent."""
        order = self._order
        transport = paramiko.Transport(Greeted(self._ssh, bytes.fromhex(order["greeting"])))  # type: ignore[arg-type]
        transport.start_client()
        if transport.get_remote_server_key().get_base64() != order["host_key"].split()[1]:
            raise RuntimeError("another host key")
        transport.auth_publickey("root", paramiko.Ed25519Key.from_private_key(io.StringIO(order["client"])))
        agent = transport.open_channel("direct-tcpip", ("127.0.0.1", order["port"]), ("127.0.0.1", 0))
        self._lines = agent.makefile("r")
        return agent

    def _moved(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`arguments` with the addresses that this guest's buffers have."""
        moved = dict(arguments)
        for key in ("val", "address"):
            value = arguments.get(key)
            if isinstance(value, int) and value - value % _PAGE in self._pages:
                moved[key] = self._pages[value - value % _PAGE] + value % _PAGE
        return moved


if __name__ == "__main__":
    print(json.dumps(Replay(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).run()))
