"""The agent as a process: what it answers to whatever comes in, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from harness.waiting import Deadline, wait_for

AGENT = Path(__file__).parents[2] / "harness" / "guest_agent" / "agent.py"
PATIENCE_S = 30


def converse(*lines: bytes) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-I", str(AGENT)],
        input=b"\n".join(lines),
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def refusal(line: bytes) -> dict:
    first, second = converse(line, b'{"id": 99, "op": "hello"}')
    assert second["id"] == 99
    assert second["ok"]["protocol"] == 1
    assert first["error"]["reason"]
    return first


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b"[]", b"7", b"null", b'"hello"'])
def test_a_line_that_is_no_request_is_answered_without_an_id(line):
    assert refusal(line)["id"] is None


@pytest.mark.parametrize(
    ("request_line", "reason"),
    [
        (b'{"id": 5, "op": "fly"}', "unknown operation 'fly'"),
        (b'{"id": 5, "op": ["hello"]}', "unknown operation ['hello']"),
        (b'{"id": 5}', "unknown operation None"),
        (b'{"id": 5, "op": "hello", "args": []}', "args is a JSON object"),
        (b'{"id": 5, "op": "hello", "arguments": {}}', "unknown request field arguments"),
        (b'{"id": 5, "op": "hello", "args": {"loud": 1}}', "unknown argument loud; known: none"),
        (b'{"id": 5, "op": "pci", "args": {}}', "missing argument bdf"),
        (b'{"id": 5, "op": "pci", "args": {"bdf": 3}}', "argument bdf must be str, not int"),
        (b'{"id": 5, "op": "run", "args": {"argv": ["true"], "timeout_s": true}}', "must be float, not bool"),
        (b'{"id": 5, "op": "run", "args": {"argv": ["a", 1]}}', "argument argv must be a list of str"),
        (b'{"id": 5, "op": "pci", "args": {"bdf": "../../etc"}}', "is not a PCI address"),
        (b'{"id": 5, "op": "buffer_read", "args": {"name": "x", "length": 1}}', "no buffer 'x'; known: none"),
        (b'{"id": 5, "op": "device_close", "args": {"device": "x"}}', "no open device 'x'"),
        (b'{"id": 5, "op": "domain_unmap", "args": {"domain": "x", "iova": 0, "size": 1}}', "no domain 'x'"),
        (b'{"id": 5, "op": "mark", "args": {"text": "a\\nb"}}', "a mark is one line"),
    ],
)
def test_a_wrong_request_is_refused_with_its_reason(request_line, reason):
    answer = refusal(request_line)
    assert answer["id"] == 5
    assert reason in answer["error"]["reason"]


def test_a_failed_system_call_is_told_with_errno_and_path():
    answer = refusal(b'{"id": 5, "op": "run", "args": {"argv": ["/no/such/program"]}}')
    assert answer["error"]["errno"] == 2
    assert "/no/such/program" in answer["error"]["reason"]


def test_a_command_gets_its_input_and_tells_status_and_both_outputs():
    argv = ["sh", "-c", "cat; echo err >&2; exit 3"]
    (answer,) = converse(json.dumps({"id": 1, "op": "run", "args": {"argv": argv, "stdin": "in"}}).encode())
    assert answer["ok"] == {"status": 3, "stdout": "in", "stderr": "err\n"}


def test_a_command_past_its_deadline_is_refused():
    answer = refusal(b'{"id": 5, "op": "run", "args": {"argv": ["sleep", "30"], "timeout_s": 0.1}}')
    assert "did not end within 0.1 s" in answer["error"]["reason"]


def test_nothing_is_answered_after_stop():
    assert [a["id"] for a in converse(b'{"id": 1, "op": "stop"}', b'{"id": 2, "op": "hello"}')] == [1]


def test_empty_lines_are_passed_over():
    assert [a["id"] for a in converse(b"", b'{"id": 1, "op": "hello"}', b"  ")] == [1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(number):
    with subprocess.Popen([sys.executable, "-I", str(AGENT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        agent.stdin.write(b'{"id": 1, "op": "hello"}\n')
        agent.stdin.flush()
        assert json.loads(agent.stdout.readline())["id"] == 1
        agent.send_signal(number)
        assert agent.wait(PATIENCE_S) == 0


class Talk:
    """A connection to an agent that listens."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.lines = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, op: str, **args: object) -> dict:
        self.send(json.dumps({"id": 1, "op": op, "args": args}).encode() + b"\n")
        return json.loads(self.lines.readline())["ok"]


