"""From pydantic's errors to diagnostics that speak of the author's own words, at the author's own places."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from harness.scenario.section import COMPLAINT, UNKNOWN_FIELD
from harness.scenario.step import STEPS
from harness.source.diagnostics import Diagnostic, did_you_mean
from harness.source.document import Document
from harness.source.nodes import MappingNode, NodePath, ScalarNode, child
from harness.source.scalars import LEADING_ZERO, resolve

_EXPECTED = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "list_type": "a list",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "none_required": "nothing",
    "string_type": "text",
    "tuple_type": "a list",
}

#: pydantic's limits: error type -> how it reads before the value of the context's key of that name.
_LIMITS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


@dataclass(frozen=True, slots=True)
class _Located:
    """One pydantic error in the document: its nearest node, and the alternative of a union it belongs to, if any.

    `branches` are the steps of pydantic's location that are not in the document, each with the path it was seen at.
    """

    path: NodePath
    kind: str
    message: str
    context: dict[str, Any]
    given: Any
    on_key: bool = False
    missing: str = ""
    branches: tuple[tuple[NodePath, str | int], ...] = ()
    expected: tuple[str, ...] = ()


def explain(document: Document, error: ValidationError) -> list[Diagnostic]:
    """One diagnostic for each thing wrong that `error` tells of."""
    located = [_locate(document, detail) for detail in error.errors(include_url=False)]
    return [_diagnostic(document, problem) for problem in _settle_unions(located)]


def _locate(document: Document, detail: Any) -> _Located:
    loc: NodePath = detail["loc"]
    kind, context = detail["type"], detail.get("ctx", {})
    missing = ""
    if kind == "missing":
        loc, missing = loc[:-1], str(loc[-1])
    path: list[str | int] = []
    branches: list[tuple[NodePath, str | int]] = []
    node: Any = document.root
    for step in loc:
        below = child(node, step)
        if below is not None:
            path.append(step)
            node = below
        elif step != "[key]":
            branches.append((tuple(path), step))
    return _Located(
        path=(*path, *context.get("at", ())),
        kind=kind,
        message=detail["msg"],
        context=context,
        given=detail["input"],
        on_key=loc[-1:] == ("[key]",) or context.get("on_key", False) or kind == UNKNOWN_FIELD,
        missing=missing,
        branches=tuple(branches),
        expected=_expected(kind, context),
    )


def _expected(kind: str, context: dict[str, Any]) -> tuple[str, ...]:
    """What would have been right here, where pydantic tells."""
    if kind in {"literal_error", "enum"}:
        return tuple(re.findall(r"'[^']*'|\b\d+\b", str(context.get("expected", ""))))
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        return (f"{words} {context[key]}",)
    return (_EXPECTED[kind],) if kind in _EXPECTED else ()


def _settle_unions(problems: Sequence[_Located]) -> list[_Located]:
    """Of the alternatives at one place, keep the complaints of the one that was meant.

    pydantic tells what is wrong by every alternative. Meant is the one whose shape fits, so that its complaints lie
    deeper or concern single keys; where none fits, one complaint names them all.
    """
    settled = list(problems)
    for place in sorted({branch[0] for problem in problems for branch in problem.branches}, key=len):
        here = [problem for problem in settled if any(path == place for path, _ in problem.branches)]
        by_label: dict[str | int, list[_Located]] = {}
        for problem in here:
            by_label.setdefault(next(label for path, label in problem.branches if path == place), []).append(problem)
        if len(by_label) < 2:
            continue
        fitting = [group for group in by_label.values() if not any(_shape_differs(problem, place) for problem in group)]
        first = settled.index(here[0])
        kept = min(fitting, key=len) if fitting else [_merged(here)]
        settled = [problem for problem in settled if problem not in here]
        settled[first:first] = kept
    return settled


def _shape_differs(problem: _Located, place: NodePath) -> bool:
    return problem.path == place and not problem.missing and not problem.on_key


def _merged(alternatives: Sequence[_Located]) -> _Located:
    expected = tuple(dict.fromkeys(word for problem in alternatives for word in problem.expected))
    return replace(alternatives[0], expected=expected, kind="union") if expected else alternatives[0]


def _diagnostic(document: Document, problem: _Located) -> Diagnostic:
    message, suggestion = _words(document, problem)
    on_key = problem.on_key or bool(problem.missing)
    return document.diagnostic(problem.path, message, suggestion, on_key=on_key)


def _words(document: Document, problem: _Located) -> tuple[str, str | None]:
    """Message and suggestion."""
    if problem.kind == COMPLAINT:
        return _complained(document, problem)
    if problem.kind == UNKNOWN_FIELD:
        key, owner = str(problem.path[-1]), owner_name(document, problem.path[:-1])
        return f"'{key}' is not a key of {owner}", did_you_mean(key, problem.context["choices"], plural="keys")
    if problem.missing:
        return f"{owner_name(document, problem.path)} needs '{problem.missing}'", None
    if problem.expected:
        return _wrong_value(document, problem)
    return _otherwise(problem), None


def _complained(document: Document, problem: _Located) -> tuple[str, str | None]:
    context = problem.context
    at_key = problem.on_key and problem.path
    written = f"'{problem.path[-1]}'" if at_key else document.node(problem.path).describe()
    hint = context["suggestion"] or did_you_mean(context["word"], context["choices"], plural=context["plural"])
    return context["template"].replace("{written}", written), hint


def _otherwise(problem: _Located) -> str:
    name = field_name(problem.path)
    if problem.kind in {"too_short", "string_too_short"}:
        return f"{name} must not be empty"
    text = str(problem.context["error"]) if problem.kind == "value_error" else problem.message
    return f"{name}: {text[:1].lower()}{text[1:]}"


def _wrong_value(document: Document, problem: _Located) -> tuple[str, str | None]:
    node = document.node(problem.path)
    *others, last = problem.expected
    expected = f"{', '.join(others)} or {last}" if others else last
    message = f"{field_name(problem.path)} must be {expected}; found {node.describe()}"
    return message, _correction(node, problem.expected) if isinstance(node, ScalarNode) else None


def _correction(node: ScalarNode, expected: tuple[str, ...]) -> str | None:
    """What the author of a wrong scalar most likely meant."""
    bare = node.written.strip("'\"")
    words = [word[1:-1] for word in expected if word.startswith("'")]
    if "true or false" in expected:
        words += ["true", "false"]
        bare = {"on": "true", "yes": "true", "off": "false", "no": "false"}.get(bare.lower(), bare.lower())
    if words:
        close = did_you_mean(bare, words)
        return close if close and close.startswith("did") else None
    if "a whole number" in expected:
        return _number_meant(node, bare)
    if "text" in expected and not isinstance(node.value, str) and node.written:
        return f'did you mean "{node.written}", in quotes?'
    return None


def _number_meant(node: ScalarNode, bare: str) -> str | None:
    if LEADING_ZERO.fullmatch(bare):
        digits = bare.lstrip("0") or "0"
        return f"write {digits}, or 0o{digits} for octal"
    return "write it without quotes" if bare != node.written and isinstance(resolve(bare), int) else None


def owner_name(document: Document, path: NodePath) -> str:
    """What a message calls the mapping at `path`."""
    if not path:
        return "the scenario"
    if path[0] == "steps" and len(path) in {2, 3}:
        node = document.node(path[:2])
        words = [key for key in node.entries if key in STEPS] if isinstance(node, MappingNode) else []
        if path[2:] in {(), tuple(words[:1])}:
            return f"step '{words[0]}'" if words else "this step"
    if path[0] == "devices" and len(path) == 2:
        return f"device '{path[1]}'"
    return field_name(path)


def field_name(path: NodePath) -> str:
    """What a message calls the field at `path`."""
    words = [step for step in path if isinstance(step, str)]
    name = f"'{words[-1]}'" if words else "the scenario"
    if path and isinstance(path[-1], int):
        return f"item {path[-1] + 1} of {name}"
    return name
