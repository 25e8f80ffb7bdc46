"""Hands NICs of the host it runs on to vfio-pci, for as long as its input is open, and gives them back at its end.

Sent to the host; needs the standard library of Python 3.9 only. It goes on where everything else of a run was killed:
its input ends with the connection, in whatever way that went.

    to it       one line of JSON: `{"nics": [addresses], "root": "/"}`; then nothing
    from it     `{"lent": [what each is]}`, or `{"refused": text, "hint": text}`; at the end
                `{"returned": {address: driver}, "kept": {address: [text, hint]}}`
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import Any

from harness.lab.nic_there import Nic, RefusedError


def lend(job: dict[str, Any]) -> None:
    """Take the NICs of `job`, wait for the end of the input, and give them back."""
    nics = [Nic(address, job["root"]) for address in job["nics"]]
    out: list[Nic] = []
    try:
        for nic in nics:
            described = nic.describe() if nic.obstacle() is None else {}
            nic.take()
            out.append(nic)
            _say({"lending": {**described, "driver": nic.own_driver}})
        _say({"lent": len(out)})
        while os.read(0, 4096):
            pass
    except RefusedError as error:
        _say({"refused": error.text, "hint": error.hint})
    finally:
        returned, kept = {}, {}
        for nic in reversed(out):
            try:
                nic.give_back()
                returned[nic.address] = nic.driver()
            except RefusedError as error:
                kept[nic.address] = [error.text, error.hint]
        _say({"returned": returned, "kept": kept})


def _say(message: dict[str, Any]) -> None:
    """Tell who listens; nobody need be there any more."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(message).encode() + b"\n")


def main() -> None:
    """Take the job from the input, byte by byte: what follows is only its end."""
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    line = bytearray()
    while not line.endswith(b"\n"):
        data = os.read(0, 1)
        if not data:
            return
        line += data
    lend(json.loads(line))


if __name__ == "__main__":
    main()
