"""Commands over pipes in the place of an SSH connection: all else is as on another host."""

from __future__ import annotations

import os
import subprocess
import sys

from harness.errors import SshError


class PipeChannel:
    """A command with its streams, as `harness.ssh.Channel` gives them."""

    def __init__(self, argv):
        self.process = subprocess.Popen(
            [sys.executable, *argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def send(self, data, deadline, abort=()):  # noqa: ARG002 - the shape of a channel
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except (OSError, ValueError) as error:  # ValueError where it was closed here
            raise SshError(f"no input is taken any more: {error}") from error

    def read(self, deadline, abort=()):  # noqa: ARG002
        return os.read(self.process.stdout.fileno(), 65536)

    def read_line(self, deadline, abort=()):  # noqa: ARG002
        return self.process.stdout.readline().decode().rstrip("\n") or None

    def send_eof(self):
        self.process.stdin.close()

    def stderr_text(self):
        return self.process.stderr.read().decode() if self.process.poll() is not None else ""

    def cut(self):
        """Lose the connection."""
        self.process.stdin.close()

    def die(self):
        """Kill the command."""
        self.process.kill()
        self.process.wait(10)

    def close(self):
        if not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.wait(10)


class PipeSsh:
    """What a `KeptProcess` needs of an SSH connection."""

    abort = ()

    def __init__(self):
        self.channels = []

    def open(self, argv, *, timeout_s=20.0):  # noqa: ARG002
        self.channels.append(PipeChannel(argv))
        return self.channels[-1]

    def close(self):
        for channel in self.channels:
            channel.process.stdout.close()
            channel.process.stderr.close()
