"""Which lines of a log, and of a console that shows it, are the kernel's own: anybody may write into /dev/kmsg."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from harness.evidence import Entry
from harness.witnesses.guest_log import LogLine

#: The facility of the kernel's own records; what is written into /dev/kmsg has another (devkmsg_write in Linux'
#: kernel/printk/printk.c).
_KERNEL = 0

#: What the console has in front of a record's text: the time, and with CONFIG_PRINTK_CALLER who said it.
_STAMP = re.compile(r"\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ")


def from_kernel(data: Mapping[str, Any]) -> bool:
    """Whether a record of a log is the kernel's own, not one that a program wrote.

    Journals that were recorded before records had a facility do not tell; all of theirs count as the kernel's.
    """
    return bool(data.get("facility", _KERNEL) == _KERNEL)


def said(entries: Iterable[Entry]) -> list[str]:
    """Give the texts of those records that are the kernel's own."""
    return [str(entry.data["text"]) for entry in entries if "text" in entry.data and from_kernel(entry.data)]


def kernel_lines(entries: Iterable[Entry], source: str) -> list[LogLine]:
    """Give what the kernel itself said in the log `source`, or on the `console`.

    A console shows no facility. The log does, and it is what counts: of the lines on the console, those that a program
    wrote into the log of the same time are left out, each once. What then is on the console alone contradicts the log.
    """
    entries = list(entries)
    lines = [entry for entry in entries if entry.source == source and "text" in entry.data and from_kernel(entry.data)]
    told = [LogLine(str(entry.data["text"]), entry.ref) for entry in lines]
    if source != "console":
        return told
    forged = Counter(
        line
        for entry in entries
        if entry.source == "kmsg" and "text" in entry.data and not from_kernel(entry.data)
        for line in str(entry.data["text"]).split("\n")
    )
    left = []
    for line in told:
        text = _STAMP.sub("", line.text, count=1)
        if forged[text] > 0:
            forged[text] -= 1
        else:
            left.append(line)
    return left
