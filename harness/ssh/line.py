"""The connection that the guest has made to the harness, with the guest's SSH server at its other end.

Usually the client connects and the server then forks, seeds its random numbers and greets; in a guest that was just
restored this is most of the way to the first command, because QEMU has translated none of that code yet. Here the guest
connects out, long before it is saved, and hands the connection to a server (images/guest/init), so that all this is
done; what the server said then is kept with the template and read from there.

A server that ends is followed by the next one on the same stream, since QEMU does not pass on that the guest closed a
connection (net/slirp.c, guestfwd). Its greeting is therefore taken as the end of the session before.

A server that was started before the save may have its random numbers from then: dropbear 2022.83 repeats its part of
the first key exchange, the ephemeral key included, in every guest of a template (2025.89 was seen to make a new one).
The client's part is always new, so the keys of the session are, and nobody else is on this stream, which is a
socketpair that one QEMU has inherited. The kernel's random numbers are renewed after a restore (vmgenid).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from harness import bounds
from harness.errors import BoundExceeded, SshError
from harness.waiting import Abort, Deadline, wait_for

#: How a server's identification begins (RFC 4253, 4.2). As ciphertext it would appear once in 2^64 packets.
_IDENT = b"SSH-2.0-"

#: Seconds a blocking read may take before aborts and the deadline are looked at again.
_SLICE_S = 0.02


class SshLine:
    """A stream as paramiko wants it (`send`, `recv`, `settimeout`, `close`) that outlives the session on it."""

    def __init__(self, sock: socket.socket, greeting: bytes = b"") -> None:
        """`greeting` is what the server at the other end of `sock` has already said; the caller closes `sock`."""
        self._sock = sock
        self._said = bytearray(greeting)
        self._over = False

    def greeting(self, deadline: Deadline, abort: Sequence[Abort] = ()) -> bytes:
        """Wait until the server has said its identification and its key exchange proposal, and return both.

        SshError if QEMU closes its end, WaitTimeout, or the error of the first `abort` that fires.
        """
        self._sock.settimeout(_SLICE_S)

        def complete() -> bool:
            if not self._is_complete():
                with contextlib.suppress(TimeoutError):
                    data = self._sock.recv(1 << 16)
                    if not data:
                        raise SshError("QEMU closed the connection to the guest's SSH server")
                    self._said += data
                    if len(self._said) > bounds.GREETING_BYTES:
                        raise BoundExceeded("the guest", "SSH line", bound=bounds.GREETING_BYTES, unit="bytes")
            return self._is_complete()

        wait_for("the guest's SSH server to greet", complete, deadline, abort=abort, every_s=0)
        return bytes(self._said)

    def open(self) -> None:
        """Begin a session with the server that has greeted."""
        self._over = False

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes that the server said; b"" at the end of the session."""
        if self._over:
            return b""
        if self._said:
            data = bytes(self._said[:size])
            del self._said[:size]
            return data
        data = self._sock.recv(size)
        if data.startswith(_IDENT):
            self._said += data
            self._over = True
            return b""
        return data

    def send(self, data: bytes) -> int:
        """Send some of `data` and tell how much; an OSError once the session is over."""
        if self._over:
            raise BrokenPipeError("the SSH session is over")
        return self._sock.send(data)

    def settimeout(self, seconds: float | None) -> None:
        """Let `recv` and `send` wait for `seconds` at most."""
        self._sock.settimeout(seconds)

    def close(self) -> None:
        """End the session; the stream stays."""
        self._over = True

    def renew(self) -> None:
        """Forget what the server has said; a halted guest says no more, and one that was reset begins anew."""
        self._over = True
        self._said.clear()
        self._sock.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while self._sock.recv(1 << 16):
                pass

    def shut(self) -> None:
        """Close the stream itself: nobody reads it any more, and QEMU must not wait for that with all else it does."""
        self._over = True
        self._sock.close()

    @property
    def _closed(self) -> bool:
        """Where paramiko looks whether there is still something to wait for (Transport.stop_thread)."""
        return self._over

    def _is_complete(self) -> bool:
        """Whether the identification (a line) and one binary packet (RFC 4253, 6: its length comes first) are here."""
        line = self._said.find(b"\n") + 1
        if not line or len(self._said) < line + 4:
            return False
        return len(self._said) >= line + 4 + int.from_bytes(self._said[line : line + 4])
