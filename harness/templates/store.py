"""The cache of templates, bounded in size and safe between processes.

    <cache>/templates/KEY/           ram, state and template.json, whose time of change is that of its last use, and
                                     taken.json: how long its first restore took (harness.machine.taken)
    <cache>/templates/making/KEY.*/  under way, or left by a killed maker; whoever opens the cache next removes it
    <cache>/locks/template-KEY.lock  held alone by who makes or removes the template, shared by who starts from it

A template appears by rename. Each process checks its digests before it uses it first, and its size and times whenever
it does; a damaged one is thrown away and made anew.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import InfraError
from harness.evidence import JOURNAL, VariantDirectory
from harness.lockfile import exclusive, exclusive_now, shared
from harness.machine.template import RAM, STATE, Template
from harness.storage import writing
from harness.templates.making import RECORD, Ingredients, Slot, as_template, digest, make, read_record

Progress = Callable[[str], None]

#: Environment variable with the most MiB that templates may take together; the least recently used go first.
LIMIT = "VTD_TEMPLATES_MIB"

#: All scenarios with their counter-proofs have 53 of 9.5 GiB: if those did not fit, a run would remove what it needs.
_LIMIT_MIB = 12 << 10


class Templates:
    """Templates by what shapes them, made when they are not there yet; InfraError for a LIMIT that is no number."""

    def __init__(self, cache: Path) -> None:
        self._home = cache / "templates"
        self._locks = cache / "locks"
        self._limit_mib = _limit_mib()
        self._checked: dict[str, tuple[tuple[int, ...], ...]] = {}
        self._remove_leftovers()

    @contextmanager
    def ready(self, what: Ingredients, evidence: Path, progress: Progress, slot: Slot) -> Iterator[Template]:
        """Give the template of `what`, made first if need be; it stays where it is while the context lasts.

        `evidence` is the directory for the files of its boot, made if there is one. Nobody may hold a guest's place
        while calling this: `slot` takes one for the boot.
        """
        key = what.key()
        lock = self._locks / f"template-{key}.lock"
        while True:
            with shared(lock, f"template {what.name}", progress):
                template = self._intact(key, what.name, progress)
                if template is not None:
                    with contextlib.suppress(OSError):  # not ours to write, or full: it is then older than it is
                        os.utime(template.directory / RECORD)
                    yield template
                    return
            with exclusive(lock, f"template {what.name}", progress):
                if self._intact(key, what.name, lambda _: None) is None:
                    self._make(key, what, evidence, progress, slot)

    def _make(self, key: str, what: Ingredients, evidence: Path, progress: Progress, slot: Slot) -> None:
        with writing(f"template {what.name}", self._home):
            self._fill(key, what, evidence, progress, slot)

    def _fill(self, key: str, what: Ingredients, evidence: Path, progress: Progress, slot: Slot) -> None:
        self._discard(self._home / key)
        making = self._home / "making"
        making.mkdir(parents=True, exist_ok=True)
        while (evidence / JOURNAL).exists():  # it was made, and evicted before it could be used
            evidence = evidence.with_name(f"{evidence.name}-again")
        evidence.mkdir(parents=True, exist_ok=True)
        private = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=making))
        progress(f"template {what.name}: booting")
        try:
            seconds = make(what, private, VariantDirectory(evidence), slot)
            size = _bytes(private)
            private.rename(self._home / key)
        finally:
            _remove(private)
        self._checked[key] = _stamps(self._home / key)
        progress(f"template {what.name}: ready after {seconds:.1f} s, {size >> 20} MiB")
        self._shrink(key, progress)

    def _intact(self, key: str, name: str, progress: Progress) -> Template | None:
        """Give the template `key` if it is there and is what was saved; tell what is wrong with it otherwise."""
        directory = self._home / key
        if not directory.exists():
            return None
        record = read_record(directory)
        problem = "its record cannot be read" if record is None else None
        if record is not None:
            try:
                stamps = _stamps(directory)
                if self._checked.get(key) != stamps:
                    changed = [file for file, known in record["files"].items() if digest(directory / file) != known]
                    problem = f"its {' and '.join(changed)} is not what was saved" if changed else None
                    if problem is None:
                        self._checked[key] = stamps
                if problem is None:
                    return as_template(directory, record)
            except OSError as error:
                problem = f"it is not whole ({error})"
        progress(f"template {name}: damaged, {problem}; making it anew")
        return None

    def _shrink(self, newest: str, progress: Progress) -> None:
        """Remove the least recently used templates beyond the limit; those that are being started from stay."""
        templates = {path: _bytes(path) for path in self._home.iterdir() if (path / RECORD).exists()}
        total = sum(templates.values())
        limit = self._limit(total)
        for path in sorted(templates, key=_last_used):
            if total <= limit:
                return
            if path.name == newest:
                continue
            with exclusive_now(self._locks / f"template-{path.name}.lock") as held:
                if held:
                    self._discard(path)
                    total -= templates[path]
                    progress(f"template {path.name}: removed, the limit for templates is {limit >> 20} MiB ({LIMIT})")

    def _discard(self, template: Path) -> None:
        """Remove a template; it is none any more before the first of its files goes."""
        if template.exists():
            grave = self._home / "making" / f"{template.name}.{secrets.token_hex(4)}"
            grave.parent.mkdir(exist_ok=True)
            template.rename(grave)
            _remove(grave)

    def _limit(self, used: int) -> int:
        """Bytes that templates may take: as told, but not more than half of what the disk has for them."""
        return min(self._limit_mib << 20, (shutil.disk_usage(self._home).free + used) // 2)

    def _remove_leftovers(self) -> None:
        for leftover in (self._home / "making").glob("*.*"):
            lock = self._locks / f"template-{leftover.name.partition('.')[0]}.lock"
            with contextlib.suppress(InfraError), exclusive_now(lock) as held:
                if held:
                    _remove(leftover)


def _limit_mib() -> int:
    told = os.environ.get(LIMIT, str(_LIMIT_MIB))
    if not told.isdecimal():
        raise InfraError(f"{LIMIT} is '{told}'", hint="set it to a number of MiB")
    return int(told)


def _stamps(directory: Path) -> tuple[tuple[int, ...], ...]:
    stats = [(directory / name).stat() for name in (RAM, STATE)]
    return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats)


def _bytes(directory: Path) -> int:
    """Give what the files of `directory` take on disk; holes take nothing."""
    total = 0
    with contextlib.suppress(FileNotFoundError):  # another process is removing it
        for file in directory.iterdir():
            total += file.stat().st_blocks * 512
    return total


def _last_used(directory: Path) -> float:
    with contextlib.suppress(OSError):
        return (directory / RECORD).stat().st_mtime
    return 0.0


def _remove(directory: Path) -> None:
    """Remove a directory; another process may be about the same."""
    shutil.rmtree(directory, ignore_errors=True)
