"""The run directory and the append-only journal; everything a verdict or a report may rely on is written here first.

runs/20261122T081500Z-3f2a/          one directory per run; runs/latest points at the newest
    run.json                         host, QEMU, options
    <scenario>/<variant>/            one directory per variant ("default" where there is no matrix)
        scenario.yaml plan.json journal.jsonl console.log qemu.argv qemu.stderr trace.log verdict.json repro.sh
        counter/<protection>/        the same files for each counter-proof
        template/                    those of the boot for its template, if this run made that
        guests/<name>/               console.log qemu.argv qemu.stderr trace.log of each guest nested in this one
    results.json junit.xml index.html manifest.json
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self

from harness import bounds
from harness.errors import BoundExceeded, StorageError
from harness.storage import FLOOR, require_room, write_text, writing

JOURNAL = "journal.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One journal line.

    `t` is seconds since the epoch on the host's clock (the same clock that stamps QEMU's trace), `source` the channel
    (`runner`, `observation`, `qmp`, `agent`, `ssh`, `kmsg`, `console`, `trace`, `memory`, `tables`, `wire`, `process`;
    `GUEST/kmsg` and the like for a nested guest), `kind` the event, `step` the index of the step being run (None
    outside of steps), `line` the line number, from 1.
    """

    t: float
    source: str
    kind: str
    step: int | None
    data: dict[str, Any]
    line: int = 0

    @property
    def ref(self) -> str:
        """Where a reader finds this entry: `journal.jsonl:LINE`."""
        return f"{JOURNAL}:{self.line}"


class Journal:
    """Writes entries to a new JSON-lines file, each given to the kernel as it is recorded; from any thread.

    The first entry that cannot be written, or that exceeds the bound of the file, is the last: it raises a StorageError
    or BoundExceeded in the thread that opened the journal. In another thread nobody would hear of it there: it is
    `failure` from then on, raised by the next entry or at the end, and waits on a machine are aborted by it.
    """

    def __init__(self, path: Path) -> None:
        with writing(JOURNAL, path, alone=True):
            self._file = path.open("xb", buffering=0)
        self._owner = threading.get_ident()
        self._failure: StorageError | BoundExceeded | None = None
        self._raised = False
        self._size = 0
        self._lock = threading.Lock()
        self._line = 0
        self._subscribers: list[Callable[[Entry], None]] = []
        self.step: int | None = None
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        with self._lock:
            if not self._file.closed:
                try:
                    with writing(JOURNAL, self.path):
                        self._file.close()
                except StorageError as error:
                    self._failure = self._failure or error
        if self._failure is not None and not self._raised and kind is None:
            raise self._failure

    def failure(self) -> Exception | None:
        """Give what kept an entry from being written, None while all were."""
        return self._failure

    def subscribe(self, callback: Callable[[Entry], None]) -> None:
        """Call `callback` with every later entry, in the thread that records it."""
        self._subscribers.append(callback)

    def record(self, source: str, kind: str, /, *, t: float | None = None, **data: Any) -> Entry:
        """Append one entry, stamped with now (or `t`) and the current step, and return it. Ignored once closed.

        Raises what `failure` gives, if this is the thread that opened the journal.
        """
        with self._lock:
            self._line += 1
            entry = Entry(
                t=time.time() if t is None else t, source=source, kind=kind, step=self.step, data=data, line=self._line
            )
            if not self._file.closed:
                line = {"t": round(entry.t, 6), "source": source, "kind": kind, "step": entry.step, "data": data}
                self._append(json.dumps(line, default=_plain).encode() + b"\n", source)
        if self._failure is not None and not self._tells_end(source) and threading.get_ident() == self._owner:
            self._raised = True
            raise self._failure
        for callback in self._subscribers:
            callback(entry)
        return entry

    def _append(self, data: bytes, source: str) -> None:
        if self._failure is None and self._size + len(data) > bounds.JOURNAL_BYTES:
            self._failure = BoundExceeded(
                "the guest", "journal", bound=bounds.JOURNAL_BYTES, unit="bytes", evidence=self.path
            )
        if self._failure is not None and not self._tells_end(source):
            return
        try:
            with writing(JOURNAL, self.path, needed=len(data)):
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]
        except StorageError as error:
            self._failure = error
            with contextlib.suppress(OSError):  # half a line is no entry
                self._file.truncate(self._size)
            return
        self._size += len(data)

    def _tells_end(self, source: str) -> bool:
        """Whether an entry of `source` is written also beyond the bound: how the run and its processes ended."""
        return isinstance(self._failure, BoundExceeded) and source in _ENDS


#: Channels of the harness itself, which say little.
_ENDS = ("runner", "process")

#: Channels that each guest has for itself; in the journal those of a nested guest go by `GUEST/CHANNEL`.
_OWN_CHANNELS = ("kmsg", "console", "qmp", "ssh", "process")


class GuestJournal:
    """The part of a nested guest in the journal of the machine that it is nested in."""

    def __init__(self, journal: Journal, guest: str) -> None:
        self._journal = journal
        self._guest = guest

    def record(self, source: str, kind: str, /, *, t: float | None = None, **data: Any) -> Entry:
        """Append one entry; the guest's own channels carry its name, and entries of all others say it."""
        if source in _OWN_CHANNELS:
            return self._journal.record(f"{self._guest}/{source}", kind, t=t, **data)
        return self._journal.record(source, kind, t=t, **{**data, "guest": self._guest})

    def failure(self) -> Exception | None:
        """Give what kept an entry from being written, None while all were."""
        return self._journal.failure()


