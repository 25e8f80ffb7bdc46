"""A guest that made its QEMU write more to a file than it may.

The bound is a limit of QEMU's process (RLIMIT_FSIZE), so that it holds between two looks of the harness, too. QEMU goes
on: the signal of the limit is ignored (`harness.process`; of QEMU's threads only the first would get it, as
qemu_thread_create in util/qemu-thread-posix.c blocks all but faults in the others), the write fails, and QEMU says
nothing. But a file that has reached the bound never gets shorter, so that every look afterwards finds it.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path

from harness import bounds
from harness.errors import BoundExceeded


def outgrown(files: Sequence[Path], *, who: str = "the guest") -> BoundExceeded | None:
    """Tell which of `files` has reached the bound, or the lower limit of the harness itself; None if none has."""
    own, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    bound = bounds.QEMU_FILE_BYTES if own == resource.RLIM_INFINITY else min(bounds.QEMU_FILE_BYTES, own)
    for path in files:
        if path.exists() and path.stat().st_size >= bound:
            return BoundExceeded(who, path.name, bound=bound, unit="bytes in its file", evidence=path)
    return None
