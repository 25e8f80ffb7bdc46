"""A request, and the way it took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from harness.vtd.faults import Access, describe
from harness.vtd.source_id import SourceId
from harness.vtd.structure import Structure

S = TypeVar("S", bound=Structure)

#: Reads so many bytes at a guest-physical address; raises Unreadable where there is no memory.
Read = Callable[[int, int], bytes]


class Unreadable(LookupError):
    """There is no memory at an address."""

    def __init__(self, address: int) -> None:
        super().__init__(f"there is no memory at {address:#x}")
        self.address = address


@dataclass(frozen=True, slots=True)
class Request:
    """A DMA request without PASID."""

    source: SourceId
    address: int
    access: Access


@dataclass(frozen=True, slots=True)
class WalkStep:
    """One entry that was read: its table (`root`, `context`, `pasid-directory`, `pasid`, `level-4` ..), its address."""

    table: str
    address: int
    entry: Structure

    def __str__(self) -> str:
        return f"{self.table:<15} {self.address:#014x}  {self.entry}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What became of a request.

    Translated: `address` is where it goes, `page` the bytes that are mapped alike around it. Refused: `reason` is the
    code, `silent` whether a fault-processing-disable bit on the way keeps it from being reported. `interrupt`: it is an
    interrupt request, and took no way through these tables. `steps` are the entries that were read.
    """

    request: Request
    steps: tuple[WalkStep, ...]
    address: int | None = None
    page: int = 0
    reason: int | None = None
    silent: bool = False
    interrupt: bool = False

    def entry(self, table: str) -> WalkStep:
        """Give the step of that table; `leaf` is the last one of the paging tables. KeyError if it was not reached."""
        found = [step for step in self.steps if step.table == table or (table == "leaf" and step.table[:5] == "level")]
        if not found:
            raise KeyError(table)
        return found[-1]

    def explain(self) -> str:
        """Tell the way in lines: the request, each entry, and the end."""
        request = f"{self.request.access} by {self.request.source} at {self.request.address:#x}"
        if self.interrupt:
            end = "is an interrupt request"
        elif self.address is not None:
            end = f"goes to {self.address:#x} (a page of {self.page >> 10} KiB)" if self.page else "is not translated"
        else:
            end = f"is refused, {describe(self.reason or 0)}{', without a report' if self.silent else ''}"
        return "\n".join([request, *(f"  {step}" for step in self.steps), f"  {end}"])


class Refused(Exception):
    """The walk ends here, for the reason `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(describe(code))
        self.code = code


@dataclass(slots=True)
class Way:
    """A walk that is under way: how it reads, what it has read, and whether a fault is to go unreported.

    `writable` tells whether an entry at an address can be written; `all_ones_unreadable` is a habit.
    """

    read: Read
    writable: Callable[[int], bool]
    all_ones_unreadable: bool
    steps: list[WalkStep] = field(default_factory=list)
    reports_disabled: bool = False

    def fetch(self, table: str, kind: type[S], address: int, *, unreadable: int) -> S:
        """Read one entry; Refused for the reason `unreadable` where there is no memory."""
        try:
            entry = kind.decode(self.read(address, kind.SIZE))
        except Unreadable:
            raise Refused(unreadable) from None
        self.steps.append(WalkStep(table, address, entry))
        return entry

    def fetch_paging(self, level: int, kind: type[S], address: int, *, unreadable: int) -> S:
        """Read one paging entry in the same way."""
        entry = self.fetch(f"level-{level}", kind, address, unreadable=unreadable)
        if self.all_ones_unreadable and entry.raw == (1 << 8 * kind.SIZE) - 1:
            raise Refused(unreadable)
        return entry
