"""A lock between processes that ends with its holder, however that ends."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from harness.storage import writing
from harness.waiting import Deadline, wait_for

#: Another process may be fetching and building everything on a slow line.
WAIT_S = 1800.0


@contextmanager
def exclusive(path: Path, what: str, progress: Callable[[str], None]) -> Iterator[int]:
    """Hold the lock file at `path` alone, saying through `progress` when others have it; yields its descriptor.

    Children don't inherit it unless they are given the descriptor (`pass_fds`): then the lock is held until the last of
    them is gone, too. The kernel frees it when the holders die. Raises WaitTimeout after `WAIT_S` seconds.
    """
    with _held(path, fcntl.LOCK_EX, what, progress) as descriptor:
        yield descriptor


@contextmanager
def shared(path: Path, what: str, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file at `path` with others who share it; otherwise as `exclusive`."""
    with _held(path, fcntl.LOCK_SH, what, progress):
        yield


@contextmanager
def exclusive_now(path: Path) -> Iterator[bool]:
    """Hold the lock file at `path` alone if nobody has it, and tell whether it is held."""
    with _opened(path) as file:
        yield _taken(file, fcntl.LOCK_EX)


@contextmanager
def _held(path: Path, kind: int, what: str, progress: Callable[[str], None]) -> Iterator[int]:
    with _opened(path) as file:
        if not _taken(file, kind):
            progress(f"{what}: waiting for another that is at it")
            wait_for(f"the lock on {path}", lambda: _taken(file, kind), Deadline.after(WAIT_S), every_s=0.02)
        yield file.fileno()


def _opened(path: Path) -> IO[str]:
    with writing("the lock file", path, alone=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a")


def _taken(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
