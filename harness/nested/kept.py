"""The near end of a keeper: a process on another host that looks like one of this host's.

Its streams are sockets here, what it writes to files and to its stderr is appended to files here, and its memory can be
fetched when QEMU has written it to the keeper's scratch file.
"""

from __future__ import annotations

import contextlib
import json
import re
import selectors
import signal
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import IO, Any, Self

from harness import bounds
from harness.answers import read_message, require
from harness.errors import (
    AgentError,
    BoundExceeded,
    HarnessError,
    InfraError,
    LaunchError,
    SshError,
    StorageError,
    WaitTimeout,
)
from harness.nested.sending import start_program
from harness.process import KILL_S, QUIT_S, REFUSED_S, TERM_S, StopRung
from harness.ssh import Channel, Ssh
from harness.storage import writing
from harness.waiting import Deadline, wait_for

#: The far end.
_PROGRAM = ("harness.nested.keeper",)

#: What its control frames say.
_TOLD = {"started": int, "exit": int, "state": str, "scratch": bytes, "failed": str}

_SCRATCH = re.compile(rb'\{"scratch": "([0-9a-f]*)"\}')

#: It is asked one thing at a time.
_ANSWERS = 8

_FRAME = struct.Struct("!BI")
_CHUNK = 1 << 16

#: Seconds for the far Python to start and to tell that the program runs; most of it under TCG is importing modules.
_STARTED_S = 30.0

#: Seconds for the keeper's answer to a request; up to 64 MiB of memory travel in hexadecimal.
_ANSWER_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What runs there: descriptors by name, each the number under which the program has it.

    `streams` are sockets, `datagrams` are too, but what is sent at once arrives at once, `outputs` files that are
    written here too (1 stands for stdout and stderr), `data` files with these bytes, `scratch` an empty file, `taps`
    interfaces: descriptor to name and bridge.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    streams: Mapping[str, int]
    outputs: Mapping[str, int]
    data: Mapping[int, bytes]
    scratch: int
    datagrams: Mapping[str, int] = field(default_factory=dict)
    taps: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    def line(self) -> bytes:
        """Give it as the keeper reads it."""
        job = {
            "argv": list(self.argv),
            "env": dict(self.env),
            "streams": list(self.streams.items()),
            "datagrams": list(self.datagrams.items()),
            "outputs": list(self.outputs.items()),
            "data": {number: data.hex() for number, data in self.data.items()},
            "scratch": self.scratch,
            "taps": [[number, *tap] for number, tap in self.taps.items()],
        }
        return json.dumps(job).encode() + b"\n"


