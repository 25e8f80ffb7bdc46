"""What a run may leave behind, looked for after it: processes, sockets, descriptors, files, half-made templates."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.lockfile import exclusive_now

_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)


@dataclass(frozen=True, slots=True)
class Belongings:
    """What this process has: its descriptors by number with what they are, and the TCP ports it listens on."""

    descriptors: Mapping[int, str]
    ports: frozenset[str]

    @classmethod
    def now(cls) -> Belongings:
        """Look at this process."""
        descriptors = {}
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # the one that listed them is gone by now
                descriptors[int(entry.name)] = str(entry.readlink())
        return cls(descriptors, frozenset(_ports(descriptors.values())))

    def beyond(self, before: Belongings) -> Iterator[str]:
        """Tell what there is more of than there was `before`."""
        if len(self.descriptors) > len(before.descriptors):
            new = [what for number, what in self.descriptors.items() if number not in before.descriptors]
            yield f"{len(self.descriptors) - len(before.descriptors)} open descriptors: {', '.join(new)}"
        for port in sorted(self.ports - before.ports):
            yield f"a listening socket at {port}"


def processes(trace: str) -> Iterator[str]:
    """Tell the processes that this one started, however indirectly, and those whose command line holds `trace`."""
    ours = set(descendants(os.getpid()))
    for process, words in _command_lines():
        if process != os.getpid() and (process in ours or trace in words):
            yield f"process {process}: {words[:200] or 'ended, but nobody has waited for it'}"


def descendants(process: int) -> Iterator[int]:
    """Give the processes that `process` started, and those that these did."""
    parents = dict(_parents())
    for child, parent in parents.items():
        above: int | None = parent
        while above is not None and above != process:
            above = parents.get(above)
        if above == process:
            yield child


def half_made_templates(cache: Path) -> Iterator[str]:
    """Tell the templates below `cache` that nobody is making any more."""
    for path in sorted((cache / "templates" / "making").glob("*.*")):
        with exclusive_now(cache / "locks" / f"template-{path.name.partition('.')[0]}.lock") as held:
            if held and path.exists():
                yield f"a half-made template: {path}"


def files(directory: Path, expected: Iterable[Path]) -> Iterator[str]:
    """Tell what lies below `directory` beside `expected` (files, or directories with all they hold)."""
    directory = directory.absolute()
    known = {directory / each for each in expected}
    above = {parent for each in known for parent in each.parents}
    for path in sorted(directory.iterdir()):
        if path in above:
            yield from files(path, known)
        elif path not in known:
            yield f"a file or directory: {path}"


@contextmanager
def private_temp(path: Path) -> Iterator[Path]:
    """Have this process and its children put temporary files below `path`, so that what they leave can be told."""
    path.mkdir()
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"], tempfile.tempdir = str(path), None
    try:
        yield path
    finally:
        tempfile.tempdir = None
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def _ports(descriptors: Iterable[str]) -> Iterator[str]:
    """Addresses of the sockets among `descriptors` that listen; columns as in the kernel's proc_net_tcp.rst."""
    inodes = {what.removeprefix("socket:[").removesuffix("]") for what in descriptors if what.startswith("socket:[")}
    for table in (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6")):
        with contextlib.suppress(OSError):
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTENING and columns[9] in inodes:
                    yield columns[1]


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                yield int(entry.name), int(fields[1])


def _command_lines() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                yield int(entry.name), words
