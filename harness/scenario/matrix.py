"""The one multiplier of scenarios: a matrix of dotted paths and values, applied to the document's tree.

    matrix:                                       matrix:
      machine.image: [debian-12, debian-13]         - {name: narrow, machine.iommu.aw_bits: 39}
      machine.iommu.aw_bits: [39, 48]               - {name: wide, machine.iommu.aw_bits: 48, steps.dma.write: 128}

Axes (left) give every combination, rows (right) one variant each. A path goes to any key outside of `scenario`,
`title` and `matrix`; `steps.<keyword>.<field>` goes to the only step with that keyword. A path through `devices` or
`guests` names one that is declared. An overridden node keeps its place in the matrix, so later diagnostics point there.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from harness.scenario.declared import undeclared
from harness.scenario.model import Scenario
from harness.scenario.step import SIBLINGS
from harness.source.diagnostics import Diagnostic, Span, did_you_mean
from harness.source.document import Document
from harness.source.nodes import Entry, ListNode, MappingNode, Node, NodePath, ScalarNode, child

#: More variants than this in one file are a mistake, or a night's work nobody asked for.
MAX_CELLS = 64
_MAX_NAME = 100

_FIXED = ("scenario", "title", "matrix")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+-]*")
_UNFIT = re.compile(r"[^A-Za-z0-9._=,+-]+")


@dataclass(frozen=True, slots=True)
class _Override:
    """One value for one dotted path; `key_span` is where the path was written."""

    path: str
    key_span: Span
    value: Node

    def span(self, index: int) -> Span:
        """Where the segment at `index` stands; the whole path where it is not written on one line as it reads."""
        begin = len(".".join([*self.path.split(".")[:index], ""]))
        end = begin + len(self.path.split(".")[index])
        written = self.key_span.end_column - self.key_span.column
        if self.key_span.line != self.key_span.end_line or written not in (len(self.path), len(self.path) + 2):
            return self.key_span
        column = self.key_span.column + (written - len(self.path)) // 2  # in quotes
        return replace(self.key_span, column=column + begin, end_column=column + end)


@dataclass(frozen=True, slots=True)
class Cell:
    """One variant: its name (empty without a matrix), its tree, where in the matrix it was written, and its values.

    `values` has what the author wrote, by path.
    """

    name: str
    root: MappingNode
    span: Span
    values: Mapping[str, str] = field(default_factory=dict)


class _MatrixError(Exception):
    """Something wrong with the matrix, as a diagnostic."""

    def __init__(self, document: Document, span: Span, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.diagnostic = document.source.diagnostic(span, message, suggestion)


#: A variant before its overrides are applied: name, place, overrides.
_Described = tuple[str, Span, list[_Override]]


def expand(document: Document) -> tuple[list[Cell], list[Diagnostic]]:
    """The variants of a document, and what is wrong with its matrix; variants that are wrong are left out."""
    entry = document.root.entries.get("matrix")
    plain = document.root.without("matrix")
    if entry is None:
        return [Cell("", plain, document.root.span)], []
    problems: list[Diagnostic] = []
    cells: list[Cell] = []
    seen: dict[str, Span] = {}
    for name, span, overrides in _described(document, entry, problems):
        if name in seen:
            message = f"two variants are called '{name}'; the first stands in line {seen[name].line}"
            problems.append(document.source.diagnostic(span, message))
            continue
        seen[name] = span
        root = plain
        try:
            for override in overrides:
                root = _apply(document, root, override)
            _refuse_lost(document, overrides)
        except _MatrixError as error:
            problems.append(error.diagnostic)
            continue
        values = {
            each.path: each.value.written if isinstance(each.value, ScalarNode) else _slug(each.value)
            for each in overrides
        }
        cells.append(Cell(name, root, span, values))
    return cells, problems


def _described(document: Document, entry: Entry, problems: list[Diagnostic]) -> list[_Described]:
    """All variants of a matrix of either form; what is wrong with its shape goes to `problems`."""
    if not isinstance(entry.value, ListNode):
        try:
            return list(_product(document, entry))
        except _MatrixError as error:
            problems.append(error.diagnostic)
            return []
    described: list[_Described] = []
    try:
        _refuse_excess(document, entry, len(entry.value.items))
    except _MatrixError as error:
        problems.append(error.diagnostic)
        return []
    for row in entry.value.items:
        try:
            described.append(_row(document, row))
        except _MatrixError as error:
            problems.append(error.diagnostic)
    return described


def _product(document: Document, entry: Entry) -> Iterator[_Described]:
    """Every combination of the axes, the last one varying fastest."""
    if not isinstance(entry.value, MappingNode) or not entry.value.entries:
        message = "'matrix' must be a mapping of paths to lists, or a list of rows"
        raise _MatrixError(document, entry.key_span, message)
    axes: list[list[_Override]] = []
    for path, axis in entry.value.entries.items():
        if not isinstance(axis.value, ListNode) or not axis.value.items:
            found = "an empty list" if isinstance(axis.value, ListNode) else axis.value.describe()
            raise _MatrixError(document, axis.value.span, f"'{path}' must be a list of values; found {found}")
        axes.append([_Override(path, axis.key_span, value) for value in axis.value.items])
    _refuse_excess(document, entry, math.prod(len(axis) for axis in axes))
    labels = _short_labels([axis[0].path for axis in axes])
    for combination in itertools.product(*axes):
        parts = [f"{labels[override.path]}={_slug(override.value)}" for override in combination]
        yield _fit(",".join(parts)), combination[-1].value.span, list(combination)


def _row(document: Document, row: Node) -> _Described:
    """The variant that one item of a list of rows describes."""
    if not isinstance(row, MappingNode):
        message = f"a row of the matrix is a mapping of paths to values; found {row.describe()}"
        raise _MatrixError(document, row.span, message)
    overrides = [_Override(path, cell.key_span, cell.value) for path, cell in row.entries.items() if path != "name"]
    named = row.entries.get("name")
    if named is not None:
        return _row_name(document, named.value), named.value.span, overrides
    if overrides:
        return _fit(",".join(_slug(override.value) for override in overrides)), overrides[0].key_span, overrides
    raise _MatrixError(document, row.span, "this row changes nothing and has no name")


def _row_name(document: Document, node: Node) -> str:
    name = node.written.strip("'\"") if isinstance(node, ScalarNode) else ""
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise _MatrixError(
            document, node.span, f"{node.describe()} is not a variant's name", "use a-z, 0-9, '-' and '_'"
        )
    return name


def _refuse_excess(document: Document, entry: Entry, count: int) -> None:
    if count == 0:
        raise _MatrixError(document, entry.key_span, "the matrix has no rows")
    if count > MAX_CELLS:
        raise _MatrixError(document, entry.key_span, f"{count} variants; at most {MAX_CELLS} are allowed in one file")


def _short_labels(paths: list[str]) -> dict[str, str]:
    """The last segment of each path, or as many as it takes to tell the paths apart."""
    segments = {path: path.split(".") for path in paths}
    for length in range(1, max(len(parts) for parts in segments.values()) + 1):
        labels = {path: _UNFIT.sub("-", ".".join(parts[-length:])) for path, parts in segments.items()}
        if len(set(labels.values())) == len(labels):
            return labels
    return {path: path for path in paths}


def _slug(node: Node) -> str:
    """A value as part of a variant's name."""
    if isinstance(node, ListNode):
        return "+".join(_slug(item) for item in node.items) or "none"
    if isinstance(node, MappingNode):
        return "+".join(f"{key}={_slug(entry.value)}" for key, entry in node.entries.items()) or "empty"
    text = str(node.value) if isinstance(node.value, str) else node.written
    return _UNFIT.sub("-", text).strip("-") or "none"


