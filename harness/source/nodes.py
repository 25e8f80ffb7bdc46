"""The tree of a YAML document: every node and every key knows its place and what its author wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.source.diagnostics import Span
from harness.source.scalars import Plain

#: The way from the root to a node: mapping keys and list indices.
NodePath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """A scalar. `value` is what it means, `written` what stands in the file, quotes included."""

    span: Span
    value: Plain
    written: str

    def data(self) -> Plain:
        """The value."""
        return self.value

    def describe(self) -> str:
        """The scalar as a message quotes it."""
        if self.value is None and not self.written:
            return "nothing"
        first, _, rest = self.written.partition("\n")
        shown = first if not rest and len(first) <= 80 else f"{first[:80]}..."
        return shown if shown[:1] in {"'", '"'} else f"'{shown}'"


@dataclass(frozen=True, slots=True)
class ListNode:
    """A sequence of nodes."""

    span: Span
    items: tuple[Node, ...]

    def data(self) -> tuple[Any, ...]:
        """The values of all items; a tuple, because nothing downstream may change it."""
        return tuple(item.data() for item in self.items)

    def describe(self) -> str:
        """What a message calls it."""
        return "a list"


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping with its value."""

    key_span: Span
    value: Node


@dataclass(frozen=True, slots=True)
class MappingNode:
    """A mapping. Keys are always the author's text: `on:` is the key `on`, `0x10:` the key `0x10`."""

    span: Span
    entries: Mapping[str, Entry] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """The values by key."""
        return {key: entry.value.data() for key, entry in self.entries.items()}

    def describe(self) -> str:
        """What a message calls it."""
        return "a mapping"

    def without(self, key: str) -> MappingNode:
        """The same mapping without `key`."""
        return MappingNode(self.span, {name: entry for name, entry in self.entries.items() if name != key})

    def with_entry(self, key: str, entry: Entry) -> MappingNode:
        """The same mapping with `key` set or replaced."""
        return MappingNode(self.span, {**self.entries, key: entry})


Node = ScalarNode | ListNode | MappingNode


def child(node: Node, step: str | int) -> Node | None:
    """The node one step below `node`, or None."""
    if isinstance(node, MappingNode) and isinstance(step, str):
        entry = node.entries.get(step)
        return entry.value if entry else None
    if isinstance(node, ListNode) and isinstance(step, int) and 0 <= step < len(node.items):
        return node.items[step]
    return None
