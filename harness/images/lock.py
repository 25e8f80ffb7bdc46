"""Lock files: the exact packages of an image, one per line as `name version sha256`, sorted by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.source.diagnostics import Diagnostic, InputError
from harness.storage import write_text

_LINE = re.compile(r"(?P<name>[a-z0-9][a-z0-9+.-]+) (?P<version>[A-Za-z0-9.+:~-]+) (?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One binary package: `sha256` is the digest of its .deb file in hexadecimal."""

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def read_lock(path: Path) -> tuple[Package, ...] | None:
    """The packages in the lock file at `path`; None if there is no such file.

    Raises InputError for lines that are none.
    """
    if not path.exists():
        return None
    packages, wrong = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        if match := _LINE.fullmatch(line):
            packages.append(Package(**match.groupdict()))
        else:
            wrong.append(
                Diagnostic(str(path), number, 1, len(line), "not `name version sha256`", "re-pin the image", line)
            )
    if wrong:
        raise InputError(wrong)
    return tuple(sorted(packages))


def write_lock(path: Path, packages: Iterable[Package]) -> None:
    """Write the lock file of the recipe beside it."""
    head = f"# The packages of {path.stem}.yaml: name, version, SHA-256 of the .deb.\n"
    how = f"# Written by `harness images repin {path.stem}`.\n"
    lines = [f"{package.name} {package.version} {package.sha256}\n" for package in sorted(packages)]
    write_text(path, "".join([head, how, *lines]))
