"""One child process that cannot outlive the harness.

Two things guard against leftovers. The kernel kills the child when the harness ends in whatever way
(`PR_SET_PDEATHSIG`, set by setpriv(1)), and the child leads a process group of its own, which must be empty after
`Process.stop`.

The kernel's "parent" of `PR_SET_PDEATHSIG` is the *thread* that forked, so a child started from a short-lived thread
dies with that thread. All processes are therefore started from one thread of this module that lives until the
interpreter ends; callers may use any thread they like.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from harness.errors import InfraError, LaunchError, WaitTimeout
from harness.storage import writing
from harness.waiting import Deadline, wait_for

#: Seconds each rung of the stop ladder is given before the next one is tried.
QUIT_S = 5.0
TERM_S = 3.0
KILL_S = 5.0

#: Seconds that a whole ladder takes at most.
LADDER_S = QUIT_S + TERM_S + KILL_S

#: Seconds given after a polite request that failed: the connection may have broken because the process is just ending.
REFUSED_S = 0.5

#: The parent may die between fork and prctl, and then no signal ever comes: the shell looks who its parent is and gives
#: up if that is no longer the harness.
_GUARD = '[ "$PPID" = "$0" ] || exit 1; exec "$@"'

#: Bytes that `ulimit -f` counts in (POSIX). Where the harness has a lower limit itself, that stays.
_BLOCK = 512

#: Before an argv whose process the kernel shall kill when the thread that starts it ends, in whatever way.
WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")

_starter: ThreadPoolExecutor | None = None
_starter_lock = threading.Lock()


class StopRung(StrEnum):
    """What it took to end a process, mildest first."""

    ALREADY_GONE = "already-gone"
    QUIT = "quit"
    TERM = "sigterm"
    KILL = "sigkill"


class Process:
    """A running child. `argv` is what was asked for, without the prefix that ties the child to the harness."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stderr: Path,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
        file_bytes: int | None = None,
    ) -> None:
        """Start `argv`; its stdout and stderr are appended to the file `stderr`.

        `pass_fds` stay open in the child under the same numbers. `env` is added to the environment of the harness.
        No file that it writes becomes longer than `file_bytes` (a multiple of 512): its writes fail with EFBIG then.
        Raises LaunchError when the prefix or the program cannot be executed at all.
        """
        self.argv = tuple(argv)
        self._stderr = stderr
        bounded = "" if file_bytes is None else f"ulimit -f {file_bytes // _BLOCK} 2>/dev/null; trap '' XFSZ; "
        guarded = [*WITH_US, "/bin/sh", "-c", bounded + _GUARD, str(os.getpid()), *argv]

        def start() -> subprocess.Popen[bytes]:
            with _opened(stderr) as output:
                return subprocess.Popen(
                    guarded,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=tuple(pass_fds),
                    env={**os.environ, **(env or {})},
                    start_new_session=True,
                )

        try:
            self._popen = _starting_thread().submit(start).result()
        except OSError as error:
            raise LaunchError(
                f"could not start '{argv[0]}': {error}",
                argv=guarded,
                exit_status=None,
                stderr="",
                hint="setpriv is part of util-linux" if error.filename == "setpriv" else None,
            ) from error
        self.pid = self._popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(quit=None)

    def poll(self) -> int | None:
        """The exit status (negative for a signal), or None while the process runs."""
        return self._popen.poll()

    def state(self) -> str:
        """The kernel's letter for what it does (proc_pid_stat(5): R, S, D, T, t, Z); "" once it is gone."""
        return (_stat(Path(f"/proc/{self.pid}/stat")) or [""])[0]

    def cpu_s(self) -> dict[str, float]:
        """Seconds of processor time that each of its threads has used, by the thread's name."""
        used: dict[str, float] = {}
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                if fields := _stat(task / "stat"):
                    name = (task / "comm").read_text(errors="replace").strip()
                    used[name] = used.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return used

    def failure(self) -> None:
        """Give why what it says could not be kept: it is the kernel that keeps it."""

    def stderr_text(self) -> str:
        """Everything the process wrote to stdout and stderr so far."""
        return self._stderr.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """Send SIGKILL to the process and all of its group, without waiting."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def stop(
        self,
        *,
        quit: Callable[[], None] | None,  # noqa: A002 - it is the QMP command's name
        quit_s: float = QUIT_S,
    ) -> StopRung:
        """End the process and return the rung that did it: `quit`, SIGTERM, SIGKILL, each with a deadline.

        `quit` asks the process politely (QMP `quit`), which is given `quit_s` seconds to end; what it raises counts as
        "did not work". Calling stop again is allowed and returns ALREADY_GONE. Raises InfraError if the process group
        is not empty in the end.
        """
        rung = self._climb(quit, quit_s)
        self._empty_group()
        return rung

    def _climb(self, ask: Callable[[], None] | None, quit_s: float) -> StopRung:
        if self.poll() is not None:
            return StopRung.ALREADY_GONE
        if ask is not None:
            try:
                ask()
                seconds = quit_s
            except InfraError:
                seconds = REFUSED_S
            if self._ended_within(seconds):
                return StopRung.QUIT
        for rung, number, seconds in ((StopRung.TERM, signal.SIGTERM, TERM_S), (StopRung.KILL, signal.SIGKILL, KILL_S)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            if self._ended_within(seconds):
                return rung
        raise InfraError(f"process {self.pid} survived SIGKILL for {KILL_S:.0f} s")

    def _ended_within(self, seconds: float) -> bool:
        try:
            wait_for(f"process {self.pid} to end", lambda: self.poll() is not None, Deadline.after(seconds))
        except WaitTimeout:
            return False
        return True

    def _empty_group(self) -> None:
        """Kill what the process left behind in its group and make sure that nothing remains."""
        if not group_members(self.pid):
            return
        self.kill()
        try:
            wait_for("the process group to be empty", lambda: not group_members(self.pid), Deadline.after(KILL_S))
        except WaitTimeout as error:
            raise InfraError(f"processes {group_members(self.pid)} of group {self.pid} survived SIGKILL") from error


def _opened(path: Path) -> IO[bytes]:
    with writing("what a process says", path, alone=True):
        return path.open("ab")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; at once if `parent` (a process id) is no longer that."""
    # prctl(PR_SET_PDEATHSIG); Python has no function for it, and setpriv would have to start this process.
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def heed_every_interrupt() -> None:
    """From now on send SIGINT again to this process whenever the KeyboardInterrupt of one was lost.

    The handler runs wherever the main thread is. In a finalizer or the callback of a weak reference (asyncio keeps its
    tasks in a WeakSet) Python prints and ignores what it raises, and the interrupt would have ended nothing.
    """
    told = sys.unraisablehook

    def ignored(error: sys.UnraisableHookArgs) -> None:
        told(error)
        if issubclass(error.exc_type, KeyboardInterrupt):
            # By a thread: what it raises here would be ignored as well.
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()

    sys.unraisablehook = ignored


def group_members(group: int) -> list[int]:
    """The process ids of the living (not zombie) members of process group `group`, read from /proc/PID/stat."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            state, _, member_of = (_stat(entry / "stat") or ["X", "", "-1"])[:3]
            if int(member_of) == group and state not in "ZX":
                members.append(int(entry.name))
    return members


def _stat(path: Path) -> list[str]:
    """The fields of proc_pid_stat(5) from the state (its third) on; none for what is gone."""
    try:
        # The command name in parentheses may itself hold blanks and parentheses: fields are counted after the last.
        return path.read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _starting_thread() -> ThreadPoolExecutor:
    global _starter  # noqa: PLW0603 - one thread per interpreter is the point
    with _starter_lock:
        if _starter is None:
            _starter = ThreadPoolExecutor(1, "process-starter")
        return _starter
