"""The guest's serial console, read from the file QEMU writes it to, and the kernel's last words in it."""

from __future__ import annotations

import re
import time
from collections import deque
from pathlib import Path

from harness.errors import GuestPanic
from harness.witnesses.panic import panic_title

#: Lines that end such a report.
_REPORT_END = re.compile(r"---\[ end (Kernel panic|trace)")

#: Seconds a report is given to be complete before it is told without its end: a starved guest takes more than one from
#: the title to the call trace. Nearly every report has an end (`oops_exit` and `panic` in Linux' kernel/panic.c).
REPORT_S = 10.0

#: Lines that are told from before and after a report's title; registers and a call trace fit in.
_BEFORE, _AFTER = 10, 60

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Console:
    """Reads whole lines as the file grows; keeps the last `keep` of them."""

    def __init__(self, path: Path, *, keep: int = 400) -> None:
        self.path = path
        self._offset = 0
        self._lines: deque[str] = deque(maxlen=keep)
        self._title: str | None = None
        self._seen_at = 0.0
        self._complete = False

    def tail(self, n: int) -> list[str]:
        """The last `n` lines so far, without escape sequences."""
        self._read()
        return list(self._lines)[-n:]

    def reporting(self) -> bool:
        """Whether the kernel has begun to tell of a panic or an oops."""
        self._read()
        return self._title is not None

    def panic(self, *, over: bool = False) -> GuestPanic | None:
        """The first panic or oops once its report is complete, `over` or `REPORT_S` old, else None."""
        self._read()
        if self._title is None or not (over or self._complete or time.monotonic() - self._seen_at > REPORT_S):
            return None
        lines = list(self._lines)
        at = next((number for number, line in enumerate(lines) if panic_title(line)), len(lines))
        return GuestPanic(self._title, console_tail=lines[max(0, at - _BEFORE) : at + _AFTER], evidence=self.path)

    def _read(self) -> None:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode("utf-8", errors="replace").split("\n")[:-1]:
            self._take(_ESCAPES.sub("", line))

    def _take(self, line: str) -> None:
        self._lines.append(line)
        if self._title is None:
            self._title = panic_title(line)
            self._seen_at = time.monotonic()
        elif _REPORT_END.search(line):
            self._complete = True
