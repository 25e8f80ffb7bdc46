"""QEMU's monitor: commands, events and waits for events; the only module that knows asyncio and qemu.qmp.

One loop thread per interpreter serves all monitors. Deadlines are kept inside the coroutines, so a command that is not
answered is cancelled on the loop and the connection stays usable. Events are received all the time, not only while a
command runs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, QMPClient, QMPError, Runstate, StateError

from harness.errors import HarnessError, MonitorError
from harness.evidence import Record
from harness.run_state import RunState
from harness.waiting import Abort, Deadline, timeout_scale, wait_for

T = TypeVar("T")

#: Receives ("command", {...}) when a command was answered and ("event", {...}) for each event; called from any thread.
OnMessage = Callable[[str, dict[str, Any]], None]

#: Seconds between looks at what may make waiting for an answer pointless.
_LOOK_S = 0.25

_loop: asyncio.AbstractEventLoop | None = None
_loop_lock = threading.Lock()


class ExpectedEvent:
    """An event being waited for; made by `Monitor.expect`, before the action that causes it."""

    def __init__(self, monitor: Monitor, name: str, match: Mapping[str, Any]) -> None:
        self.name = name
        self._monitor = monitor
        self._match = match
        self._found: dict[str, Any] | None = None
        self._others: list[str] = []

    def offer(self, event: dict[str, Any]) -> bool:
        """Take `event` if it is the first that matches; tells whether it was."""
        data = event.get("data", {})
        if event["event"] != self.name or any(data.get(key) != value for key, value in self._match.items()):
            self._others.append(event["event"])
        elif self._found is None:
            self._found = event
            return True
        return False

    def arrived(self) -> dict[str, Any] | None:
        """The event (`{"event", "data", "timestamp"}`) if it was seen."""
        return self._found

    def wait(self, deadline: Deadline, abort: Sequence[Abort] = ()) -> dict[str, Any]:
        """The event; raises WaitTimeout naming what arrived instead, or the error of an `abort` or a lost monitor."""
        wanted = "".join(f" {key}={value}" for key, value in self._match.items())
        return wait_for(
            f"QMP event {self.name}{wanted}",
            self.arrived,
            deadline,
            abort=(*abort, self._monitor.lost),
            every_s=0.005,
            observed=lambda: ", ".join(self._others) or "no event",
        )


class Monitor:
    """A QMP connection over a connected socket; a context manager that disconnects."""

    def __init__(self, sock: socket.socket, name: str, on_message: OnMessage) -> None:
        """Take over `sock` (one end of a socketpair whose other end QEMU inherited)."""
        self._sock = sock
        self._client = QMPClient(name)
        self._on_message = on_message
        self._expected: list[ExpectedEvent] = []
        #: What QEMU told of its run state that nobody asked for.
        self.run_state = RunState()
        #: Looked at while QEMU's answer is awaited; none of them may ask QEMU itself.
        self.abort: Sequence[Abort] = ()
        self._pump: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _run(self._disconnect())
        self._sock.close()

    def connect(self, deadline: Deadline) -> None:
        """Wait for QEMU's greeting and negotiate.

        MonitorError at `deadline` or as soon as QEMU's end is closed, or the error of the first `abort` that fires.
        """

        async def connect() -> None:
            async with asyncio.timeout(deadline.remaining_s):
                await self._client.connect(self._sock)
            self._pump = asyncio.create_task(self._receive_events())

        try:
            _run(connect(), self.abort)
        except (ConnectError, TimeoutError) as error:
            why = str(error) or f"no greeting within {deadline.elapsed_s:.1f} s"
            raise MonitorError(f"no QMP session: {why}", command="qmp_capabilities") from error

    def execute(self, command: str, *, timeout_s: float = 10.0, **arguments: Any) -> Any:
        """The return value of `command`. In argument names, `_` stands for QMP's `-`.

        Raises MonitorError with QEMU's own words, or if there is no answer within `timeout_s` (scaled), or the error
        of the first `abort` that fires.
        """
        return self.execute_raw(command, {k.replace("_", "-"): v for k, v in arguments.items()}, timeout_s=timeout_s)

    def execute_raw(self, command: str, arguments: Mapping[str, Any], *, timeout_s: float = 10.0) -> Any:
        """`execute` with the argument names as they are; device properties may hold underscores."""

        async def execute() -> Any:
            async with asyncio.timeout(timeout_s * timeout_scale()):
                return await self._client.execute(command, dict(arguments) or None)

        started = time.monotonic()
        record: dict[str, Any] = {"command": command, "arguments": dict(arguments)}
        self.run_state.asked(command)
        try:
            return _run(execute(), self.abort)
        except HarnessError as error:
            record["error"] = error.message
            raise
        except (ExecuteError, ExecInterruptedError, StateError, TimeoutError) as error:
            message = str(error) or f"no answer within {timeout_s * timeout_scale():.1f} s"
            record["error"] = message
            raise MonitorError(
                f"QMP '{command}': {message}",
                command=command,
                arguments=dict(arguments),
                error_class=error.error_class if isinstance(error, ExecuteError) else None,
            ) from error
        finally:
            record["duration_s"] = round(time.monotonic() - started, 6)
            self._on_message("command", record)

    @contextlib.contextmanager
    def expect(self, event: str, **match: Any) -> Iterator[ExpectedEvent]:
        """Subscribe to the first `event` whose data has all members of `match`; act inside the block, then wait."""
        expected = ExpectedEvent(self, event, match)
        self._expected.append(expected)
        try:
            yield expected
        finally:
            self._expected.remove(expected)

    def lost(self) -> MonitorError | None:
        """An abort for waits: the error to raise once the connection is gone."""
        if self._client.runstate == Runstate.RUNNING:
            return None
        return MonitorError("the QMP connection is gone", command="")

    async def _receive_events(self) -> None:
        while True:
            event = dict(await self._client.events.get())
            self._on_message("event", event)
            taken = [expected.offer(event) for expected in tuple(self._expected)]
            self.run_state.saw(event, expected=any(taken))

    async def _disconnect(self) -> None:
        if self._pump is not None:
            await asyncio.sleep(0)  # what the reader has queued is still journalled
            self._pump.cancel()
            await asyncio.wait((self._pump,))
        # QEMU closing its end first is the usual way of a session to end, not a failure.
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self._client.disconnect()


def journal_qmp(journal: Record, kind: str, message: Mapping[str, Any]) -> None:
    """Journal a command, its answer, or an event of QMP."""
    if kind == "event":
        journal.record("qmp", "event", name=message["event"], event=dict(message))
    else:
        journal.record("qmp", kind, **message)


def _run(coroutine: Coroutine[Any, Any, T], abort: Sequence[Abort] = ()) -> T:
    """Run `coroutine` on the loop to its end; it is cancelled when an `abort` fires."""
    future = asyncio.run_coroutine_threadsafe(coroutine, _event_loop())
    while abort and not concurrent.futures.wait((future,), _LOOK_S).done:
        error = next(filter(None, (check() for check in abort)), None)
        if error is not None:
            future.cancel()
            raise error
    return future.result()


def _event_loop() -> asyncio.AbstractEventLoop:
    global _loop  # noqa: PLW0603 - one loop thread per interpreter is the point
    with _loop_lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="qmp-io", daemon=True).start()
        return _loop
