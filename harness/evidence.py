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
    """Writes entries to a new JSON-lines file, each flushed as it is written; safe to call from any thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("x", encoding="utf-8")
        self._lock = threading.Lock()
        self._line = 0
        self._subscribers: list[Callable[[Entry], None]] = []
        self.step: int | None = None
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._file.close()

    def subscribe(self, callback: Callable[[Entry], None]) -> None:
        """Call `callback` with every later entry, in the thread that records it."""
        self._subscribers.append(callback)

    def record(self, source: str, kind: str, /, *, t: float | None = None, **data: Any) -> Entry:
        """Append one entry, stamped with now (or `t`) and the current step, and return it. Ignored once closed."""
        with self._lock:
            self._line += 1
            entry = Entry(
                t=time.time() if t is None else t, source=source, kind=kind, step=self.step, data=data, line=self._line
            )
            if not self._file.closed:
                line = {"t": round(entry.t, 6), "source": source, "kind": kind, "step": entry.step, "data": data}
                self._file.write(json.dumps(line, default=_plain) + "\n")
                self._file.flush()
        for callback in self._subscribers:
            callback(entry)
        return entry


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
        return self._journal.record(source, kind, t=t, **{"guest": self._guest, **data})


class Record(Protocol):
    """Where entries go: a journal, or a guest's part in one."""

    def record(self, source: str, kind: str, /, *, t: float | None = None, **data: Any) -> Entry:
        """Append one entry, and return it."""


def read_journal(path: Path) -> list[Entry]:
    """All entries of a journal; a last line cut off by a crash is left out.

    A damaged line elsewhere raises ValueError with file and line.
    """
    entries: list[Entry] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(Entry(**json.loads(line), line=number))
        except ValueError:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ValueError(f"{path}:{number}: not a journal entry") from None
    return entries


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

    def file(self, name: str) -> Path:
        """The path of the file `name` in this directory."""
        return self.path / name

    def write_json(self, name: str, value: object) -> Path:
        """Write `value` (dataclasses allowed) as JSON in one step, so that a reader never sees half of it."""
        return write_json(self.path / name, value)

    def guest(self, name: str) -> VariantDirectory:
        """The directory of the files of the nested guest `name`, made if need be."""
        path = self.path / "guests" / name
        path.mkdir(parents=True, exist_ok=True)
        return VariantDirectory(path)

    def counter(self, protection: str) -> VariantDirectory:
        """The directory of the counter-proof without `protection`, made if need be."""
        path = self.path / "counter" / protection
        path.mkdir(parents=True, exist_ok=True)
        return VariantDirectory(path)


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The directory of one run."""

    path: Path

    @classmethod
    def create(cls, root: Path) -> RunDirectory:
        """Make a new run directory below `root` and point `root/latest` at it."""
        made = cls.named(root)
        made.path.mkdir(parents=True)
        made.become_latest()
        return made

    @classmethod
    def named(cls, root: Path) -> RunDirectory:
        """Give a name below `root` to a run that may come to nothing; the directory is not made."""
        return cls(root / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}")

    def become_latest(self) -> None:
        """Point `latest`, beside the directory, at it."""
        link = self.path.with_name(f".latest-{secrets.token_hex(4)}")
        link.symlink_to(self.path.name)
        os.replace(link, self.path.with_name("latest"))

    def variant(self, scenario: str, variant: str) -> VariantDirectory:
        """The directory of one variant, made if need be."""
        path = self.path / scenario / (variant or "default")
        path.mkdir(parents=True, exist_ok=True)
        return VariantDirectory(path)

    def variants(self) -> Iterator[VariantDirectory]:
        """Every variant directory that holds a plan, in name order."""
        for plan in sorted(self.path.glob("*/*/plan.json")):
            yield VariantDirectory(plan.parent)


def write_json(path: Path, value: object) -> Path:
    """Write `value` as indented JSON through a sibling file and a rename; several processes may do so at once."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(value, indent=2, default=_plain) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return path


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
