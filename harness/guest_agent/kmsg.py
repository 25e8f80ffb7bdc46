"""The kernel log as records with sequence numbers, and marks in it.

Record format: Documentation/ABI/testing/dev-kmsg of the kernel.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Any

from protocol import Operation, Refused, attempting

_DEVICE = "/dev/kmsg"
#: The kernel's PRINTK_MESSAGE_MAX is 2048 and each byte may become a four-byte escape; less is answered by EINVAL.
_RECORD_MAX = 16384
_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})")


def parse_record(raw: bytes) -> dict[str, Any]:
    """One record of /dev/kmsg as `{"seq", "priority", "facility", "us", "text"}`; ValueError if it is none.

    `priority` is 0 (emergency) to 7 (debug), `facility` who wrote it: 0 the kernel, anything else user space
    (devkmsg_write in kernel/printk/printk.c lets nobody write as the kernel). `us` are microseconds since boot.
    Dictionary lines that follow the text are dropped, escapes undone.
    """
    head, _, rest = raw.decode("utf-8", errors="replace").partition(";")
    prefix, sequence, microseconds, *_ = head.split(",")
    text = rest.split("\n", 1)[0]
    return {
        "seq": int(sequence),
        "priority": int(prefix) & 7,
        "facility": int(prefix) >> 3,
        "us": int(microseconds),
        "text": unescape(text),
    }


def unescape(text: str) -> str:
    r"""`text` with the kernel's `\xNN` undone; the escaped bytes are UTF-8."""
    raw = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    try:
        return raw.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return raw


class KernelLog:
    """Operations `kmsg` and `mark`. Reading starts at the oldest record that the kernel still holds."""

    def __init__(self) -> None:
        self._reader: int | None = None
        self._expected = 0

    def operations(self) -> dict[str, Operation]:
        """Operations by name."""
        return {"kmsg": self.kmsg, "mark": self.mark}

    def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            os.close(self._reader)
            self._reader = None

    def mark(self, *, text: str, level: int = 6) -> dict[str, Any]:
        """Write `vtd-harness: text` into the kernel log at `level`, one of 0 (emergency) to 7 (debug)."""
        if "\n" in text:
            raise Refused("a mark is one line")
        # The kernel drops, silently, what exceeds ten records in five seconds of one open file.
        with attempting("write a mark"):
            descriptor = os.open(_DEVICE, os.O_WRONLY)
            try:
                os.write(descriptor, f"<{level}>vtd-harness: {text}\n".encode())
            finally:
                os.close(descriptor)
        return {}

    def kmsg(self) -> dict[str, Any]:
        """All records since the previous call; `lost` if the sequence numbers show that some were overwritten."""
        reader = self._open()
        entries: list[dict[str, Any]] = []
        lost = False
        while True:
            try:
                record = parse_record(os.read(reader, _RECORD_MAX))
            except BlockingIOError:
                return {"entries": entries, "lost": lost}
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise Refused(f"read {_DEVICE}: {error.strerror}", error.errno or 0) from error
                lost = True  # overwritten before it was read; the next read starts at the oldest that is left
                continue
            lost = lost or record["seq"] != self._expected
            self._expected = record["seq"] + 1
            entries.append(record)

    def _open(self) -> int:
        if self._reader is None:
            with attempting("open the kernel log"):
                self._reader = os.open(_DEVICE, os.O_RDONLY | os.O_NONBLOCK)
                os.lseek(self._reader, 0, os.SEEK_SET)
        return self._reader
