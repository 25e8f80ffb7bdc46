"""What a process can be reached by over the network."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path


def listening(pid: int) -> set[tuple[str, int]]:
    """Local address (hex, as in /proc) and port of each socket of `pid` that listens on TCP or is bound on UDP."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # this loop's own, where it looks at its own process
            if match := re.fullmatch(r"socket:\[(\d+)\]", str(fd.readlink())):
                inodes.add(match[1])
    found = set()
    for table, wanted in (("tcp", {"0A"}), ("tcp6", {"0A"}), ("udp", {"07"}), ("udp6", {"07"})):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and fields[3] in wanted:
                address, _, port = fields[1].partition(":")
                found.add((address, int(port, 16)))
    return found
