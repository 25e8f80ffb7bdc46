"""A QEMU without a machine, only there to answer questions."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from harness.errors import LaunchError, MonitorError
from harness.machine.parts import QemuBinary
from harness.machine.vitals import Vitals
from harness.process import Process
from harness.qmp import Monitor
from harness.waiting import Deadline


@contextlib.contextmanager
def ask_qemu(qemu: QemuBinary) -> Iterator[Monitor]:
    """A monitor of `qemu -machine none`; LaunchError with QEMU's own words if it does not start."""
    with contextlib.ExitStack() as stack:
        words = os.memfd_create("qemu-stderr", os.MFD_CLOEXEC)
        stack.callback(os.close, words)
        ours, theirs = socket.socketpair()
        stack.callback(theirs.close)
        monitor = stack.enter_context(Monitor(ours, "questions", lambda _kind, _message: None))
        argv = [*qemu.argv_prefix, "-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-S"]
        argv += ["-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"]
        process = Process(argv, stderr=Path(f"/proc/self/fd/{words}"), pass_fds=[theirs.fileno()], env=qemu.env)
        stack.callback(lambda: process.stop(quit=lambda: monitor.execute("quit")))
        theirs.close()
        vitals = Vitals(process, monitor)

        def held() -> Exception | None:
            halt = vitals.stopped()
            return None if halt is None else halt.error(process.stderr_text(), ())

        monitor.abort = (held,)
        try:
            monitor.connect(Deadline.after(20.0))
        except MonitorError as error:
            process.stop(quit=None)
            raise LaunchError(
                f"QEMU does not answer: {error.message}",
                argv=argv,
                exit_status=process.poll(),
                stderr=process.stderr_text(),
            ) from error
        yield monitor
