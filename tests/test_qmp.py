"""The monitor against a scripted server, for failures that a real QEMU does not produce, and against QEMU itself."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from harness.errors import InfraError, MonitorError, WaitTimeout
from harness.machine.introspection import ask_qemu
from harness.qmp import Monitor
from harness.waiting import Deadline

GREETING = {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": ""}, "capabilities": []}}


class Peer:
    """The server's end of a QMP connection: `answer` gets each request but the first; it need not answer."""

    def __init__(self, sock: socket.socket, answer: Callable[[Peer, dict[str, Any]], None]) -> None:
        self._sock = sock
        self._answer = answer

    def send(self, message: dict[str, Any]) -> None:
        self._sock.sendall(json.dumps(message).encode() + b"\r\n")

    def hang_up(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        self.send(GREETING)
        buffered = ""
        while data := self._sock.recv(65536):
            buffered += data.decode()
            with suppress(ValueError):  # half a request
                while buffered := buffered.lstrip():
                    request, end = json.JSONDecoder().raw_decode(buffered)
                    buffered = buffered[end:]
                    if request["execute"] == "qmp_capabilities":
                        self.send({"return": {}, **({"id": request["id"]} if "id" in request else {})})
                    else:
                        self._answer(self, request)


@contextmanager
def scripted(
    answer: Callable[[Peer, dict[str, Any]], None],
) -> Iterator[tuple[Monitor, list[tuple[str, dict[str, Any]]]]]:
    ours, theirs = socket.socketpair()
    messages: list[tuple[str, dict[str, Any]]] = []
    thread = threading.Thread(target=Peer(theirs, answer).serve)
    thread.start()
    try:
        with Monitor(ours, "scripted", lambda kind, message: messages.append((kind, message))) as monitor:
            monitor.connect(Deadline.after(5))
            yield monitor, messages
    finally:
        thread.join(timeout=5)
        theirs.close()
        assert not thread.is_alive()


def event(name: str, **data: Any) -> dict[str, Any]:
    return {"event": name, "data": data, "timestamp": {"seconds": 1, "microseconds": 2}}


def test_an_unanswered_command_times_out_and_the_connection_stays_usable() -> None:
    def script(peer: Peer, request: dict[str, Any]) -> None:
        if request["execute"] != "stop":
            peer.send({"return": {"status": "running"}, "id": request["id"]})

    with scripted(script) as (monitor, messages):
        started = time.monotonic()
        with pytest.raises(MonitorError, match=r"QMP 'stop': no answer within 0\.2 s"):
            monitor.execute("stop", timeout_s=0.2)
        assert time.monotonic() - started < 1
        assert monitor.execute("query-status") == {"status": "running"}
        assert [message["command"] for _, message in messages] == ["stop", "query-status"]
        assert "error" in messages[0][1]
        assert messages[0][1]["duration_s"] >= 0.2


def test_a_connection_lost_during_a_command_is_told_at_once() -> None:
    with scripted(lambda peer, _request: peer.hang_up()) as (monitor, _):
        assert monitor.lost() is None
        started = time.monotonic()
        with pytest.raises(MonitorError):
            monitor.execute("query-status", timeout_s=20)
        assert time.monotonic() - started < 5
        assert isinstance(monitor.lost(), MonitorError)
        with monitor.expect("STOP") as expected, pytest.raises(MonitorError, match="gone"):
            expected.wait(Deadline.after(20))


def test_an_event_is_matched_by_its_data_and_a_timeout_names_what_came_instead() -> None:
    def script(peer: Peer, request: dict[str, Any]) -> None:
        peer.send(event("DEVICE_DELETED", path="/machine/peripheral/b"))
        peer.send(event("DEVICE_DELETED", device="b"))
        if request["execute"] == "both":
            peer.send(event("DEVICE_DELETED", device="a"))
        peer.send({"return": {}, "id": request["id"]})

    with scripted(script) as (monitor, messages):
        with monitor.expect("DEVICE_DELETED", device="a") as deleted:
            monitor.execute("both")
            assert deleted.wait(Deadline.after(5))["data"] == {"device": "a"}
        with monitor.expect("DEVICE_DELETED", device="a") as deleted:
            monitor.execute("only-b")
            with pytest.raises(WaitTimeout) as caught:
                deleted.wait(Deadline.after(0.2))
        assert caught.value.what == "QMP event DEVICE_DELETED device=a"
        assert caught.value.observed == "DEVICE_DELETED, DEVICE_DELETED"
        assert [kind for kind, _ in messages].count("event") == 5


def test_an_abort_ends_the_wait_for_an_event() -> None:
    with (
        scripted(lambda _peer, _request: None) as (monitor, _),
        monitor.expect("STOP") as expected,
        pytest.raises(InfraError, match="QEMU has ended"),
    ):
        expected.wait(Deadline.after(20), abort=[lambda: InfraError("QEMU has ended")])


def test_a_peer_that_never_greets_is_given_up_at_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    with (
        theirs,
        Monitor(ours, "silent", lambda _kind, _message: None) as monitor,
        pytest.raises(MonitorError, match="no greeting within"),
    ):
        monitor.connect(Deadline.after(0.2))


def test_a_peer_that_is_gone_is_told_before_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    started = time.monotonic()
    with Monitor(ours, "gone", lambda _kind, _message: None) as monitor, pytest.raises(MonitorError):
        monitor.connect(Deadline.after(20))
    assert time.monotonic() - started < 2


@pytest.mark.qemu
def test_qemu_answers_and_refuses_in_its_own_words(qemu_build) -> None:
    with ask_qemu(qemu_build) as monitor:
        assert monitor.execute("query-version")["qemu"]["major"] >= 8
        with pytest.raises(MonitorError) as caught:
            monitor.execute("device_del", id="nobody")
    assert caught.value.command == "device_del"
    assert caught.value.error_class == "DeviceNotFound"
    assert "nobody" in caught.value.message
