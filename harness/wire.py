"""An Ethernet wire between a NIC of the guest and the harness: every frame one datagram of a socketpair."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

        BoundExceeded where more come than are looked at for one.
        """
        looked_at = _LookedAt(self.name)

        def next_match() -> bytes | None:
            for frame in iter(self._poll, None):
                looked_at.add(frame)
                if matching(frame):
                    return frame
                if deadline.expired:  # frames may come as fast as they are looked at
                    break
            return None

        return wait_for(
            f"a frame on wire '{self.name}'",
            next_match,
            deadline,
            abort=(*abort, *self.abort),
            every_s=0.002,
            observed=lambda: f"{looked_at.frames} other frames",
        )

    def drain(self) -> list[bytes]:
        """All frames that wait on the wire now; BoundExceeded where they come without end."""
        looked_at, frames = _LookedAt(self.name), []
        for frame in iter(self._poll, None):
            looked_at.add(frame)
            frames.append(frame)
        return frames

    def _poll(self) -> bytes | None:
        with contextlib.suppress(BlockingIOError):
            return self._ours.recv(MAX_FRAME)
        return None


@dataclass(slots=True)
class _LookedAt:
    """What was taken off a wire for one look at it."""

    wire: str
    frames: int = 0
    size: int = 0

    def add(self, frame: bytes) -> None:
        """Count `frame`; BoundExceeded if it is one too many."""
        self.frames += 1
        self.size += len(frame)
        for seen, bound, unit in (
            (self.frames, bounds.WIRE_FRAMES, "frames at once"),
            (self.size, bounds.WIRE_BYTES, "bytes at once"),
        ):
            if seen > bound:
                raise BoundExceeded("the guest", f"wire '{self.wire}'", bound=bound, unit=unit)
