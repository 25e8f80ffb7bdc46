from __future__ import annotations

import ast
import contextlib
import json
import socket
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import paramiko
import pytest

import harness
from harness.bench import overhead, plain
from harness.bench import script as bench_script
from harness.bench.overhead import actions
from harness.errors import InfraError
from harness.evidence import Entry
from harness.waiting import Deadline, wait_for
from tests.ssh_server import SshServer, new_key


def entries(*told):
    return [Entry(t=0.0, source=source, kind=kind, step=None, data=data) for source, kind, data in told]


def command(name, **arguments):
    return "qmp", "command", {"command": name, "arguments": arguments, "duration_s": 0.1}


def test_actions_are_commands_and_requests_in_their_order():
    given = entries(
        ("runner", "begin", {}),
        command("query-migrate"),
        command("query-migrate"),
        ("qmp", "event", {"name": "RESUME"}),
        command("cont"),
        ("agent", "call", {"op": "hello", "args": {}, "ok": {"pages": [1]}, "duration_s": 0.1}),
        ("agent", "dma", {"address": 1}),
        command("pmemsave", val=4096, size=64, filename="/proc/self/fd/13"),
    )
    assert list(actions(given)) == [
        {"qmp": "query-migrate", "arguments": {}},
        {"qmp": "cont", "arguments": {}},
        {"agent": "hello", "args": {}, "ok": {"pages": [1]}},
        {"qmp": "pmemsave", "arguments": {"val": 4096, "size": 64, "filename": "/proc/self/fd/104"}},
    ]


@pytest.mark.parametrize(
    "odd", [("ssh", "run", {"argv": ["true"]}), ("agent", "call", {"op": "bind", "args": {}, "error": "no"})]
)
def test_what_a_script_cannot_do_again_is_refused(odd):
    with pytest.raises(InfraError, match="cannot be replayed"):
        list(actions(entries(odd)))


@pytest.mark.parametrize("script", ["boot.py", "replay.py"])
def test_the_plain_scripts_know_nothing_of_the_harness(script):
    tree = ast.parse(Path(plain.__file__).with_name(script).read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name.startswith("harness") for name in imported)


def test_only_waiting_and_the_plain_scripts_sleep():
    home = Path(harness.__file__).parent
    found = {str(path.relative_to(home)) for path in home.rglob("*.py") if "time.sleep(" in path.read_text()}
    elsewhere = {"guest_agent/waiting.py", "lab/nic_there.py"}  # programs of their own, sent to where they run
    assert found == {"waiting.py", *elsewhere, "bench/plain/boot.py", "bench/plain/replay.py"}


@pytest.mark.parametrize("script", ["boot", "replay"])
def test_qemu_does_not_outlive_a_killed_plain_script(script, tmp_path):
    begun = tmp_path / "begun"
    stand_in = f"import os, pathlib, time; pathlib.Path({str(begun)!r}).write_text(str(os.getpid())); time.sleep(60)"
    order = {
        "argv": [sys.executable, "-c", stand_in], "environment": {},
        "console": str(tmp_path / "console"), "ready": "ready", "port": 1, "within_s": 240,
        "files": {}, "memory": 104, "qmp": 100, "ssh": 101, "actions": [],
    }  # fmt: skip
    (tmp_path / "order.json").write_text(json.dumps(order))
    program = Path(plain.__file__).with_name(f"{script}.py")
    with subprocess.Popen([sys.executable, program, tmp_path / "order.json"]) as process:
        try:
            pid = wait_for("QEMU", lambda: begun.exists() and begun.read_text(), Deadline.after(20))
        finally:
            process.kill()
    wait_for("QEMU to be gone", lambda: not Path("/proc", pid).exists(), Deadline.after(5))


class LateServer(SshServer):
    """Loses its first connection, as slirp does with one that a guest has no server for yet."""

    lost = False

    def _accept(self):
        lost, _ = self._listening.accept()
        lost.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        lost.close()
        self.lost = True
        super()._accept()


@pytest.fixture
def boot(tmp_path):
    """Have the plain script boot what sleeps and whose console is ready, with `server` for its SSH server."""
    new_key(tmp_path / "client")
    (tmp_path / "console").write_text("ready")

    def run(server):
        order = {
            "argv": ["sleep", "60"], "environment": {}, "console": str(tmp_path / "console"), "ready": "ready",
            "port": server.port, "client": str(tmp_path / "client"), "host_key": server.known_as().split(" ", 1)[1],
            "within_s": 50,
        }  # fmt: skip
        return bench_script.run("boot", tmp_path, order)

    return run


def test_a_plain_boot_connects_again_where_the_server_came_late(boot, tmp_path):
    with contextlib.closing(LateServer(paramiko.Ed25519Key(filename=str(tmp_path / "client")))) as server:
        boot(server)
        assert server.lost


def test_a_plain_boot_does_not_ask_again_who_refused_its_key(boot, tmp_path):
    another = paramiko.Ed25519Key(filename=str(new_key(tmp_path / "another")))
    with contextlib.closing(SshServer(another)) as server:
        with pytest.raises(InfraError, match="Authentication"):
            boot(server)
        assert len(server._transports) == 1


def test_no_template_is_waited_for_while_a_place_is_held(monkeypatch, tmp_path):
    held = []

    @contextlib.contextmanager
    def holding(what, *, without):
        assert without not in held
        held.append(what)
        yield SimpleNamespace(ram="ram", greeting=b"", host_public="key")
        held.remove(what)

    host = SimpleNamespace(
        image=lambda _: None, qemu=SimpleNamespace(env={}), facts=None, progress=print,
        guest_place=lambda: holding("place", without=""),
        templates=SimpleNamespace(ready=lambda *_: holding("template", without="place")),
    )  # fmt: skip
    monkeypatch.setattr(overhead, "command_line", lambda *_, **__: ["qemu"])
    monkeypatch.setattr(overhead, "resolve_all", lambda *_: [])
    monkeypatch.setattr(overhead.script, "run", lambda *_: float(sorted(held) == ["place", "template"]))
    plan = SimpleNamespace(machine=SimpleNamespace(image="debian-13", iommus=()))
    assert overhead.replay(SimpleNamespace(host=host), plan, [], tmp_path) == 1.0
