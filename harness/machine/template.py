"""A machine saved in a quiet state: what a restored one is started from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Files of a template's directory: the guest's memory as it stands in the guest, and QEMU's device state.
RAM, STATE = "ram", "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A saved machine without devices under test.

    `key` identifies everything that shaped it, `host_public` is the SSH host key that its server was started with,
    `greeting` what that server has already said, `boot_s` how many seconds it took to boot (None where it was not
    measured).
    """

    key: str
    directory: Path
    host_public: str
    greeting: bytes
    boot_s: float | None = None

    @property
    def ram(self) -> Path:
        """The memory; mapped copy-on-write, never written."""
        return self.directory / RAM

    @property
    def state(self) -> Path:
        """The device state, as QEMU's migration wrote it."""
        return self.directory / STATE
