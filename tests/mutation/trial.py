"""Judges a recorded variant again with one change to its journal, many times, and tells which changes kept a PASS."""

from __future__ import annotations

import random
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.evidence import Entry, VariantDirectory
from harness.judge import judge_variant
from harness.verdict import Outcome
from tests.mutation.changes import Change, Place, changes, keywords_of


@dataclass(frozen=True)
class Altered(VariantDirectory):
    """A variant's directory with another journal than the one in it."""

    journal_entries: tuple[Entry, ...] = field(default=(), repr=False)

    def entries(self) -> list[Entry]:
        """Give the other journal."""
        return list(self.journal_entries)

    def undamaged(self) -> tuple[list[Entry], str | None]:
        """Give it to the judge."""
        return self.entries(), None


@dataclass(frozen=True, slots=True)
class Survivor:
    """A change that did not turn a PASS, or (`raised`) that ended in no verdict at all."""

    variant: str
    change: Change
    keyword: str
    raised: str = ""

    @property
    def place(self) -> Place:
        """The kind of thing that was changed."""
        return self.change.place

    def __str__(self) -> str:
        return f"{self.variant}: {self.change.told} ({self.place}): {self.raised or 'still a PASS'}"


@dataclass(slots=True)
class Tried:
    """How many changes were tried, by place, and those that survived."""

    by_place: dict[Place, int] = field(default_factory=dict)
    survivors: list[Survivor] = field(default_factory=list)

    @property
    def number(self) -> int:
        """All changes that were tried."""
        return sum(self.by_place.values())

    @classmethod
    def of(cls, parts: Iterable[Tried]) -> Tried:
        """Give all that several trials found."""
        whole = cls()
        for part in parts:
            for place, number in part.by_place.items():
                whole.by_place[place] = whole.by_place.get(place, 0) + number
            whole.survivors += part.survivors
        return whole


def passing(run: Path) -> Iterator[VariantDirectory]:
    """Give the variants below `run` that pass; the counter-proofs are judged with their variant."""
    for plan in sorted(run.glob("*/*/plan.json")):
        directory = VariantDirectory(plan.parent)
        if directory.entries() and judge_variant(directory).outcome is Outcome.PASS:
            yield directory


def tried(
    variants: Iterable[VariantDirectory], *, most: int, share: float = 1.0, seed: int = 0, each: int = 1
) -> Iterator[Tried]:
    """Try changes to the journals of variants that pass, and give what was found of each variant.

    In each journal `each` change of a place is chosen by `seed` for the steps of one keyword; over all of them no place
    is changed more than `most` times. Of what that leaves, a `share` is tried.
    """
    counted: Counter[tuple[Place, str]] = Counter()
    chosen = random.Random(seed)  # noqa: S311  # the same changes each time
    for directory in variants:
        entries = directory.entries()
        keywords = keywords_of(entries)
        name = "/".join(directory.path.parts[-2:])
        found = Tried()
        for change in changes(entries, each=each, seed=chosen.getrandbits(32)):
            keyword = keywords.get(entries[change.position].step, "")
            counted[change.place, keyword] += 1
            if counted[change.place, keyword] > most or chosen.random() > share:
                continue
            found.by_place[change.place] = found.by_place.get(change.place, 0) + 1
            outcome, raised = judged(directory, change.applied(entries))
            if outcome is Outcome.PASS or raised:
                found.survivors.append(Survivor(name, change, keyword, raised))
        yield found


def judged(directory: VariantDirectory, entries: Sequence[Entry]) -> tuple[Outcome | None, str]:
    """Judge a variant by other entries; the last lines of a traceback where there is one instead of a verdict."""
    try:
        return judge_variant(Altered(directory.path, tuple(entries))).outcome, ""
    except Exception:  # noqa: BLE001  # any exception at all is what is looked for
        return None, " / ".join(line.strip() for line in traceback.format_exc().splitlines()[-3:])


def grouped(survivors: Iterable[Survivor]) -> dict[Place, list[Survivor]]:
    """Order survivors by place."""
    found: dict[Place, list[Survivor]] = {}
    for survivor in survivors:
        found.setdefault(survivor.place, []).append(survivor)
    return found
