"""Where something is written: what the kernel refuses becomes a StorageError, which ends a run with one sentence."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from harness.errors import StorageError

#: What a file system answers to a write, and what to do; other errors are none of the storage.
_REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "the quota is used up: make room, or have it raised",
    errno.EROFS: "it is mounted read-only",
    errno.EACCES: "make it writable for this user",
    errno.EPERM: "make it writable for this user",
    errno.EIO: "the disk fails: see the kernel's log",
    errno.EFBIG: "the limit for files of this process (ulimit -f) or of the file system is reached",
    errno.ENOTDIR: "a part of that path is a file",
    errno.EEXIST: "a part of that path is a file",
    errno.ENOENT: "a directory of that path is gone",
    errno.ENAMETOOLONG: "take a shorter path",
}

#: Those that programs also meet elsewhere: no such program, an address that is no socket.
_AMBIGUOUS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EEXIST})

#: Those whose words, said by a program, can be of nothing else.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)

#: Bytes that a run needs where its evidence goes; what one variant usually leaves is a tenth of it.
FLOOR = 64 << 20

#: Bytes that must be left there whenever a step ends and while a machine is waited for: QEMU writes console and trace
#: itself and does not tell of a write that failed (io_channel_send_full in chardev/char-io.c drops the error's words,
#: serial_xmit in hw/char/serial.c the byte, qemu_log_unlock in util/log.c what fflush gives), so it must not come to
#: that.
LEFT = 1 << 20


def is_storage(error: OSError) -> bool:
    """Whether `error` is a file system's refusal to write."""
    return error.errno in _REMEDIES.keys() - _AMBIGUOUS


def free_bytes(place: Path) -> int | None:
    """Give the bytes that this user may still write at `place`, there or not; None if the kernel does not tell."""
    for path in (place, *place.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(path).free
    return None


def storage_error(error: OSError, what: str, path: Path, *, needed: int | None = None) -> StorageError:
    """Give the StorageError for `error`, which came when `needed` bytes of `what` were written to `path`."""
    number = error.errno or errno.EIO
    free = free_bytes(path)
    room = "" if free is None else f"; {_amount(free)} are free there"
    if needed is not None and number in (errno.ENOSPC, errno.EDQUOT):
        room = f"; {_amount(needed)} were to be written{room[1:] and ',' + room[1:]}"
        if free is not None and needed > free:
            room += f", {_amount(needed - free)} are missing"
    return StorageError(
        f"{what} cannot be written to {path}: {os.strerror(number)}{room}",
        what=what,
        path=path,
        errno=number,
        needed=needed,
        free=free,
        hint=f"{_REMEDIES.get(number, 'see the path')}, or name another place (evidence: --runs, caches: VTD_CACHE)",
    )


@contextlib.contextmanager
def writing(what: str, path: Path, *, needed: int | None = None, alone: bool = False) -> Iterator[None]:
    """Turn what a file system refuses inside the context into a StorageError.

    `alone` tells that nothing but a write happens there, so that a path which is gone is one, too.
    """
    try:
        yield
    except OSError as error:
        if is_storage(error) or (alone and error.errno in _AMBIGUOUS):
            raise storage_error(error, what, path, needed=needed) from error
        raise


def said_by_program(words: str, what: str, path: Path) -> StorageError | None:
    """Give the StorageError that a program tells of which wrote `what` to `path`; None if it tells of something else.

    It must speak the C locale's language.
    """
    number = next((each for each in _OF_THE_DISK if os.strerror(each) in words), None)
    return None if number is None else storage_error(OSError(number, ""), what, path)


def write_text(path: Path, text: str, what: str | None = None) -> Path:
    """Write `text` to `path`; StorageError where that fails."""
    data = text.encode("utf-8", errors="backslashreplace")
    with writing(what or path.name, path, needed=len(data), alone=True):
        path.write_bytes(data)
    return path


def require_room(place: Path, wanted: int, what: str) -> None:
    """StorageError if fewer than `wanted` bytes are free at `place`, before `what` is written there."""
    error = lacking(place, wanted, what)
    if error is not None:
        raise error


def lacking(place: Path, wanted: int, what: str) -> StorageError | None:
    """Give that error, None if there is room."""
    free = free_bytes(place)
    if free is None or free >= wanted:
        return None
    return storage_error(OSError(errno.ENOSPC, ""), what, place, needed=wanted)


def _amount(size: int) -> str:
    return f"{size:,} bytes" if size < 1 << 20 else f"{size / (1 << 20):.1f} MiB"
