"""The kernel log of a lab host as a witness: its remapping unit is what a NIC that it handed out has to get past."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator

from harness.answers import read_message, require_answer
from harness.errors import InfraError, SshError
from harness.evidence import Record
from harness.nested.sending import start_program
from harness.ssh import Channel, Ssh
from harness.waiting import Deadline
from harness.witnesses.lab_host import LOG

_PROGRAM = ("harness.lab.listener",)

#: Seconds for an answer; the first one includes the start of Python there.
_ANSWER_S = 60.0


class HostLog:
    """The log from mark to mark; made by `heard`.

    The journal has it as `host-kmsg`: `mark` with a `marker`, `line` as of a guest's log, and `lost`.
    """

    def __init__(self, channel: Channel, journal: Record) -> None:
        self._channel = channel
        self._journal = journal

    def mark(self, text: str) -> None:
        """Put a marker into the log, and journal all that the log has up to it."""
        marker = f"{text} {secrets.token_hex(4)}"
        self._journal.record(LOG, "mark", marker=marker)
        self._channel.send_line(json.dumps({"mark": marker}))
        line = self._channel.read_line(Deadline.after(_ANSWER_S))
        if line is None:
            raise SshError(f"the lab host's log cannot be heard any more: {self._channel.stderr_text().strip()}")
        told = read_message(line, "the lab host's log")
        if "failed" in told:
            raise InfraError(f"the lab host's log cannot be read: {told['failed']}", hint="log in to the host as root")
        require_answer("kmsg", told, "the lab host's log")
        if told["lost"]:
            self._journal.record(LOG, "lost")
        for entry in told["entries"]:
            self._journal.record(LOG, "line", **entry)


@contextlib.contextmanager
def heard(ssh: Ssh, journal: Record) -> Iterator[HostLog]:
    """Listen to the kernel log of the host at the other end of `ssh`, from now on."""
    channel = start_program(ssh, _PROGRAM)
    try:
        log = HostLog(channel, journal)
        log.mark("a run begins")
        yield log
    finally:
        channel.close()
