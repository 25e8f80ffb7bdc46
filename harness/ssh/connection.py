"""A verified connection to the guest, on which commands are run."""

from __future__ import annotations

import contextlib
import io
import shlex
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import paramiko

from harness import bounds
from harness.errors import BoundExceeded, SshError
from harness.ssh.channel import Channel, Completed, Terminal
from harness.ssh.keys import KeyPair
from harness.ssh.line import SshLine
from harness.uninterrupted import uninterrupted
from harness.waiting import Abort, Deadline, timeout_scale, wait_for

T = TypeVar("T")


class Ssh:
    """An authenticated connection to the guest; made by `Ssh.connect`, closed by the with block."""

    def __init__(self, transport: paramiko.Transport, abort: Sequence[Abort]) -> None:
        self._transport = transport
        self._abort = tuple(abort)
        self._one_at_a_time = threading.RLock()

    @property
    def abort(self) -> tuple[Abort, ...]:
        """What ends every wait on this connection and on its channels."""
        return self._abort

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def connect(
        cls, line: SshLine, *, client: KeyPair, host_public: str, deadline: Deadline, abort: Sequence[Abort] = ()
    ) -> Ssh:
        """Begin a session as root with the server at the other end of `line`, and authenticate both sides.

        A server with another host key than `host_public` is refused at once. Raises WaitTimeout, SshError, or the error
        of the first `abort` that fires.
        """
        line.greeting(deadline, abort)
        line.open()
        transport = paramiko.Transport(line)  # type: ignore[arg-type]  # documented to take what is like a socket
        try:
            transport.get_security_options().key_types = ("ssh-ed25519",)
            _step("key exchange", lambda done: transport.start_client(event=done), transport, deadline, abort)
            offered = transport.get_remote_server_key()
            if f"{offered.get_name()} {offered.get_base64()}".split() != host_public.split()[:2]:
                raise SshError("the guest proved another host key than the one it was given")
            key = paramiko.Ed25519Key.from_private_key(io.StringIO(client.private.decode()))
            _step(
                "authentication", lambda done: transport.auth_publickey("root", key, done), transport, deadline, abort
            )
            if not transport.is_authenticated():
                raise SshError("the guest refused the client key")
        except BaseException:
            transport.close()
            raise
        return cls(transport, abort)

    def open(self, argv: Sequence[str], *, timeout_s: float = 20.0) -> Channel:
        """Start `argv` (quoted for the guest's shell) and return its channel."""
        command = shlex.join(argv)
        deadline = Deadline.after(timeout_s)

        def start() -> paramiko.Channel:
            channel = self._transport.open_session(timeout=deadline.remaining_s)
            channel.exec_command(command)
            return channel

        with self._one_at_a_time:
            return Channel(self._guarded(f"'{command}' to start", start, deadline), command, self._abort)

    def forward(self, port: int, *, timeout_s: float = 20.0) -> Channel:
        """Connect to `port` of the guest's loopback and return the channel; SshError if nobody listens there."""
        deadline = Deadline.after(timeout_s)

        def start() -> paramiko.Channel:
            here = ("127.0.0.1", 0)
            return self._transport.open_channel("direct-tcpip", ("127.0.0.1", port), here, timeout=deadline.remaining_s)

        with self._one_at_a_time:
            channel = self._guarded(f"port {port} of the guest to answer", start, deadline)
        return Channel(channel, f"port {port}", self._abort)

    def terminal(self, kind: str, *, columns: int, rows: int, timeout_s: float = 20.0) -> Terminal:
        """Open a login shell on a terminal of `kind` (as in TERM) and size."""
        deadline = Deadline.after(timeout_s)

        def start() -> paramiko.Channel:
            channel = self._transport.open_session(timeout=deadline.remaining_s)
            channel.get_pty(kind, columns, rows)
            channel.invoke_shell()
            return channel

        with self._one_at_a_time:
            return Terminal(self._guarded("a shell to start", start, deadline))

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 30.0) -> Completed:
        """Run `argv` to its end, feeding it `stdin`; a non-zero status is the caller's to judge."""
        deadline = Deadline.after(timeout_s)
        with self._one_at_a_time:
            channel = self.open(argv, timeout_s=timeout_s)
            try:
                if stdin:
                    channel.send(stdin, deadline)
                channel.send_eof()
                stdout = bytearray()
                while data := channel.read(deadline):
                    stdout += data
                    if len(stdout) > bounds.STREAM_BYTES:
                        raise BoundExceeded("the far end", f"'{argv[0]}'", bound=bounds.STREAM_BYTES, unit="bytes")
                return Completed(channel.status(deadline), bytes(stdout), channel.stderr_bytes())
            finally:
                channel.close()

    def hang_up(self, *, timeout_s: float = 20.0) -> None:
        """End the server's side too, and close the connection; the guest then has a new server on the line."""
        kept = None
        with contextlib.suppress(SshError):  # it may be gone before it has told that the command was started
            kept = self.open(["sh", "-c", "kill $PPID"])
        # The thread, not only the connection: what it does last is to close the session on the line.
        ended = Deadline.after(timeout_s)
        wait_for("the SSH server to end", lambda: not self._transport.is_alive(), ended, abort=self._abort)
        del kept  # Not before: paramiko closes a channel that nobody has, and the next server would be sent that.
        self.close()

    def close(self) -> None:
        """Close the connection and all its channels."""
        with uninterrupted():
            self._transport.close()

    def _guarded(self, what: str, action: Callable[[], T], deadline: Deadline) -> T:
        """Run `action`, which may block for ever, in a thread of its own; an abort or the deadline ends the connection.

        Closing the transport wakes whatever paramiko call the thread is in, so no thread is left behind.
        """
        results: list[T] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                results.append(action())
            except (paramiko.SSHException, OSError, EOFError) as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="ssh-request")
        thread.start()
        try:
            wait_for(what, lambda: results or errors, deadline, abort=self._abort, every_s=0.001)
        except BaseException:
            self.close()
            raise
        finally:
            thread.join(timeout=5.0 * timeout_scale())
        if errors:
            raise SshError(f"waiting for {what}: {errors[0] or type(errors[0]).__name__}") from errors[0]
        return results[0]


def _step(
    what: str,
    begin: Callable[[threading.Event], object],
    transport: paramiko.Transport,
    deadline: Deadline,
    abort: Sequence[Abort],
) -> None:
    """Run one of paramiko's event-driven steps to its end; SshError if the connection did not survive it."""
    done = threading.Event()
    with uninterrupted():
        begin(done)
    wait_for(f"SSH {what}", lambda: done.is_set() or not transport.is_active(), deadline, abort=abort, every_s=0.002)
    error = transport.get_exception()
    if error is not None or not transport.is_active():
        raise SshError(f"SSH {what} failed: {error or 'the connection was closed'}") from error
