"""What a machine on a lab host is started from, in the user's cache directory there: sent once, found by digest."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.errors import InfraError
from harness.ssh import Ssh
from harness.waiting import Deadline

#: Below the home directory there. Each entry is a directory `NAME-DIGEST`; who wants the space back removes it.
SHELF = ".cache/vtd-harness/lab"

#: Seconds for all of an entry, some 70 MiB, to be sent and unpacked.
_SENT_S = 600.0

_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Shelf:
    """The shelf below `home` of the host at the other end of `ssh`."""

    ssh: Ssh
    home: str
    progress: Callable[[str], None]

    def place(self, name: str, digest: str, directory: Path, files: Sequence[str] = (".",)) -> PurePosixPath:
        """Have `files` of `directory` there, sent if they are not, and give where; InfraError if that cannot be.

        An entry appears whole or not at all, so one that is there is not read again.
        """
        entry = PurePosixPath(self.home) / SHELF / f"{name}-{digest[:16]}"
        if self.ssh.run(["test", "-d", str(entry)]).status == 0:
            return entry
        self.progress(f"sending {name} to the lab host")
        partial = entry.with_name(f".{entry.name}.{secrets.token_hex(4)}")
        self._send(["tar", "-C", str(directory), "-cz", *files], partial)
        # Another run may have been faster: then its entry stays, and this one goes.
        done = self.ssh.run(
            ["sh", "-c", 'mv -T "$1" "$2" || { rm -r "$1"; test -d "$2"; }', "sh", str(partial), str(entry)]
        )
        if done.status:
            raise InfraError(f"{entry} cannot be made on the lab host: {_text(done.stderr)}")
        return entry

    def _send(self, packing: Sequence[str], into: PurePosixPath) -> None:
        deadline = Deadline.after(_SENT_S)
        unpacking = 'mkdir -p "$1" && tar -C "$1" -xzf -'
        channel = self.ssh.open(["sh", "-c", unpacking, "sh", str(into)])
        with (
            contextlib.closing(channel),
            subprocess.Popen(packing, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as packer,
        ):
            if packer.stdout is None or packer.stderr is None:
                raise ValueError("tar was started without pipes")
            while data := packer.stdout.read(_CHUNK):
                channel.send(data, deadline)
            said = packer.stderr.read()
            if packer.wait():
                raise InfraError(f"'{' '.join(packing)}' failed: {_text(said)}")
            channel.send_eof()
            if channel.status(deadline):
                raise InfraError(
                    f"{into} cannot be unpacked on the lab host: {channel.stderr_text().strip()}",
                    hint="is there room, and tar?",
                )


def _text(data: bytes) -> str:
    return data.decode(errors="replace").strip()
