"""The atlas itself, put together from what a run provoked: by reason code, with its deviations and its coverage."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.atlas.gathered import Gathered, Provocation
from harness.atlas.raisable import TABLES, UNRAISABLE
from harness.verdict import Conformance
from harness.vtd.faults import REASON_BY_NAME, REASONS, FaultReason

#: What differs between two runs of the same scenario: times, and addresses of guest memory.
_STAMP = re.compile(r"^\[[ 0-9.]+\] ")
_ADDRESS = re.compile(r"(fault (?:addr|index)) 0x[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Provocations that differ only in where they were issued: what was done, where, and what came of it.

    `where` are the tables and guests, `sources` the devices, `count` how many there were, `versions` the QEMU versions
    that a known deviation is stated for, empty for all.
    """

    recipe: str
    access: str
    spec: str
    seen: str
    conformance: Conformance
    why: str
    versions: str
    where: tuple[str, ...]
    sources: tuple[str, ...]
    witnesses: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Code:
    """One reason code: how it was provoked, and what kernels said of it (by image); `unraisable` says why it cannot.

    `tables` are those it was provoked with.
    """

    reason: FaultReason
    recipes: tuple[Recipe, ...]
    kernel_lines: Mapping[str, str]
    tables: frozenset[str] = frozenset()
    unraisable: str = ""

    @property
    def missing_in(self) -> tuple[str, ...]:
        """The tables that QEMU can raise it for, and it was not provoked with."""
        return tuple(table for table in TABLES.get(self.reason.code, ()) if table not in self.tables)

    @property
    def named(self) -> str:
        """Number and name."""
        return f"{self.reason.code:#04x} {self.reason.name}"

    @property
    def count(self) -> int:
        """How many times it was provoked."""
        return sum(recipe.count for recipe in self.recipes)

    @property
    def deviates(self) -> bool:
        """Whether a provocation was reported otherwise than the specification says."""
        return any(recipe.conformance is not Conformance.AS_SPEC for recipe in self.recipes)


@dataclass(frozen=True, slots=True)
class Chart:
    """The whole atlas; `others` are provocations without a reason: silent ones, queue errors, what QEMU let pass."""

    gathered: Gathered
    codes: tuple[Code, ...]
    others: tuple[Recipe, ...]

    @property
    def raisable(self) -> tuple[Code, ...]:
        """The codes that QEMU can raise."""
        return tuple(code for code in self.codes if not code.unraisable)

    @property
    def missing(self) -> tuple[Code, ...]:
        """Those of them that were not provoked."""
        return tuple(code for code in self.raisable if not code.count)

    @property
    def partial(self) -> tuple[Code, ...]:
        """Those of them that were provoked, but not in every mode they exist in."""
        return tuple(code for code in self.raisable if code.count and code.missing_in)

    @property
    def told_missing(self) -> tuple[str, ...]:
        """What was not provoked, in words."""
        whole = [code.named for code in self.missing]
        return (*whole, *(f"{code.named} with {' and '.join(code.missing_in)} tables" for code in self.partial))

    @property
    def deviations(self) -> tuple[Recipe, ...]:
        """What was reported otherwise than the specification says."""
        every = [recipe for code in self.codes for recipe in code.recipes] + list(self.others)
        return tuple(recipe for recipe in every if recipe.conformance is not Conformance.AS_SPEC)

    @property
    def complete(self) -> bool:
        """Whether every raisable code was provoked in each mode, all passed, and nothing deviates in an unknown way."""
        new = self.gathered.count(Conformance.NEW_DEVIATION)
        return not (self.told_missing or self.gathered.unproven or new)

    def as_json(self) -> dict[str, Any]:
        """Give `atlas.json` (docs/results.md)."""
        gathered = self.gathered
        return {
            "schema": 1,
            "qemu": gathered.qemu,
            "raisable": len(self.raisable),
            "provoked": len(self.raisable) - len(self.missing),
            "variants": len(gathered.provocations),
            "as_spec": gathered.count(Conformance.AS_SPEC),
            "known_deviations": gathered.count(Conformance.KNOWN_DEVIATION),
            "new_deviations": gathered.count(Conformance.NEW_DEVIATION),
            "bare_faults_per_second": round(gathered.bare_faults_per_second, 1),
            "unproven": [{"id": name, "reason": reason} for name, reason in gathered.unproven],
            "skipped": [{"id": name, "reason": reason} for name, reason in gathered.skipped],
            "codes": {f"{code.reason.code:#04x}": _code_json(code) for code in self.codes},
        }