def _fit(name: str) -> str:
    """`name`, made to begin like a file's name and not to be too long for one."""
    fitting = name if _NAME.fullmatch(name) else f"v{_UNFIT.sub('-', name)}"
    if len(fitting) <= _MAX_NAME:
        return fitting
    return f"{fitting[: _MAX_NAME - 9]}-{hashlib.sha256(fitting.encode()).hexdigest()[:8]}"


def _apply(document: Document, root: MappingNode, override: _Override) -> MappingNode:
    """The tree with one override; only the nodes on its way are copied."""
    segments = override.path.split(".")
    allowed = [key for key in Scenario.known_keys() if key not in _FIXED]
    if segments[0] not in allowed:
        whole = [".".join([key, *segments[1:]]) for key in allowed]
        close = did_you_mean(override.path, whole)
        listed = f"a path begins with one of: {', '.join(allowed)}"
        hint = close if close and close.startswith("did") else listed
        raise _MatrixError(document, override.key_span, f"'{override.path}' cannot be varied", hint)
    if "" in segments:
        raise _MatrixError(document, override.key_span, f"'{override.path}' is not a dotted path")
    path = _step_path(document, root, override, segments) if segments[0] == "steps" else tuple(segments)
    _refuse_undeclared(document, root, override, path)
    changed = _replaced(document, root, path, override)
    if not isinstance(changed, MappingNode):
        raise TypeError("a path has at least one segment")
    return changed


