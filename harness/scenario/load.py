"""From scenario files to variants that can be run: the one way that validating, listing and running share.

Steps and devices must have been registered before, by importing them (`harness.catalog` does).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.scenario.explain import explain
from harness.scenario.matrix import expand
from harness.scenario.model import Scenario
from harness.scenario.names import check_device_names, check_names
from harness.scenario.told_once import told_once
from harness.source.diagnostics import Diagnostic, InputError, Span
from harness.source.document import Document
from harness.source.nodes import ListNode, MappingNode, Node, NodePath


@dataclass(frozen=True, slots=True)
class Variant:
    """One cell of a scenario's matrix, or the scenario itself (`name` is empty then).

    `document` has the overrides of the matrix in its tree; its text is the file as it was read. `place` is where the
    variant comes from: its values in the matrix, or the scenario's id. `values` has those values as they were written,
    by path, `matrix` is where the whole matrix stands.
    """

    scenario: Scenario
    name: str
    document: Document
    place: Span
    values: Mapping[str, str] = field(default_factory=dict)
    matrix: Span | None = None

    @property
    def scenario_id(self) -> str:
        """The scenario's id, without the variant."""
        return self.scenario.scenario

    @property
    def id(self) -> str:
        """What a user selects it by: `scenario` or `scenario[variant]`."""
        return f"{self.scenario_id}[{self.name}]" if self.name else self.scenario_id

    def span(self, path: NodePath) -> Span:
        """Where the value at `path` stands, or the nearest value above it that was written."""
        return self.document.span(path)

    def written(self, path: NodePath) -> str:
        """What the author wrote there."""
        return self.document.written(path)

    def diagnostic(
        self, path: NodePath, message: str, suggestion: str | None = None, *, on_key: bool = False
    ) -> Diagnostic:
        """A diagnostic at the value (or key) at `path`, for what only a later stage can find out."""
        return self.document.diagnostic(path, message, suggestion, on_key=on_key)


def load(path: Path) -> list[Variant]:
    """The variants in the file at `path`. Raises InputError with everything that is wrong in it."""
    return load_document(Document.read(path))


def load_document(document: Document) -> list[Variant]:
    """The variants of a document. Raises InputError with everything that is wrong in it."""
    cells, problems = expand(document)
    problems += document.problems
    entry = document.root.entries.get("matrix")
    matrix = entry.value.span if entry else None
    variants: list[Variant] = []
    found: dict[str, list[Diagnostic]] = {}
    checked = _Checked()
    for cell in cells:
        tree = document.with_root(cell.root)
        try:
            scenario = checked.scenario(cell.root)
        except ValidationError as error:
            found[cell.name] = [*explain(tree, error), *check_device_names(tree)]
            continue
        found[cell.name] = check_names(tree, scenario)
        place = cell.span if cell.name else tree.span(("scenario",))
        variants.append(Variant(scenario, cell.name, tree, place, cell.values, matrix))
    problems += told_once(found, matrix)
    if not cells:
        problems += _without_matrix(document)
    if problems:
        raise InputError(problems)
    return variants


def load_all(paths: Iterable[Path]) -> list[Variant]:
    """The variants of all files, in the order of `paths`. Raises InputError with everything wrong in any of them.

    Two files with the same scenario id are wrong too: evidence and test ids go by it.
    """
    variants: list[Variant] = []
    problems: list[Diagnostic] = []
    first: dict[str, Variant] = {}
    for path in paths:
        try:
            loaded = load(path)
        except InputError as error:
            problems += error.diagnostics
            continue
        known = first.setdefault(loaded[0].scenario_id, loaded[0])
        if known is not loaded[0]:
            message = f"scenario '{loaded[0].scenario_id}' is already defined at {known.span(('scenario',))}"
            problems.append(loaded[0].diagnostic(("scenario",), message))
        variants += loaded
    if problems:
        raise InputError(problems)
    return variants


class _Checked:
    """Scenarios of the cells of one matrix: what a cell shares with an earlier one is not checked again.

    A cell only has nodes of its own on the way to what it overrides, so the identity of a node tells. Wrong nodes are
    never kept: every cell that holds one is told.
    """

    def __init__(self) -> None:
        self._right: dict[int, Any] = {}

    def scenario(self, root: MappingNode) -> Scenario:
        """The scenario in `root`, whose nodes the caller keeps alive; pydantic's ValidationError if it is none."""
        scenario = Scenario.model_validate({key: self._value(entry.value) for key, entry in root.entries.items()})
        for key, entry in root.entries.items():
            self._keep(entry.value, getattr(scenario, key))
        return scenario

    def _value(self, node: Node) -> Any:
        if id(node) in self._right:
            return self._right[id(node)]
        if isinstance(node, ListNode):
            return tuple(self._right.get(id(item)) or item.data() for item in node.items)
        return node.data()

    def _keep(self, node: Node, value: Any) -> None:
        self._right[id(node)] = value
        if isinstance(node, ListNode):
            self._right.update((id(item), each) for item, each in zip(node.items, value, strict=True))


def _without_matrix(document: Document) -> list[Diagnostic]:
    """What else is wrong when no cell of the matrix could be made, so that it is not found out one by one."""
    tree = document.with_root(document.root.without("matrix"))
    try:
        scenario = Scenario.model_validate(tree.data())
    except ValidationError as error:
        return [*explain(tree, error), *check_device_names(tree)]
    return check_names(tree, scenario)
