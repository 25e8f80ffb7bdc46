"""How many guests may run at once on this host, by its cores and memory, and places that they take between processes.

A guest without a core of its own starves under TCG until its boot passes every deadline, and one too many for the
memory ends in the arms of the out-of-memory killer; both look like failures of what is tested.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InfraError
from harness.host.resources import Amount, cores, memory_mib
from harness.lockfile import WAIT_S, exclusive_now
from harness.waiting import Deadline, wait_for

#: Environment variable with the number of guests at once, for those who know better than cores and memory do.
GUESTS = "VTD_GUESTS"

#: What a guest takes at most: the 512 MiB that machines have unless a scenario says otherwise (larger ones are not
#: counted as such), and QEMU with the code that TCG has translated.
GUEST_MIB = 512 + 250


@dataclass(frozen=True, slots=True)
class Capacity:
    """The number of guests that may run at once, and why not more."""

    guests: int
    reason: str


def capacity(cores: Amount, memory_mib: Amount, *, guest_mib: int = GUEST_MIB) -> Capacity:
    """Give a core and `guest_mib` of memory to each guest; one may run in any case."""
    fitting = memory_mib.value // guest_mib
    core = "1 core" if cores.value == 1 else f"{cores.value} cores"
    memory = f"memory for {fitting} ({memory_mib.value} MiB {memory_mib.source}, {guest_mib} each)"
    quota = "" if cores.source == "affinity" else f" ({cores.source})"
    return Capacity(max(1, min(cores.value, fitting)), f"{core}{quota}, {memory}")


def found_capacity(wanted: str | None) -> Capacity:
    """Give what `wanted` (the value of `GUESTS`) says, otherwise what this host can bear; InfraError for nonsense."""
    if not wanted:
        return capacity(cores(), memory_mib())
    if not (wanted.isascii() and wanted.isdigit() and int(wanted)):
        raise InfraError(f"{GUESTS} is '{wanted}'", hint="set it to a number of guests, 1 or more, or unset it")
    return Capacity(int(wanted), f"asked for by {GUESTS}")


@dataclass(frozen=True, slots=True)
class GuestSlots:
    """The places for guests of this user: files below `locks`, each locked by the process whose guest takes the place.

    The kernel frees the place of a process that dies. `count` and `reason` are those of `Capacity`; a process that
    found less memory than another has fewer places to choose from.
    """

    locks: Path
    count: int
    reason: str

    @classmethod
    def of(cls, cache: Path) -> GuestSlots:
        """Give the places below the cache directory `cache`, as many as this host can bear now."""
        found = found_capacity(os.environ.get(GUESTS))
        return cls(cache / "locks", found.guests, found.reason)

    @contextmanager
    def taken(self, progress: Callable[[str], None]) -> Iterator[None]:
        """Take a place for one guest, waiting until there is one and saying so through `progress`.

        Children don't inherit it. Raises WaitTimeout after as long as other locks are waited for.
        """
        held = self._take()
        if held is None:
            guests = "1 guest runs" if self.count == 1 else f"{self.count} guests run"
            progress(f"waiting for a place: {guests} already ({self.reason})")
            held = wait_for("a place for a guest", self._take, Deadline.after(WAIT_S))
        with held:
            yield

    def _take(self) -> ExitStack | None:
        for number in range(1, self.count + 1):
            with ExitStack() as stack:
                if stack.enter_context(exclusive_now(self.locks / f"guest-{number}.lock")):
                    return stack.pop_all()
        return None
