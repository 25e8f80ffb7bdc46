"""What a machine on a lab host is started from, in the user's cache directory there: sent once, found by digest."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.errors import InfraError, SshError, WaitTimeout
from harness.ssh import Channel, Ssh
from harness.waiting import Deadline

#: Below the home directory there. Each entry is a directory `NAME-DIGEST`; who wants the space back removes it.
SHELF = ".cache/vtd-harness/lab"

#: Seconds for all of an entry, some 70 MiB, to be sent and unpacked.
_SENT_S = 600.0

_CHUNK = 1 << 18

#: Seconds for a command that has closed its input to end.
_ENDED_S = 10.0

#: Unpacks into `$1` what then becomes `$2`, unless another run was faster; nothing is left of what was cut off.
_UNPACK = (
    'mkdir -p "$1" && tar -C "$1" -xzf - && { mv -T "$1" "$2" 2>/dev/null || test -d "$2"; }; '
    'status=$?; rm -rf "$1"; exit $status'
)


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
        self._send(["tar", "-C", str(directory), "-cz", *files], partial, entry)
        return entry

    def _send(self, packing: Sequence[str], partial: PurePosixPath, entry: PurePosixPath) -> None:
        deadline = Deadline.after(_SENT_S)
        channel = self.ssh.open(["sh", "-c", _UNPACK, "sh", str(partial), str(entry)])
        with (
            contextlib.closing(channel),
            subprocess.Popen(packing, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as packer,
        ):
            if packer.stdout is None or packer.stderr is None:
                raise ValueError("tar was started without pipes")
            try:
                while data := packer.stdout.read(_CHUNK):
                    channel.send(data, deadline)
            except SshError as error:
                packer.kill()
                if (status := _ended(channel)) is None:
                    raise
                raise _not_unpacked(channel, entry, status) from error
            said = packer.stderr.read()
            if packer.wait():
                raise InfraError(f"'{' '.join(packing)}' failed: {_text(said)}")
            channel.send_eof()
            if status := channel.status(deadline):
                raise _not_unpacked(channel, entry, status)


def _ended(channel: Channel) -> int | None:
    """Give how the command ended that takes no more input; None if the connection was lost."""
    with contextlib.suppress(SshError, WaitTimeout):
        return channel.status(Deadline.after(_ENDED_S))
    return None


def _not_unpacked(channel: Channel, entry: PurePosixPath, status: int) -> InfraError:
    said = channel.stderr_text().strip() or f"exit status {status}"
    return InfraError(f"{entry} cannot be unpacked on the lab host: {said}", hint="is there room, and tar?")


def _text(data: bytes) -> str:
    return data.decode(errors="replace").strip()
