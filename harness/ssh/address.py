"""Another host's address as a user writes it: `ssh://[user@]name[:port]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

#: How an address is written, for messages.
FORM = "ssh://[user@]name[:port]"

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9a-fA-F:.]+\]"
_ADDRESS = re.compile(rf"ssh://(?:(?P<user>[A-Za-z_][A-Za-z0-9_.-]*)@)?(?P<name>{_NAME})(?::(?P<port>[0-9]{{1,5}}))?/?")


@dataclass(frozen=True, slots=True)
class SshAddress:
    """`user` and `port` are None where the address does not say them: ~/.ssh/config does then, or OpenSSH's defaults.

    `name` is a host name, an alias of ~/.ssh/config, or a number; an IPv6 number stands without its brackets.
    """

    name: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address; ValueError, in words for the user, for anything else."""
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise ValueError(f"'{text}' is not the address of a host: write {FORM}, as in ssh://root@lab7:2222")
        port = int(match["port"]) if match["port"] else None
        if port is not None and not 0 < port < 1 << 16:
            raise ValueError(f"'{text}' names port {port}; ports are 1 to 65535")
        return cls(match["name"].strip("[]"), match["user"], port)

    def __str__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"ssh://{user}{name}{'' if self.port is None else f':{self.port}'}"
