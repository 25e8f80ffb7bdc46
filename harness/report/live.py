"""What a run shows while it runs: a line for each variant that has ended and, on a terminal, what is under way."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

from harness.report.pace import Pace, in_words
from harness.report.text import Style, legible
from harness.result import Progress, Result
from harness.verdict import Outcome

#: Seconds between two looks at the clock, and between two lines about the same variant where nothing is overwritten.
_TICK_S, _SIGN_OF_LIFE_S = 1.0, 30.0

#: Preparations under way; on a terminal they go when they are over, and other lines stay.
_PASSING = re.compile(r"(^|: )(booting|building|downloading|fetching|waiting)\b")


@dataclass(slots=True)
class _Row:
    """What one worker is at: the variant, what it does, since when, and when that was last written."""

    id: str
    doing: str
    since: float
    written: float


class Live:
    """Lines that stay, and on a terminal a block below them that is drawn anew: how far it is, and each worker's work.

    A context manager: leaving it wipes that block. Anywhere but on a terminal nothing is ever overwritten; a variant
    that takes long gets a line of its own now and then. Any thread may call it.
    """

    def __init__(self, total: int = 0, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stdout
        self._moving = self._stream.isatty()
        self._total, self._ended, self._drawn = total, 0, 0
        self._begun = time.monotonic()
        self._pace = Pace()
        self._rows: dict[int, _Row] = {}
        self._said: deque[str] = deque(maxlen=1)
        self._lock = threading.RLock()
        self._left = threading.Event()
        self._ticker: threading.Thread | None = None
        self.style = Style.of(self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._left.set()
        if self._ticker is not None:
            self._ticker.join()
        with self._lock:
            self._rows.clear()
            self._total = 0
            self._write("")

    def expect(self, ids: Sequence[str], *, usual: Mapping[str, float] | None = None, workers: int = 1) -> None:
        """Set what will run, by how many workers, and the seconds that each variant is known to take."""
        self._total, self._begun = len(ids), time.monotonic()
        self._pace = Pace({each: (usual or {})[each] for each in ids if each in (usual or {})}, workers, set(ids))
        self._said = deque(maxlen=workers)
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, name="live", daemon=True)
            self._ticker.start()

    def note(self, text: str) -> None:
        """Write a line that stays."""
        with self._lock:
            self._forget_preparations()
            self._write(f"{text}\n")

    def preparing(self, text: str, worker: int = 0) -> None:
        """Tell of work that is no scenario's: an image, a template, a wait; once where several workers say the same."""
        passing = _PASSING.search(text) is not None
        with self._lock:
            row = self._rows.get(worker)
            if row is not None and row.id:
                row.doing = text
            elif passing:
                self._rows[worker] = self._row("", text)
            else:
                self._forget_preparations(worker)
            stays = not (self._moving and passing) and text not in self._said
            if stays:
                self._said.append(text)
            self._write(f"{text}\n" if stays else "")

    def progress(self, event: Progress, worker: int = 0) -> None:
        """Tell what a running variant is doing."""
        if event.outcome is None:
            with self._lock:
                row = self._rows.get(worker)
                if row is None or row.id != event.id:
                    row = self._rows[worker] = self._row(event.id, "")
                row.doing = event.phase
                self._write("")

    def ended(self, result: Result) -> None:
        """Write the line of a variant that has ended."""
        with self._lock:
            self._ended += 1
            self._pace.ended(result.id, result.duration_s)
            self._rows = {worker: row for worker, row in self._rows.items() if row.id != result.id}
            width = len(str(self._total))
            count = self.style.dim(f"{self._ended:>{width}}/{self._total}")
            mark, seconds = self.style.mark(result.outcome), self.style.dim(f"{result.duration_s:.1f} s")
            line = f"{count} {mark} {result.id}  {seconds}"
            if result.outcome is not Outcome.PASS:
                line += f"  {first_line(result.reason)}"
            elif result.vacuous:
                line += "  " + self.style.outcome(Outcome.FAIL, f"vacuous without {', '.join(result.vacuous)}")
            self._write(f"{line}\n")

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was known what will run."""
        return time.monotonic() - self._begun

    def _row(self, identifier: str, doing: str) -> _Row:
        now = time.monotonic()
        return _Row(identifier, doing, now, now)

    def _forget_preparations(self, worker: int | None = None) -> None:
        for each in [worker] if worker is not None else list(self._rows):
            if each in self._rows and not self._rows[each].id:
                del self._rows[each]

    def _tick(self) -> None:
        # A reader that has gone is found out by who writes for a reason.
        with contextlib.suppress(OSError, ValueError):
            while not self._left.wait(_TICK_S):
                with self._lock:
                    self._write("" if self._moving else "".join(self._signs_of_life()))

    def _signs_of_life(self) -> list[str]:
        now = time.monotonic()
        due = [row for row in self._rows.values() if row.id and now - row.written >= _SIGN_OF_LIFE_S]
        for row in due:
            row.written = now
        return [f"{self._running(row)}\n" for row in due]

    def _block(self) -> list[str]:
        lines = [self._running(row) for _, row in sorted(self._rows.items())]
        if self._total:
            running = {row.id: time.monotonic() - row.since for row in self._rows.values()}
            left = self._pace.left_s(running)
            rest = f", about {in_words(left)} left" if left else ""
            lines.insert(0, f"{self._ended}/{self._total} done, {in_words(self.elapsed_s)}{rest}")
        return lines

    def _running(self, row: _Row) -> str:
        if not row.id:
            return row.doing
        seconds = time.monotonic() - row.since
        slow = f" (slow: {in_words(self._pace.usual[row.id])} before)" if self._pace.slow(row.id, seconds) else ""
        return f"  {in_words(seconds):>5}{slow}  {row.id}: {row.doing}"

    def _write(self, text: str) -> None:
        """Write `text` above the block, all at once so that nothing is ever seen half."""
        block = ""
        wiped = ("\r" + (f"\x1b[{self._drawn - 1}A" if self._drawn > 1 else "") + "\x1b[J") if self._drawn else ""
        if self._moving:
            size = shutil.get_terminal_size()
            lines = [self.style.dim(fitted(line, size.columns - 1)) for line in self._block()[: max(1, size.lines - 1)]]
            block, self._drawn = "\n".join(lines), len(lines)
        if wiped or text or block:
            self._stream.write(f"{wiped}{text}{block}")
            self._stream.flush()


def fitted(text: str, columns: int) -> str:
    """Give as much of the first line of `text` as `columns` of a terminal show."""
    shown, width = "", 0
    for character in first_line(text):
        width += 0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        if width > columns:
            break
        shown += character
    return shown


def first_line(text: str) -> str:
    """Give the first line of `text` without what would steer a terminal."""
    return legible(text.partition("\n")[0])
