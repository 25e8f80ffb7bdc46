"""Digests that need not be computed again: those of files that the kernel says nobody has touched since.

Hashing QEMU's files takes longer than collecting a hundred scenarios. Size, inode and the times of change of data and
inode tell every write, also one that puts the time of the data back (the `ctime` of inode(7) cannot be set).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

from harness.errors import StorageError
from harness.evidence import write_json
from harness.images.packages import sha256

#: A file that changed a moment ago may change again within the same tick of the clock that stamps it.
_SETTLED_NS = 2_000_000_000

Stamps = dict[str, list[int]]


def first_wrong(directory: Path, digests: Mapping[str, str], memory: Path) -> str | None:
    """Name the first file below `directory` that is not there or has not its digest; None if all are as they must be.

    What was found right is kept in the file `memory`; without it, or where it is damaged, all digests are computed.
    """
    try:
        before = _stamps(directory, digests)
    except OSError:
        before = None
    if before is not None and _recalled(memory) == {"digests": dict(digests), "stamps": before}:
        return None
    for name, digest in digests.items():
        path = directory / name
        if not path.is_file() or sha256(path) != digest:
            return name
    newest = max((stamp[-1] for stamp in (before or {}).values()), default=0)
    if before is not None and newest + _SETTLED_NS < time.time_ns():
        with contextlib.suppress(OSError, StorageError):  # a cache that cannot be written is checked anew each time
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_json(memory, {"digests": dict(digests), "stamps": before})
    return None


def _stamps(directory: Path, names: Mapping[str, str]) -> Stamps:
    stats = {name: (directory / name).stat() for name in names}
    return {name: [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns] for name, stat in stats.items()}


def _recalled(memory: Path) -> object:
    try:
        return json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
