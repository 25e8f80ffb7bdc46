"""Whether every name a step mentions exists by then, and is the name of the right kind of thing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from harness.scenario.model import Scenario
from harness.scenario.step import AnyStep, Reference, Step
from harness.source.diagnostics import Diagnostic, Span, did_you_mean
from harness.source.document import Document
from harness.source.nodes import MappingNode, NodePath

_STEP: TypeAdapter[Step] = TypeAdapter(AnyStep)


@dataclass(frozen=True, slots=True)
class _Known:
    """A name with what it names and where it was given."""

    kind: str
    span: Span


def check_names(document: Document, scenario: Scenario) -> list[Diagnostic]:
    """Everything wrong with names: unknown, used before its definition, of another kind, or defined twice."""
    devices = _named(document)
    mentions = list(_mentions(enumerate(scenario.steps)))
    everywhere = dict(devices)
    for path, reference in mentions:
        if reference.defines:
            everywhere.setdefault(reference.name, _Known(reference.kinds[0], document.span(path)))
    known = dict(devices)
    problems: list[Diagnostic] = []
    for path, reference in mentions:
        problem = _problem(reference, known, everywhere)
        if problem is not None:
            problems.append(document.diagnostic(path, *problem))
        if reference.defines and reference.name not in known:
            known[reference.name] = _Known(reference.kinds[0], document.span(path))
    return problems


def check_device_names(document: Document) -> list[Diagnostic]:
    """The same for a document that is wrong elsewhere too, as far as it can be told: unknown devices of right steps.

    Names that steps define are left out: the step that defines one may be among the wrong ones.
    """
    devices = _named(document)
    given = document.root.entries.get("devices")
    if given is None or not isinstance(given.value, MappingNode):
        return []  # then the wrong or misspelt key is what has to be mended
    problems: list[Diagnostic] = []
    for path, reference in _mentions(_right_steps(document)):
        if reference.kinds == ("device",) and not reference.defines and reference.name not in devices:
            problems.append(document.diagnostic(path, *_unknown(reference, devices)))
    return problems


def _named(document: Document) -> dict[str, _Known]:
    """The devices and nested guests that the document names before its steps."""
    known: dict[str, _Known] = {}
    for key, kind in (("guests", "guest"), ("devices", "device")):
        node = document.root.entries.get(key)
        entries = node.value.entries if node and isinstance(node.value, MappingNode) else {}
        known |= {name: _Known(kind, entry.key_span) for name, entry in entries.items()}
        for guest in entries.values() if kind == "guest" else ():
            nics = guest.value.entries.get("nics") if isinstance(guest.value, MappingNode) else None
            if nics and isinstance(nics.value, MappingNode):
                known |= {name: _Known("nic", entry.key_span) for name, entry in nics.value.entries.items()}
    return known


def _right_steps(document: Document) -> Iterator[tuple[int, Step]]:
    steps = document.data().get("steps")
    for index, step in enumerate(steps if isinstance(steps, tuple) else ()):
        with suppress(ValidationError):
            yield index, _STEP.validate_python(step)


def _mentions(steps: Iterable[tuple[int, Step]]) -> Iterator[tuple[NodePath, Reference]]:
    for index, step in steps:
        for reference in step.references():
            yield ("steps", index, *reference.where), reference


def _problem(
    reference: Reference, known: dict[str, _Known], everywhere: dict[str, _Known]
) -> tuple[str, str | None] | None:
    """Message and suggestion, or None if the mention is right."""
    holder = known.get(reference.name)
    if reference.defines:
        return _redefinition(reference, holder) if holder else None
    if holder is None:
        return _unknown(reference, everywhere)
    if holder.kind in reference.kinds:
        return None
    wanted = " or ".join(reference.kinds)
    hint = did_you_mean(reference.name, _of_kinds(known, reference.kinds), plural=f"known {wanted}")
    return f"'{reference.name}' is a {holder.kind}, not a {wanted}", hint


def _redefinition(reference: Reference, holder: _Known) -> tuple[str, str | None] | None:
    if holder.kind not in reference.kinds:
        return f"'{reference.name}' is already the name of a {holder.kind}, given in line {holder.span.line}", None
    if reference.once:
        return f"{holder.kind} '{reference.name}' was already made in line {holder.span.line}", None
    return None


def _unknown(reference: Reference, everywhere: dict[str, _Known]) -> tuple[str, str | None]:
    wanted = " or ".join(reference.kinds)
    later = everywhere.get(reference.name)
    if later and later.kind in reference.kinds:
        return f"{later.kind} '{reference.name}' is used before it is made in line {later.span.line}", None
    hint = did_you_mean(reference.name, _of_kinds(everywhere, reference.kinds), plural=f"known {wanted}")
    return f"no {wanted} is called '{reference.name}'", hint


def _of_kinds(names: dict[str, _Known], kinds: tuple[str, ...]) -> list[str]:
    return [name for name, known in names.items() if known.kind in kinds]
