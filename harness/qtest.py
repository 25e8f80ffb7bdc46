"""QEMU's test protocol: physical memory, device registers and I/O ports, read and written from outside the machine.

One line asks, one line answers (qtest_process_command in QEMU's system/qtest.c). QEMU says `IRQ ...` in between where
it was told to watch interrupts. It runs the command in its main loop, so that what it does to a device has been done
when the answer is there.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from harness import bounds
from harness.errors import BoundExceeded, InfraError
from harness.waiting import Abort

_WORDS = {1: "b", 2: "w", 4: "l", 8: "q"}

#: Seconds QEMU is given to answer: it does so in well under a millisecond unless its host starves it.
ANSWER_S = 20.0

#: Seconds a blocking read may take before aborts and the deadline are looked at again.
_SLICE_S = 0.25


class QtestLost(InfraError):
    """QEMU does not answer on the channel any more, mostly because it has ended."""


@dataclass(frozen=True, slots=True)
class Read:
    """To read `size` bytes (1, 2, 4 or 8) at a guest-physical address, as one little-endian access."""

    address: int
    size: int

    def __str__(self) -> str:
        return f"read{_WORDS[self.size]} {self.address:#x}"


@dataclass(frozen=True, slots=True)
class Write:
    """To write `size` bytes (1, 2, 4 or 8) at a guest-physical address, as one little-endian access."""

    address: int
    value: int
    size: int

    def __str__(self) -> str:
        return f"write{_WORDS[self.size]} {self.address:#x} {self.value:#x}"


class Qtest:
    """The harness's end of the channel; `line` is a connected stream socket that becomes this object's."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._line.settimeout(_SLICE_S)
        self._unread = b""
        #: Looked at while an answer is awaited; none of them may ask on this channel.
        self.abort: Sequence[Abort] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        with contextlib.suppress(OSError):
            self._line.close()

    def read(self, address: int, size: int) -> int:
        """Read `size` bytes (1, 2, 4 or 8) at the guest-physical `address`, as one little-endian access."""
        return self.exchange(Read(address, size))[0]

    def write(self, address: int, value: int, size: int) -> None:
        """Write `size` bytes (1, 2, 4 or 8) at the guest-physical `address`, as one little-endian access."""
        self.exchange(Write(address, value, size))

    def exchange(self, *accesses: Read | Write) -> list[int]:
        """Do all `accesses` in order and give what was read; all is asked before the first answer is awaited."""
        answers = self._ask_all([str(access) for access in accesses])
        pairs = zip(accesses, answers, strict=True)
        return [int(answer, 16) for access, answer in pairs if isinstance(access, Read)]

    def port_read(self, port: int, size: int) -> int:
        """Read 1, 2 or 4 bytes from an I/O port."""
        return int(self._ask(f"in{_WORDS[size]} {port:#x}"), 16)

    def port_write(self, port: int, value: int, size: int) -> None:
        """Write 1, 2 or 4 bytes to an I/O port."""
        self._ask(f"out{_WORDS[size]} {port:#x} {value:#x}")

    def _ask(self, command: str) -> str:
        return self._ask_all([command])[0]

    def _ask_all(self, commands: Sequence[str]) -> list[str]:
        """Send commands and give what follows OK in each answer; InfraError for a refusal, QtestLost for silence."""
        answers = []
        try:
            self._line.sendall("".join(f"{command}\n" for command in commands).encode())
            for _ in commands:
                answers.append(self._answer())  # noqa: PERF401 - those that came are told of
        except OSError as error:
            silent = commands[len(answers)]
            raise QtestLost(f"QEMU does not answer '{silent}' on its test channel: {error}") from error
        for command, answer in zip(commands, answers, strict=True):
            if not answer.startswith("OK"):
                raise InfraError(f"QEMU refuses '{command}': {answer}")
        return [answer[2:].strip() for answer in answers]

    def _answer(self) -> str:
        while True:
            line, found, rest = self._unread.partition(b"\n")
            if not found:
                if len(self._unread) > bounds.LINE_BYTES:
                    raise BoundExceeded("QEMU", "test channel", bound=bounds.LINE_BYTES, unit="bytes in a line")
                received = self._received()
                if not received:
                    raise ConnectionResetError("the channel is closed")
                self._unread += received
                continue
            self._unread = rest
            if not line.startswith(b"IRQ"):
                return line.decode("ascii", errors="replace")

    def _received(self) -> bytes:
        """Some bytes of an answer, b"" once the channel is closed; TimeoutError after `ANSWER_S`."""
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                return self._line.recv(4096)
            except TimeoutError:
                error = next(filter(None, (check() for check in self.abort)), None)
                if error is not None:
                    raise error from None
                if time.monotonic() > deadline:
                    raise