@dataclass(frozen=True)
class Resident:
    port: int
    pid: int
    log: Path

    def wait(self) -> None:
        wait_for("the agent to end", lambda: not Path(f"/proc/{self.pid}").exists(), Deadline.after(PATIENCE_S))


@pytest.fixture
def resident(tmp_path) -> Iterator[Resident]:
    """An agent that has gone into the background, as the guest's init starts it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        command = [sys.executable, "-I", str(AGENT), str(port)]
        assert subprocess.run(command, stderr=stderr, timeout=PATIENCE_S, check=False).returncode == 0
    with Talk(port) as talk:
        pid = int(talk.ask("run", argv=["sh", "-c", "echo $PPID"])["stdout"])
    agent = Resident(port, pid, log)
    try:
        yield agent
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        agent.wait()


def test_a_resident_agent_serves_one_connection_after_the_other(resident):
    for _ in range(3):
        with Talk(resident.port) as talk:
            assert talk.ask("hello")["protocol"] == 1
            assert talk.ask("run", argv=["echo", "hi"])["stdout"] == "hi\n"
    assert resident.log.read_text() == ""


def test_half_a_line_of_one_connection_is_no_part_of_the_next(resident):
    with Talk(resident.port) as talk:
        talk.ask("hello")
        talk.send(b'{"id": 5, "op": "he')
    with Talk(resident.port) as talk:
        assert talk.ask("hello")["protocol"] == 1


def test_what_was_sent_after_stop_is_no_part_of_the_next_connection(resident):
    with Talk(resident.port) as talk:
        talk.send(b'{"id": 1, "op": "stop"}\n{"id": 66, "op": "hello"}\n')
        assert json.loads(talk.lines.readline())["id"] == 1
    with Talk(resident.port) as talk:
        talk.send(b'{"id": 2, "op": "hello"}\n')
        assert json.loads(talk.lines.readline())["id"] == 2


def test_answers_that_nobody_has_read_are_no_part_of_the_next_connection(resident):
    with Talk(resident.port) as talk:
        # More than the connection holds: the agent is writing when its reader goes.
        talk.send(b'{"id": 7, "op": "run", "args": {"argv": ["head", "-c", "9000000", "/dev/zero"]}}\n' * 2)
        assert talk.socket.recv(1)
    with Talk(resident.port) as talk:
        assert talk.ask("hello")["protocol"] == 1
    assert resident.log.read_text() == ""


def test_stop_ends_the_connection_and_not_the_resident_agent(resident):
    with Talk(resident.port) as talk:
        assert talk.ask("stop") == {"stopped": "stop"}
        assert talk.lines.readline() == b""
    with Talk(resident.port) as talk:
        assert talk.ask("hello")["protocol"] == 1


def test_a_second_connection_waits_for_the_first_to_end(resident):
    with Talk(resident.port) as first, Talk(resident.port) as second:
        second.send(b'{"id": 1, "op": "hello"}\n')
        first.ask("run", argv=["true"])
        second.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            second.socket.recv(1)
        second.socket.settimeout(PATIENCE_S)
        first.ask("stop")
        assert json.loads(second.socket.recv(65536))["id"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_resident_agent_and_its_connection(resident, number):
    with Talk(resident.port) as talk:
        talk.ask("hello")
        os.kill(resident.pid, number)
        assert talk.lines.readline() == b""
    resident.wait()
    assert resident.log.read_text() == ""


def test_a_port_that_is_taken_is_told(resident):
    again = subprocess.run(
        [sys.executable, "-I", str(AGENT), str(resident.port)], capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert again.returncode == 1
    assert b"Address already in use" in again.stderr
