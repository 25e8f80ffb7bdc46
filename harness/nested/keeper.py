"""Keeps one QEMU on a host that is reached over SSH; what it runs with comes from `harness.nested.kept`.

Sent over the connection and run by that host's own Python, of which it needs the standard library of 3.9 only. It
starts the program with descriptors for all its channels, carries what they say over its own standard input and output,
and kills the program when its input ends, in whatever way the connection went.

    host to keeper    one line of JSON, the job; then frames
    keeper to host    frames
    frame             number of the channel (1 byte), length (4 bytes, big-endian), as many bytes; length 0: its end

The job: `argv`, `env`, `streams` (name to descriptor: both ways, a socket), `datagrams` (the same, but each frame is a
datagram of its own), `outputs` (name to descriptor: a pipe; 1 is the program's stdout and stderr), `data` (descriptor
to hex: a file of those bytes), `scratch` (a descriptor: an empty file that the program may fill), `taps` (list of
`[descriptor, interface, bridge]`). Channels are numbered from 1 in the order of streams, datagrams, outputs. What the
outputs have is told before what the others have, so that an answer never overtakes a line that was written before it.
Channel 0 is control, each frame of it a JSON object: `{"started": pid}`, `{"exit": status}` at
the end, `{"scratch": "hex"}` in answer to `{"scratch": size}`, and `{"state": "T"}` (the kernel's letter) whenever the
program was stopped or runs again.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import time
from typing import Any

_FRAME = struct.Struct("!BI")
#: More than the longest frame that a NIC of QEMU sends (NET_BUFSIZE in its include/net/net.h).
_CHUNK = 1 << 17
#: In a job, the program's stdout and stderr; all other numbers are beyond what the keeper itself has open.
_OUTPUT = 1
_PR_SET_PDEATHSIG = 1
#: Seconds between looks at whether the program is stopped.
_LOOK_S = 0.5
_TUNSETIFF = 0x400454CA  # include/uapi/linux/if_tun.h
_IFF_TAP_NO_PI_VNET_HDR = 0x0002 | 0x1000 | 0x4000


class Keeper:
    """The program with its channels."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._numbers: dict[int, int] = {}
        self._ours: dict[int, int] = {}
        self._pending: dict[int, list[bytes]] = {}
        theirs: dict[int, int] = {}
        sockets = [(wanted, socket.SOCK_STREAM) for _, wanted in job["streams"]]
        sockets += [(wanted, socket.SOCK_DGRAM) for _, wanted in job["datagrams"]]
        for number, (wanted, kind) in enumerate(sockets, start=1):
            here, there = socket.socketpair(socket.AF_UNIX, kind)
            here.settimeout(0)
            self._add(number, here.detach())
            theirs[wanted] = there.detach()
        for number, (_, wanted) in enumerate(job["outputs"], start=1 + len(sockets)):
            reading, theirs[wanted] = os.pipe()
            self._add(number, reading)
        for wanted, data in job["data"].items():
            theirs[int(wanted)] = _file(bytes.fromhex(data))
        theirs[job["scratch"]] = _file(b"")
        self._scratch = os.dup(theirs[job["scratch"]])
        for wanted, interface, bridge in job["taps"]:
            theirs[wanted] = _tap(interface, bridge)
        self._process = _started(job["argv"], job["env"], theirs)
        self._control({"started": self._process.pid})
        self._state, self._looked_at = "", 0.0

    def serve(self) -> None:
        """Carry frames until the host is gone, or the program is and all it said has been told."""
        told = bytearray()
        while self._ours or self._process.poll() is None:
            reading = [0, *reversed(self._ours.values())]
            writing = [self._ours[number] for number, data in self._pending.items() if data and number in self._ours]
            readable, writable, _ = select.select(reading, writing, [], 0.2)
            self._tell_state()
            for descriptor in writable:
                self._write(self._numbers[descriptor])
            for descriptor in readable:
                if descriptor:
                    self._tell(descriptor)
                    continue
                data = os.read(0, _CHUNK)
                if not data:
                    return
                told += data
                self._obey(told)
            if self._process.poll() is not None and not readable:
                break
        self._control({"exit": self._process.wait()})

    def end(self) -> None:
        """Kill the program, if it still runs, and all of its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _add(self, number: int, descriptor: int) -> None:
        self._ours[number] = descriptor
        self._numbers[descriptor] = number
        self._pending[number] = []

    def _tell_state(self) -> None:
        """Tell whether the program is stopped (T, t) or goes on, when that has changed."""
        if time.monotonic() - self._looked_at < _LOOK_S:
            return
        self._looked_at = time.monotonic()
        try:
            with open(f"/proc/{self._process.pid}/stat", errors="replace") as file:  # noqa: PTH123 - pathlib takes long to import
                letter = file.read().rpartition(")")[2].split()[0]
        except OSError:
            return
        letter = letter if letter in "Tt" else "R"
        if letter != self._state:
            self._state = letter
            self._control({"state": letter})

    def _tell(self, descriptor: int) -> None:
        number = self._numbers[descriptor]
        try:
            data = os.read(descriptor, _CHUNK)
        except ConnectionResetError:
            data = b""
        _send(number, data)
        if not data:
            self._close(number)

    def _obey(self, told: bytearray) -> None:
        while len(told) >= _FRAME.size:
            number, length = _FRAME.unpack_from(told)
            if len(told) < _FRAME.size + length:
                return
            data = bytes(told[_FRAME.size : _FRAME.size + length])
            del told[: _FRAME.size + length]
            if number:
                if data and number in self._ours:
                    self._pending[number].append(data)
                    self._write(number)
                elif number in self._ours:
                    self._close(number)
            else:
                self._answer(json.loads(data))

    def _answer(self, request: dict[str, Any]) -> None:
        if "scratch" in request:
            self._control({"scratch": os.pread(self._scratch, request["scratch"], 0).hex()})
        if "signal" in request and self._process.poll() is None:
            os.killpg(self._process.pid, request["signal"])

    def _write(self, number: int) -> None:
        waiting = self._pending[number]
        try:
            while waiting:
                rest = waiting[0][os.write(self._ours[number], waiting[0]) :]
                waiting[:1] = [rest] if rest else []
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            waiting.clear()

    def _close(self, number: int) -> None:
        descriptor = self._ours.pop(number)
        del self._numbers[descriptor]
        os.close(descriptor)

    def _control(self, message: dict[str, Any]) -> None:
        _send(0, json.dumps(message).encode())


def _send(number: int, data: bytes) -> None:
    frame = memoryview(_FRAME.pack(number, len(data)) + data)
    while frame:
        frame = frame[os.write(1, frame) :]


def _file(data: bytes) -> int:
    descriptor = os.memfd_create("vtd")
    os.write(descriptor, data)
    return descriptor


def _tap(interface: str, bridge: str) -> int:
    """A new interface of the host, a port of `bridge`; the kernel removes it with its last descriptor."""
    if not os.path.exists("/dev/net/tun"):  # noqa: PTH110 - pathlib takes a tenth of a second to import under TCG
        subprocess.run(["modprobe", "tun"], check=True)
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH14x", interface.encode(), _IFF_TAP_NO_PI_VNET_HDR))
    subprocess.run(["ip", "link", "set", interface, "master", bridge, "up"], check=True)
    return descriptor


def _started(argv: list[str], env: dict[str, str], descriptors: dict[int, int]) -> subprocess.Popen[bytes]:
    """Start `argv` with `descriptors` (number there to number here), which are then closed here.

    The kernel kills the program with this process.
    """
    prctl = ctypes.CDLL(None).prctl
    output = descriptors[_OUTPUT]
    for number, here in descriptors.items():
        if number != _OUTPUT:
            os.dup2(here, number)
            os.close(here)
    wanted = [number for number in descriptors if number != _OUTPUT]
    try:
        return subprocess.Popen(
            argv,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=wanted,
            preexec_fn=lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - there is one thread
            start_new_session=True,
        )
    finally:
        for number in (output, *wanted):
            os.close(number)


def main() -> None:
    """Take the job from standard input and keep it."""
    line = bytearray()
    while not line.endswith(b"\n"):
        data = os.read(0, 1)  # byte by byte: what follows is frames
        if not data:
            return
        line += data
    try:
        keeper = Keeper(json.loads(line))
    except (OSError, subprocess.SubprocessError) as error:
        _send(0, json.dumps({"failed": str(error)}).encode())
        return
    try:
        keeper.serve()
    finally:
        keeper.end()


if __name__ == "__main__":
    main()
