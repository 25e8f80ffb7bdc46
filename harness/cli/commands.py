"""What all commands share: how they are added to the parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

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


def positive(text: str) -> int:
    """Read an argument that counts something, 1 or more; ArgumentTypeError for anything else."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number, 1 or more")
    return int(text)