class Record(Protocol):
    """Where entries go: a journal, or a guest's part in one."""

    def record(self, source: str, kind: str, /, *, t: float | None = None, **data: Any) -> Entry:
        """Append one entry, and return it."""

    def failure(self) -> Exception | None:
        """Give what kept an entry from being written, None while all were."""


class DamagedJournal(ValueError):
    """A line of a journal that is no entry; the text names it."""


def read_journal(path: Path) -> list[Entry]:
    """All entries of a journal; a last line cut off by a crash is left out.

    A damaged line elsewhere raises DamagedJournal with file and line.
    """
    entries, damage = read_undamaged(path)
    if damage is not None:
        raise DamagedJournal(damage)
    return entries


def read_undamaged(path: Path) -> tuple[list[Entry], str | None]:
    """The entries of a journal up to its first damaged line, and what names that line, None if there is none."""
    entries: list[Entry] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(_entry(json.loads(line), number))
        except (ValueError, RecursionError):
            cut_off = number == len(lines) and not line.endswith("\n")
            return entries, None if cut_off else f"{path}:{number}: not a journal entry"
    return entries, None


def _entry(fields: Any, line: int) -> Entry:
    """Make an entry of a line's object; ValueError for anything else."""
    match fields:
        case {"t": int() | float() as t, "source": str(source), "kind": str(kind), "step": step, "data": dict(data)}:
            if isinstance(t, bool) or not (step is None or type(step) is int):
                raise ValueError
            return Entry(t=float(t), source=source, kind=kind, step=step, data=data, line=line)
    raise ValueError


@dataclass(frozen=True, slots=True)
class VariantDirectory:
    """The directory of one variant (or one counter-proof of it)."""

    path: Path

    def journal(self) -> Journal:
        """Open the journal for appending."""
        return Journal(self.path / JOURNAL)

    def entries(self) -> list[Entry]:
        """The journal read back; empty if none was written."""
        path = self.path / JOURNAL
        return read_journal(path) if path.exists() else []

    def undamaged(self) -> tuple[list[Entry], str | None]:
        """The journal up to its first damaged line, and what names that, None if there is none."""
        path = self.path / JOURNAL
        return read_undamaged(path) if path.exists() else ([], None)

    def file(self, name: str) -> Path:
        """The path of the file `name` in this directory."""
        return self.path / name

    def write_text(self, name: str, text: str) -> Path:
        """Write `text`; StorageError where that fails."""
        return write_text(self.path / name, text)

    def write_json(self, name: str, value: object) -> Path:
        """Write `value` (dataclasses allowed) as JSON in one step, so that a reader never sees half of it."""
        return write_json(self.path / name, value)

    def guest(self, name: str) -> VariantDirectory:
        """The directory of the files of the nested guest `name`, made if need be."""
        path = self.path / "guests" / name
        _make(path)
        return VariantDirectory(path)

    def counter(self, protection: str) -> VariantDirectory:
        """The directory of the counter-proof without `protection`, made if need be."""
        path = self.path / "counter" / protection
        _make(path)
        return VariantDirectory(path)


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The directory of one run."""

    path: Path

    @classmethod
    def create(cls, root: Path) -> RunDirectory:
        """Make a new run directory below `root` and point `root/latest` at it."""
        made = cls.named(root)
        require_room(root, FLOOR, "the evidence of a run")
        _make(made.path)
        made.become_latest()
        return made

    @classmethod
    def named(cls, root: Path) -> RunDirectory:
        """Give a name below `root` to a run that may come to nothing; the directory is not made."""
        return cls(root / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}")

    def become_latest(self) -> None:
        """Point `latest`, beside the directory, at it."""
        link = self.path.with_name(f".latest-{secrets.token_hex(4)}")
        with writing("the link to the latest run", link, alone=True):
            link.symlink_to(self.path.name)
            os.replace(link, self.path.with_name("latest"))

    def variant(self, scenario: str, variant: str) -> VariantDirectory:
        """The directory of one variant, made if need be."""
        path = self.path / scenario / (variant or "default")
        _make(path)
        return VariantDirectory(path)

    def variants(self) -> Iterator[VariantDirectory]:
        """Every variant directory that holds a plan, in name order."""
        for plan in sorted(self.path.glob("*/*/plan.json")):
            yield VariantDirectory(plan.parent)


def write_json(path: Path, value: object) -> Path:
    """Write `value` as indented JSON through a sibling file and a rename; several processes may do so at once."""
    return write_whole(path, json.dumps(value, indent=2, default=_plain) + "\n")


def write_whole(path: Path, text: str) -> Path:
    """Write `text` through a sibling file and a rename, so that the old file stays where that fails: StorageError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write_text(partial, text, path.name)
        with writing(path.name, path, alone=True):
            os.replace(partial, path)
    except StorageError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    return path


def _make(directory: Path) -> None:
    with writing("evidence", directory, alone=True):
        directory.mkdir(parents=True, exist_ok=True)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not for JSON")
