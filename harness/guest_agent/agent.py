"""Runs inside the guest: does what the harness asks over standard input and tells what it saw on standard output.

Started as `python3 -I /usr/lib/vtd-agent/agent.py`. It uses the standard library only and no file of the harness. It
ends when its input closes; device memory access is taken from every device it drove before VFIO lets go of them.

With a port as its argument it goes into the background once it listens there, on the guest's loopback, and serves one
connection after the other in that way: the end of one takes all that it made, and the next begins with nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from types import FrameType
from typing import Any

# Isolated mode leaves the directory of the script out of the module path.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import protocol
from binding import Binding
from buffers import BufferTable
from devices import DeviceTable
from domains import DomainTable
from interrupts import Interrupts
from kmsg import KernelLog
from pci import PciBus
from sriov import VirtualFunctions
from state import IommuState
from swiotlb import BounceBuffers
from system import System
from traffic import Traffic
from vectors import VectorTable


def stop() -> dict[str, Any]:
    """Answer, then end as if the input had closed."""
    return {"stopped": "stop"}


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def listen(port: int) -> None:
    """Serve what connects to `port` of the loopback, each connection in the place of standard input and output."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        if os.fork():
            os._exit(0)
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        while True:
            connection, _ = server.accept()
            # Each answer is one small packet: none of them waits for the acknowledgement of the one before.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _become(connection.fileno())
            connection.close()
            main()
            _become(nothing)


def _become(descriptor: int) -> None:
    """Make `descriptor` standard input and output."""
    os.dup2(descriptor, 0)
    os.dup2(descriptor, 1)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it is closed with what it stands for
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115


def main() -> None:
    """Serve requests until the input closes, `stop` is asked for, or a signal asks the same."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _end)
    buffers = BufferTable()
    domains = DomainTable(buffers)
    devices = DeviceTable(buffers, domains, protocol.emit)
    domains.in_use = devices.open_on
    operations: dict[str, protocol.Operation] = {"stop": stop}
    log = KernelLog()
    machine = (
        *(System(), log, IommuState(), PciBus(), Interrupts(), Binding(), VirtualFunctions()),
        *(Traffic(protocol.emit), BounceBuffers(), VectorTable(protocol.emit)),
    )
    for subject in (*machine, buffers, domains, devices):
        operations.update(subject.operations())
    try:
        protocol.serve(sys.stdin.buffer, operations, last="stop")
    except (BrokenPipeError, ConnectionResetError):
        # The reader is gone; Python would complain about the same pipe once more while shutting down.
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
    finally:
        devices.close_all()
        domains.close_all()
        log.close()
        # They know each other: the buffers' memory would otherwise stay until Python looks for such circles.
        del domains.in_use


if __name__ == "__main__":
    if len(sys.argv) > 1:
        listen(int(sys.argv[1]))
    else:
        main()
