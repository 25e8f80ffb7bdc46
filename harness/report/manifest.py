"""`manifest.json`: the digest of every file of a run and of what it was made with, so that changes show later."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.evidence import RunDirectory, write_json
from harness.report.story import read_json

MANIFEST = "manifest.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Differences:
    """Files, relative to the run directory, that no longer are what the manifest says."""

    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.missing or self.added)


def write_manifest(run: RunDirectory, host: Mapping[str, Any]) -> Path:
    """Write the manifest of everything below `run`; `host` tells the digests of QEMU, kernels and initrds."""
    files = {name: digest(run.path / name) for name in _files(run.path)}
    made_with = {name: host.get(name) for name in ("qemu", "qemu_digest", "images")}
    return write_json(run.path / MANIFEST, {"schema": SCHEMA, "made_with": made_with, "sha256": files})


def refresh(run: RunDirectory, names: Iterable[str]) -> None:
    """Take over the present digests of `names`, which were made again; those of the evidence stay as they were."""
    document = read_json(run.path / MANIFEST)
    if document:
        document["sha256"].update({name: digest(run.path / name) for name in names})
        write_json(run.path / MANIFEST, document)


def verify(run: RunDirectory) -> Differences:
    """Compare the files of `run` with its manifest; HarnessError if it has none."""
    recorded = read_json(run.path / MANIFEST).get("sha256")
    if not isinstance(recorded, dict):
        raise HarnessError(
            f"{run.path} has no readable {MANIFEST}", hint="a run that was cut off has none; 'harness report' makes it"
        )
    present = set(_files(run.path))
    return Differences(
        changed=tuple(sorted(n for n in present & recorded.keys() if digest(run.path / n) != recorded[n])),
        missing=tuple(sorted(recorded.keys() - present)),
        added=tuple(sorted(present - recorded.keys())),
    )


def _files(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not path.is_symlink() and name != MANIFEST and not name.endswith(".partial"):
            yield name


def digest(path: Path) -> str:
    """Give the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
