"""What all commands share: how they are added to the parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.ssh.address import FORM, SshAddress

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse names it nowhere else

#: Carries out a command and gives its exit status.
Command = Callable[[argparse.Namespace], int]


def add(commands: Commands, name: str, text: str, command: Command, *, epilog: str = "") -> argparse.ArgumentParser:
    """Add the command `name`; `text` is its line in the list of commands and its description."""
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.set_defaults(command=command)
    return made


def add_host(command: argparse.ArgumentParser, text: str) -> None:
    """Add the argument that names another host, with `text` as its help."""
    command.add_argument("--host", type=_host, metavar="SSH", help=f"{text}: {FORM}")


def _host(text: str) -> SshAddress:
    try:
        return SshAddress.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """Read an argument that counts something, 1 or more; ArgumentTypeError for anything else."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number, 1 or more")
    return int(text)
