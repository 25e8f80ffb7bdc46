"""QEMU's device state, saved to a file and brought back; the guest's memory stays in the file that it is mapped from.

The capability `x-ignore-shared` leaves memory out of the stream that is mapped from a named file and shared
(migrate_ram_is_ignored in QEMU's migration/ram.c); the restored machine maps the same file, copied on write.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import InfraError
from harness.waiting import Abort, Deadline, wait_for

if TYPE_CHECKING:
    from harness.qmp import Monitor

#: The first QEMU that migrates to a file, by `channels` of transport `file` (qapi/migration.json, FileMigrationArgs).
_SINCE = (8, 2)

#: Seconds for some hundred KiB to go through one file.
MIGRATION_S = 30.0

_ENDS = ("completed", "failed", "cancelled")


def saves(version: str) -> bool:
    """Whether QEMU of this version, such as `10.0.2`, can save a machine to a file."""
    return tuple(int(part) for part in re.findall(r"\d+", version)) >= _SINCE


def save(monitor: Monitor, state: Path, abort: Sequence[Abort]) -> None:
    """Stop the guest's CPUs and write the device state into `state`; InfraError with QEMU's words if it cannot."""
    monitor.execute("stop")
    _move("migrate", monitor, state, abort, MIGRATION_S)


def restore(monitor: Monitor, state: Path, abort: Sequence[Abort], within_s: float = MIGRATION_S) -> None:
    """Bring the device state of `state` into a machine started with `-incoming defer`; its CPUs stay halted."""
    _move("migrate-incoming", monitor, state, abort, within_s)


def copy_data(source: Path, target: int) -> None:
    """Copy what is not a hole of `source` into the file of the descriptor `target`, to the same offsets."""
    with source.open("rb") as file:
        for begin, end in data_extents(file.fileno()):
            place = os.lseek(target, begin, os.SEEK_SET)
            while place < end:
                place += os.sendfile(target, file.fileno(), place, end - place)


def data_extents(descriptor: int) -> list[tuple[int, int]]:
    """Where a sparse file has data, as offsets from and to."""
    extents, size = [], os.fstat(descriptor).st_size
    end = 0
    while end < size:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole follows
            break
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        extents.append((begin, end))
    return extents


def _move(command: str, monitor: Monitor, state: Path, abort: Sequence[Abort], within_s: float) -> None:
    monitor.execute("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
    address = {"transport": "file", "filename": str(state), "offset": 0}
    monitor.execute(command, channels=[{"channel-type": "main", "addr": address}])
    told = wait_for(f"'{command}' to end", _ended(monitor), Deadline.after(within_s), abort=abort, every_s=0.002)
    if told["status"] != "completed":
        why = told.get("error-desc", "QEMU does not say why")
        raise InfraError(f"'{command}' with {state}: {told['status']}: {why}")


def _ended(monitor: Monitor) -> Callable[[], dict[str, Any] | None]:
    def ended() -> dict[str, Any] | None:
        told: dict[str, Any] = monitor.execute("query-migrate")
        return told if told.get("status") in _ENDS else None

    return ended
