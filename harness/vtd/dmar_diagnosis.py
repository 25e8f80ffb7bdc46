"""What is said of a DMAR table: what is wrong with it, and what is odd without being wrong.

A defect breaks what the specification demands. A remark is about what it only advises, about what has no effect, and
about what is newer than it: tables that are shipped widely, and that Linux takes, have such things.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The offset of the culprit in bytes, what it is, the section that it is about, and whether it is but a remark."""

    offset: int
    text: str
    section: str
    remark: bool = False

    def __str__(self) -> str:
        return f"at {self.offset:#x}: {self.text} (section {self.section})"
