"""An Ethernet wire between a NIC of the guest and the harness: every frame one datagram of a socketpair."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Self

from harness import bounds
from harness.errors import BoundExceeded, InfraError, WaitTimeout
from harness.waiting import Abort, Deadline, wait_for

#: Bytes of the largest frame QEMU's NICs send (NET_BUFSIZE in include/net/net.h is 4 KiB + 65536).
MAX_FRAME = 4096 + 65536

#: How frames begin that nobody but the harness and its agent takes: broadcast, a locally administered sender, and one
#: of the two EtherTypes for local experiments (IEEE 802), the first for traffic that is compared.
TRAFFIC_HEADER = bytes.fromhex("ffffffffffff 027674640002 88b5")
OTHER_HEADER = bytes.fromhex("ffffffffffff 027674640002 88b6")

#: Seconds a frame may wait for QEMU to take it.
SEND_S = 5.0


class Wire:
    """The harness' end of a wire; QEMU inherits the other end as `-netdev dgram,local.type=fd`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ours.settimeout(0)
        #: Ends every wait on this wire: what is at its other end may be gone.
        self.abort: Sequence[Abort] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ours.close()
        self._theirs.close()

    @property
    def qemu_fd(self) -> int:
        """The descriptor QEMU must inherit."""
        return self._theirs.fileno()

    @property
    def far_end(self) -> socket.socket:
        """QEMU's end, where QEMU runs on another host and its frames are carried from here."""
        return self._theirs

    def inherited(self) -> None:
        """Close the end that QEMU has inherited by now."""
        self._theirs.close()

    def send(self, frame: bytes) -> None:
        """Put `frame` (from destination MAC to payload, no FCS) on the wire; InfraError if QEMU does not take it."""
        try:
            taken = Deadline.after(SEND_S)
            wait_for("QEMU to take the frame", lambda: self.offer(frame), taken, abort=self.abort, every_s=0.002)
        except (OSError, WaitTimeout) as error:
            raise InfraError(f"wire '{self.name}': a frame of {len(frame)} bytes was not taken: {error}") from error

    def offer(self, frame: bytes) -> bool:
        """Put `frame` on the wire if QEMU takes it at once; a NIC that does not receive lets frames queue up."""
        with contextlib.suppress(BlockingIOError):
            return self._ours.send(frame) == len(frame)
        return False

    def receive(
        self, deadline: Deadline, matching: Callable[[bytes], bool] = lambda _: True, *, abort: Sequence[Abort] = ()
    ) -> bytes:
        """The first frame that `matching` accepts; others are dropped. WaitTimeout says how many came instead.

        BoundExceeded for a guest that floods the wire with others.
        """
        dropped = 0

        def next_match() -> bytes | None:
            nonlocal dropped
            for frame in self._waiting():
                if matching(frame):
                    return frame
                dropped += 1
                if dropped > bounds.WIRE_FRAMES:
                    raise self._flooded(bounds.WIRE_FRAMES)
            return None

        return wait_for(
            f"a frame on wire '{self.name}'",
            next_match,
            deadline,
            abort=(*abort, *self.abort),
            every_s=0.002,
            observed=lambda: f"{dropped} other frames",
        )

    def drain(self) -> list[bytes]:
        """All frames that wait on the wire now; BoundExceeded where more come than it can hold."""
        frames = list(self._waiting())
        if len(frames) == bounds.WIRE_QUEUE:
            raise self._flooded(bounds.WIRE_QUEUE)
        return frames

    def _waiting(self) -> Iterator[bytes]:
        """Take what waits, and no more of it than shows whether that ever ends."""
        return islice(iter(self._poll, None), bounds.WIRE_QUEUE)

    def _flooded(self, bound: int) -> BoundExceeded:
        return BoundExceeded("the guest", f"wire '{self.name}'", bound=bound, unit="frames that nobody waits for")

    def _poll(self) -> bytes | None:
        with contextlib.suppress(BlockingIOError):
            return self._ours.recv(MAX_FRAME)
        return None
