"""Frames that a guest sends back as they come, one after the other, while something else is done."""

from __future__ import annotations

import hashlib
import secrets
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.errors import WaitTimeout
from harness.nesting import acting
from harness.session import AttachedDevice, Session
from harness.waiting import Deadline, timeout_scale, wait_for
from harness.wire import TRAFFIC_HEADER, Wire

_NUMBER = struct.Struct("!I")

#: Seconds for a frame to come back before it counts as lost; a round trip takes a few hundredths.
_BACK_S = 5.0

#: Seconds for the guest to listen on its NIC, and for it to tell the end.
_LISTENS_S, _END_S = 60.0, 15.0

#: After so many lost frames no further one is sent: each takes long to wait for.
_LOST_MAX = 3


@dataclass(slots=True)
class Stream:
    """What became of each frame: number, when it was sent and came back (seconds since the epoch), and the digests.

    The time of a frame that did not come back is None, and so is its digest.
    """

    wire: Wire
    size: int
    frames: list[tuple[int, float, float | None, str, str | None]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def pump(self) -> None:
        """Send frame after frame, each when the one before is back, until the end or too many are lost."""
        while not self._over.is_set() and not self.dried_up:
            number = len(self.frames)
            payload = _NUMBER.pack(number) + secrets.token_bytes(self.size - _NUMBER.size)
            sent = time.time()
            back = self._round_trip(payload)
            came = None if back is None else time.time()
            self.frames.append((number, sent, came, _digest(payload), None if back is None else _digest(back)))

    @property
    def dried_up(self) -> bool:
        """Whether no further frame is sent because too many were lost."""
        return sum(came is None for _, _, came, _, _ in list(self.frames)) >= _LOST_MAX

    def stop(self) -> None:
        """Send no further frame."""
        self._over.set()

    def came_back(self) -> int:
        """Tell how many frames have come back so far."""
        return sum(came is not None for _, _, came, _, _ in list(self.frames))

    def end(self, word: bytes) -> bool:
        """Tell the guest to end, by a frame that begins with `word`; whether it has sent that back."""
        return self._round_trip(word.ljust(self.size, b"\0")) is not None

    def _round_trip(self, payload: bytes) -> bytes | None:
        head = payload[: _NUMBER.size]
        self.wire.send(TRAFFIC_HEADER + payload)
        try:
            frame = self.wire.receive(
                Deadline.after(_BACK_S),
                lambda frame: frame[12:14] == TRAFFIC_HEADER[12:14] and frame[14 : 14 + len(head)] == head,
            )
        except WaitTimeout:
            return None
        return frame[14 : 14 + self.size]


@contextmanager
def echoed(session: Session, device: AttachedDevice, size: int, *, lasts_s: float) -> Iterator[Stream]:
    """Have frames echoed over `device` by who has it, under its kernel driver, while the body runs; then record them.

    `lasts_s` is how many seconds the body may take, before the scale: were the guest to end before, its end would look
    like lost frames. Nothing else may use the wire meanwhile, nor the agent of that guest.
    """
    longest_s = _LISTENS_S + lasts_s + _END_S
    owner, mine = acting(session, device)
    owner.bind_kernel_driver(mine)
    wire = session.wire(device)
    wire.drain()
    word = b"\xff" * _NUMBER.size + secrets.token_bytes(16)  # no frame has that number
    stream = Stream(wire, size)
    session.listening.clear()
    with ThreadPoolExecutor(2, thread_name_prefix="echo") as pool:
        echo = pool.submit(
            owner.call,
            "echo",
            bdf=mine.address,
            until=word.hex(),
            timeout_s=longest_s * timeout_scale(),
            within_s=longest_s + _END_S,
        )
        wait_for(
            "the guest to listen on its NIC",
            lambda: session.listening.is_set() or echo.done(),
            Deadline.after(_LISTENS_S),
            abort=[session.abort],
        )
        pumped = pool.submit(stream.pump)
        try:
            yield stream
        finally:
            stream.stop()
            answer = _ended(stream, word, pumped, echo)
    session.record(
        "echoes", device=device.name, source_id=str(device.source), guest=answer, frames=[*map(list, stream.frames)]
    )


def _ended(stream: Stream, word: bytes, pumped: Future[None], echo: Future[dict[str, Any]]) -> dict[str, Any]:
    pumped.result()
    deadline = Deadline.after(_END_S)
    while not echo.done() and not stream.end(word) and not deadline.expired:
        pass  # that frame was lost too; each takes as long as `_BACK_S`
    return echo.result()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
