"""A QEMU that the kernel ended because a file that it writes itself reached its bound.

The bound is a limit of the process (RLIMIT_FSIZE), so that it also holds between two looks of the harness: a write
beyond it ends QEMU by SIGXFSZ, which QEMU leaves at its default.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from harness import bounds
from harness.errors import BoundExceeded


def outgrown(status: int | None, files: Sequence[Path], *, who: str = "the guest") -> BoundExceeded | None:
    """Tell which of `files` has reached the bound, where QEMU ended with `status` because of that; None otherwise."""
    if status != -signal.SIGXFSZ:
        return None
    sizes = {path: path.stat().st_size for path in files if path.exists()}
    largest = max(sizes, key=lambda path: sizes[path], default=None)
    if largest is None or sizes[largest] < bounds.QEMU_FILE_BYTES:
        return None  # a limit of the harness itself is lower
    return BoundExceeded(who, largest.name, bound=bounds.QEMU_FILE_BYTES, unit="bytes in its file", evidence=largest)
