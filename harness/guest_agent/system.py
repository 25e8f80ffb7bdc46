"""What machine this is, and running a command on it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from typing import Any

from protocol import PROTOCOL_VERSION, Operation, Refused, attempting


def read_text(path: str) -> str:
    """The stripped text of a small file of /proc or /sys."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().strip()


def write_text(path: str, text: str) -> None:
    """Write `text` in one system call, as sysfs attributes want it."""
    with attempting(f"write {text.strip()!r} to {path}"), open(path, "w", encoding="utf-8") as file:
        file.write(text)


#: reboot(2), RB_AUTOBOOT: the kernel shuts its devices down and restarts, whatever still runs.
_RESTART = 0x01234567


class System:
    """Operations `hello`, `set_clock`, `run` and `reboot`."""

    def __init__(self) -> None:
        # Read here: to a guest that was just restored, every path it has not gone yet costs milliseconds.
        self._identity = {
            "protocol": PROTOCOL_VERSION,
            "kernel": os.uname().release,
            "python": sys.version.split()[0],
            "cmdline": read_text("/proc/cmdline"),
            "boot_id": read_text("/proc/sys/kernel/random/boot_id"),
        }

    def operations(self) -> dict[str, Operation]:
        """Operations by name."""
        return {"hello": self.hello, "set_clock": self.set_clock, "run": self.run, "reboot": self.reboot}

    def hello(self) -> dict[str, Any]:
        """Versions and identity; `time` holds the guest's clocks in seconds."""
        return {**self._identity, "time": {"realtime": time.time(), "monotonic": time.monotonic()}}

    def set_clock(self, *, realtime_ns: int) -> dict[str, Any]:
        """Set CLOCK_REALTIME to `realtime_ns` (since 1970); `behind_ns` says by how much it was behind that."""
        was = time.time_ns()
        with attempting("set the clock"):
            time.clock_settime_ns(time.CLOCK_REALTIME, realtime_ns)
        return {"behind_ns": realtime_ns - was}

    def run(self, *, argv: list[str], stdin: str = "", timeout_s: float = 30) -> dict[str, Any]:
        """Run `argv` without a shell; output is text, bytes that are not UTF-8 become U+FFFD."""
        if not argv:
            raise Refused("argv is empty")
        try:
            with attempting(f"run {argv[0]}"):
                done = subprocess.run(argv, input=stdin.encode(), capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise Refused(f"{argv[0]} did not end within {timeout_s:g} s") from error
        return {
            "status": done.returncode,
            "stdout": done.stdout.decode(errors="replace"),
            "stderr": done.stderr.decode(errors="replace"),
        }

    def reboot(self, *, how: str) -> dict[str, Any]:
        """Reboot the guest at once, with every program running; there is no answer unless the kernel refuses.

        `kernel` is what `reboot -f` does: drivers are told, and the IOMMU is switched off (kernel_restart in
        kernel/reboot.c, intel_iommu_shutdown). `sysrq` resets the machine and tells nobody (emergency_restart).
        """
        if how == "sysrq":
            write_text("/proc/sysrq-trigger", "b")
        elif how == "kernel":
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.reboot(ctypes.c_int(_RESTART)):
                number = ctypes.get_errno()
                raise Refused(f"reboot: {os.strerror(number)}", number)
        else:
            raise Refused(f"how must be kernel or sysrq, not {how!r}")
        return {}
