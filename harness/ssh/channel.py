"""What runs in the guest at the other end of an SSH connection: a command with its streams, or a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import paramiko

from harness import bounds
from harness.errors import BoundExceeded, HarnessError, SshError
from harness.uninterrupted import uninterrupted
from harness.waiting import Abort, Deadline, wait_for

#: Seconds a blocking read may take before aborts and the deadline are looked at again.
_SLICE_S = 0.02

#: Seconds a command whose channel is being closed is given to end by itself.
_END_S = 2.0


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended: its exit `status` and all it wrote."""

    status: int
    stdout: bytes
    stderr: bytes


class Channel:
    """A running command in the guest with its standard streams; `abort` ends every wait on it."""

    def __init__(self, channel: paramiko.Channel, command: str, abort: Sequence[Abort] = ()) -> None:
        self.command = command
        self._abort = tuple(abort)
        self._channel = channel
        self._channel.settimeout(_SLICE_S)
        self._pending = b""
        self._stderr = bytearray()

    def send(self, data: bytes, deadline: Deadline, abort: Sequence[Abort] = ()) -> None:
        """Write all of `data` to the command's stdin; SshError if the command has closed it."""
        rest = memoryview(data)

        def sent_all() -> bool:
            nonlocal rest
            with contextlib.suppress(TimeoutError), uninterrupted():
                rest = rest[self._channel.send(bytes(rest)) :]
            return not rest

        try:
            wait_for(f"'{self.command}' to take its input", sent_all, deadline, abort=(*self._abort, *abort), every_s=0)
        except OSError as error:
            raise SshError(f"'{self.command}' does not take input any more: {error}") from error

    def send_line(self, line: str) -> None:
        """Write `line` and a newline to the command's stdin."""
        self.send(line.encode() + b"\n", Deadline.after(10.0))

    def send_eof(self) -> None:
        """Tell the command that its stdin has ended."""
        with uninterrupted():
            self._channel.shutdown_write()

    def read_line(self, deadline: Deadline, abort: Sequence[Abort] = ()) -> str | None:
        """The next line of stdout without its newline; None when the command closed its stdout."""
        while b"\n" not in self._pending:
            if len(self._pending) > bounds.LINE_BYTES:
                raise BoundExceeded("the far end", f"'{self.command}'", bound=bounds.LINE_BYTES, unit="bytes in a line")
            data = self.read(deadline, abort)
            if not data:
                return None
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode("utf-8", errors="replace")

    def read(self, deadline: Deadline, abort: Sequence[Abort] = ()) -> bytes:
        """Some bytes of stdout as soon as there are any; b"" at its end."""

        def some() -> tuple[bytes] | None:
            self._take_stderr()
            with contextlib.suppress(TimeoutError), uninterrupted():
                return (self._channel.recv(65536),)
            return None

        return wait_for(f"output of '{self.command}'", some, deadline, abort=(*self._abort, *abort), every_s=0)[0]

    def status(self, deadline: Deadline, abort: Sequence[Abort] = ()) -> int:
        """The exit status once the command ended; SshError if the connection ended without telling one."""
        aborts = (*self._abort, *abort)
        wait_for(f"'{self.command}' to end", self._channel.exit_status_ready, deadline, abort=aborts, every_s=0.002)
        self._take_stderr()
        status = self._channel.recv_exit_status()
        if status < 0:
            raise SshError(f"'{self.command}' ended without an exit status (killed, or the connection was lost)")
        return status

    def stderr_text(self) -> str:
        """What the command wrote to stderr so far."""
        self._take_stderr()
        return self._stderr.decode("utf-8", errors="replace")

    def stderr_bytes(self) -> bytes:
        """The same, unchanged."""
        self._take_stderr()
        return bytes(self._stderr)

    def close(self) -> None:
        """End the command's input, give it a moment to end, and close the channel."""
        with contextlib.suppress(OSError, EOFError), uninterrupted():
            self._channel.shutdown_write()
        with contextlib.suppress(HarnessError):
            ended = Deadline.after(_END_S)
            wait_for("the command to end", self._channel.exit_status_ready, ended, abort=self._abort, every_s=0.002)
        with uninterrupted():
            self._channel.close()

    def _take_stderr(self) -> None:
        with uninterrupted():
            while self._channel.recv_stderr_ready():
                data = self._channel.recv_stderr(65536)
                if not data:
                    return
                self._stderr += data
                if len(self._stderr) > bounds.STREAM_BYTES:
                    where = f"stderr of '{self.command}'"
                    raise BoundExceeded("the far end", where, bound=bounds.STREAM_BYTES, unit="bytes")


class Terminal:
    """An interactive shell in the guest, on a pseudo-terminal of its own."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def fileno(self) -> int:
        """Give a descriptor that is readable when `receive` has something to give."""
        return self._channel.fileno()

    def receive(self) -> bytes:
        """Give what the guest has written; b"" once the session is over."""
        return self._channel.recv(65536)

    def send(self, data: bytes) -> None:
        """Write all of `data` to the guest's terminal; nothing happens once the session is over."""
        with contextlib.suppress(OSError):
            self._channel.sendall(data)
