"""Which keys of a scenario are names that its author gives, and whether a dotted path only goes through given ones.

Wherever a section has a key that it does not know, pydantic complains of it. Not where names are keys (`devices`,
`guests`, `nics`): there a misspelt one would bring another thing into being, and the one that was meant would stay as
it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from harness.scenario.model import Scenario
from harness.scenario.section import Section
from harness.scenario.values import Name
from harness.source.nodes import MappingNode, Node, NodePath, child


@dataclass(frozen=True, slots=True)
class Undeclared:
    """The step of a path that names nothing: its index, what kind of thing it should name, and those that there are."""

    index: int
    kind: str
    declared: tuple[str, ...]


def undeclared(root: MappingNode, path: NodePath) -> Undeclared | None:
    """Find the first step of `path` that should be a name given in `root` and is none."""
    kind: Any = Scenario
    node: Node | None = root
    for index, step in enumerate(path):
        section = _section(kind)
        names = _names(kind)
        below = None if node is None else child(node, step)
        if section is not None:
            field = next((f for n, f in section.model_fields.items() if (f.alias or n) == step), None)
            kind = None if field is None else field.annotation
        elif names is not None:
            if below is None:
                given = tuple(node.entries) if isinstance(node, MappingNode) else ()
                return Undeclared(index, str(path[index - 1]).removesuffix("s"), given)
            kind = names
        else:
            return None  # a list, a scalar or a device's own keys: pydantic knows what may stand there
        node = below
    return None


def _plain(kind: Any) -> Iterator[Any]:
    """What a type may be: the members of a union, each without its annotations."""
    members = get_args(kind) if get_origin(kind) is not dict else ()
    nested = [member for member in members if isinstance(member, type) or get_args(member)]
    if not nested:
        yield kind
    for member in nested:
        yield from _plain(member)


def _section(kind: Any) -> type[Section] | None:
    return next((each for each in _plain(kind) if isinstance(each, type) and issubclass(each, Section)), None)


def _names(kind: Any) -> Any:
    """The type of what names are given to, None for what is no mapping of names."""
    for each in _plain(kind):
        if get_origin(each) is dict and get_args(each)[0] == Name:
            return get_args(each)[1]
    return None
