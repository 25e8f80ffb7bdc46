"""Reads the kernel log of the host it runs on, from mark to mark.

Sent to the host; needs the standard library of Python 3.9 only. For each line of its input, a JSON object `{"mark":
text}`, it writes the text into the log and tells the records since the last mark, up to that one, as one line of JSON:
`{"entries": [{"seq", "priority", "facility", "us", "text"}], "lost": bool}`, or `{"failed": why}`. Record format:
Documentation/ABI/testing/dev-kmsg of the kernel.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import sys
from typing import Any

_LOG = "/dev/kmsg"
#: The kernel's PRINTK_MESSAGE_MAX is 2048 and each byte may become a four-byte escape; less is answered by EINVAL.
_RECORD_MAX = 16384
_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})")
#: Milliseconds for a mark to show in the log; it is there when the write returns.
_SHOWN_MS = 5000


def listen(log: str = _LOG) -> None:
    """Answer until the input ends; what was in the log before is not told."""
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(reader, 0, os.SEEK_END)
    for line in sys.stdin:
        try:
            answer = _until(reader, log, json.loads(line)["mark"])
        except OSError as error:
            answer = {"failed": f"{log}: {error.strerror}"}
        print(json.dumps(answer), flush=True)


def _until(reader: int, log: str, mark: str) -> dict[str, Any]:
    # The kernel drops what exceeds ten records in five seconds of one open file (devkmsg_write in printk.c).
    writer = os.open(log, os.O_WRONLY)
    try:
        os.write(writer, f"<6>vtd-harness: {mark}\n".encode())
    finally:
        os.close(writer)
    entries: list[dict[str, Any]] = []
    lost = False
    waiting = select.poll()
    waiting.register(reader, select.POLLIN)
    while True:
        try:
            entries.append(parsed(os.read(reader, _RECORD_MAX)))
        except BlockingIOError:
            if not waiting.poll(_SHOWN_MS):
                return {"failed": f"the mark '{mark}' does not show in {log}"}
            continue
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            lost = True  # overwritten before it was read; the next read starts at the oldest that is left
            continue
        if entries[-1]["text"] == f"vtd-harness: {mark}":
            return {"entries": entries, "lost": lost}


def parsed(raw: bytes) -> dict[str, Any]:
    """One record: its number, its level, who wrote it (0 is the kernel), microseconds since boot, and its text."""
    head, _, rest = raw.decode("utf-8", errors="replace").partition(";")
    prefix, sequence, microseconds = head.split(",")[:3]
    text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), rest.split("\n", 1)[0])
    level, facility = int(prefix) & 7, int(prefix) >> 3
    return {"seq": int(sequence), "priority": level, "facility": facility, "us": int(microseconds), "text": text}


if __name__ == "__main__":
    listen(*sys.argv[2:3])
