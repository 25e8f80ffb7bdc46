"""Recorded variants that come with the tests: a few that passed, packed from a run, with all that judging reads.

`python -m tests.mutation.recorded RUN` packs them anew, which is due when what is recorded changes (`plan.EVIDENCE`).
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.evidence import VariantDirectory

ARCHIVE = Path(__file__).with_name("recorded.tar.xz")

#: What is packed: each kind of proof under Linux once, the small ones.
VARIANTS = (
    "unmapped-write/image=debian-12",
    "unmapped-read/image=debian-12",
    "unmap-revokes/default",
    "interrupt-delivery/x2apic-6.1",
    "stale-window/lazy-6.1",
    "forged-interrupt/default",
)

FILES = ("plan.json", "journal.jsonl", "trace.log", "console.log")

#: Where the run was made says nothing.
_PLACES = re.compile(rb"/[^\s\"']*?/vtd-harness/")


@contextmanager
def recorded() -> Iterator[list[VariantDirectory]]:
    """Unpack the variants, and give their directories for the length of the context."""
    with TemporaryDirectory() as place, tarfile.open(ARCHIVE) as archive:
        archive.extractall(place, filter="data")
        yield [VariantDirectory(plan.parent) for plan in sorted(Path(place).glob("*/*/plan.json"))]


def pack(run: Path) -> None:
    """Pack the variants of a run."""
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        for name in (f"{variant}/{file}" for variant in VARIANTS for file in FILES):
            if (path := run / name).exists():
                data = _PLACES.sub(b"/cache/", path.read_bytes())
                about = tarfile.TarInfo(name)
                about.size = len(data)
                archive.addfile(about, io.BytesIO(data))


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