def _refuse_undeclared(document: Document, root: MappingNode, override: _Override, path: NodePath) -> None:
    missing = undeclared(root, path)
    if missing is not None:
        name = str(path[missing.index])
        hint = did_you_mean(name, missing.declared, plural=f"{missing.kind}s here")
        message = f"no {missing.kind} is called '{name}', so '{override.path}' varies nothing"
        hint = hint or f"declare it outside of the matrix; there are no {missing.kind}s"
        raise _MatrixError(document, override.span(missing.index), message, hint)


def _refuse_lost(document: Document, overrides: list[_Override]) -> None:
    """Complain of a value that a later one of the same variant replaces together with all around it."""
    for index, override in enumerate(overrides):
        for later in overrides[index + 1 :]:
            if override.path.startswith(f"{later.path}."):
                message = f"'{later.path}' replaces what '{override.path}' gives in line {override.key_span.line}"
                raise _MatrixError(document, later.key_span, message, f"write '{later.path}' first")


def _step_path(document: Document, root: MappingNode, override: _Override, segments: list[str]) -> NodePath:
    """The path of `steps.<keyword>.<field>`, through the only step that has the keyword."""
    steps = child(root, "steps")
    items = steps.items if isinstance(steps, ListNode) else ()
    if len(segments) == 1:
        return ("steps",)
    keyword = segments[1]
    found = [index for index, item in enumerate(items) if isinstance(item, MappingNode) and keyword in item.entries]
    if not found:
        present = [
            key for item in items if isinstance(item, MappingNode) for key in item.entries if key not in SIBLINGS
        ]
        hint = did_you_mean(keyword, present, plural="steps here")
        raise _MatrixError(document, override.span(1), f"no step '{keyword}' for '{override.path}'", hint)
    if len(found) > 1:
        lines = ", ".join(str(items[index].span.line) for index in found)
        message = f"'{override.path}' could be any of {len(found)} steps '{keyword}' (lines {lines})"
        raise _MatrixError(document, override.key_span, message)
    if segments[2:3] and segments[2] in SIBLINGS:
        return ("steps", found[0], *segments[2:])
    return ("steps", found[0], *segments[1:])


def _replaced(document: Document, node: Node, path: NodePath, override: _Override, depth: int = 0) -> Node:
    """`node` with the override's value at `path`; mappings that are missing on the way are made."""
    if depth == len(path):
        return override.value
    step = path[depth]
    segments = len(override.path.split("."))
    written = override.span(max(0, segments - len(path) + depth))  # the ends of both are the same
    if isinstance(node, ListNode):
        index = step if isinstance(step, int) else int(step) if step.isdecimal() and len(step) < 4 else -1
        below = child(node, index)
        if below is None:
            message = f"'{override.path}' goes into a list of {len(node.items)}, where '{step}' is no index"
            raise _MatrixError(document, written, message)
        changed = _replaced(document, below, path, override, depth + 1)
        return ListNode(node.span, (*node.items[:index], changed, *node.items[index + 1 :]))
    if not isinstance(node, MappingNode):
        message = f"'{override.path}' goes through {node.describe()} in line {node.span.line}, which is no mapping"
        sibling = did_you_mean(str(step), SIBLINGS) if path[0] == "steps" and depth == 3 else None
        meant = sibling if sibling and sibling.startswith("did") else "write it out as a mapping"
        raise _MatrixError(document, written, message, meant)
    key = str(step)
    entry = node.entries.get(key)
    below = entry.value if entry else MappingNode(override.value.span)
    changed = _replaced(document, below, path, override, depth + 1)
    last = depth == len(path) - 1
    key_span = entry.key_span if entry and not last else written
    return node.with_entry(key, Entry(key_span, changed))
