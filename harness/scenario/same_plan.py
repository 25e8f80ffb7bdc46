"""Two variants of a matrix that would do the same: the second proves nothing, and most likely was meant to differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from harness.scenario.load import Variant
from harness.source.diagnostics import Diagnostic


def same_plans(planned: Iterable[tuple[Variant, Any]]) -> Iterator[Diagnostic]:
    """Complain of each of one scenario's variants whose plan, the second of each pair, equals that of one before."""
    seen: list[tuple[Variant, Any]] = []
    for variant, plan in planned:
        first = next((earlier for earlier, other in seen if other == plan), None)
        if first is None:
            seen.append((variant, plan))
            continue
        message = f"variants '{first.name}' and '{variant.name}' have the same plan: {_difference(first, variant)}"
        yield variant.document.source.diagnostic(variant.place, message, "leave one out, or have it differ")


def _difference(first: Variant, second: Variant) -> str:
    """What the author wrote for the two that was to make a difference."""
    paths = [path for path in dict.fromkeys((*first.values, *second.values)) if path != "tags"]
    unlike = [path for path in paths if first.values.get(path) != second.values.get(path)]
    if not unlike:
        return "nothing differs"
    return ", ".join(
        f"{path} makes no difference between {_shown(first, path)} and {_shown(second, path)}" for path in unlike
    )


def _shown(variant: Variant, path: str) -> str:
    return variant.values.get(path, "what the scenario says")