class KeptProcess:
    """A program that runs on the host at the other end of `ssh`, kept there; ends with the context or the connection.

    `streams` are this host's ends. The methods are those of `harness.process.Process`.
    """

    def __init__(
        self, ssh: Ssh, job: Job, files: Mapping[str, Path], wires: Mapping[str, socket.socket] | None = None
    ) -> None:
        """Start `job`; `files` are where its outputs go, by name, `wires` the far ends of its datagrams here.

        Raises LaunchError if it cannot be started.
        """
        self.argv = tuple(job.argv)
        self._stderr = files["stderr"]
        self._abort = ssh.abort
        self._state = "?"
        self._status: int | None = None
        self._lost: HarnessError | None = None
        self._answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._sending = threading.Lock()
        with ExitStack() as stack:
            ends = {name: socket.socketpair() for name in job.streams}
            self.streams = {name: pair[0] for name, pair in ends.items()}
            for pair in ends.values():
                stack.callback(pair[0].close)
                stack.callback(pair[1].close)
            near = [pair[1] for pair in ends.values()]
            self._sinks: dict[int, Callable[[bytes], None]] = {}
            for number, end in enumerate(near, start=1):
                self._sinks[number] = _into_socket(end)
            for name in job.datagrams:
                end = (wires or {})[name]
                near.append(end)
                self._sinks[len(near)] = _onto_wire(end)
            for number, name in enumerate(job.outputs, start=1 + len(near)):
                file = stack.enter_context(files[name].open("ab", buffering=0))
                self._sinks[number] = _into_file(file, files[name])
            self._channel: Channel = start_program(ssh, _PROGRAM, job.line())
            stack.callback(self._channel.close)
            self._pumps = [
                threading.Thread(target=self._receive, name="kept-receive", daemon=True),
                threading.Thread(target=self._forward, args=(near,), daemon=True),
            ]
            self._ended = threading.Event()
            for pump in self._pumps:
                pump.start()
            stack.callback(self._stop_pumps)
            started = self._answer("started", _STARTED_S)
            self.pid = int(started["started"])
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(quit=None)

    def poll(self) -> int | None:
        """The exit status (negative for a signal; -SIGKILL for a lost connection), or None while the program runs."""
        if self._status is None and self._lost is not None:
            return -signal.SIGKILL  # the keeper kills it when its input ends
        return self._status

    def state(self) -> str:
        """The letter of its state that the keeper told last, "?" as long as it told none."""
        return self._state

    def cpu_s(self) -> dict[str, float]:
        """Nothing: what its threads have run is not carried here."""
        return {}

    def failure(self) -> Exception | None:
        """What ended it here: a bound that it exceeded, or a file that could not be written; None otherwise."""
        return self._lost if isinstance(self._lost, (BoundExceeded, StorageError, AgentError)) else None

    def stderr_text(self) -> str:
        """What the program wrote to stdout and stderr so far."""
        return self._stderr.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """Send SIGKILL to the program and its group, without waiting."""
        self._signal(signal.SIGKILL)

    def scratch(self, size: int) -> bytes:
        """Fetch the first `size` bytes of the scratch file; SshError once the program has ended, and it with it."""
        if self._status is not None:
            raise self._ended_without("scratch")
        self._request({"scratch": size})
        return bytes.fromhex(self._answer("scratch", _ANSWER_S)["scratch"])

    def stop(self, *, quit: Callable[[], None] | None) -> StopRung:  # noqa: A002 - it is the QMP command's name
        """End the program as `Process.stop` does, and close the channel."""
        try:
            return self._climb(quit)
        finally:
            self._stack.close()

    def _climb(self, ask: Callable[[], None] | None) -> StopRung:
        if self.poll() is not None:
            return StopRung.ALREADY_GONE
        if ask is not None:
            seconds = QUIT_S
            try:
                ask()
            except InfraError:
                seconds = REFUSED_S
            if self._ended_within(seconds):
                return StopRung.QUIT
        for rung, number, seconds in ((StopRung.TERM, signal.SIGTERM, TERM_S), (StopRung.KILL, signal.SIGKILL, KILL_S)):
            self._signal(number)
            if self._ended_within(seconds):
                return rung
        raise InfraError(f"process {self.pid} of the other host survived SIGKILL for {KILL_S:.0f} s")

    def _ended_within(self, seconds: float) -> bool:
        with contextlib.suppress(WaitTimeout):
            wait_for(f"process {self.pid} to end", lambda: self.poll() is not None, Deadline.after(seconds))
            return True
        return False

    def _signal(self, number: int) -> None:
        with contextlib.suppress(HarnessError):
            self._request({"signal": int(number)})

    def _request(self, message: dict[str, Any]) -> None:
        self._send(0, json.dumps(message).encode())

    def _send(self, number: int, data: bytes) -> None:
        with self._sending:
            self._channel.send(_FRAME.pack(number, len(data)) + data, Deadline.after(_ANSWER_S))

    def _answer(self, key: str, seconds: float) -> dict[str, Any]:
        """Wait for the keeper's answer that has `key`."""
        deadline = Deadline.after(seconds)

        def next_one() -> dict[str, Any] | None:
            with contextlib.suppress(Empty):
                return self._answers.get(timeout=0.02)
            if self._lost is not None:
                raise self._lost
            if not self._pumps[0].is_alive() and self._answers.empty():
                raise self._ended_without(key)
            return None

        answer = wait_for(f"the keeper's '{key}'", next_one, deadline, abort=self._abort, every_s=0)
        if key not in answer:
            what = answer.get("failed", f"an answer without '{key}': {answer}")
            raise LaunchError(
                f"could not start '{self.argv[0]}' on the other host: {what}",
                argv=self.argv,
                exit_status=None,
                stderr=self._channel.stderr_text(),
            )
        return answer

    def _ended_without(self, key: str) -> SshError:
        return SshError(f"the program on the other host ended with {self._status}; no '{key}' can be had of it")

    def _receive(self) -> None:
        """Take frames apart until the keeper's output ends."""
        told = bytearray()
        never = Deadline.after(86400.0)
        try:
            while data := self._channel.read(never):
                told += data
                while len(told) >= _FRAME.size:
                    number, length = _FRAME.unpack_from(told)
                    if length > bounds.FRAME_BYTES:
                        raise BoundExceeded("the keeper", "output", bound=bounds.FRAME_BYTES, unit="bytes in a frame")
                    if len(told) < _FRAME.size + length:
                        break
                    frame = bytes(told[_FRAME.size : _FRAME.size + length])
                    del told[: _FRAME.size + length]
                    self._take(number, frame)
            if self._status is None:
                said = self._channel.stderr_text().strip()
                raise SshError(f"the keeper ended{f': {said}' if said else ''}")
        except HarnessError as error:
            self._lost = error
        except OSError as error:
            self._lost = SshError(f"the connection to the keeper was lost: {error}")

    def _take(self, number: int, frame: bytes) -> None:
        if number:
            if number not in self._sinks:
                raise AgentError(f"the keeper has no channel {number}")
            self._sinks[number](frame)
            return
        try:
            memory = _SCRATCH.fullmatch(frame)  # longer than any other message
            message = {"scratch": memory[1].decode()} if memory else read_message(frame.decode(), "the keeper")
        except UnicodeDecodeError as error:
            raise AgentError(f"the keeper: a control frame that is no text ({error})") from None
        told = next((key for key in _TOLD if key in message), None)
        if told is None or len(message) != 1:
            raise AgentError(f"the keeper says something else: {str(message)[:200]}")
        require(message, {told: _TOLD[told]}, "the keeper")
        if told == "exit":
            self._status = int(message["exit"])
        elif told == "state":
            self._state = str(message["state"])
        elif self._answers.qsize() < _ANSWERS:
            self._answers.put(message)
        else:
            raise BoundExceeded("the keeper", "control", bound=_ANSWERS, unit="answers that nobody asked for")

    def _forward(self, ends: Sequence[socket.socket]) -> None:
        """Carry what is said on the near ends to the keeper."""
        with selectors.DefaultSelector() as selector:
            for number, end in enumerate(ends, start=1):
                selector.register(end, selectors.EVENT_READ, number)
            while selector.get_map() and not self._ended.is_set():
                for key, _ in selector.select(0.2):
                    end, number = ends[key.data - 1], key.data
                    try:
                        data = end.recv(_CHUNK)
                        self._send(number, data)
                    except (OSError, HarnessError):
                        data = b""
                    if not data:
                        selector.unregister(end)

    def _stop_pumps(self) -> None:
        self._ended.set()
        self._channel.close()
        for pump in self._pumps:
            pump.join(timeout=5.0)


def _into_file(file: IO[bytes], path: Path) -> Callable[[bytes], None]:
    size = 0

    def put(data: bytes) -> None:
        nonlocal size
        size += len(data)
        if size > bounds.QEMU_FILE_BYTES:
            raise BoundExceeded(
                "the guest", path.name, bound=bounds.QEMU_FILE_BYTES, unit="bytes in its file", evidence=path
            )
        with writing(path.name, path, needed=len(data), alone=True):
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) or 0 :]

    return put


def _onto_wire(end: socket.socket) -> Callable[[bytes], None]:
    def put(data: bytes) -> None:
        with contextlib.suppress(OSError):  # what nobody takes is lost, as on any wire: QMP must not wait for it
            end.send(data, socket.MSG_DONTWAIT)

    return put


def _into_socket(end: socket.socket) -> Callable[[bytes], None]:
    def put(data: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody listens there any more
            if data:
                end.sendall(data)
            else:
                end.shutdown(socket.SHUT_WR)

    return put
