"""`harness shell`: the machine of a scenario, booted, with a shell in the guest."""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import shutil
import sys
import termios
import tty
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from harness import runner, suite
from harness.cli.commands import add
from harness.cli.running import RUNS
from harness.cli.scenarios import planned
from harness.report.live import Live
from harness.selection import Unselectable
from harness.suite import ExitCode

if TYPE_CHECKING:
    from harness.cli.commands import Commands

_CHUNK = 65536


class Terminal(Protocol):
    """The guest's end of an interactive session."""

    def fileno(self) -> int:
        """Give a descriptor that is readable when `receive` has something to give."""

    def receive(self) -> bytes:
        """Give what the guest has written; b"" once the session is over."""

    def send(self, data: bytes) -> None:
        """Write to the guest's terminal."""


def add_to(commands: Commands) -> None:
    """Add the command."""
    shell = add(commands, "shell", "boot the machine of a scenario and open a shell in the guest", open_shell)
    shell.add_argument("names", nargs=1, metavar="ID", help="scenario or scenario[variant]")
    shell.set_defaults(keyword="", tags=[])


def open_shell(arguments: argparse.Namespace) -> int:
    """Boot, hand the terminal to the guest until its shell ends, stop the machine."""
    if not sys.stdin.isatty():
        raise Unselectable("'harness shell' needs a terminal", hint="a run's 'repro.sh' boots the same machine too")
    with planned(arguments) as (plans, host), Live() as live:
        plan = plans[0]
        if plan.machine.kind == "bare":
            raise Unselectable(f"the machine of '{plan.id}' runs no guest that could have a shell")
        plan = runner.accelerated(plan, host)
        run = suite.begin(RUNS / "shell", host.describe(), prove=False)
        directory = run.variant(plan.scenario, plan.variant)
        live.preparing(f"{plan.id}: booting")
        with directory.journal() as journal, runner.running(plan, directory, host, journal) as session:
            live.note(f"{plan.id}: evidence of this session goes to {directory.path}; leave with 'exit' or Ctrl-D")
            size = shutil.get_terminal_size()
            kind = os.environ.get("TERM", "vt100")
            terminal = session.guest.ssh.terminal(kind, columns=size.columns, rows=size.lines)
            with raw(sys.stdin.fileno()):
                pump(terminal, sys.stdin.fileno(), sys.stdout.fileno())
    return ExitCode.PASSED


def pump(terminal: Terminal, keyboard: int, screen: int) -> None:
    """Carry bytes both ways until the guest's side ends; end of input on this side is passed on as Ctrl-D."""
    with selectors.DefaultSelector() as selector:
        selector.register(terminal.fileno(), selectors.EVENT_READ, "guest")
        selector.register(keyboard, selectors.EVENT_READ, "keyboard")
        while True:
            ready = {key.data for key, _ in selector.select()}
            if "guest" in ready:
                data = terminal.receive()
                if not data:
                    return
                _write(screen, data)
            if "keyboard" in ready:
                typed = os.read(keyboard, _CHUNK)
                terminal.send(typed or b"\x04")
                if not typed:
                    selector.unregister(keyboard)


@contextlib.contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Pass every key on unchanged, Ctrl-C included, and put the terminal back afterwards."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
