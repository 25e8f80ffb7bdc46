"""Which console tells most of why a variant was an error: that of the guest that did not come up."""

from __future__ import annotations

from pathlib import Path

from harness.evidence import JOURNAL, VariantDirectory
from harness.machine.launch import CONSOLE


def telling_console(directory: VariantDirectory) -> Path:
    """Give the console of the boot that came to nothing, be it a template's, a counter-proof's or a nested guest's.

    Where all came up, or none is there, it is the variant's own. The file need not exist.
    """
    for journal in sorted(directory.path.rglob(JOURNAL)):
        place = VariantDirectory(journal.parent)
        booting: list[str] = []
        for entry in place.entries():
            guest, _, channel = entry.source.rpartition("/")
            if (channel, entry.kind) == ("process", "start"):
                booting.append(guest)
            elif (channel, entry.kind) == ("process", "ready") and guest in booting:
                booting.remove(guest)
        for guest in booting:
            console = (place.guest(guest) if guest else place).file(CONSOLE)
            if console.exists():
                return console
    return directory.file(CONSOLE)
