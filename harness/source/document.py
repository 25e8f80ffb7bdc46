"""A YAML file as data that still knows where each piece came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from harness.source.compose import Source, compose
from harness.source.diagnostics import Diagnostic, InputError, Span
from harness.source.nodes import MappingNode, Node, NodePath, ScalarNode, child

#: A scenario is a page or two; what is longer is not one.
MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document whose root is a mapping.

    `source` is the file's text and name, `root` the tree (changed in the variants of a matrix), `problems` what is
    wrong with the YAML itself but left the tree readable, such as keys given twice.
    """

    source: Source
    root: MappingNode
    problems: tuple[Diagnostic, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Self:
        """The document in the file at `path`. Raises InputError if it cannot be read, or is no YAML mapping."""
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise InputError([Diagnostic(str(path), 0, 0, 0, f"cannot be read: {reason}")]) from None
        return cls.parse(raw, str(path))

    @classmethod
    def parse(cls, raw: bytes | str, file: str) -> Self:
        """The document in `raw`; `file` is the name that diagnostics show. Raises InputError as `read` does."""
        source = Source(file, raw if isinstance(raw, str) else _decode(raw, file))
        if len(raw) > MAX_BYTES:
            raise InputError([Diagnostic(file, 0, 0, 0, f"larger than {MAX_BYTES // 1024} KiB")])
        root, problems = compose(source)
        if not isinstance(root, MappingNode):
            found = "nothing" if root is None else root.describe()
            span = root.span if root else Span(file, 1, 1, 1, 1)
            raise InputError([*problems, source.diagnostic(span, f"a scenario is a mapping; found {found}")])
        return cls(source, root, tuple(problems))

    @property
    def file(self) -> str:
        """The file's name as diagnostics show it."""
        return self.source.file

    @property
    def text(self) -> str:
        """The text as it was read."""
        return self.source.text

    def data(self) -> dict[str, Any]:
        """The plain values: dicts, tuples, strings, ints, bools and None."""
        return self.root.data()

    def with_root(self, root: MappingNode) -> Document:
        """The same file with another tree, whose nodes may come from other places of the file."""
        return replace(self, root=root)

    def locate(self, path: NodePath) -> NodePath:
        """`path` without the steps that are not in the tree.

        A model may see more levels than its author wrote (a short form, one item where a list may stand).
        """
        return self._walk(path)[0]

    def node(self, path: NodePath) -> Node:
        """The node at `path`, or the nearest above it that exists."""
        return self._walk(path)[1]

    def span(self, path: NodePath) -> Span:
        """Where the value at `path` (or the nearest above) stands."""
        return self.node(path).span

    def key_span(self, path: NodePath) -> Span:
        """Where the key at `path` stands; for a list item its first key or itself, for the root its first key."""
        located, node = self._walk(path)
        if located and isinstance(located[-1], str):
            parent = self.node(located[:-1])
            assert isinstance(parent, MappingNode)  # noqa: S101  # a string step was found in it
            return parent.entries[located[-1]].key_span
        if isinstance(node, MappingNode) and node.entries:
            return next(iter(node.entries.values())).key_span
        return node.span

    def written(self, path: NodePath) -> str:
        """What the author wrote at `path`: the scalar's own text, or what a message calls a mapping or list."""
        node = self.node(path)
        return node.written if isinstance(node, ScalarNode) else node.describe()

    def diagnostic(
        self, path: NodePath, message: str, suggestion: str | None = None, *, on_key: bool = False
    ) -> Diagnostic:
        """`message` at the value (or the key) at `path`."""
        span = self.key_span(path) if on_key else self.span(path)
        return self.source.diagnostic(span, message, suggestion)

    def _walk(self, path: NodePath) -> tuple[NodePath, Node]:
        located: list[str | int] = []
        node: Node = self.root
        for step in path:
            below = child(node, step)
            if below is not None:
                located.append(step)
                node = below
        return tuple(located), node


def _decode(raw: bytes, file: str) -> str:
    """UTF-8 (with or without a byte order mark) as text. Raises InputError at the first byte that is none."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", errors="replace")
        source = Source(file, raw.decode("utf-8-sig", errors="replace"))
        index = min(len(before), len(source.text))
        span, message = source.span(index, index + 1), f"not UTF-8: byte {raw[error.start]:#04x}"
        raise InputError([source.diagnostic(span, message, "save the file as UTF-8")]) from None