def chart(gathered: Gathered) -> Chart:
    """Put the atlas together."""
    by_code: dict[int, list[Provocation]] = {}
    others: list[Provocation] = []
    for each in gathered.provocations:
        reason = REASON_BY_NAME.get(each.what.seen)
        if reason is None:
            others.append(each)
        else:
            by_code.setdefault(reason.code, []).append(each)
    codes = tuple(
        Code(
            reason,
            _recipes(by_code.get(reason.code, ())),
            _kernel_lines(by_code.get(reason.code, ())),
            frozenset(each.what.table for each in by_code.get(reason.code, ())),
            UNRAISABLE.get(reason.code, ""),
        )
        for reason in REASONS
    )
    return Chart(gathered, codes, _recipes(others))


@dataclass(frozen=True, slots=True, order=True)
class Cause:
    """Why reports deviate: what it makes of what, in which QEMU versions, and how many provocations showed it."""

    why: str
    spec: str
    seen: str
    versions: str
    count: int


def causes(deviations: Iterable[Recipe]) -> tuple[Cause, ...]:
    """Give each cause of a deviation once for what it makes of what."""
    counts: dict[tuple[str, str, str, str], int] = {}
    for recipe in deviations:
        known = recipe.conformance is Conformance.KNOWN_DEVIATION
        versions = recipe.versions or ("all" if known else "not known")
        key = recipe.why or "NEW DEVIATION", recipe.spec or "no report", recipe.seen or "no report", versions
        counts[key] = counts.get(key, 0) + recipe.count
    return tuple(sorted(Cause(*key, count) for key, count in counts.items()))


def _recipes(provocations: Iterable[Provocation]) -> tuple[Recipe, ...]:
    groups: dict[tuple[str, ...], list[Provocation]] = {}
    for each in provocations:
        what = each.what
        lane = "bare" if each.image == "bare" else "guest"  # other witnesses
        key = (what.recipe, what.access, what.spec, what.seen, what.conformance, what.why, each.versions, lane)
        groups.setdefault(key, []).append(each)
    return tuple(_recipe(groups[key]) for key in sorted(groups))


def _recipe(alike: list[Provocation]) -> Recipe:
    what = alike[0].what
    witnesses = set(what.witnesses)
    for each in alike:
        witnesses &= set(each.what.witnesses)
    return Recipe(
        recipe=what.recipe,
        access=what.access,
        spec=what.spec,
        seen=what.seen,
        conformance=what.conformance,
        why=what.why,
        versions=alike[0].versions,
        where=tuple(sorted({_where(each) for each in alike})),
        sources=tuple(sorted({each.what.source for each in alike})),
        witnesses=tuple(name for name in what.witnesses if name in witnesses),
        count=len(alike),
    )


def _where(each: Provocation) -> str:
    levels = f" of {each.what.levels} levels" if each.what.levels else ""
    guest = "" if each.image == "bare" else f" under {each.image}"
    return f"{each.what.table}{levels}{guest}"


def _kernel_lines(provocations: Iterable[Provocation]) -> dict[str, str]:
    """Give the line of each kernel, without what differs from run to run."""
    lines: dict[str, str] = {}
    for each in provocations:
        if each.what.kernel_line:
            line = _ADDRESS.sub(r"\1 0x..", _STAMP.sub("", each.what.kernel_line))
            lines.setdefault(each.image, line)
    return dict(sorted(lines.items()))


def _code_json(code: Code) -> dict[str, Any]:
    return {
        "name": code.reason.name,
        "meaning": code.reason.meaning,
        "mode": code.reason.mode.value,
        "raisable": not code.unraisable,
        "why_not": code.unraisable,
        "provoked": code.count,
        "missing_in": list(code.missing_in),
        "kernel_lines": dict(code.kernel_lines),
        "recipes": [
            {
                "recipe": recipe.recipe,
                "access": recipe.access,
                "spec": recipe.spec,
                "seen": recipe.seen,
                "conformance": recipe.conformance.value,
                "why": recipe.why,
                "versions": recipe.versions,
                "where": list(recipe.where),
                "sources": list(recipe.sources),
                "witnesses": list(recipe.witnesses),
                "count": recipe.count,
            }
            for recipe in code.recipes
        ],
    }
