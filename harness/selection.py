"""Choosing plans: by name on the command line, by keyword expression, by tag."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.plan import Plan

#: Where scenarios are looked for when nothing is named.
SCENARIOS = Path("scenarios")

_TOKEN = re.compile(r"\s*(\(|\)|[^\s()]+)")


class Unselectable(HarnessError):
    """The command line names what does not exist, or holds a malformed expression."""


def split_names(names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Split arguments into files to read and ids to choose from them; with no file named, all scenarios are read.

    `scenarios/x.yaml::id` is both: a file and an id in it.
    """
    files: list[Path] = []
    ids: list[str] = []
    for name in names:
        path, separator, _ = name.partition("::")
        if separator or path.endswith((".yaml", ".yml")) or Path(path).is_dir():
            files += scenario_files(Path(path))
            ids += [name] if separator else []
        else:
            ids.append(name)
    return (list(dict.fromkeys(files)) or scenario_files(SCENARIOS)), ids


def scenario_files(path: Path) -> list[Path]:
    """Give `path` itself, or the scenario files below it in name order; Unselectable if there are none."""
    if not path.exists():
        raise Unselectable(f"there is no {path}", hint="'harness list' names the scenarios there are")
    files = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
    if not files:
        raise Unselectable(f"no scenario (*.yaml) below {path}")
    return files


def chosen(plans: Sequence[Plan], ids: Sequence[str], *, keyword: str = "", tags: Sequence[str] = ()) -> list[Plan]:
    """Give the plans that are named by `ids`, match `keyword` and carry any of `tags`; each may be left empty.

    An id is `scenario` (all its variants), `scenario[variant]`, or either after `file::`. Unselectable for an id that
    names nothing, with the nearest that does.
    """
    for identifier in ids:
        if not any(_named(plan, identifier) for plan in plans):
            raise Unselectable(f"no scenario is called '{identifier}'", hint=_nearest(identifier, plans))
    matches = expression(keyword)
    return [
        plan
        for plan in plans
        if (not ids or any(_named(plan, identifier) for identifier in ids))
        and matches(" ".join([plan.node, *plan.tags]))
        and (not tags or not set(tags).isdisjoint(plan.tags))
    ]


def expression(text: str) -> Callable[[str], bool]:
    """Read a keyword expression as pytest's -k has it: words are substrings, joined by and, or, not and parentheses."""
    tokens = _TOKEN.findall(text)
    if not tokens:
        return lambda _: True
    reader = _Reader(tokens, text)
    test = reader.any_of()
    if reader.rest:
        raise reader.wrong()
    return lambda words: test(words.lower())


class _Reader:
    """Recursive descent over the tokens of a keyword expression: or, and, not, in this order of binding."""

    def __init__(self, tokens: list[str], text: str) -> None:
        self.rest = tokens
        self._text = text

    def any_of(self) -> Callable[[str], bool]:
        tests = [self._all_of()]
        while self._take("or"):
            tests.append(self._all_of())
        return lambda words: any(test(words) for test in tests)

    def _all_of(self) -> Callable[[str], bool]:
        tests = [self._one()]
        while self._take("and"):
            tests.append(self._one())
        return lambda words: all(test(words) for test in tests)

    def _one(self) -> Callable[[str], bool]:
        if self._take("not"):
            test = self._one()
            return lambda words: not test(words)
        if self._take("("):
            test = self.any_of()
            if not self._take(")"):
                raise self.wrong()
            return test
        if not self.rest or self.rest[0].lower() in ("and", "or", ")"):
            raise self.wrong()
        word = self.rest.pop(0).lower()
        return lambda words: word in words

    def _take(self, token: str) -> bool:
        if self.rest and self.rest[0].lower() == token:
            self.rest.pop(0)
            return True
        return False

    def wrong(self) -> Unselectable:
        at = f"before '{self.rest[0]}'" if self.rest else "at its end"
        return Unselectable(f"-k '{self._text}' cannot be read {at}", hint="for example -k 'write and not nic'")


def _named(plan: Plan, identifier: str) -> bool:
    path, separator, name = identifier.rpartition("::")
    if separator and Path(path) != Path(plan.source):
        return False
    return name in (plan.id, plan.scenario)


def _nearest(identifier: str, plans: Iterable[Plan]) -> str:
    known = sorted({name for plan in plans for name in (plan.id, plan.scenario)})
    near = difflib.get_close_matches(identifier.rpartition("::")[2], known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else "'harness list' names them"
